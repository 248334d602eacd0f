"""Selection of the epoch whose weights a stage keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from domainnorm.methods import Method, domains_of
from domainnorm.recipe import Recipe
from domainnorm.run.scoring import Scorer

BEST = "best.ckpt"


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
        # Score of the epoch that is kept, its metric on the source, and the best such metric.
        self.kept, self.kept_source, self.best_source = -math.inf, -math.inf, -math.inf

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on with."""
        return {name: getattr(self, name) for name in ("kept", "kept_source", "best_source")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        vars(self).update(state_dict)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep this epoch where it is better than those before, or they fail the guard."""
        value, source = self._measured(trainer)
        self.best_source = max(self.best_source, source)
        least = self.best_source - self.guard
        refused = self.kept_source < least  # the kept one, by what has been learned since
        better = self.kept == -math.inf or refused or (source >= least and value > self.kept)
        if trainer.strategy.broadcast(better):
            self.kept, self.kept_source = value, source
            trainer.save_checkpoint(self.path, weights_only=True)

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
        return _mean(list(values.values())), _mean(seen) if guarded else 0.0


def _mean(values: list[Any]) -> float:
    return float(sum(map(float, values)) / len(values))


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
