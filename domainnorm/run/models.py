"""Models of stages: the domain encoder of each, and what finished stages have left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from domainnorm import encoders
from domainnorm.backbones import DomainModel, ModelHeader, data_config, load_model, read_header
from domainnorm.data import DomainDataModule, Preprocessing
from domainnorm.data.dataset import Split
from domainnorm.data.preprocessing import Pixels
from domainnorm.encoders.base import Batches
from domainnorm.errors import CheckpointError, DataError, unknown
from domainnorm.methods import online_methods
from domainnorm.recipe import Recipe
from domainnorm.registry import TASKS
from domainnorm.report import load_results
from domainnorm.run.plan import SOURCE_ONLY, Stage
from domainnorm.run.run_folder import EPOCHS, RECIPE, RESULTS, WEIGHTS, read_folder
from domainnorm.storage import digest_of
from domainnorm.tasks import Task
from domainnorm.tasks.translator import PixelTranslator, row_of, style_of_domains

_SHOWN = 6
_DRAWN = ("splits", "val_fraction", "test_fraction", "split_seed")  # which images are for training
# What there is for tasks whose outputs are images.
_WAYS = {
    "translation": "`domainnorm translate RUN IMAGES --to DOMAIN` writes them",
    "generation": "`domainnorm generate RUN` writes them",
    "restoration": "`domainnorm restore RUN IMAGES` writes them",
}


class _Images:
    """Images of a loader with the labels of their domains, and nothing else of its batches."""

    def __init__(self, loader: DataLoader[dict[str, Any]]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            yield batch["image"], batch["domain"]

    def __len__(self) -> int:
        return len(self._loader)


def attach_encoder(recipe: Recipe, model: DomainModel) -> None:
    """Give a model its recipe's policy for unseen domains, and the encoder, not fitted, if any."""
    if recipe.encoder is None:
        model.unseen = recipe.unseen
        return
    in_chans = int(recipe.backbone.options.get("in_chans", 3))
    name, options = recipe.encoder.name, recipe.encoder.options
    encoder = encoders.create_encoder(name, model.num_domains, model.backbone, in_chans, **options)
    end_to_end = recipe.condition == "embedding"
    model.attach_encoder(encoder, recipe.unseen, end_to_end=end_to_end, far=recipe.far)


def ready_encoder(model: DomainModel, data: DomainDataModule, seed: int) -> None:
    """Before a stage that trains the encoder with the network: standardize what it looks at."""
    if model.encoder is None or not model.end_to_end:
        return
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    encoders.start_encoder(model.encoder, _read_by(model.encoder, data, "train"), generator)
    model.train()


def encoder_weights(model: DomainModel) -> list[Tensor]:
    """Copies of the weights of an encoder end to end; none of others."""
    if model.encoder is None or not model.end_to_end:
        return []
    return [weight.detach().clone() for weight in model.encoder.parameters()]


def teach_encoder(
    model: DomainModel, data: DomainDataModule, seed: int, former: Sequence[Tensor] = ()
) -> None:
    """Fit the encoder to the training images that a stage may see; no class label is read.

    One that has learned with the network learns where the domains are and nothing else. Where it
    knows domains whose images this stage may not see (adaptation without the source), it stays as
    it is and learns the further ones by their images alone; but where the stage has trained the
    encoder, the embeddings of those domains are no longer what they were, and it forgets them.

    Args:
        model: Changed in place.
        data: Of the stage; held-out images come from its validation split.
        seed: Of the stage.
        former: `encoder_weights` before the stage.
    """
    if model.encoder is None:
        return
    model.eval()  # some encoders read features of the backbone
    seen = [model.domain_names.index(name) for name in data.seen_domains]
    known = model.encoder.gaussians.known.nonzero().flatten().tolist()
    training = _read_by(model.encoder, data, "train")
    weights = zip(former, encoder_weights(model), strict=False)
    moved = any(not torch.equal(old, new.to(old.device)) for old, new in weights)
    if moved or set(known) <= set(seen):
        fit = encoders.fit_domains if model.end_to_end else encoders.fit_encoder
        fit(model.encoder, training, _read_by(model.encoder, data, "val"), seed=seed)
    else:
        encoders.extend_encoder(model.encoder, training)


def _read_by(encoder: encoders.DomainEncoder, data: DomainDataModule, split: Split) -> Batches:
    if encoder.reads_attributes:  # without decoding an image
        return data.domain_attributes(split)
    learned_from = encoder.learns_features and split == "train"
    return _Images(data.domain_dataloader(split, mixed=learned_from))


