"""The Lightning trainer of a stage, its callbacks, the epoch that is kept, and interruptions."""

from __future__ import annotations

import csv
import io
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.seed import isolate_rng

from domainnorm.backbones import save_model
from domainnorm.data import DomainDataModule
from domainnorm.errors import CheckpointError, DomainNormError
from domainnorm.evaluation import mean_of_known
from domainnorm.methods import Method, domains_of
from domainnorm.methods.bank import Bank
from domainnorm.recipe import Recipe
from domainnorm.registry import CALLBACKS
from domainnorm.run.machine import readable_refusals
from domainnorm.run.run_folder import EPOCHS, WEIGHTS
from domainnorm.run.scoring import Scorer
from domainnorm.storage import DAMAGED, read_tensors, replace_text, whole_file

TRAINING, BEST, LOG = "training.ckpt", "best.ckpt", "log.csv"
_BETWEEN_LINES = 10.0  # seconds
# What Lightning and optimizers raise over a checkpoint that holds something else.
_UNLIKE = (LookupError, TypeError, ValueError, AttributeError)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are written beside their place, and take it when they are on the disk.

    Lightning writes to the folder of temporary files and moves: on another file system, a kill or a
    full disk destroys the last good one.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """See `whole_file`."""
        made = io.BytesIO()  # the writer of archives hides what the disk says
        torch.save(checkpoint, made)
        with whole_file(path) as partial:
            partial.write_bytes(made.getbuffer())


def make_trainer(
    recipe: Recipe,
    scorer: Scorer,
    data: DomainDataModule,
    seed: int,
    place: Path,
    loggers: Sequence[Logger] = (),
) -> Trainer:
    """A trainer that keeps its last checkpoint and its log in ``place``, the folder of a stage.

    Raises:
        DomainNormError: What Lightning refuses, such as a GPU that is not there.
    """
    bar, method = sys.stdout.isatty(), scorer.method
    log = EpochLog(place / LOG)
    callbacks: list[Callback] = [
        FittingMoments(),
        EpochSeed(seed),
        log,
        DomainBar(leave=False) if bar else EpochLines(),
    ]
    selection = None
    if selects(recipe, method):
        selection = Selection(place, recipe, scorer, log.on_train_epoch_end)
        callbacks.append(selection)
    for named in recipe.trainer.callbacks:
        given = {key: value for key, value in named.items() if key != "name"}
        callbacks.append(CALLBACKS.create(named["name"], **given))
    if recipe.trainer.keep_best or recipe.trainer.keep_every:
        callbacks.append(KeptEpochs(place / EPOCHS, recipe, selection))
    # After the selection, whose score of this epoch it has to hold for a resumed run.
    callbacks.append(ModelCheckpoint(place, "training", enable_version_counter=False))
    with readable_refusals():
        trainer = _trainer(recipe, method, callbacks, bar)
    trainer.loggers = [*loggers]
    if recipe.trainer.min_steps and method.protocol == "fit" and method.max_epochs is None:
        trainer.fit_loop.max_epochs = _epochs(recipe, data, trainer.world_size)
    if method.protocol == "online" and trainer.world_size > 1:
        raise DomainNormError(
            f"method: {trainer.world_size} devices cannot share its one stream of images; set "
            "trainer.devices=1 and trainer.num_nodes=1"
        )
    return trainer


def _epochs(recipe: Recipe, data: DomainDataModule, world_size: int) -> int:
    """Epochs in which a stage makes the steps that it has to make at least."""
    options = recipe.trainer
    batches = math.ceil(len(data.train_dataloader()) / world_size)
    steps = math.ceil(min(batches, options.limit_batches or batches) / options.accumulate)
    return max(options.max_epochs, math.ceil(options.min_steps / steps))


def _trainer(recipe: Recipe, method: Method, callbacks: list[Callback], bar: bool) -> Trainer:
    options = recipe.trainer
    return Trainer(
        max_epochs=method.max_epochs or options.max_epochs,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=options.precision,
        # Lightning refuses these where a method steps by itself, or not at all.
        gradient_clip_val=options.gradient_clip if method.automatic_optimization else None,
        accumulate_grad_batches=options.accumulate if method.automatic_optimization else 1,
        inference_mode=method.protocol != "online",
        deterministic=options.deterministic,
        limit_train_batches=options.limit_batches,
        limit_val_batches=None if method.eval_domains else 0,
        callbacks=callbacks,
        plugins=[WholeCheckpoints()],
        logger=False,
        use_distributed_sampler=False,  # the data module divides batches among ranks itself
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=bar,
        log_every_n_steps=1,
    )


