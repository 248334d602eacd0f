"""What `convert_norms` and `calibrate` did to a network, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConvertedLayer:
    """One line of a conversion's report.

    Args:
        path: Module path in the network.
        old: Class of the replaced layer.
        new: Name of the norm that replaced it.
        exact: Whether outputs are the same as before the conversion.
        bytes_per_domain: What each domain adds in this layer, bytes.
        note: Why it is not the norm that was asked for, or empty.
    """

    path: str
    old: str
    new: str
    exact: bool
    bytes_per_domain: int
    note: str = ""


class Conversion(tuple[ConvertedLayer, ...]):
    """The converted layers in definition order; ``print`` shows them as a table with totals."""

    __slots__ = ()

    @property
    def bytes_per_domain(self) -> int:
        """What one more domain costs in all layers, bytes."""
        return sum(layer.bytes_per_domain for layer in self)

    def __str__(self) -> str:
        rows = []
        for layer in self:
            path, exact = layer.path or "(the network)", "yes" if layer.exact else "no"
            size = f"{layer.bytes_per_domain:,}"
            rows.append((path, layer.old, layer.new, exact, size, layer.note))
        kept = sum(layer.exact for layer in self)
        total = ("total", f"{len(self)} layers", "", f"{kept}", f"{self.bytes_per_domain:,}", "")
        head = ("layer", "was", "norm", "exact", "bytes/domain", "note")
        rule = tuple("-" * max(map(len, column)) for column in zip(head, *rows, total, strict=True))
        return _table([head, rule, *rows, rule, total], numbers=("bytes/domain",))


@dataclass(frozen=True)
class CalibratedLayer:
    """One line of the report of `calibrate`.

    Args:
        path: Module path in the network.
        before: Share of the variance of the replaced layer's output that the new one missed with
            the scale and shift it was converted with; 0 is a perfect match, and a constant with the
            right mean misses 1.
        after: What it misses now, for the same input.
    """

    path: str
    before: float
    after: float


@dataclass(frozen=True)
class Calibration:
    """The calibrated layers in definition order; ``print`` shows them as a table.

    Args:
        layers: Those that the images reached.
        images: How many images each domain had.
    """

    layers: tuple[CalibratedLayer, ...]
    images: Mapping[str, int]

    def __str__(self) -> str:
        head = ("layer", "missed before", "missed now")
        rows = [
            (layer.path or "(the network)", f"{layer.before:.3f}", f"{layer.after:.3f}")
            for layer in self.layers
        ]
        images = ", ".join(f"{domain} {number}" for domain, number in self.images.items())
        return f"{_table([head, *rows], numbers=head[1:])}\nimages: {images}"


def _table(rows: Sequence[Sequence[str]], numbers: Sequence[str]) -> str:
    """Lines of aligned cells; the columns with these heads, in the first row, to the right."""
    columns = [
        [cell.rjust(width) if column[0] in numbers else cell.ljust(width) for cell in column]
        for column in zip(*rows, strict=True)
        for width in [max(map(len, column))]
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))
