"""What a calibration did, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_HEAD = ("layer", "missed before", "missed now")


@dataclass(frozen=True)
class CalibratedLayer:
    """One line of a calibration's report.

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
        rows = [
            (layer.path or "(the network)", f"{layer.before:.3f}", f"{layer.after:.3f}")
            for layer in self.layers
        ]
        width = max(len(row[0]) for row in [_HEAD, *rows])
        lines = [
            f"{path.ljust(width)}  {before.rjust(len(_HEAD[1]))}  {after.rjust(len(_HEAD[2]))}"
            for path, before, after in [_HEAD, *rows]
        ]
        images = ", ".join(f"{domain} {number}" for domain, number in self.images.items())
        return "\n".join([*lines, f"images: {images}"])
