"""Domain encoder: an embedding, and the known domains as Gaussians in its space."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from domainnorm.condition import Estimate as Estimate  # noqa: PLC0414 - encoders offer it
from domainnorm.encoders.gaussians import DomainGaussians
from domainnorm.errors import ConditionError, DomainNormError
from domainnorm.ranges import problem_of_embedding
from domainnorm.registry import ENCODERS

# Column -> a value for each image of a batch: text, a number, or None where it is missing.
Attributes: TypeAlias = Mapping[str, Sequence[str | float | None]]


class Batches(Protocol):
    """Pairs of what an encoder reads and domain labels (N,), as often as they are asked for.

    It reads images (N, C, H, W), or where ``reads_attributes`` is set their `Attributes`.
    """

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]: ...

    def __len__(self) -> int: ...


def check_sizes(**sizes: int) -> None:
    """Refuse sizes of an encoder, by their names, that are below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise DomainNormError(f"encoder.{name}: got {size}, expected 1 or more")


class DomainEncoder(nn.Module, abc.ABC):
    """Estimates the domain of each image.

    ``features`` turns images into vectors (N, F). These are standardized, and a small MLP maps them
    to embeddings (N, E); the domains are `DomainGaussians` in that space. `fit_encoder` trains it.
    Calls never change its state, not even in training mode. Gradients reach the image and the MLP
    (in end-to-end training not the image, if features have no weights).

    Class constants: ``learns_features``, whether ``features`` has weights that training changes; if
    not, `fit_encoder` computes them once for each image. ``reads_backbone``: whether ``reached``
    gives them from what the model's first conditional norm sees, within the model's own pass.
    ``reads_attributes``: whether it takes attributes in the place of images everywhere.

    Args:
        num_domains: D.
        num_features: F.
        hidden: Units of the hidden layer of the MLP, at least 1.
        embedding: E, size of the embeddings, at least 1.

    Raises:
        DomainNormError: A width or size below 1.

    Shape:
        ``location``, ``spread``: (F,), what standardizes features.
    """

    learns_features: bool = False
    reads_backbone: bool = False
    reads_attributes: bool = False
    location: Tensor
    spread: Tensor

    def __init__(
        self, num_domains: int, num_features: int, *, hidden: int = 64, embedding: int = 16
    ) -> None:
        check_sizes(hidden=hidden, embedding=embedding)
        super().__init__()
        self.register_buffer("location", torch.zeros(num_features))
        self.register_buffer("spread", torch.ones(num_features))
        self.mlp = nn.Sequential(
            nn.Linear(num_features, hidden), nn.GELU(), nn.Linear(hidden, embedding)
        )
        self.gaussians = DomainGaussians(num_domains, embedding)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DomainEncoder:
        """Stay in float32 where a model is converted to a narrower type."""

        def wide(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            narrow = found.is_floating_point() and found.dtype.itemsize < torch.float32.itemsize
            return tensor.to(found.device) if narrow else found

        super()._apply(wide, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def num_domains(self) -> int:
        """D."""
        return len(self.gaussians.mean)

    @property
    def embedding_size(self) -> int:
        """E."""
        return self.gaussians.mean.shape[1]

    @abc.abstractmethod
    def features(self, image: Any) -> Tensor:
        """Images (N, C, H, W), normalized as the backbone takes them -> (N, F)."""

    def inputs(self, image: Tensor, attributes: Attributes | None) -> Any:
        """What it takes of what is known of a batch.

        Raises:
            ConditionError: Attributes are given, and it reads images.
        """
        if attributes is not None:
            raise ConditionError(
                "attributes: this model's encoder reads images; leave them out, or attach "
                "create_encoder('metadata', ...)"
            )
        return image

    def read(self, given: Any) -> Tensor:
        """Features (N, F) of a batch of a loader, moved to where the encoder is."""
        return self.features(self.wide(given.to(self.location.device)))

    def wide(self, image: Tensor) -> Tensor:
        """Images in float64 for an encoder in it, else in float32."""
        double = self.location.dtype == torch.float64
        return image.double() if double else image.float()

    def reached(self, maps: Tensor, number: int) -> Tensor:
        """Features (N, F) of ``number`` images from the input of the first norm, (R, C, *).

        Only where ``reads_backbone`` is set.
        """
        raise NotImplementedError

    def embed(self, features: Tensor) -> Tensor:
        """Features (N, F) -> embeddings (N, E)."""
        embedding: Tensor = self.mlp((features - self.location) / self.spread)
        return embedding

    def check_end_to_end(self, sizes: Iterable[int | None]) -> None:
        """Whether norms can follow it when it learns with them.

        Args:
            sizes: Of the embedding that each norm takes, None where it takes none.

        Raises:
            ConditionError: It reads what they normalize, or they take no embedding of its size.
        """
        if self.reads_backbone:
            raise ConditionError(
                "encoder: 'backbone' reads the input of the first norm, but that norm already "
                "needs the embedding; use 'style', 'cnn', 'metadata' or 'text'"
            )
        problem = problem_of_embedding(
            self.embedding_size, [size for size in sizes if size is not None]
        )
        if problem:
            raise ConditionError(f"encoder: {problem}")

    def look(self, image: Tensor, attributes: Attributes | None, *, varied: bool) -> Tensor:
        """Features (N, F) of a batch, learned with the network or without any weights.

        Args:
            image: (N, C, H, W); where it reads attributes only N counts.
            attributes: Column -> a value for each image, None where it is missing.
            varied: As in training, where attributes are lost at random.

        Raises:
            ConditionError: Attributes are missing, do not fit, or are not what it reads.
        """
        if self.reads_attributes and attributes is None:
            raise ConditionError(
                "attributes: missing; the norms of this model need them: pass attributes="
                "{column: [value or None of each image]}, {} if nothing is known, or embedding="
            )
        given = self.inputs(image, attributes)
        fixed = torch.is_grad_enabled() and not self.learns_features
        with _full_precision(image), torch.no_grad() if fixed else nullcontext():
            seen = self.features(given if self.reads_attributes else self.wide(given))
            return self.varied(seen, None) if varied else seen

    def embedded(self, features: Tensor) -> Tensor:
        """Features (N, F) -> embeddings (N, E), whatever autocast does."""
        with _full_precision(features):
            return self.embed(features)

    def forward(self, image: Any) -> Estimate:
        """Estimate the domain of each image (N, C, H, W).

        Raises:
            ConditionError: It was not fitted.
        """
        self.check_fitted()
        # In float32: the moments and distances of narrow types are worth nothing.
        with torch.autocast(image.device.type, enabled=False):
            return self.judge(self.features(self.wide(image)))

    def prepare(self, training: Batches, generator: torch.Generator) -> None:
        """Before training: learn what features there are; nothing unless overridden."""

    def grow(self, images: Batches, generator: torch.Generator) -> None:
        """Before further domains: learn further features; nothing unless overridden."""

    def varied(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Features (N, F) as they may come later; the same unless overridden."""
        return features

    def examples(
        self, features: Tensor, domain: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """What the Gaussians are fitted to, features and labels; the same unless overridden."""
        return features, domain

    def shapes_in(self, stored: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Shapes of those of its tensors whose size goes by what a file has stored; none here."""
        return {}

    def check_fitted(self) -> None:
        """Refuse an encoder that knows no domain.

        Raises:
            ConditionError: It was not fitted.
        """
        if not torch.compiler.is_compiling() and not bool(self.gaussians.known.any()):
            raise ConditionError(
                "encoder: knows no domain yet; fit_encoder(encoder, training, held_out) first"
            )

    def judge(self, features: Tensor) -> Estimate:
        """What is said of images with these features, (N, F), float32."""
        with torch.autocast(features.device.type, enabled=False):
            embedding = self.embed(features)
            distance = self.gaussians(embedding)
            weights = self.gaussians.weights(distance)
        return Estimate(embedding, weights, distance, self.gaussians.is_known(distance))

    @torch.no_grad()
    def standardize(self, features: Tensor) -> None:
        """Take note of the mean and spread of features (N, F)."""
        self.location.copy_(features.mean(0))
        spread = features.std(0) if len(features) > 1 else torch.ones_like(self.spread)
        self.spread.copy_(spread.clamp(min=1e-4))  # a constant feature says nothing


def list_encoders() -> list[str]:
    """Names for `create_encoder`."""
    return ENCODERS.names()


def create_encoder(
    name: str,
    /,
    num_domains: int,
    network: nn.Module | None = None,
    in_chans: int = 3,
    **options: Any,
) -> DomainEncoder:
    """Make a domain encoder.

    Args:
        name: A name of `list_encoders` (``"style"``).
        num_domains: D.
        network: The backbone whose domain is estimated; an encoder may share parts of it.
        in_chans: Channels of the images.
        **options: Keywords of the encoder (``embedding``, …).

    Raises:
        UnknownNameError: No such encoder; the message gives the nearest.
        DomainNormError: An option it does not have.
    """
    made: DomainEncoder = ENCODERS.create(name, num_domains, network, in_chans, **options)
    return made


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Moments and distances of narrow types are worth nothing; exports take no such context."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