def fit(trainer: Trainer, method: Method, data: DomainDataModule, recipe: Recipe) -> None:
    """Fit, going on from the checkpoint that an interrupted run left; then apply the selection.

    Raises:
        CheckpointError: The checkpoint is truncated or of another model.
    """
    saving: Any = trainer.checkpoint_callbacks[-1]
    last = Path(saving.dirpath) / TRAINING
    resumed = str(last) if last.exists() else None
    finished = int(_read(last, method)["epoch"]) if resumed else -2
    try:
        trainer.fit(method, datamodule=data, ckpt_path=resumed, weights_only=True)
    except _UNLIKE as error:
        # What a checkpoint holds has all been used when one epoch more is finished.
        if trainer.current_epoch > finished + 1:
            raise
        raise _broken(last, error) from error
    if selects(recipe, method) and trainer.current_epoch:  # 0: the method has trained nothing
        best = _read(last.parent / BEST, method, f" and {TRAINING}")
        method.load_state_dict(best["state_dict"])
        method.on_fit_end()


def _read(path: Path, method: Method, beside: str = "") -> dict[str, Any]:
    """A checkpoint of this method; ``beside`` is what has to be deleted with a broken one."""
    banks = [name for name, module in method.named_modules() if isinstance(module, Bank)]
    expected = _shapes(method.state_dict(), banks)
    try:
        stored: dict[str, Any] = read_tensors(path, method.device)
        found, _ = _shapes(stored["state_dict"], banks), int(stored["epoch"])
    except DAMAGED as error:
        raise _broken(path, error, beside) from error
    if found != expected:
        wrong = sorted(name for name, _ in set(found.items()) ^ set(expected.items()))
        raise CheckpointError(
            f"{path}: it belongs to another model ({', '.join(dict.fromkeys(wrong[:6]))} differ); "
            "undo the changes of recipe.yaml, or start a new run"
        )
    return stored


def _broken(path: Path, error: Exception, beside: str = "") -> CheckpointError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return CheckpointError(
        f"{path}: not a complete checkpoint ({reason}); delete it{beside} to train this stage "
        "again; finished stages stay"
    )


