"""The objects a recipe names: dataset, model, data module, task and method of a stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from domainnorm.backbones import DomainModel, check_weights, insert_after
from domainnorm.data import (
    CachedDataset,
    DomainDataModule,
    DomainDataset,
    Loading,
    Preprocessing,
    Shots,
    Stream,
    draw_shots,
)
from domainnorm.data.augmentation.corruptions import Corruption
from domainnorm.data.augmentation.degradation import Degradation
from domainnorm.data.augmentation.generated import WithGenerated
from domainnorm.data.augmentation.pipeline import check_values
from domainnorm.data.augmentation.steps import arguments_of, steps_for
from domainnorm.data.augmentation.twins import TwinDataset
from domainnorm.data.class_counts import ClassCounts
from domainnorm.data.dataset import (
    check_attributes,
    check_labelled,
    check_mask_values,
    check_splits,
    evenly,
)
from domainnorm.data.preprocessing import Pixels
from domainnorm.data.sampler import check_batch_size
from domainnorm.data.splits import check_records
from domainnorm.errors import CheckpointError, ConversionError, DataError, DomainNormError, unknown
from domainnorm.methods import Method, domains_of
from domainnorm.ranges import CORRUPTED, OF_ANY_DATASET, labels_for
from domainnorm.recipe import Recipe
from domainnorm.registry import DATASETS, METHODS, SAMPLERS, TASKS
from domainnorm.run.models import Styles, attach_encoder, given_weights, preprocessing_of
from domainnorm.run.plan import Stage
from domainnorm.tasks import Task

_MASKS = 8  # of a domain that are looked at before anything is trained


@dataclass(frozen=True)
class Seen:
    """Domains that a method may see.

    Args:
        labelled: With all their labels.
        unlabelled: Without.
        shots: With the labels of these images alone; of ``unlabelled`` ones the others are seen
            without.
    """

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    shots: dict[str, list[int]] = field(default_factory=dict)


class Parts:
    """Builds what the stages of one checked recipe need; the dataset is read once.

    Raises:
        DataError: The dataset cannot be used, or a domain of the recipe is not in it.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._known: dict[str, Styles] = {}  # translators, by the folder of their run
        self.dataset = self._dataset()
        self.counts = ClassCounts(self.dataset)  # every stage asks, and masks are files to read
        self._accepted: list[Any] = []  # steps of augmentation whose values are right
        self._looked: set[str] = set()  # domains some of whose masks were, for all who share these

    def _dataset(self) -> DomainDataset:
        named = self.recipe.read_dataset
        dataset: DomainDataset = DATASETS.load(named.name)(**named.options)
        check_records(dataset)
        if self.recipe.twinned:
            dataset = self._with_twins(dataset)
        for name in self.recipe.domains:
            if name not in dataset.domain_names:
                problem = unknown("domain", name, dataset.domain_names)
                if name.endswith(CORRUPTED) and not self.recipe.data.corrupt:
                    problem += "; for a corrupted twin give data.corrupt={name: fog, severity: 5}"
                raise DataError(f"data.source, data.target: {problem}")
        check_attributes(self.recipe.data.attributes, dataset)
        if (made := self.recipe.data.generated) is not None:
            dataset = WithGenerated(dataset, Path(made["root"]).expanduser(), self.recipe.domains)
        return dataset

    def _with_twins(self, dataset: DomainDataset) -> DomainDataset:
        """The dataset, with the twins that the transfers name."""
        given, ending = self.recipe.data, self.recipe.twin_ending
        twins = [name for name in self.recipe.twinned if name in dataset.domain_names]
        if given.translate is None:
            return TwinDataset(dataset, twins, ending, Corruption(**given.corrupt or {}))
        styles = self._styles(given.translate["run"], "data.translate.run")
        style = styles.chosen(given.translate["to"], "data.translate.to")
        return TwinDataset(dataset, twins, ending, partial(_in_style, styles, style))

    def _styles(self, run: str, key: str) -> Styles:
        """The translator of a finished run, read once."""
        if run not in self._known:
            try:
                self._known[run] = Styles(Path(run).expanduser())
            except CheckpointError as error:
                raise CheckpointError(f"{key}: {error}") from None
        return self._known[run]

    @property
    def digests(self) -> dict[str, str]:
        """Of what images have gone through, and of those that were made."""
        found = {f"translator {run}": styles.digest for run, styles in self._known.items()}
        if isinstance(self.dataset, WithGenerated):
            found["generated"] = self.dataset.digest
        return found

    @property
    def metric(self) -> str:
        """The metric of the task that tables show."""
        return str(TASKS.entry(self.recipe.task.name).constants["metric"])

    def seen(self, stage: Stage) -> Seen:
        """What the method of a stage may see.

        Raises:
            DataError: Fewer labels of a target than the recipe's ``data.shots``.
        """
        method, number = METHODS.load(stage.method.name), self.recipe.data.shots
        labelled = domains_of(method.labelled, stage.roles)
        unlabelled = domains_of(method.unlabelled, stage.roles)
        if number is None or not method.takes_shots or method.protocol == "online":
            return Seen(labelled, unlabelled)
        shots = {
            name: draw_shots(self.dataset, name, number, stage.seed)
            for name in stage.roles.target
            if name in (*labelled, *unlabelled)
        }
        return Seen(tuple(name for name in labelled if name not in shots), unlabelled, shots)

    def model(self, stage: Stage, *, stored: bool = False) -> DomainModel:
        """A fresh model with a row for every domain of the stage's transfer.

        The recipe's perturbations act in stages that learn from the source's labels. Elsewhere they
        would falsify what is estimated (adabn) or compared (oracle), and are left out. Where all
        weights come from a file afterwards, ``stored``, pretrained ones are not looked for.
        """
        backbone = self.recipe.backbone
        model: DomainModel = self.task().create_model(
            backbone.name,
            self.recipe.norm,
            stage.roles.all,
            pretrained=backbone.pretrained and not stored,
            weights=None if stored else backbone.weights,
            **backbone.options,
        )
        attach_encoder(self.recipe, model)
        if METHODS.load(stage.method.name).labelled in ("source", "all"):
            for named in self.recipe.perturb:
                try:
                    insert_after(model, named.name, **named.options)
                except DomainNormError as error:
                    raise ConversionError(f"perturb: {named.name}: {error}") from error
        if self.recipe.trainer.channels_last:
            # Feature maps take on the layout of the kernels that make them.
            model = model.to(memory_format=torch.channels_last)
        return model

    def check_images(self, stages: Iterable[Stage]) -> None:
        """Refuse, before the first stage, what a later one would: images, labels, weights it lacks.

        Raises:
            DataError: Names the method, and what it lacks, or a batch too small for its domains.
            CheckpointError: Names the key of weights that are not there.
        """
        check_weights(self.recipe.backbone.weights)
        scored: set[tuple[str, ...]] = set()
        for stage in stages:
            given_weights(self.recipe, stage)
            try:
                seen = self.seen(stage)
                unlabelled = (*seen.unlabelled, *seen.shots)
                check_splits(self.dataset, stage.roles.all, seen.labelled, unlabelled)
                if self.recipe.evaluation.selection == "oracle":
                    check_splits(self.dataset, stage.roles.all, stage.roles.target, unlabelled)
                if self._degrade is None:
                    self._check_labels(stage, seen.labelled, scored)
                groups = len({*seen.labelled, *seen.unlabelled}) + len(seen.shots)
                check_batch_size(self.recipe.data.batch_size, groups)
                self._check_places({*seen.labelled, *unlabelled}, groups)
                for domain, steps in self._augment(stage).items():
                    if steps not in self._accepted:
                        check_values(steps, f"augment, images of {domain}")
                        self._accepted.append(steps)
            except DataError as error:
                raise DataError(f"method '{stage.label}': {error}") from None

    def _check_places(self, domains: Iterable[str], groups: int) -> None:
        """Refuse batches in which no generated image stands beside a real one."""
        if self.dataset.generated([*domains]) and self.recipe.data.batch_size < 2 * groups:
            raise DataError(
                f"data.generated: batches of {self.recipe.data.batch_size} for {groups} training "
                f"domains leave no place for generated images; use at least {2 * groups}"
            )

    def _check_labels(
        self, stage: Stage, labelled: tuple[str, ...], scored: set[tuple[str, ...]]
    ) -> None:
        """Refuse missing labels, and those that nothing can be learned from or measured by."""
        selection = self.recipe.evaluation.selection
        check_labelled(self.dataset, labelled)
        if selection == "oracle":
            check_labelled(self.dataset, stage.roles.target)
        of_classes = self.dataset.task != "restoration"
        if selection == "validation" and of_classes and labelled not in scored:
            self._check_metric(labelled)
            scored.add(labelled)
        self._check_masks(labelled)

    def _check_masks(self, domains: Sequence[str]) -> None:
        """Refuse domains whose masks seem to hold no class but the first, by a few of them."""
        for domain in domains:
            if domain not in self._looked:
                own = self.dataset.positions([domain], "train")
                masked = [position for position in own if self.dataset.records[position].mask]
                check_mask_values(self.dataset, evenly(masked, _MASKS))
                self._looked.add(domain)

    def _check_metric(self, domains: Sequence[str]) -> None:
        """Refuse to choose an epoch by a metric that no label defines; that of masks always is."""
        task, records = self.task(), self.dataset.records
        for domain in domains:
            found = [
                one.target if one.labels is None else one.labels
                for one in records
                if (one.domain, one.split) == (domain, "val") and one.mask is None
            ]
            if not found:
                return
            store, count = task.store(), len(found)
            logits = torch.zeros(count, len(task.class_names))
            store.update(logits, torch.tensor(found), torch.arange(count))
            if not math.isnan(store.compute().metrics(**task.metric_options())[task.metric]):
                return
        if domains:
            raise DataError(
                f"evaluation.selection: {task.metric} cannot be computed on the validation images "
                f"of {', '.join(domains)} (each finding is in all of them or in none); take "
                "'last', or other splits"
            )

    def task(self) -> Task:
        """The task for the classes of the dataset.

        Raises:
            DataError: The dataset has labels of another kind.
        """
        named = self.recipe.task
        task: Task = TASKS.load(named.name)(self.dataset.class_names, **named.options)
        wanted = labels_for(task.labels)
        if wanted not in (self.dataset.task, *OF_ANY_DATASET):
            raise DataError(
                f"task: '{named.name}' needs labels for {wanted}, but dataset "
                f"'{self.recipe.dataset.name}' has labels for {self.dataset.task}; change one"
            )
        return task

    def data(self, stage: Stage, model: DomainModel) -> DomainDataModule:
        """Loaders that hold no more than what the stage's method may see."""
        method, seen = METHODS.load(stage.method.name), self.seen(stage)
        loading = self.recipe.data
        made = loading.generated or {}
        labelled = stage.roles.all if made else seen.shots
        data = DomainDataModule(
            self._read(self.dataset, model),
            domain_names=stage.roles.all,
            labelled=seen.labelled,
            unlabelled=seen.unlabelled,
            shots=Shots(seen.shots, self._augment(stage, labelled) if method.augmented else {}),
            preprocessing=self.preprocessing(model),
            augment=self._augment(stage) if method.augmented or _as_trained(stage) else {},
            loading=Loading(
                loading.batch_size,
                loading.eval_batch_size,
                loading.num_workers,
                stage.seed,
                original_masks=self.recipe.evaluation.mask_size == "original",
                balance=method.balance,
                strong=method.views == "two",
                stream=Stream(loading.stream_order, loading.stream_batch_size, loading.stream_run)
                if method.protocol == "online"
                else None,
                sampling=_sampler(loading.sampling),
                sampling_temperature=loading.sampling_temperature,
                generated=float(made.get("weight", 1)),
                degrade=self._degrade,
            ),
            attributes=loading.attributes,
        )
        data.counts = self.counts
        return data

    @property
    def _degrade(self) -> Degradation | None:
        """What makes images worse, for a network that restores them."""
        given = self.recipe.data.degrade
        return None if given is None else Degradation(**given)

    def scoring_data(
        self, stage: Stage, model: DomainModel, labelled: Sequence[str], unlabelled: Sequence[str]
    ) -> DomainDataModule:
        """Loaders for scores of a finished model or epoch, apart from those that its method has.

        Args:
            stage: Whose model is scored.
            model: It.
            labelled: Domains whose labelled validation images are looked at.
            unlabelled: Domains whose training images are, without labels.
        """
        loading = self.recipe.data
        return DomainDataModule(
            self._read(self.dataset, model),
            domain_names=stage.roles.all,
            labelled=labelled,
            unlabelled=unlabelled,
            preprocessing=self.preprocessing(model),
            loading=Loading(
                eval_batch_size=loading.eval_batch_size,
                num_workers=loading.num_workers,
                degrade=self._degrade,
            ),
            attributes=loading.attributes,
        )

    def _read(self, dataset: DomainDataset, model: DomainModel) -> DomainDataset:
        """A dataset behind the cache of the recipe; of what it keeps twins are made."""
        if isinstance(dataset, WithGenerated):
            return dataset.over(self._read(dataset.dataset, model))
        if isinstance(dataset, TwinDataset):
            kept = self._read(dataset.dataset, model)
            return dataset.with_size(kept, self.preprocessing(model))
        if self.recipe.data.cache is None:
            return dataset
        folder = Path(self.recipe.data.cache).expanduser()
        options = self.recipe.dataset.options
        return CachedDataset(dataset, folder, self.preprocessing(model), options)

    def preprocessing(self, model: DomainModel) -> Preprocessing:
        """What fits images to the model, by the recipe's sizes.

        Raises:
            DataError: Sizes that are no sizes, or that the network cannot take.
        """
        done = preprocessing_of(self.recipe, model)
        _check_patches(model, done.size)
        self.task().check_input(model, done.size)
        return done

    def method(self, stage: Stage, model: DomainModel, data: DomainDataModule) -> Method:
        """The method over its model and task."""
        task = self.task()
        if task.class_weights == "balanced":
            task.weigh_classes(data.class_frequency())
        task.set_window(data.crop)
        task.boundary = self.recipe.evaluation.boundary
        seen = self.recipe.backbone
        task.look_through(
            seen.name, pretrained=seen.pretrained, weights=seen.weights, **seen.options
        )
        method_class: Any = METHODS.load(stage.method.name)
        method: Method = method_class(model, task, stage.roles, **stage.method.options)
        method.restore = data.evaluation_pipeline.preprocessing.with_mask
        method.clip = self.recipe.trainer.gradient_clip
        method.accumulate = self.recipe.trainer.accumulate
        own = method.teacher is not None  # which a method of another package may have, too
        if self.recipe.trainer.ema is not None and method.may_average and not own:
            method.follow(self.recipe.trainer.ema)
        return method

    def _augment(self, stage: Stage, shots: Iterable[str] = ()) -> dict[str, Any]:
        """Steps of every domain: its own, else those of ``source`` or ``target``, else the default.

        Images whose labels a method sees have the steps of ``source``, a target's too: an oracle
        is trained as a source model is, and moments ``as_trained`` are those of such images. Those
        of ``shots``, too, where these are asked for.
        """
        given = self.recipe.augment
        labelled = (*domains_of(METHODS.load(stage.method.name).labelled, stage.roles), *shots)
        if _as_trained(stage):
            labelled = stage.roles.all
        roles = {name: "source" if name in labelled else "target" for name in stage.roles.all}
        roles |= dict.fromkeys(stage.roles.source, "source")
        steps = {name: steps_for(given, name, role) for name, role in roles.items()}
        return {name: self._with_styles(one, name, stage) for name, one in steps.items()}

    def _with_styles(self, steps: Any, domain: str, stage: Stage) -> Any:
        """Steps with their translators in the place of folders.

        `Translate` is left out, as `FDA` is, where all of its styles are those of domains that the
        method may not see.
        """
        if isinstance(steps, Mapping):
            return {key: self._with_styles(one, domain, stage) for key, one in steps.items()}
        seen = self.seen(stage)
        hidden = {*stage.roles.all} - {*seen.labelled, *seen.unlabelled, *seen.shots}
        done = []
        for step in steps:
            name, given = arguments_of(step)
            if name == "Translate":
                styles = self._styles(given["run"], "augment: Translate.run")
                asked = styles.others(given.get("to"), domain, stage.roles.all)
                if not (shown := [one for one in asked if one not in hidden]):
                    continue
                done.append({"name": name, **given, "run": styles, "to": shown})
            else:
                done.append(step)
        return done


def _sampler(asked: Any) -> Any:
    """What draws training images: a word as it is, or the sampler of another package."""
    if isinstance(asked, str):
        return asked
    return SAMPLERS.create(asked["name"], **{k: of for k, of in asked.items() if k != "name"})


def _in_style(styles: Styles, style: str, image: Pixels, file: str) -> Pixels:
    """An image of a translated twin."""
    return styles(image, style)


def _as_trained(stage: Stage) -> bool:
    """Whether moments are estimated on images as the source model saw its own."""
    method = METHODS.load(stage.method.name)
    return not method.augmented and stage.method.options.get("moments") == "as_trained"


def _check_patches(model: DomainModel, size: tuple[int, int]) -> None:
    """Refuse what a network whose positions are fixed would refuse in its first batch."""
    for module in model.modules():
        made_for = getattr(module, "img_size", None)
        if getattr(module, "strict_img_size", False) and made_for and tuple(made_for) != size:
            raise DataError(
                f"data.image_size, data.crop_size: {size[0]} × {size[1]} pixels, but this network "
                f"is made for {made_for[0]} × {made_for[1]}; set backbone.options: {{img_size: "
                f"{list(size)}}}, or the sizes to that"
            )
