"""What a conversion did, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass

_HEAD = ("layer", "was", "norm", "exact", "bytes/domain", "note")


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
        rows = [
            (
                layer.path or "(the network)",
                layer.old,
                layer.new,
                "yes" if layer.exact else "no",
                f"{layer.bytes_per_domain:,}",
                layer.note,
            )
            for layer in self
        ]
        exact = sum(layer.exact for layer in self)
        total = ("total", f"{len(self)} layers", "", f"{exact}", f"{self.bytes_per_domain:,}", "")
        widths = [max(map(len, column)) for column in zip(_HEAD, *rows, total, strict=True)]
        rule = tuple("-" * width for width in widths)
        lines = [_HEAD, rule, *rows, rule, total]
        return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    aligned = [
        cell.rjust(width) if head == "bytes/domain" else cell.ljust(width)
        for head, cell, width in zip(_HEAD, cells, widths, strict=True)
    ]
    return "  ".join(aligned).rstrip()