@dataclass(frozen=True)
class StoredModel:
    """What `load_stored` returns.

    Args:
        model: In evaluation mode.
        recipe: The recipe of its run.
        class_names: Classes, in output order.
        place: Folder of the stage.
    """

    model: DomainModel
    recipe: Recipe
    class_names: tuple[str, ...]
    place: Path

    @property
    def online(self) -> str:
        """The method of its stage, if it adapted while it predicted; else empty."""
        asked = (self.recipe.method, *self.recipe.compare)
        names = [one.name for one in asked if one.label == self.place.name]
        return next((name for name in names if name in online_methods()), "")

    def check_says(self) -> None:
        """Raise a CheckpointError where outputs are images, of which there is nothing to say."""
        name = self.recipe.task.name
        if way := _WAYS.get(name):
            raise CheckpointError(f"{self.place}: of task '{name}', which gives images; {way}")


def load_stored(folder: Path) -> StoredModel:
    """The model of a stage; neither data nor pretrained weights are needed.

    Args:
        folder: Folder of a stage, ``RUN/stages/<transfer>/seed<n>/<method>``, of an epoch that was
            kept, ``epochs/<number>`` in it, or of a run in which one finished stage has the method
            of the recipe.

    Raises:
        CheckpointError: No such folder, nothing finished in it, several stages to choose from, or
            weights that are truncated or do not fit the recipe.
    """
    place = folder
    if not (folder / WEIGHTS).is_file():
        if not (folder / RECIPE).is_file():
            if not folder.exists():
                raise CheckpointError(f"{folder}: no such folder; check the path")
            raise CheckpointError(
                f"{folder}: neither a run folder (no {RECIPE}) nor that of a stage (no {WEIGHTS})"
            )
        place = find_stage(folder, read_folder(folder)[0])
    recipe, _ = read_folder(_stage_of(place).parents[3])
    model, header = stored_model(recipe, place)
    return StoredModel(model, recipe, header.class_names, place)


def _stage_of(place: Path) -> Path:
    """Folder of the stage that a model, or an epoch that was kept, is of."""
    stage = place.resolve()
    return stage.parents[1] if stage.parent.name == EPOCHS else stage


def stored_model(recipe: Recipe, place: Path) -> tuple[DomainModel, ModelHeader]:
    """The model of a stage in evaluation mode, and what its weights say about it.

    Raises:
        CheckpointError: Weights that are truncated or do not fit the recipe.
    """
    header = read_header(place / WEIGHTS)
    task: Task = TASKS.load(recipe.task.name)(header.class_names, **recipe.task.options)
    named, domains = recipe.backbone, header.domain_names
    model: DomainModel = task.create_model(named.name, recipe.norm, domains, **named.options)
    attach_encoder(recipe, model)
    load_model(model, place / WEIGHTS)
    return model.eval(), header


def given_weights(recipe: Recipe, stage: Stage) -> Path | None:
    """The weights that ``checkpoint`` gives a stage, instead of training it; None for others.

    Raises:
        CheckpointError: There is no such file, the run has no such stage, or the model has learned
            from labels of a target or from other splits.
    """
    if recipe.checkpoint is None or stage.label != SOURCE_ONLY:
        return None
    given = Path(recipe.checkpoint).expanduser()
    if (given / RECIPE).is_file():
        weights = given / stage.source_key / WEIGHTS
        if not weights.is_file():
            raise CheckpointError(
                f"checkpoint: {given}: no source model of {stage.transfer}, seed {stage.seed}; "
                f"expected {weights.relative_to(given)}"
            )
    else:
        weights = given if given.is_file() else given / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(
            f"checkpoint: {given}: no such model; expected a run folder, the folder of a stage "
            f"(RUN/{stage.source_key}), or its {WEIGHTS}"
        )
    told = _stage_of(weights.parent) / RESULTS  # weights alone say nothing
    for one in load_results(told) if told.is_file() else ():
        if one.domain in stage.roles.target and (one.supervised or one.role == "source"):
            raise CheckpointError(
                f"checkpoint: {weights}: '{one.method}' ({one.transfer}) has learned from labels "
                f"of '{one.domain}', which is a target here; take a source model without them"
            )
    _check_drawn(recipe, _stage_of(weights.parent).parents[3], weights)
    return weights


def _check_drawn(recipe: Recipe, run: Path, weights: Path) -> None:
    """Refuse weights that may have learned from what are test images here."""
    if not (run / RECIPE).is_file():  # weights alone say nothing
        return
    former = read_folder(run)[0].dataset
    if former.name != recipe.dataset.name:
        return
    for key in _DRAWN:
        then, now = (one.options.get(key) for one in (former, recipe.dataset))
        if then != now:
            raise CheckpointError(
                f"checkpoint: {weights}: learned from images drawn with data.{key}={then}, here "
                f"{now}, so that test images may be among them; set data.{key}={then}"
            )


