"""Training batches that hold equal parts of every domain, and the order of a stream."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from domainnorm.data.augmentation.degradation import Degradation
from domainnorm.data.dataset import DomainDataset, Record
from domainnorm.errors import DataError
from domainnorm.ranges import Sampling, StreamOrder

_Integers = NDArray[np.int64]


class Draw(NamedTuple):
    """One sample of a batch.

    Args:
        position: Position in the training view.
        seed: Seed of this sample's augmentation.
    """

    position: int
    seed: int


class ClassDraws(NamedTuple):
    """How the images of one domain are drawn by their classes.

    Args:
        members: For each of C classes that occur, positions of the images that hold it.
        rates: Probability of each class (C,); None for classes in rotation, each equally often.
    """

    members: list[_Integers]
    rates: NDArray[np.float64] | None

    @classmethod
    def of(cls, positions: _Integers, counts: _Integers, temperature: float | None) -> ClassDraws:
        """Classes in rotation without a temperature T, else rare ones more often.

        ``p_c ∝ exp((1 - f_c) / T)`` over the classes that occur, ``f_c`` being the share of class c
        in all that the domain's images hold of any class; then an image that holds c. With a small
        T nearly all draws are of the rarest class, if the next one has a share larger by some T.

        Args:
            positions: Of the domain's images in the training view, (N,).
            counts: Pixels of each class in each image, or 1 for its class, (N, K).
            temperature: T > 0, or None.

        Reference:
            Hoyer et al., DAFormer, CVPR 2022, arXiv:2111.14887, eq. 10 and 11 (T = 0.01).
            Differs: images of a class follow each other in random order, where the paper draws with
            replacement; any pixel of a class counts, where the authors' code asks for 3000 and cuts
            crops until one holds half of them. Of images with one class each, ``f_c`` is its share
            of the images.
        """
        total = counts.sum(0)
        present = np.flatnonzero(total)
        members = [positions[counts[:, label] > 0] for label in present]
        if temperature is None:
            return cls(members, None)
        share = total[present] / total.sum()
        powers = np.exp((share.min() - share) / temperature)
        return cls(members, powers / powers.sum())

    def drawn(self, key: tuple[int, ...], length: int) -> _Integers:
        """Positions in the training view, a function of the key: (length,)."""
        # Longer keys than those of `_permuted`, so that no stream equals another.
        generator = np.random.Generator(np.random.PCG64((*key, 0, 0)))
        count = len(self.members)
        if self.rates is None:
            classes = np.resize(generator.permutation(count), length)
        else:
            classes = generator.choice(count, length, p=self.rates)
        drawn = np.empty(length, dtype=np.int64)
        for one, members in enumerate(self.members):
            places = np.flatnonzero(classes == one)
            drawn[places] = _permuted(members, (*key, 1 + one), len(places))
        return drawn


class ImageSampler(Protocol):
    """What a sampler of another package has: how images of a domain with labels are drawn.

    A class constant ``tasks`` names the labels that it is for; all where it has none.
    """

    def draw(
        self, records: Sequence[Record], length: int, generator: np.random.Generator
    ) -> _Integers:
        """Which images follow each other in an epoch: positions in ``records``, (length,).

        Args:
            records: Training images of the domain.
            length: Draws of all devices together.
            generator: Of the run's seed, the epoch and the domain. All that is random has to come
                from it: a resumed run, and other devices, ask again.
        """


class OwnDraws(NamedTuple):
    """Images of one domain, drawn by a sampler of another package.

    Args:
        positions: Of the domain's images in the training view, (N,).
        records: Of the same images.
        sampler: Draws them.
    """

    positions: _Integers
    records: Sequence[Record]
    sampler: ImageSampler

    def drawn(self, key: tuple[int, ...], length: int) -> _Integers:
        """Positions in the training view, a function of the key: (length,).

        Raises:
            DataError: The sampler gives something else than positions of its images.
        """
        generator = np.random.Generator(np.random.PCG64((*key, 0, 0)))
        found = np.asarray(self.sampler.draw(self.records, length, generator))
        count, name = len(self.records), type(self.sampler).__name__
        if found.shape != (length,) or found.dtype.kind not in "iu":
            came = f"{found.dtype} of shape {found.shape}"
        elif length and not 0 <= found.min() <= found.max() < count:
            came = f"numbers from {found.min()} to {found.max()}"
        else:
            return self.positions[found]
        raise DataError(
            f"data.sampling: {name}.draw gave {came}, expected {length} positions of {count} images"
        )


class DomainBalancedBatchSampler(Sampler[list[Draw]]):
    """Batches with an equal share of every domain, or of every role, sorted by domain.

    A batch takes ``batch_size // D`` samples of each of the D domains; the remainder goes to
    domains in rotation. With ``roles`` it is divided among the roles first, and the share of a role
    among its domains: one target weighs as much as five sources. An epoch shows every sample at
    least once, and smaller domains start over. Each domain is a stream of permutations of its
    samples, made anew for every pass and every epoch. Batches
    are a function of (seed, epoch, rank) alone, so a resumed run sees the batches it would have
    seen. Ranks take neighbouring, disjoint slices of the same stream.

    Images of domains in ``by_class`` are drawn as these say, by their classes for instance: a
    stream of classes, and for each class a stream of permutations of its images. Domains have the
    same shares, and epochs as many batches, but an epoch need not show every image.

    Images ``beside`` a domain take a part of its share, ``weight`` of them for each of its own, but
    leave it one in each batch. Epochs have as many batches as without.

    Args:
        domains: Domain label of every position of the training view.
        roles: Domain label -> its role; each domain is a role of its own when None.
        by_class: Domain label -> how its images are drawn; those of others are permuted.
        beside: Label of images that are no domain of their own -> label of their domain.
        weight: See above, more than 0.
        batch_size: Samples of one batch on one rank.
        seed: Non-negative seed of the run.
        epoch: Gives the epoch; read whenever an iterator is made, because Lightning sets the
            epoch of samplers too late when it resumes (Lightning issue #21938).
        rank: This process, in ``0 .. world_size - 1``.
        world_size: Number of processes.

    Raises:
        DataError: No samples, a batch smaller than the number of domains, or none that has a place
            for images beside one.
    """

    def __init__(  # noqa: PLR0913 - what an epoch consists of
        self,
        domains: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        epoch: Callable[[], int],
        roles: Mapping[int, str] | None = None,
        by_class: Mapping[int, ClassDraws | OwnDraws] | None = None,
        beside: Mapping[int, int] | None = None,
        weight: float = 1.0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        labels = np.asarray(domains, dtype=np.int64)
        self.positions = {
            int(label): np.flatnonzero(labels == label) for label in np.unique(labels)
        }
        if not self.positions:
            raise DataError("train: no images to draw batches from; add images to the split train")
        self.beside, self.weight = beside or {}, weight
        check_batch_size(batch_size, len(self.positions) - len(self.beside))
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world_size = world_size
        self.by_class = by_class or {}
        self._members = self._by_role(roles)
        sizes = np.array([len(found) for found in self.positions.values()])
        needed = np.zeros_like(sizes)
        for members in self._members:
            needed[members] = sizes[members].max()
        self.num_batches = math.ceil(int(needed.sum()) / (batch_size * world_size))
        while (self._of_domains().sum(axis=0) * world_size < needed).any():
            self.num_batches += 1
        if not self._shares().any(axis=0).all():
            raise DataError(
                f"data.generated: batches of {batch_size} and weight {weight:g} leave no place for "
                "generated images; raise data.batch_size or data.generated.weight"
            )

    def __len__(self) -> int:
        """Batches of one epoch on one rank."""
        return self.num_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        """Batches of the present epoch."""
        return self._batches(self.epoch())

    def _batches(self, epoch: int) -> Iterator[list[Draw]]:
        shares = self._shares()  # (batches, D)
        totals = shares.sum(axis=0) * self.world_size
        streams = [
            self._stream(epoch, label, int(total))
            for label, total in zip(self.positions, totals, strict=True)
        ]
        starts = (shares.cumsum(axis=0) - shares) * self.world_size + shares * self.rank
        for first, last in zip(starts.tolist(), (starts + shares).tolist(), strict=True):
            yield [
                Draw(*pair)
                for stream, start, stop in zip(streams, first, last, strict=True)
                for pair in stream[start:stop].tolist()
            ]

    def _by_role(self, roles: Mapping[int, str] | None) -> list[list[int]]:
        """Columns of the domains of each role, in the order of `positions`."""
        columns: dict[str, list[int]] = {}
        for column, label in enumerate(self.positions):
            if label not in self.beside:
                columns.setdefault("" if roles is None else roles[label], []).append(column)
        return list(columns.values())

    def _shares(self) -> _Integers:
        """Samples of each domain, and of what is beside it, in each batch of one rank."""
        shares = self._of_domains()
        columns = {label: column for column, label in enumerate(self.positions)}
        for label, domain in self.beside.items():
            total = shares[:, columns[domain]]
            ends = np.floor(total.cumsum() * self.weight / (1 + self.weight)).astype(np.int64)
            added = np.minimum(np.diff(ends, prepend=0), np.maximum(total - 1, 0))
            shares[:, columns[label]] = added
            shares[:, columns[domain]] = total - added
        return shares

    def _of_domains(self) -> _Integers:
        """Samples of each domain in each batch of one rank, with those beside it."""
        shares = np.zeros((self.num_batches, len(self.positions)), dtype=np.int64)
        of_roles = _divided(np.full(self.num_batches, self.batch_size), len(self._members))
        for members, totals in zip(self._members, of_roles.T, strict=True):
            shares[:, members] = _divided(totals, len(members))
        return shares

    def _stream(self, epoch: int, label: int, length: int) -> _Integers:
        """Positions and seeds of the draws of one domain in one epoch: (length, 2)."""
        seeds = np.random.SeedSequence((self.seed, epoch, label)).generate_state(length)
        key = (self.seed, epoch, label)
        if label in self.by_class:
            positions = self.by_class[label].drawn(key, length)
        else:
            positions = _permuted(self.positions[label], key, length)
        return np.stack([positions, seeds], axis=1)


def _permuted(positions: _Integers, key: tuple[int, ...], length: int) -> _Integers:
    """The first draws of permutations of some positions, made anew for every pass: (length,)."""
    passes = [
        np.random.Generator(np.random.PCG64((*key, number))).permutation(positions)
        for number in range(math.ceil(length / len(positions)))
    ]
    return np.concatenate([*passes, positions[:0]])[:length]


def _divided(totals: _Integers, parts: int) -> _Integers:
    """Each total (B,) in equal parts, (B, parts); what is left goes to the parts in rotation."""
    ends = totals.cumsum()
    dealt = [(bound[:, None] + np.arange(parts)[::-1]) // parts for bound in (ends, ends - totals)]
    return dealt[0] - dealt[1]


def check_batch_size(batch_size: int, num_domains: int) -> None:
    """Raise a DataError for batches that cannot hold a sample of every domain."""
    if batch_size < num_domains:
        raise DataError(
            f"data.batch_size: {batch_size} for {num_domains} training domains; every batch holds "
            f"each of them, so use at least {num_domains}"
        )


@dataclass(frozen=True)
class Stream:
    """How test images reach a method that adapts while it predicts.

    Of each domain a stream of its own: ``shuffled``; ``by_class``, one class after the other,
    shuffled within; or ``stored``, as the dataset lists them. Or one of all domains, shuffled
    within each: ``continual``, one domain after the other; ``returning``, domains in turn, several
    times; ``gradual``, the share of a domain rises and falls linearly while the one before and
    the one after it fall and rise; or ``mixed``, all shuffled together.

    Args:
        order: See above.
        batch_size: Images of one batch.
        run: Images until another class or domain comes, under ``by_class`` and ``returning``; None
            for all of a class, and for a third of each domain.
    """

    order: StreamOrder = "shuffled"
    batch_size: int = 64
    run: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DataError(f"stream.batch_size: {self.batch_size}, expected 1 or more")

    @property
    def joins(self) -> bool:
        """Whether several domains are one stream."""
        return self.order in ("continual", "returning", "gradual", "mixed")

    def positions(
        self, dataset: DomainDataset, domains: Sequence[str], images: Sequence[int], seed: int
    ) -> list[int]:
        """Positions in ``images``, in the stream's order.

        Args:
            dataset: Whose records they are.
            domains: Names of their domains, in the order in which these come.
            images: Positions in ``dataset.records``.
            seed: Of what is drawn.

        Raises:
            DataError: By class, and images have not one each.
        """
        if self.order == "stored":
            return list(range(len(images)))
        drawn = np.random.default_rng((seed, 3))
        order = drawn.permutation(len(images))
        if self.order == "by_class":
            if dataset.task != "classification":
                text = "stream.order: 'by_class' is for images of one class; take 'shuffled'"
                raise DataError(text)
            found = np.asarray([dataset.records[one].target for one in images])[order]
            runs = _runs([order[found == one] for one in np.unique(found)], self.run)
            chosen = drawn.permutation(len(runs)) if self.run else range(len(runs))
            order = np.concatenate([runs[number][1] for number in chosen])
        elif self.order in ("continual", "returning", "gradual"):
            found = np.asarray([dataset.records[one].domain for one in images])[order]
            order = self._in_turn([order[found == name] for name in domains], drawn)
        return [int(position) for position in order]

    def _in_turn(self, groups: Sequence[_Integers], drawn: np.random.Generator) -> _Integers:
        """Shuffled images of each domain, one domain after the other in the way of the order."""
        if self.order == "gradual":  # the sum of two uniform numbers has a triangular density
            pairs = enumerate(groups)
            times = [number + drawn.random((2, len(one))).sum(0) for number, one in pairs]
            return np.concatenate(groups)[np.concatenate(times).argsort()]
        size = None
        if self.order == "returning":
            size = self.run or max(1, math.ceil(max(map(len, groups)) / 3))
        visits = sorted(_runs(groups, size), key=operator.itemgetter(0))  # domains stay in order
        return np.concatenate([run for _, run in visits])


def _runs(groups: Sequence[_Integers], size: int | None) -> list[tuple[int, _Integers]]:
    """Groups cut into pieces of ``size``, each with its number within its group."""
    pieces = []
    for one in groups:
        size_of_one = size or max(1, len(one))
        starts = range(0, len(one), size_of_one)
        pieces += [(number, one[at : at + size_of_one]) for number, at in enumerate(starts)]
    return pieces


@dataclass(frozen=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: Training images of one batch on one rank, all domains together.
        eval_batch_size: Images of one validation or test batch on one rank.
        num_workers: Processes that decode and augment; 0 does it in the main process.
        seed: Non-negative seed of batches and augmentation.
        original_masks: Test batches also carry masks at their own sizes, a list of (h, w) as
            ``original``.
        balance: Which parts of a training batch are equal: all domains (``domain``), or labelled
            and unlabelled domains (``role``).
        sampling: How images of labelled domains are drawn for training: ``uniform`` over images,
            ``balanced`` over classes, ``rare``, rare classes more often (see `ClassDraws`), or as
            an object draws them.
        sampling_temperature: Only for ``rare``, above 0: larger values make classes more equal.
        generated: Generated images in training batches for each real one of their domain, above 0.
        strong: Training batches carry the second view, if pipelines have one.
        stream: Order of test images of unlabelled domains, for methods that adapt while they
            predict; None if the order does not matter.
        degrade: What makes images worse; the images as they were become the targets.
    """

    batch_size: int = 32
    eval_batch_size: int = 64
    num_workers: int = 0
    seed: int = 0
    original_masks: bool = False
    balance: Literal["domain", "role"] = "domain"
    strong: bool = True
    stream: Stream | None = None
    sampling: Sampling | ImageSampler = "uniform"
    sampling_temperature: float = 0.01
    generated: float = 1.0
    degrade: Degradation | None = None

    def __post_init__(self) -> None:
        bounds = {"batch_size": 1, "eval_batch_size": 1, "num_workers": 0, "seed": 0}
        for name, least in bounds.items():
            if getattr(self, name) < least:
                raise DataError(f"{name}: {getattr(self, name)}, expected {least} or more")
        for name in ("sampling_temperature", "generated"):
            if not getattr(self, name) > 0:
                raise DataError(f"{name}: {getattr(self, name)}, expected a positive number")
