"""The histogram of another domain's image."""

from __future__ import annotations

import albumentations

from domainnorm.registry import register


@register
class HistogramMatching(albumentations.HistogramMatching):  # type: ignore[misc]
    """Give each channel of an image the histogram of an image of another domain.

    Args:
        blend: Least and greatest share of the matched image in the result, in [0, 1].
        p: Probability of the transform.
    """

    def __init__(self, *, blend: list[float] = [0.5, 1.0], p: float = 0.5) -> None:  # noqa: B006
        super().__init__(blend_ratio=tuple(blend), metadata_key="references", p=p)
