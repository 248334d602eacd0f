"""Other amounts of the stains of a histology image."""

from __future__ import annotations

from typing import Any

import albumentations
import numpy as np
from numpy.typing import NDArray

from domainnorm.registry import register

# Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)


@register
class HEDJitter(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Scale and shift the haematoxylin, eosin and DAB components of an image.

    ``OD = −ln((I + 1) / 256)``, ``s = OD · S⁻¹``, ``s'_c = α_c s_c + β_c``,
    ``I' = 256 exp(−s' S) − 1`` with ``α ~ U(1 − σ, 1 + σ)`` and ``β ~ U(−σ, σ)`` for each of the
    three components.

    Args:
        sigma: σ in [0, 1); 0.05 is light, 0.2 strong.
        p: Probability of the transform.

    Reference:
        Tellez et al., Whole-Slide Mitosis Detection in H&E Breast Histology Using PHH3 as a
        Reference to Train Distilled Stain-Invariant Convolutional Networks, IEEE TMI 37(9), 2018,
        arXiv:1808.05896, sec. III-C; stains: Ruifrok and Johnston, Anal. Quant. Cytol. Histol.
        23(4), 2001.
    """

    def __init__(self, *, sigma: float = 0.05, p: float = 0.5) -> None:
        super().__init__(p=p)
        if not 0 <= sigma < 1:
            raise ValueError(f"sigma: {sigma}, expected a number in [0, 1)")
        self.sigma = sigma

    def get_params(self) -> dict[str, Any]:
        """Draw factors and shifts."""
        uniform = self.py_random.uniform
        return {
            "factors": np.array([uniform(1 - self.sigma, 1 + self.sigma) for _ in range(3)]),
            "shifts": np.array([uniform(-self.sigma, self.sigma) for _ in range(3)]),
        }

    def apply(
        self,
        img: NDArray[np.uint8],
        factors: NDArray[np.float64],
        shifts: NDArray[np.float64],
        **params: Any,
    ) -> NDArray[np.uint8]:
        """Jitter one image (H, W, 3)."""
        return jitter_stains(img, factors, shifts)


def jitter_stains(
    image: NDArray[np.uint8], factors: NDArray[np.float64], shifts: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """The image (H, W, 3) with its three stains scaled and shifted, (3,) each."""
    density = -np.log((np.arange(256) + 1) / 256)[image]  # a table: there are 256 values
    # One matrix for there, scaling and back: (OD S⁻¹ · α + β) S.
    mixed = density @ (np.linalg.inv(_STAINS) * factors @ _STAINS) + shifts @ _STAINS
    jittered: NDArray[np.float64] = np.clip(np.round(256 * np.exp(-mixed) - 1), 0, 255)
    return jittered.astype(np.uint8)