def finished_stages(folder: Path) -> list[Path]:
    """Folders of the stages of a run that have weights."""
    return sorted(file.parent for file in folder.glob(f"stages/*/*/*/{WEIGHTS}"))


def find_stage(folder: Path, recipe: Recipe, name: str = "") -> Path:
    """Folder of a finished stage.

    Args:
        folder: Of the run.
        recipe: Of the run.
        name: The end of its path, such as ``seed1/tent``; that of the recipe's method when empty.

    Raises:
        CheckpointError: There is none, or several to choose from.
    """
    finished = finished_stages(folder)
    wanted = Path(name or recipe.method.label).parts
    found = [place for place in finished if place.parts[-len(wanted) :] == wanted]
    if len(found) == 1:
        return found[0]
    if not finished:
        raise CheckpointError(f"{folder}: no finished stage; go on with `run --resume {folder}`")
    if name and not found:
        known = ["/".join(place.parts[-3:]) for place in finished]
        raise CheckpointError(f"{folder}: {unknown('stage', name, known)}")
    listing = "".join(f"\n  {place}" for place in (found or finished)[:_SHOWN])
    raise CheckpointError(f"{folder}: {len(found or finished)} finished stages, name one:{listing}")


def kept_epoch(place: Path, epoch: int) -> Path:
    """Folder of an epoch of a stage, which is counted from 1.

    Raises:
        CheckpointError: It was not kept.
    """
    found = place / EPOCHS / str(epoch)
    if not (found / WEIGHTS).is_file():
        numbers = sorted(int(one.parent.name) for one in place.glob(f"{EPOCHS}/*/{WEIGHTS}"))
        known = f"kept: {', '.join(map(str, numbers))}" if numbers else "none was kept"
        raise CheckpointError(
            f"{place}: no epoch {epoch}; {known} (trainer.keep_best and keep_every keep some)"
        )
    return found


def preprocessing_of(recipe: Recipe, model: DomainModel) -> Preprocessing:
    """What fits images to a model, by the recipe's sizes; whether they suit the task is not asked.

    Raises:
        DataError: Sizes that are no sizes.
    """
    data = recipe.data
    return Preprocessing.from_config(
        data_config(model), data.image_size, crop_size=data.crop_size, fit=data.fit
    )


class Styles:
    """The translator of a finished run: what `Translate` and translated twins call.

    Args:
        run: Folder of a run of task ``translation``, or of one of its stages.

    Raises:
        CheckpointError: See `load_stored`; or a run of another task.
    """

    def __init__(self, run: Path) -> None:
        stored = load_stored(run)
        self.run = run
        check_task(stored, "translation", "medical/stain_translation")
        preprocessing = preprocessing_of(stored.recipe, stored.model)
        self._made = PixelTranslator(stored.model, preprocessing)
        self.names = stored.model.domain_names
        self.digest = digest_of(stored.place / WEIGHTS)

    def __repr__(self) -> str:
        return str(self.run)  # in messages about the step

    def chosen(self, domain: str, key: str) -> str:
        """A domain of the translator.

        Raises:
            DataError: It has none of that name; ``key`` stands before.
        """
        if domain not in self.names:
            raise DataError(f"{key}: {unknown('domain', domain, self.names)}")
        return domain

    def others(self, asked: Any, own: str, known: Sequence[str]) -> list[str]:
        """Styles that images of a domain get, all but their own.

        Args:
            asked: One or several, or None for all that are ``known``.
            own: Their domain.
            known: Domains of the transfer.

        Raises:
            DataError: An unknown one; or none is asked for, and the translator knows no other.
        """
        key = "augment: Translate.to"
        if asked is not None:
            wanted = [asked] if isinstance(asked, str) else asked
            return [one for name in wanted if (one := self.chosen(name, key)) != own]
        if not (found := [name for name in self.names if name in known and name != own]):
            raise DataError(
                f"{key}: missing, and the translator knows {', '.join(self.names)}, none of which "
                f"is another domain of the transfer for images of '{own}'; name a style"
            )
        return found

    def __call__(self, image: Pixels, domain: str) -> Pixels:
        """An image (h, w, 3) in the style of a domain, one of ``names``."""
        model = self._made.model
        pixels: Pixels = self._made(image, style_of_domains(model, row_of(model, domain)))[0]
        return pixels


def check_task(stored: StoredModel, task: str, recipe: str) -> None:
    """Raise a CheckpointError for a model of another task; ``recipe`` is one that trains such."""
    if stored.recipe.task.name != task:
        raise CheckpointError(
            f"{stored.place}: a model of task '{stored.recipe.task.name}', expected '{task}'; "
            f"train such a one, as recipe {recipe} does"
        )
