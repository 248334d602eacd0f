"""Attributes of images (scanner, stain, hour) as vectors, whatever is missing."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

import torch
from torch import Tensor

from domainnorm.errors import CheckpointError

if TYPE_CHECKING:
    from typing_extensions import Self

# Column -> a value for each image of a batch: text, a number, or None where it is missing.
Attributes: TypeAlias = Mapping[str, Sequence[str | float | None]]
T = TypeVar("T")

_MISSING = ("", "nan")  # what tables hold where there is nothing


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
            if not all(map(_is_scale, numbers.values())):
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


def _is_scale(pair: tuple[float, float]) -> bool:
    return all(map(math.isfinite, pair)) and pair[1] > 0


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
