"""The low frequencies of another domain's image."""

from __future__ import annotations

from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.registry import register


@register
class FDA(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Give an image the low-frequency amplitudes of an image of another domain; phases stay.

    ``x' = F⁻¹([M_β · A(reference) + (1 − M_β) · A(x)] exp(i φ(x)))`` for each channel, ``M_β``
    being the ``2b + 1`` × ``2b + 1`` frequencies around zero, ``b = floor(β · min(H, W))``. Values
    are rounded and cut to 0 to 255.

    Args:
        beta: Least and greatest β, each in [0, 0.5); drawn uniformly.
        p: Probability of the transform.

    Reference:
        Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020,
        arXiv:2004.05498, eq. 3.
        Differs: the window has its centre at frequency zero; albumentations' FDA shifts it by half
        a frequency on even sides, which leaves the mean colour as it was.
    """

    def __init__(self, *, beta: list[float] = [0.01, 0.05], p: float = 0.5) -> None:  # noqa: B006
        super().__init__(p=p)
        if len(beta) != 2 or not 0 <= beta[0] <= beta[1] < 0.5:
            raise ValueError(f"beta: {beta}, expected [least, greatest] with values in [0, 0.5)")
        self.beta = list(beta)

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw β, and take the reference at the size of the image."""
        height, width = params["shape"][:2]
        reference = cv2.resize(data["references"][0], (width, height), interpolation=cv2.INTER_AREA)
        return {"reference": reference, "share": self.py_random.uniform(*self.beta)}

    @property
    def targets_as_params(self) -> list[str]:
        """What a call must bring beside the image."""
        return ["references"]

    def apply(
        self, img: NDArray[np.uint8], reference: NDArray[np.uint8], share: float, **params: Any
    ) -> NDArray[np.uint8]:
        """Swap the amplitudes of one image (H, W, 3)."""
        return swap_amplitudes(img, reference, share)


def swap_amplitudes(
    image: NDArray[np.uint8], reference: NDArray[np.uint8], beta: float
) -> NDArray[np.uint8]:
    """The image with the low-frequency amplitudes of a reference of the same size (H, W, 3)."""
    spectrum = np.fft.rfft2(image.astype(np.float32), axes=(0, 1))
    other = np.abs(np.fft.rfft2(reference.astype(np.float32), axes=(0, 1)))
    radius = int(beta * min(image.shape[:2]))
    # Unshifted: the lowest frequencies are the first rows and the last; columns are one-sided.
    rows = np.r_[0 : radius + 1, image.shape[0] - radius : image.shape[0]]
    low = np.ix_(rows, np.arange(radius + 1))
    size = np.abs(spectrum[low])
    phase = np.divide(spectrum[low], size, out=np.ones_like(spectrum[low]), where=size > 0)
    spectrum[low] = other[low] * phase
    done = np.fft.irfft2(spectrum, s=image.shape[:2], axes=(0, 1))
    return np.clip(np.round(done), 0, 255).astype(np.uint8)
