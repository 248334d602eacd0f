"""Restored images against the clean ones, beside what they were restored from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from domainnorm.evaluation.evaluated import Evaluated, WeightedMetrics

MEASURES = ("psnr", "ssim", "ms_ssim", "l1")
SMALLEST = 11  # pixels along a side: the window of SSIM
_SCALES = 176  # pixels along a side, from which five scales hold that window
_MOST = 100.0  # dB: an image without any error has no end


@dataclass(frozen=True)
class Restorations(Evaluated):
    """How near N images are to the clean ones, before and after, on the CPU.

    Args:
        values: `MEASURES` of each restored image, and of the image that it was made of, (N, 2, 4),
            float32; nan where there is no clean one, or an image is too small for a measure.
        index: Position of each image in its dataset (N,), int64.

    Raises:
        EvaluationError: A wrong shape, dtype or device.
    """

    values: Tensor
    index: Tensor
    kind: ClassVar[str] = "restoration"

    def __post_init__(self) -> None:
        self._check("values", (len(self.values), 2, len(MEASURES)), torch.float32)
        self._check("index", (len(self.values),), torch.int64, " to match values")

    @property
    def has_label(self) -> Tensor:
        """Whether there is a clean image to each."""
        return ~self.values[:, 0, 0].isnan()

    def weighted(self) -> RestorationSums:
        """What metrics of restored images are computed from.

        Raises:
            EvaluationError: No image has a clean one.
        """
        return RestorationSums(self.require_labels().values.flatten(1).double().T)


@dataclass(frozen=True)
class RestorationSums(WeightedMetrics):
    """Sums of `MEASURES`, of restored images and then of those they were made of."""

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Weighted metrics for several weightings at once, see `WeightedMetrics`.

        Returns:
            Values (B,), means over images: ``psnr`` in dB, at most 100 of an image; ``ssim`` and
            ``ms_ssim``, at most 1; ``l1``, the mean absolute error, black being 0 and white 1.
            The same of what was restored, ``psnr_input`` and so on, and ``psnr_gain``, the
            difference of both. ``ms_ssim`` is left out of images below 176 pixels.
        """
        means = self.sums @ weights / weights.sum(0)
        names = [*MEASURES, *(f"{name}_input" for name in MEASURES)]
        found = dict(zip(names, means, strict=True))
        if bool(self.sums[MEASURES.index("ms_ssim")].isnan().any()):
            found = {name: one for name, one in found.items() if not name.startswith("ms_ssim")}
        return {**found, "psnr_gain": found["psnr"] - found["psnr_input"]}


def has_clean(clean: Tensor) -> Tensor:
    """Whether there is a clean image, (N,) bool; (N, C, H, W), −1 where there is none."""
    return clean.flatten(1).amin(1) >= 0


def similarity(image: Tensor, clean: Tensor) -> Tensor:
    """SSIM (N,) of images (N, C, H, W), 0 to 1, see `image_measures`."""
    found: Any = structural_similarity_index_measure(image, clean, data_range=1.0, reduction="none")
    return torch.as_tensor(found).reshape(-1)


def image_measures(image: Tensor, clean: Tensor) -> Tensor:
    """`MEASURES` of each image, (N, 4); nan for the one that it is too small for.

    Args:
        image: (N, C, H, W), 0 to 1, `SMALLEST` pixels or more along both sides.
        clean: What it should be, the same shape.

    Reference:
        SSIM: Wang et al., Image quality assessment: from error visibility to structural similarity,
        TIP 13, 2004; over scales: Wang et al., Asilomar 2003; both by torchmetrics, with a Gaussian
        window of 11 pixels.
    """
    image, clean = image.float(), clean.float()
    options: dict[str, Any] = {"data_range": 1.0, "reduction": "none"}
    psnr = peak_signal_noise_ratio(image, clean, dim=(1, 2, 3), **options).clamp(max=_MOST)
    scales = torch.full_like(psnr, torch.nan)
    if min(image.shape[-2:]) >= _SCALES:
        scales = multiscale_structural_similarity_index_measure(image, clean, **options)
    parts: list[Any] = [
        psnr,
        similarity(image, clean),
        scales,
        (image - clean).abs().mean((1, 2, 3)),
    ]
    return torch.stack([part.reshape(-1) for part in parts], 1)