def _shapes(state: dict[str, torch.Tensor], banks: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by name; those of banks, which grow, without their first axis."""
    return {
        name: tuple(tensor.shape[name.rpartition(".")[0] in banks :])
        for name, tensor in state.items()
    }


def selects(recipe: Recipe, method: Method) -> bool:
    """Whether a stage keeps the weights of another epoch than the last.

    A method of streams has no epochs, one that sees no labelled domain no validation, and one that
    sees no target image must not be chosen by some either.
    """
    asked, roles = recipe.evaluation.selection, method.roles
    if asked == "last" or method.protocol == "online":
        return False
    if asked == "validation":
        return bool(method.eval_domains)
    seen = domains_of(method.labelled, roles) + domains_of(method.unlabelled, roles)
    return bool(set(roles.target) & set(roles.all if asked == "oracle" else seen))


class Selection(Checkpoint):
    """Keeps the first of the best epochs in ``best.ckpt``, higher is better.

    Args:
        place: Folder of the stage.
        recipe: What it is chosen by, and the guard.
        scorer: Looks at the target where that chooses.
        write_row: Writes the row of an epoch again, with what was found here.
    """

    def __init__(
        self,
        place: Path,
        recipe: Recipe,
        scorer: Scorer,
        write_row: Callable[[Trainer, LightningModule], None],
    ) -> None:
        self.path = place / BEST
        self.asked = recipe.evaluation.selection
        self.guard = recipe.evaluation.guard
        self.scorer = scorer
        self.write_row = write_row
        self.patience = recipe.trainer.patience
        self.min_steps = recipe.trainer.min_steps
        # Score of the epoch that is kept, its metric on the source, and the best such metric.
        self.kept, self.kept_source, self.best_source = -math.inf, -math.inf, -math.inf
        self.waited = 0  # epochs since then
        self.value = math.nan  # score of this epoch

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        names = ("kept", "kept_source", "best_source", "waited")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        vars(self).update(state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train no more where a run was interrupted after its last epoch."""
        self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep this epoch where it is better than those before, or they fail the guard."""
        value, source = self._measured(trainer)
        self.value = value
        if math.isnan(value) and self.asked == "validation":
            raise DomainNormError(
                f"evaluation.selection: '{self.asked}' cannot compute "
                f"{self.scorer.method.task.metric} on any domain here (do all validation images "
                "have one class, or none?); take 'last', or other splits"
            )
        self.best_source = max(self.best_source, source)
        least = self.best_source - self.guard
        refused = self.kept_source < least  # the kept one, by what has been learned since
        kept = -math.inf if math.isnan(self.kept) else self.kept  # no number loses to any
        better = self.kept == -math.inf or refused or (source >= least and value > kept)
        if trainer.strategy.broadcast(better):
            self.kept, self.kept_source, self.waited = value, source, 0
            trainer.save_checkpoint(self.path, weights_only=True)
        else:
            self.waited += 1
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        """End training where the patience is over."""
        if self.patience is None or self.waited < self.patience:
            return
        least = self.min_steps if self.scorer.method.max_epochs is None else 0
        trainer.should_stop = trainer.global_step >= least
        if trainer.should_stop and trainer.is_global_zero:
            last = trainer.current_epoch + 1
            told = f"ends after epoch {last} of {trainer.max_epochs}, the best was"
            print(f"      {told} {last - self.waited}", flush=True)

    def _measured(self, trainer: Trainer) -> tuple[float, float]:
        """What chooses, and the metric on the source where a guard asks for it, else 0."""
        method, found = self.scorer.method, trainer.callback_metrics
        metric, roles = method.task.metric, method.roles
        if self.asked == "validation":
            return float(found["val/selection"]), 0.0
        with _finished(method):
            if self.asked == "oracle":
                column, options = metric, method.task.metric_options()
                said = self.scorer.validated(roles.target)
                values = {name: one.metrics(**options)[metric] for name, one in said.items()}
            else:
                column = self.asked
                values = {name: self.scorer.score(column, name) for name in self.scorer.domains}
        method.log_dict({f"val/{name}/{column}": value for name, value in values.items()})
        self.write_row(trainer, method)
        keys = [f"val/{name}/{metric}" for name in roles.source]
        seen = [found[key] for key in keys if key in found]
        guarded = bool(seen) and self.asked != "oracle"
        on_source = mean_of_known(seen) if guarded else 0.0
        return mean_of_known(values.values()), 0.0 if math.isnan(on_source) else on_source


class KeptEpochs(Checkpoint):
    """Keeps what the model were if training ended after an epoch, of some of the epochs.

    Args:
        folder: Has a folder for each of them, by its number from 1.
        recipe: Which epochs these are.
        selection: Scores epochs; None where nothing does, and none is among the best.
    """

    def __init__(self, folder: Path, recipe: Recipe, selection: Selection | None) -> None:
        self.folder = folder
        self.recipe = recipe
        self.selection = selection
        self.scores: dict[int, float] = {}  # of the best

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {"scores": self.scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.scores = state_dict["scores"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this epoch if it is one that stays, and remove the one whose place it takes."""
        options, epoch = self.recipe.trainer, trainer.current_epoch + 1
        former = set(self.scores)
        if options.keep_best and self.selection is not None:
            value = trainer.strategy.broadcast(self.selection.value)  # ranks agree on the best
            self.scores[epoch] = -math.inf if math.isnan(value) else value
            ranked = sorted(self.scores, key=lambda one: (-self.scores[one], one))
            self.scores = {one: self.scores[one] for one in ranked[: options.keep_best]}
        stay = {one for one in (*former, epoch) if one in self.scores or self._is_due(one)}
        method: Any = pl_module
        if epoch in stay:
            # Looking is no part of the training.
            with isolate_rng(), _finished(method):
                if trainer.is_global_zero:
                    name, classes = self.recipe.backbone.name, method.task.class_names
                    file = self.folder / str(epoch) / WEIGHTS
                    save_model(method.deployed, file, name, classes)
        if trainer.is_global_zero:
            for one in former - stay:
                shutil.rmtree(self.folder / str(one), ignore_errors=True)

    def _is_due(self, epoch: int) -> bool:
        every = self.recipe.trainer.keep_every
        return every is not None and epoch % every == 0


@contextmanager
def _finished(method: Method) -> Iterator[None]:
    """Inside the block the model is what it were if training ended here: rows, moments, all."""
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    modes = [(module, module.training) for module in method.modules()]
    try:
        method.on_fit_end()
        method.share_rows()
        yield
    finally:
        method.load_state_dict(before)
        for module, mode in modes:
            module.training = mode


class FittingMoments(Callback):
    """Refuses what a checkpoint gives an optimizer that is not of its parameters."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare shapes; counters have none."""
        for optimizer in trainer.optimizers:
            for parameter, state in optimizer.state.items():
                for name, value in state.items():
                    if getattr(value, "ndim", 0) and value.shape != parameter.shape:
                        raise ValueError(f"{name} of another parameter in its optimizer")


class EpochSeed(Callback):
    """Reseeds torch, numpy and random from (seed, epoch, rank) when an epoch starts.

    An epoch then depends on no generator state, so a resumed run needs none.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the batches of the epoch that a resumed run goes on with.

        Lightning 2.6 has made the iterator by now, while the epoch was still the one before the
        checkpoint (``setup_data``), or 0 where a schedule asked for ``estimated_stepping_batches``.
        """
        if trainer.current_epoch > 0:
            iter(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reseed."""
        mixed = hash((self.seed, trainer.current_epoch, trainer.global_rank, 0x5EED)) % 2**32
        seed_everything(mixed, verbose=False)


class EpochLog(Callback):
    """One row of logged values per epoch in a CSV file; a resumed run goes on in the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a damaged file before an epoch is lost to it."""
        self._before(0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the row of this epoch, instead of any row that a killed run left for it."""
        values = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        if not values or not trainer.is_global_zero:
            return  # a method without a loss has no curve to draw
        row = {"epoch": str(trainer.current_epoch), "step": str(trainer.global_step)}
        row |= {key: "" if math.isnan(value) else repr(value) for key, value in values.items()}
        rows = [*self._before(trainer.current_epoch), row]
        names = list(dict.fromkeys(name for one in rows for name in one))
        lines = [names, *([one.get(name, "") for name in names] for one in rows)]
        replace_text(self.path, "".join(",".join(line) + "\n" for line in lines))

    def _before(self, epoch: int) -> list[dict[str, str]]:
        """The rows of earlier epochs."""
        if not self.path.exists():
            return []
        try:
            rows = list(csv.DictReader(self.path.read_text(encoding="utf-8").splitlines()))
            if any(None in one or None in one.values() for one in rows):
                raise ValueError("lines of different lengths")
            return [one for one in rows if int(one["epoch"]) < epoch]
        except (*DAMAGED, csv.Error) as error:
            raise CheckpointError(
                f"{self.path}: cannot be read as a log ({error}); delete it, and go on with "
                "--resume: curves then lack earlier epochs"
            ) from error


class DomainBar(RichProgressBar):
    """Progress on a terminal; a test says which domain it is of."""

    _loader = 0

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take note of the loader, whose bar may begin now."""
        self._loader = dataloader_idx
        super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)

    @property
    def test_description(self) -> str:
        """Shown before the bar."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return f"test {data.test_titles()[self._loader]}"


class EpochLines(Callback):
    """Progress where there is no terminal to draw a bar on: a line every few seconds."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print epoch, loss and metric, unless a line was printed just before."""
        now = time.monotonic()
        if now - self._shown < _BETWEEN_LINES or not trainer.is_global_zero:
            return
        self._shown = now
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f"  loss {float(loss):.3f}"
        if "val/selection" in trainer.callback_metrics:
            task: Any = pl_module.task
            shown += f"  {task.metric} {float(trainer.callback_metrics['val/selection']):.3f}"
        print(f"      epoch {trainer.current_epoch + 1}/{trainer.max_epochs}{shown}", flush=True)
