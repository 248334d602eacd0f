"""Image transforms that albumentations lacks."""

from __future__ import annotations

from typing import Any

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.registry import register

# Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_STAINS = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)


@register("fda")
class FDA(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Give an image the low-frequency amplitudes of an image of another domain, and keep phases.

    ``x' = F⁻¹([M_β · A(reference) + (1 − M_β) · A(x)] exp(i φ(x)))`` for each channel, ``M_β``
    being the ``2b + 1`` × ``2b + 1`` frequencies around zero, ``b = floor(β · min(H, W))``. Values
    are rounded and cut to 0 to 255.

    Args:
        beta: Smallest and largest β, each in [0, 0.5); drawn uniformly.
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


@register("hed_jitter")
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


@register("histogram_matching")
class HistogramMatching(albumentations.HistogramMatching):  # type: ignore[misc]
    """Give each channel of an image the histogram of an image of another domain.

    Args:
        blend: Smallest and largest share of the matched image in the result, in [0, 1].
        p: Probability of the transform.
    """

    def __init__(self, *, blend: list[float] = [0.5, 1.0], p: float = 0.5) -> None:  # noqa: B006
        super().__init__(blend_ratio=tuple(blend), metadata_key="references", p=p)


@register("translate")
class Translate(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Give an image the style of another domain, by the translator of a finished run.

    Args:
        run: Folder of a run of task ``translation``. In Python a function of pixels (H, W, 3) and
            the name of a style.
        to: Styles, of which one is drawn for each image; one name or several. Null for those of the
            recipe's domains that the method may see, but the image's own.
        p: Probability of the transform.

    Reference:
        Dumoulin et al., A Learned Representation for Artistic Style, ICLR 2017, arXiv:1610.07629.
    """

    def __init__(
        self,
        *,
        run: Any,
        to: str | list[str] | None = None,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        styles = [to] if isinstance(to, str) else to
        if not callable(run) or not styles:
            raise ValueError(
                "run, to: a recipe's run fills them in; in Python give a function of pixels and a "
                "style, and styles"
            )
        self.run = run
        self.styles = list(styles)

    def get_params(self) -> dict[str, Any]:
        """Draw a style."""
        return {"style": self.py_random.choice(self.styles)}

    def apply(self, img: NDArray[np.uint8], style: str, **params: Any) -> NDArray[np.uint8]:
        """Translate one image (H, W, 3)."""
        translated: NDArray[np.uint8] = self.run(img, style)
        return translated


@register("rand_conv")
class RandConv(albumentations.ImageOnlyTransform):  # type: ignore[misc]
    """Mix an image with its random convolution: this changes texture and colour, not shape.

    ``z' = α z + (1 - α) w * z`` on ``z = (x - 127.5) / 63.75``, with ``α ~ U`` and weights w of 3
    channels to 3, k × k, normal with the variance ``1 / (3 k²)``; then back, rounded and cut to 0
    to 255.

    Args:
        kernels: Sizes k to choose from, odd.
        mix: Smallest and largest α, each in [0, 1]; ``[0, 0]`` for the convolution alone.
        p: Probability of the transform.

    Reference:
        Xu et al., Robust and Generalizable Visual Representation Learning via Random Convolutions,
        ICLR 2021, arXiv:2007.13003, alg. 1 and sec. 3.2.
        Differs: a kernel for each image instead of each batch; the border mirrors the image; values
        that no pixel has are cut; no consistency loss between several draws.
    """

    def __init__(
        self,
        *,
        kernels: list[int] = [1, 3, 5, 7],  # noqa: B006
        mix: list[float] = [0.0, 1.0],  # noqa: B006
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        if not kernels or any(size < 1 or size % 2 == 0 for size in kernels):
            raise ValueError(f"kernels: {kernels}, expected odd sizes such as [1, 3, 5, 7]")
        if len(mix) != 2 or not 0 <= mix[0] <= mix[1] <= 1:
            raise ValueError(f"mix: {mix}, expected [least, greatest] with values in [0, 1]")
        self.kernels = list(kernels)
        self.mix = list(mix)

    def get_params(self) -> dict[str, Any]:
        """Draw a size, the weights and α."""
        size = self.py_random.choice(self.kernels)
        deviation = 1 / np.sqrt(3 * size**2)
        return {
            "weight": self.random_generator.normal(0, deviation, (3, 3, size, size)),
            "share": self.py_random.uniform(*self.mix),
        }

    def apply(
        self, img: NDArray[np.uint8], weight: NDArray[np.float64], share: float, **params: Any
    ) -> NDArray[np.uint8]:
        """Convolve one image (H, W, 3)."""
        return mix_convolved(img, weight, share)


def mix_convolved(
    image: NDArray[np.uint8], weight: NDArray[np.float64], share: float
) -> NDArray[np.uint8]:
    """``share`` of the image (H, W, 3), the rest convolved by ``weight`` (3 out, 3 in, k, k)."""
    values = (image.astype(np.float32) - 127.5) / 63.75
    parts = [
        sum(cv2.filter2D(values[..., into], -1, kernel) for into, kernel in enumerate(kernels))
        for kernels in weight.astype(np.float32)
    ]
    mixed = share * values + (1 - share) * np.stack(parts, axis=-1)
    return np.clip(np.round(mixed * 63.75 + 127.5), 0, 255).astype(np.uint8)
