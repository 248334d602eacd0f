"""Loaders of one transfer: mixed training batches, and one evaluation loader per domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from domainnorm.data.augmentation.pipeline import (
    STRONG_VIEW,
    Pipeline,
    References,
    Steps,
    build_pipeline,
)
from domainnorm.data.augmentation.rand_stain_na import Colours, colours_of
from domainnorm.data.class_counts import ClassCounts
from domainnorm.data.dataset import (
    DomainDataset,
    Split,
    attributes_of,
    check_attributes,
    check_labelled,
    check_splits,
    select_domains,
)
from domainnorm.data.images import read_all
from domainnorm.data.preprocessing import Preprocessing
from domainnorm.data.sampler import (
    ClassDraws,
    DomainBalancedBatchSampler,
    Draw,
    Loading,
    OwnDraws,
)
from domainnorm.data.view import DomainImages, DomainView, Shots, join
from domainnorm.errors import DataError, counted, unknown
from domainnorm.ranges import problem_of_sampling

Batch = dict[str, Any]
_MEASURED = 1000  # images whose colours are measured


class DomainDataModule(LightningDataModule):
    """Batches ``{"image", "target", "domain", "index", "labelled"}`` of one transfer's domains.

    Training batches mix labelled and unlabelled domains. Targets of unlabelled domains, except
    ``shots``, are -1 before any batch exists. Validation only covers labelled domains, so that no
    label of an unlabelled domain can choose a checkpoint. Tests cover every domain, with labels.
    Use it with ``Trainer(use_distributed_sampler=False)``: batches and evaluation images are
    already divided among ranks, and evaluation repeats no image.

    Args:
        dataset: The images.
        domain_names: The transfer's domains; a domain label is a position in this list.
        labelled: Domains whose labels reach training and validation.
        unlabelled: Domains whose images reach training without labels.
        preprocessing: The backbone's.
        augment: Steps of the training pipeline by domain name; ``default`` is for domains without
            an entry. Without ``default`` these have no steps.
        loading: Batch sizes, workers and seed.
        attributes: Names of metadata that batches carry, ``attributes`` -> name -> list of text;
            empty where it is missing.
        shots: Labelled images of further domains. For ``unlabelled`` domains they are a separate
            group in batches, beside the unlabelled images. Of other domains, training sees only
            these.

    Attributes:
        counts: Of classes in the dataset's images; data modules of one dataset may share them.

    Raises:
        DataError: An unknown domain or attribute, a domain without images in a split it needs, a
            labelled domain with an unlabelled image or with shots, or a wrong step; the message
            names the key or file.
    """

    def __init__(  # noqa: PLR0913 - what may be seen, and how
        self,
        dataset: DomainDataset,
        *,
        domain_names: Sequence[str],
        labelled: Sequence[str],
        unlabelled: Sequence[str],
        preprocessing: Preprocessing,
        augment: Mapping[str, Steps] | None = None,
        loading: Loading | None = None,
        attributes: Sequence[str] = (),
        shots: Shots | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.counts = ClassCounts(dataset)
        self.attributes = list(attributes)
        self.domain_names = select_domains("domain_names", domain_names, dataset.domain_names)
        self.labelled = _subset("labelled", labelled, self.domain_names)
        self.unlabelled = _subset("unlabelled", unlabelled, self.domain_names)
        both = sorted(set(self.labelled) & set(self.unlabelled))
        if both:
            raise DataError(f"unlabelled: {', '.join(both)} is also in labelled; choose one")
        self.shots = shots or Shots()
        for name in _subset("shots", list(self.shots.positions), self.domain_names):
            if name in self.labelled:
                raise DataError(f"shots: {name} is also in labelled, which shows all its labels")
        self.loading = loading or Loading()
        self.crop = preprocessing.crop
        self.evaluation_pipeline = Pipeline([], preprocessing.whole())
        self.training_pipelines = self._pipelines(augment or {}, preprocessing)
        self.shot_pipelines = self._pipelines(self.shots.augment, preprocessing)
        self._check_records()
        check_attributes(self.attributes, dataset)

    @property
    def class_names(self) -> list[str]:
        """Names of the K classes."""
        return self.dataset.class_names

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def seen_domains(self) -> list[str]:
        """Domains whose images reach training: labelled ones, unlabelled ones, those of shots."""
        return [*self.labelled, *self.unlabelled, *self._only_shots()]

    @property
    def val_domains(self) -> list[str]:
        """Domain of each validation loader."""
        return self.labelled

    @property
    def test_domains(self) -> list[str]:
        """Domain of each test loader; streams come first, the others show what they did."""
        streams = [] if self.loading.stream is None else self.unlabelled
        return [*streams, *(name for name in self.domain_names if name not in streams)]

    def setup(self, stage: str) -> None:
        """Before a fit or test on several devices: look whether each of them has something to do.

        Raises:
            DataError: Fewer images to evaluate on than devices.
        """
        _, world_size = self._rank()
        if world_size == 1:
            return  # one image is there, or the module would not be
        splits: dict[Split, list[str]] = {"val": self.val_domains, "test": self.test_domains}
        for split, domains in splits.items():
            for domain in domains:
                if (found := len(self.dataset.positions([domain], split))) < world_size:
                    raise DataError(
                        f"domain '{domain}': {counted(found, 'image')} in split {split}, expected "
                        f"one or more for each of the {world_size} devices; use at most {found} "
                        "devices (trainer.devices × trainer.num_nodes)"
                    )

    def class_frequency(self) -> Tensor:
        """`ClassCounts.frequency` of the training images with labels: (K,), float64."""
        positions = self.dataset.positions(self.labelled, "train")
        return self.counts.frequency([*positions, *self.shots.all])

    def train_dataloader(self) -> DataLoader[Batch]:
        """Mixed batches of all training domains, by domain; shots, then generated images, are last.

        Raises:
            DataError: No training domains, a batch smaller than their number, or a sampling that
                these labels cannot be drawn by.
        """
        pipelines = self.training_pipelines, self.shot_pipelines
        for pipeline in [of[name] for of in pipelines for name in self.seen_domains]:
            if pipeline.needs_colours:
                pipeline.set_colours(self._colours)
        view = self._view(self.seen_domains, "train", self.labelled, training=True)
        rank, world_size = self._rank()
        count = len(self.domain_names)
        # Shots are drawn as if they were a domain of their own, generated images beside theirs.
        made = set(self.dataset.generated(self.seen_domains))
        kinds = [(one in view.shots) + (one in made) for one in view.positions]
        groups = (view.domains + count * torch.tensor(kinds)).tolist()
        own = {one % count: one for one in sorted(set(groups), reverse=True)}
        beside = {one: own[one % count] for one in set(groups) if one >= 2 * count}
        known = {self.domain_names.index(name) for name in self.labelled}
        labelled = {group for group in groups if group in known or group >= count}
        roles = None
        if self.loading.balance == "role":
            roles = {group: "labelled" if group in labelled else "unlabelled" for group in groups}
        sampler = DomainBalancedBatchSampler(
            groups,
            roles=roles,
            by_class=self._by_class(view, groups, labelled),
            beside=beside,
            weight=self.loading.generated,
            batch_size=self.loading.batch_size,
            seed=self.loading.seed,
            epoch=self._epoch,
            rank=rank,
            world_size=world_size,
        )
        return self._loader(view, batch_sampler=sampler)

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each labelled domain, with labels, in the order of `val_domains`."""
        return [self.evaluation_dataloader(domain, "val") for domain in self.val_domains]

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """One loader for each of `streams` and each other domain, as `test_domains` has them."""
        alone = map(self.evaluation_dataloader, self._alone())
        return [*map(self._stream, self.streams), *alone]

    def test_titles(self) -> list[str]:
        """What each loader of tests has images of."""
        return [*map(" + ".join, self.streams), *self._alone()]

    def _alone(self) -> list[str]:
        streamed = [name for domains in self.streams for name in domains]
        return [name for name in self.test_domains if name not in streamed]

    def evaluation_dataloader(
        self, domain: str, split: Split = "test", *, whole: bool = False
    ) -> DataLoader[Batch]:
        """Images of a domain with labels, in the order of the dataset; some for each rank.

        Args:
            domain: Its name.
            split: Of the images.
            whole: Whether each rank gets all of them.
        """
        view = self._view([domain], split, [domain])
        rank, world_size = (0, 1) if whole else self._rank()
        # Padding ranks to equal length would count some images twice.
        shard = list(range(rank, len(view), world_size))
        return self._loader(view, sampler=shard, batch_size=self.loading.eval_batch_size)

    @property
    def streams(self) -> list[tuple[str, ...]]:
        """Domains of each stream that a method is to follow in the test."""
        if self.loading.stream is None:
            return []
        joins = self.loading.stream.joins
        return [tuple(self.unlabelled)] if joins else [(name,) for name in self.unlabelled]

    def arrivals(self, domain: str) -> list[int]:
        """Positions in ``dataset.records`` of the images of a stream, as they come; else none."""
        for domains in self.streams:
            if domain in domains:
                view, order = self._arriving(domains)
                came = (view.positions[number] for number in order)
                return [one for one in came if self.dataset.records[one].domain == domain]
        return []

    def domain_dataloader(
        self, split: Split, *, domains: Sequence[str] | None = None, mixed: bool = False
    ) -> DataLoader[Batch]:
        """Images of domains that the method may see, whole and not augmented, no class labels.

        All ranks get all images in one order.

        Args:
            split: Of the images.
            domains: Which of `seen_domains`; all of them when None.
            mixed: Whether batches mix domains, drawn anew in each pass; else these follow each
                other, as the files do.

        Raises:
            DataError: A domain that the method may not see.
        """
        seen = self.seen_domains
        chosen = seen if domains is None else _subset("domains", domains, seen)
        view = self._view(chosen, split, [])
        return self._loader(view, batch_size=self.loading.eval_batch_size, shuffle=mixed)

    def scoring_dataloader(self, domain: str, most: int | None = None) -> DataLoader[Batch]:
        """Some whole images that a model is scored on, the same ones in one order for every model.

        Of an unlabelled domain training images, each with a strong view; of a labelled one
        validation images with their labels. All ranks get all.

        Args:
            domain: One of `seen_domains`.
            most: Largest number of images; None for all there are.

        Raises:
            DataError: Another domain.
        """
        _subset("domain", [domain], self.seen_domains)
        split: Split = "val" if domain in self.labelled else "train"
        steps = {"weak": [], "strong": STRONG_VIEW}
        view = DomainView(
            self.dataset,
            self._positions([domain], split),
            domain_names=self.domain_names,
            labelled=self.labelled,
            pipelines={domain: build_pipeline(steps, self.evaluation_pipeline.preprocessing)},
            attributes=self.attributes,
            strong=split == "train",
            degrade=self.loading.degrade,
        )
        order = np.random.default_rng(0).permutation(len(view))[:most].tolist()
        drawn = [Draw(position, position) for position in order]
        return self._loader(view, sampler=drawn, batch_size=self.loading.eval_batch_size)

    def domain_attributes(self, split: Split) -> list[tuple[dict[str, list[str]], Tensor]]:
        """Attributes and domain labels (N,) of the images of `domain_dataloader`, in one batch."""
        positions = self._positions(self.seen_domains, split)
        records = [self.dataset.records[position] for position in positions]
        labels = [self.domain_names.index(record.domain) for record in records]
        return [(attributes_of(records, self.attributes), torch.tensor(labels))]

    def _only_shots(self) -> list[str]:
        return [name for name in self.shots.positions if name not in self.unlabelled]

    def _positions(self, domains: Sequence[str], split: Split) -> list[int]:
        """Images of domains that may be seen: of some the shots alone."""
        found = self.dataset.positions(domains, split)
        if split != "train" or not (only := self._only_shots()):
            return found
        shots, records = set(self.shots.all), self.dataset.records
        return [one for one in found if one in shots or records[one].domain not in only]

    def _by_class(
        self, view: DomainView, groups: Sequence[int], labelled: Iterable[int]
    ) -> dict[int, ClassDraws | OwnDraws]:
        """How images of each labelled group are drawn; none for uniform draws."""
        sampling = self.loading.sampling
        draws: dict[int, ClassDraws | OwnDraws] = {}
        known = isinstance(sampling, str)
        if known and (problem := problem_of_sampling(str(sampling), self.dataset.task)):
            raise DataError(f"data.sampling: {problem}")
        for label in sorted(labelled) if sampling != "uniform" else []:
            positions = np.flatnonzero(np.asarray(groups) == label)
            seen = [view.positions[position] for position in positions]
            if not isinstance(sampling, str):
                records = [self.dataset.records[one] for one in seen]
                draws[label] = OwnDraws(positions, records, sampling)
                continue
            counts = self.counts.of(seen)
            if not counts.any():
                name = self.domain_names[label % len(self.domain_names)]
                raise DataError(
                    f"domain '{name}': no training image has a class, but data.sampling: "
                    f"{sampling} draws images by class; set it to uniform"
                )
            temperature = self.loading.sampling_temperature if sampling == "rare" else None
            draws[label] = ClassDraws.of(positions, counts, temperature)
        return draws

    def _stream(self, domains: tuple[str, ...]) -> DataLoader[Batch]:
        assert self.loading.stream is not None
        view, order = self._arriving(domains)
        return self._loader(view, sampler=order, batch_size=self.loading.stream.batch_size)

    def _arriving(self, domains: tuple[str, ...]) -> tuple[DomainView, list[int]]:
        """Images of a stream, and the order in which they come."""
        assert self.loading.stream is not None
        view = self._view(domains, "test", domains)
        stream, seed = self.loading.stream, self.loading.seed
        return view, stream.positions(self.dataset, domains, view.positions, seed)

    def _view(
        self, domains: Sequence[str], split: Split, seen: Sequence[str], *, training: bool = False
    ) -> DomainView:
        """Images, with the labels of those domains whose labels are ``seen``, and of shots.

        In training with generated ones, which are treated as shots are.
        """
        made = self.dataset.generated(domains) if training else []
        shots = [*self.shots.all, *made] if training else []
        owners = [self.dataset.records[position].domain for position in shots]
        return DomainView(
            self.dataset,
            [*self._positions(domains, split), *made],
            domain_names=self.domain_names,
            labelled=seen,
            pipelines={
                name: self.training_pipelines[name] if training else self.evaluation_pipeline
                for name in domains
            },
            attributes=self.attributes,
            originals=self.loading.original_masks and split == "test" and bool(seen),
            strong=training and self.loading.strong,
            shots=dict(zip(shots, map(self.shot_pipelines.__getitem__, owners), strict=True)),
            degrade=self.loading.degrade,
        )

    def _loader(self, view: DomainView, **options: Any) -> DataLoader[Batch]:
        workers = self.loading.num_workers
        return DataLoader(
            view,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_one_thread,
            collate_fn=join,
            # Otherwise making an iterator would draw from, and so shift, the global generator.
            generator=torch.Generator().manual_seed(self.loading.seed),
            **options,
        )

    def _pipelines(
        self, augment: Mapping[str, Steps], preprocessing: Preprocessing
    ) -> dict[str, Pipeline]:
        known = ["default", *self.dataset.domain_names]
        for name in augment:
            if name not in known:
                raise DataError(f"augment.{name}: {unknown('domain', name, known)}")
        return {
            domain: build_pipeline(
                augment.get(key, []), preprocessing, f"augment.{key}", self._references(domain)
            )
            for domain in self.domain_names
            for key in [domain if domain in augment else "default"]
        }

    def _references(self, domain: str) -> References | None:
        """Training images of the other domains that the method may see."""
        others = [name for name in self.seen_domains if name != domain]
        positions = self._positions(others, "train")
        return DomainImages(self._without_labels, positions) if positions else None

    @cached_property
    def _colours(self) -> Colours:
        """Colours of the training images that the method may see, or of some of them."""
        positions = self._positions(self.seen_domains, "train")
        drawn = np.random.default_rng((self.loading.seed, 4)).permutation(positions)
        return colours_of(read_all(self._without_labels.image, drawn[:_MEASURED].tolist()))

    @cached_property
    def _without_labels(self) -> DomainDataset:
        # Once for all domains: it copies every record.
        return self.dataset.without_labels(self.dataset.domain_names)

    def _check_records(self) -> None:
        unlabelled = [*self.unlabelled, *self._only_shots()]
        check_splits(self.dataset, self.domain_names, self.labelled, unlabelled)
        if self.loading.original_masks:
            for domain in self.domain_names:
                self._check_whole(domain)
        if self.loading.degrade is None:
            check_labelled(self.dataset, self.labelled)

    def _check_whole(self, domain: str) -> None:
        """Whether the first mask of a domain fits the input: better before training than after."""
        for position in self.dataset.positions([domain], "test"):
            if self.dataset.records[position].mask is not None:
                mask = torch.zeros(self.dataset.original_mask(position).shape)
                self.evaluation_pipeline.preprocessing.with_mask(torch.zeros(1, 1, 1), mask)
                return

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

    def _rank(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _subset(key: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    return select_domains(key, names, known) if names else []


def _one_thread(worker: int) -> None:
    # Workers share the cores already; OpenCV would start a thread per core in each of them.
    cv2.setNumThreads(0)
