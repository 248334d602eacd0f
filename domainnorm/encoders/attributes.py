"""Attributes of images (scanner, stain, hour) as vectors, whatever is missing."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from domainnorm.errors import CheckpointError

# Column -> a value for each image of a batch: text, a number, or None where it is missing.
Attributes: TypeAlias = Mapping[str, Sequence[str | float | None]]
T = TypeVar("T")

_MISSING = ("", "nan")  # what tables hold where there is nothing
_MOST = 256  # values of one column; a column with more names images rather than domains


@dataclass(frozen=True)
class Vocabulary:
    """What is known of the columns, and where each of their values stands in a vector.

    A vector has, in this order: for each column whether its value is missing or unknown (A places);
    for each column of numbers the number, standardized, 0 where it is missing; for each known value
    of the other columns whether it is the one. So new values are appended, and move no other.

    Args:
        columns: Names of the A columns.
        numbers: Mean and spread of those that hold numbers.
        values: Known values of the others as (column, value), in the order they were learned.
    """

    columns: tuple[str, ...] = ()
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    values: tuple[tuple[str, str], ...] = ()

    @property
    def size(self) -> int:
        """F; one place that is always 0 where there are no columns yet."""
        return max(1, len(self.columns) + len(self.numbers) + len(self.values))

    @property
    def owners(self) -> list[int]:
        """Position of the column that each of the F places belongs to."""
        names = [*self.columns, *self.numbers, *(column for column, _ in self.values)]
        return [self.columns.index(name) for name in names]

    @classmethod
    def learned(cls, attributes: Attributes) -> Vocabulary:
        """Columns all of whose values are numbers hold numbers, the others categories."""
        numbers: dict[str, tuple[float, float]] = {}
        for column, given in attributes.items():
            present = [value for value in given if not is_missing(value)]
            found = [one for one in map(as_number, present) if one is not None]
            if present and len(found) == len(present):
                numbers[column] = statistics.fmean(found), statistics.pstdev(found) or 1.0
        return cls(tuple(attributes), numbers).extended(attributes)

    def extended(self, attributes: Attributes) -> Vocabulary:
        """With the further values of its categories, the 256 most frequent of each column."""
        further = []
        for column in self.columns:
            if column in self.numbers:
                continue
            counts = Counter(
                as_text(value) for value in attributes.get(column, ()) if not is_missing(value)
            )
            new = sorted(value for value in counts if (column, value) not in self.values)
            chosen = sorted(new, key=lambda value: -counts[value])[:_MOST]
            further += [(column, value) for value in sorted(chosen)]
        return replace(self, values=(*self.values, *further))

    def vectors(self, attributes: Attributes) -> Tensor:
        """Attributes of N images -> (N, F); columns that are not among them are missing."""
        number = max((len(given) for given in attributes.values()), default=0)
        vectors = torch.zeros(number, self.size)
        for column in self.columns if number else ():
            given = attributes.get(column, [None] * number)
            places, amounts = zip(*(self._place(column, one) for one in given), strict=True)
            vectors[range(number), places] = torch.tensor(amounts)
        return vectors

    @cached_property
    def _places(self) -> dict[str | tuple[str, str], int]:
        keys: list[str | tuple[str, str]] = [*self.numbers, *self.values]
        return {key: len(self.columns) + position for position, key in enumerate(keys)}

    def _place(self, column: str, value: str | float | None) -> tuple[int, float]:
        """Where a value stands, and what stands there."""
        if not is_missing(value):
            if column not in self.numbers and (place := self._places.get((column, as_text(value)))):
                return place, 1.0
            if column in self.numbers and (number := as_number(value)) is not None:
                mean, spread = self.numbers[column]
                return self._places[column], (number - mean) / spread
        return self.columns.index(column), 1.0

    def to_tensor(self) -> Tensor:
        """As JSON in bytes, (B,) uint8, which any file of tensors can hold."""
        stored = {"columns": self.columns, "numbers": self.numbers, "values": self.values}
        text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
        return torch.tensor(list(text.encode()), dtype=torch.uint8)

    @classmethod
    def of_tensor(cls, stored: Tensor) -> Vocabulary:
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
            made = cls(tuple(map(str, read["columns"])), numbers, values)
            if len(set(made.columns)) < len(made.columns) or len(set(values)) < len(values):
                raise ValueError("a name is there twice")
            made.owners  # noqa: B018 - every number and value belongs to a column
            if not all(map(_is_scale, numbers.values())):
                raise ValueError("a mean or spread is no number")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"encoder.vocabulary: not what encoder 'metadata' stores ({error}); the file is "
                "damaged or was tampered with"
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
