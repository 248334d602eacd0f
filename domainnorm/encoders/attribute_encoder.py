"""Encoder of attributes: scanner, stain, hour or text as vectors, whatever is missing."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from domainnorm.encoders.base import Attributes, Batches, DomainEncoder, Estimate
from domainnorm.errors import CheckpointError, ConditionError, DomainNormError, unknown

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_MISSING = ("", "nan")  # what tables hold where there is nothing
# Of the examples an encoder learns from: share that lose every attribute, and number of each
# domain that means and covariance are made of.
_NOTHING, _EXAMPLES = 0.1, 1024


@dataclass(frozen=True)
class Vocabulary:
    """What is known of the columns, and where each of their values stands in a vector.

    A vector has, in this order: for each column how much of its value is missing or unknown (A
    places, 1 for all of it); for each column of numbers the number, standardized, 0 where it is
    missing; for each known part of a value of the other columns how much of it there is. So new
    parts are appended, and move no other. Here a value has one part, itself; see `parts`.

    Class constants: ``encoder``, the name of the encoder that has it; ``most``, how many parts of a
    column are learned at a time: a column with more names images rather than domains.

    Args:
        columns: Names of the A columns.
        numbers: Mean and spread of those that hold numbers.
        values: Known parts of the others as (column, part), in the order they were learned.
    """

    encoder: ClassVar[str] = "metadata"
    most: ClassVar[int] = 256
    columns: tuple[str, ...] = ()
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    values: tuple[tuple[str, str], ...] = ()

    def parts(self, column: str, text: str) -> Mapping[str, float]:
        """What a value is made of, and how much of each; squares sum to 1 where there is any."""
        return {text: 1.0}

    @property
    def size(self) -> int:
        """F; one place that is always 0 where there are no columns yet."""
        return max(1, len(self.columns) + len(self.numbers) + len(self.values))

    @property
    def owners(self) -> list[int]:
        """Position of the column that each of the F places belongs to."""
        names = [*self.columns, *self.numbers, *(column for column, _ in self.values)]
        return [self.columns.index(name) for name in names]

    def learned(self, attributes: Attributes) -> Self:
        """Columns all of whose values are numbers hold numbers, the others text."""
        numbers: dict[str, tuple[float, float]] = {}
        for column, given in attributes.items():
            present = [value for value in given if not is_missing(value)]
            found = [one for one in map(as_number, present) if one is not None]
            if present and len(found) == len(present):
                numbers[column] = statistics.fmean(found), statistics.pstdev(found) or 1.0
        empty = replace(self, columns=tuple(attributes), numbers=numbers, values=())
        return empty.extended(attributes)

    def extended(self, attributes: Attributes) -> Self:
        """With the further parts of its columns of text, the most frequent of each column."""
        further, known = [], set(self.values)
        for column in self.columns:
            if column in self.numbers:
                continue
            given = attributes.get(column, ())
            counts: Counter[str] = Counter()
            for text, count in Counter(
                as_text(one) for one in given if not is_missing(one)
            ).items():
                counts.update(dict.fromkeys(self.parts(column, text), count))
            new = sorted(part for part in counts if (column, part) not in known)
            chosen = sorted(new, key=lambda part: -counts[part])[: self.most]
            further += [(column, part) for part in sorted(chosen)]
        return replace(self, values=(*self.values, *further))

    def vectors(self, attributes: Attributes) -> Tensor:
        """Attributes of N images -> (N, F); columns that are not among them are missing."""
        number = max((len(given) for given in attributes.values()), default=0)
        vectors = torch.zeros(number, self.size)
        for column in self.columns if number else ():
            given = attributes.get(column, [None] * number)
            found = [self._found(column, value) for value in given]
            rows = [row for row, pairs in enumerate(found) for _ in pairs]
            places, amounts = zip(*(pair for pairs in found for pair in pairs), strict=True)
            vectors[rows, places] = torch.tensor(amounts)
        return vectors

    @cached_property
    def _places(self) -> dict[str | tuple[str, str], int]:
        keys: list[str | tuple[str, str]] = [*self.numbers, *self.values]
        return {key: len(self.columns) + position for position, key in enumerate(keys)}

    def _found(self, column: str, value: str | float | None) -> list[tuple[int, float]]:
        """Where the parts of a value stand, and what stands there."""
        flag, lost = self.columns.index(column), 0.0
        there = []
        if column in self.numbers:
            mean, spread = self.numbers[column]
            if (number := as_number(value)) is not None:
                there.append((self._places[column], (number - mean) / spread))
        elif not is_missing(value):
            for part, amount in self.parts(column, as_text(value)).items():
                if place := self._places.get((column, part)):
                    there.append((place, amount))
                else:
                    lost += amount**2
        if not there:
            return [(flag, 1.0)]
        return [*there, (flag, lost)] if lost else there

    def to_tensor(self) -> Tensor:
        """As JSON in bytes, (B,) uint8, which any file of tensors can hold."""
        text = json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    @classmethod
    def of_tensor(cls, stored: Tensor) -> Self:
        """What `to_tensor` made; files are not trusted.

        Raises:
            CheckpointError: It is something else.
        """
        try:
            if stored.dtype != torch.uint8 or stored.ndim != 1:
                raise ValueError(f"{stored.dtype} of {stored.ndim} axes")
            read = json.loads(bytes(stored.cpu().numpy()).decode())
            numbers = {str(name): _pair(pair, float) for name, pair in read["numbers"].items()}
            values = tuple(_pair(pair, str) for pair in read["values"])
            names = {one.name for one in fields(cls)}
            if set(read) != names:
                raise ValueError(f"has {', '.join(read)}, expected {', '.join(sorted(names))}")
            sizes = {name: read[name] for name in names - {"columns", "numbers", "values"}}
            if not all(type(size) is int and size > 0 for size in sizes.values()):
                raise ValueError(f"sizes {sizes}")
            made = cls(tuple(map(str, read["columns"])), numbers, values, **sizes)
            if len(set(made.columns)) < len(made.columns) or len(set(values)) < len(values):
                raise ValueError("a name is there twice")
            made.owners  # noqa: B018 - every number and value belongs to a column
            scales = numbers.values()
            if not all(math.isfinite(mean) and 0 < spread < math.inf for mean, spread in scales):
                raise ValueError("a mean or spread is no number")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"encoder.vocabulary: not what encoder '{cls.encoder}' stores ({error}); the file "
                "is of another encoder, damaged or was tampered with"
            ) from error
        return made


def _pair(pair: Sequence[object], kind: type[T]) -> tuple[T, T]:
    first, second = pair
    if not isinstance(first, kind) or not isinstance(second, kind):
        raise TypeError(f"{pair}, expected two of {kind.__name__}")
    return first, second


def joined(parts: Iterable[Attributes]) -> dict[str, list[str | float | None]]:
    """Attributes of several batches, one after the other."""
    found: dict[str, list[str | float | None]] = {}
    for part in parts:
        for column, given in part.items():
            found.setdefault(column, []).extend(given)
    return found


def is_missing(value: str | float | None) -> bool:
    """Whether there is nothing: None, an empty text, or not a number."""
    return value is None or as_text(value).lower() in _MISSING


def as_text(value: str | float | None) -> str:
    """As it would stand in a table: 3.0 and 3 are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def as_number(value: str | float | None) -> float | None:
    """The finite number that a text spells, if it does."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


class AttributeEncoder(DomainEncoder):
    """Estimates the domain from attributes of the image; any of them may be missing.

    The vocabulary defines the parts of a value, and how to treat values that training did not have.
    `fit_encoder` learns the columns and their values; they are stored with the weights.

    Training examples lose values at random. So do the examples for means and covariance: each
    domain has equally many, and the same columns are dropped in all. An image without any known
    attribute is therefore about equally far from all domains, whatever their sizes.

    Args:
        num_domains: D.
        known: An empty vocabulary of the right kind.
        dropout: Probability that an example loses a value in training, in [0, 1).
        **options: See `DomainEncoder`; if the embedding has at least D numbers, an image without
            known attributes gets equal weights.

    Raises:
        DomainNormError: A dropout out of range.

    Reference:
        Neverova et al., ModDrop, TPAMI 2016, arXiv:1501.00102 (inputs that are dropped whole).
    """

    reads_attributes: bool = True
    vocabulary: Tensor

    def __init__(
        self, num_domains: int, known: Vocabulary, *, dropout: float = 0.2, **options: Any
    ) -> None:
        if not 0 <= dropout < 1:
            raise DomainNormError(f"encoder.dropout: got {dropout}, expected a number in [0, 1)")
        super().__init__(num_domains, known.size, **options)
        self.dropout = dropout
        self._known = known
        self.register_buffer("vocabulary", known.to_tensor())

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the attributes; none before it is fitted."""
        return self._known.columns

    def inputs(self, image: Tensor, attributes: Attributes | None) -> Attributes:
        """The attributes, checked against the images they are of.

        Raises:
            ConditionError: None given, a column it does not know, or another number of values.
        """
        if not self.columns:
            self.check_fitted()
        if torch.compiler.is_compiling():
            raise ConditionError(
                f"encoder '{self._known.encoder}': reads text, which cannot be compiled; pass "
                "weights=model.estimate(image, attributes).weights, or end to end "
                "embedding=model.embed(image, attributes)"
            )
        names = ", ".join(self.columns)
        if attributes is None:
            raise ConditionError(
                f"attributes: missing; encoder '{self._known.encoder}' estimates the domain by "
                f"{names}: pass attributes={{column: [value or None of each image]}}, {{}} if "
                "nothing is known, or the domain"
            )
        for column, given in attributes.items():
            if column not in self.columns:
                raise ConditionError(f"attributes: {unknown('column', column, self.columns)}")
            if isinstance(given, str) or len(given) != len(image):
                found = repr(given) if isinstance(given, str) else f"{len(given)} values"
                raise ConditionError(
                    f"attributes: column '{column}' has {found} for {len(image)} images; give one "
                    "value, or None, for each"
                )
        nothing = [None] * len(image)
        return {column: attributes.get(column, nothing) for column in self.columns}

    def read(self, given: Attributes) -> Tensor:
        """See `features`."""
        return self.features(given)

    def features(self, attributes: Attributes) -> Tensor:
        """Attributes of N images as vectors, (N, F); see `Vocabulary`."""
        return self._known.vectors(attributes).to(self.location)

    def forward(self, attributes: Attributes) -> Estimate:
        """Estimate the domain of each image by its attributes, see `inputs`.

        Raises:
            ConditionError: It was not fitted.
        """
        self.check_fitted()
        return self.judge(self.features(attributes))

    def standardize(self, features: Tensor) -> None:
        """Nothing: numbers are standardized already, the rest is in [-1, 1]."""

    def prepare(self, training: Batches, generator: torch.Generator) -> None:
        """Learn columns and values; the first layer starts anew.

        Raises:
            ConditionError: There are images and no columns.
        """
        seen = [attributes for attributes, _ in training]
        known = self._known.learned(joined(seen))
        if seen and not known.columns:
            raise ConditionError(
                f"encoder '{self._known.encoder}': no attributes to learn from; give some columns, "
                "data.attributes in a recipe"
            )
        self._resize(known)
        weight, active = self._first.weight, max(1, len(known.columns))  # inputs that are not 0
        with torch.no_grad():
            weight.copy_(torch.randn(weight.shape, generator=generator) * active**-0.5)

    def grow(self, images: Batches, generator: torch.Generator) -> None:
        """Give what is new a random row each, by which it differs from what is known."""
        former = self._first.weight.detach().clone()
        self._resize(self._known.extended(joined(attributes for attributes, _ in images)))
        added = self._known.size - former.shape[1]
        with torch.no_grad():
            fresh = torch.randn(len(former), added, generator=generator).to(former) * former.std()
            self._first.weight.copy_(torch.cat([former, fresh], 1))

    def varied(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Features (N, F) that have lost values at random."""
        lost = self._dropped(len(features), generator)
        return self._without(self.thinned(features, generator), lost)

    def thinned(self, features: Tensor, generator: torch.Generator | None) -> Tensor:
        """Features (N, F) that have lost parts of values; the same unless overridden."""
        return features

    def examples(
        self, features: Tensor, domain: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Features of as many examples of each domain, and their labels.

        What images lack is taken from others of their domain first. Then the same values are lost
        in all domains: what remains tells them apart, not what is lost.
        """
        lost, made = self._dropped(_EXAMPLES, generator), []
        labels = sorted(set(domain.tolist()))
        for label in labels:
            own = features[domain == label]
            drawn = torch.randint(len(own), (_EXAMPLES,), generator=generator)
            made.append(self._filled(own[drawn.to(own.device)], own, generator))
        lost = lost.repeat(len(labels), 1)
        of_domain = torch.tensor(labels).repeat_interleave(_EXAMPLES).to(domain.device)
        return self._without(self.thinned(torch.cat(made), generator), lost), of_domain

    def _filled(self, features: Tensor, own: Tensor, generator: torch.Generator) -> Tensor:
        """Features (N, F) with missing values from images that have them, (M, F)."""
        filled, owners = features.clone(), torch.tensor(self._known.owners)
        for column in range(len(self.columns)):
            gaps = (features[:, column] == 1).nonzero()
            donors = (own[:, column] < 1).nonzero()[:, 0]
            if len(donors):
                chosen = torch.randint(len(donors), (len(gaps),), generator=generator)
                places = (owners == column).nonzero()[:, 0].to(gaps.device)
                given = donors[chosen.to(donors.device)][:, None]
                filled[gaps, places] = own[given, places]
        return filled

    def _dropped(self, number: int, generator: torch.Generator | None) -> Tensor:
        """Whether each of N examples loses the value of each of A columns, (N, A)."""
        single = torch.rand(number, len(self.columns), generator=generator) < self.dropout
        return single | (torch.rand(number, 1, generator=generator) < _NOTHING)

    def _without(self, features: Tensor, lost: Tensor) -> Tensor:
        """Features (N, F) without the values of the columns that are lost, (N, A)."""
        missing = torch.zeros_like(features)
        missing[:, : len(self.columns)] = 1
        return torch.where(lost[:, self._known.owners].to(features.device), missing, features)

    def shapes_in(self, stored: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
        """Shapes of its tensors once it has the vocabulary of a file.

        Raises:
            CheckpointError: The vocabulary is none.
        """
        if "vocabulary" not in stored:
            return {}
        size = self._known.of_tensor(stored["vocabulary"]).size
        return {
            "vocabulary": tuple(stored["vocabulary"].shape),
            "location": (size,),
            "spread": (size,),
            "mlp.0.weight": (self._first.out_features, size),
        }

    @property
    def _first(self) -> nn.Linear:
        layer = self.mlp[0]
        assert isinstance(layer, nn.Linear)
        return layer

    def _resize(self, known: Vocabulary) -> None:
        """Take on a vocabulary; what had a place for each value gets another size and no values."""
        self._known, layer = known, self._first
        self.vocabulary = known.to_tensor().to(self.location.device)
        self.location = self.location.new_zeros(known.size)
        self.spread = self.spread.new_ones(known.size)
        layer.in_features = known.size
        weight = layer.weight.new_zeros(layer.out_features, known.size)
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *further: Any
    ) -> None:
        stored = state_dict.get(f"{prefix}vocabulary")
        if stored is not None:
            self._resize(self._known.of_tensor(stored))
        super()._load_from_state_dict(state_dict, prefix, *further)
