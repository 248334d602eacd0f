"""Restoration: images as they were before detail was lost, from pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConversionError, DataError, DomainNormError, unknown
from domainnorm.evaluation import SMALLEST, RestorationStore, has_clean
from domainnorm.losses import charbonnier_loss, gradient_loss
from domainnorm.losses.precision import in_float32
from domainnorm.registry import register
from domainnorm.tasks.base import Task
from domainnorm.tasks.translator import Translator, create_translator, shares_of_white

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "charbonnier": charbonnier_loss,
    "mse": F.mse_loss,
}


class Restorer(Translator):
    """A `Translator` whose images are values from 0, black, to 1, white.

    Its input is normalized as everywhere.
    """

    def forward(self, image: Tensor) -> Tensor:
        """The restored images."""
        restored: Tensor = super().forward(image)
        return (restored - self.low) / (self.high - self.low)


@register
class Restoration(Task):
    """Images as they were before detail was lost, from pairs: scored by PSNR and SSIM.

    Pairs are made by ``data.degrade``, of images of any dataset; labels are not read. The network
    is a small one of its own, see `domainnorm.tasks.translator`, which says what is to change in
    the image that it gets. Of the recipe's backbone it takes the normalization of images alone.
    ``loss = pixels + gradient_weight · gradients``, over images from 0, black, to 1, white.

    Args:
        class_names: Those of the dataset; not used.
        width: Channels of the network at full size.
        stride: By how much it makes images smaller inside, 1, 2 or 4; larger is faster.
        blocks: Residual blocks.
        norms: Whether the network has norms; without, all domains share all of it, and ``norm`` is
            left out.
        loss: Of pixels: mean absolute (``l1``) or squared difference (``mse``), or
            `charbonnier_loss`.
        gradient_weight: Of `gradient_loss`, which asks for edges.

    Raises:
        DomainNormError: An unknown loss, or a negative weight.
    """

    labels: str = "restoration"
    metric: str = "psnr"

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        width: int = 16,
        stride: Literal[1, 2, 4] = 2,
        blocks: int = 4,
        norms: bool = True,
        loss: Literal["l1", "charbonnier", "mse"] = "l1",
        gradient_weight: float = 0.0,
    ) -> None:
        super().__init__(class_names)
        if loss not in _LOSSES:
            raise DomainNormError(f"task.loss: {unknown('value', loss, _LOSSES)}")
        if not gradient_weight >= 0:
            raise DomainNormError(f"task.gradient_weight: {gradient_weight}, expected 0 or more")
        self.width = width
        self.stride = stride
        self.blocks = blocks
        self.norms = norms
        self.of_pixels = loss
        self.gradient_weight = gradient_weight

    def create_model(self, name: str, norm: Any, domains: Sequence[str], **options: Any) -> Any:
        """See `create_translator`; there are no pretrained weights.

        Raises:
            ConversionError: A norm for a network that has none; see `convert_norms`, too.
        """
        if norm is not None and not self.norms:
            raise ConversionError(
                f"norm: {norm!r}, but task.norms is false, and nothing is left to convert; drop one"
            )
        own: dict[str, Any] = {"width": self.width, "stride": self.stride, "blocks": self.blocks}
        own |= {"norms": self.norms, "network": Restorer}
        return create_translator(name, norm, domains, **{**options, **own})

    def check_input(self, model: DomainModel, size: tuple[int, int]) -> None:
        """Refuse images that SSIM has no window for.

        Raises:
            DataError: Names the size and the smallest that works.
        """
        if min(size) < SMALLEST:
            raise DataError(
                f"data.image_size: {size[0]} × {size[1]} pixels, expected {SMALLEST} or more, the "
                "window of SSIM"
            )

    @in_float32
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of images and the clean ones, −1 where they may not be seen.

        Args:
            logits: (N, C, H, W), or what `predict` gives.
            target: (N, C, H, W).

        Raises:
            DomainNormError: Another shape.
        """
        if logits.ndim == 5:
            logits = logits[:, 0]
        if logits.shape != target.shape:
            raise DomainNormError(
                f"restoration loss: images {tuple(logits.shape)}, clean ones {tuple(target.shape)};"
                " expected the same shape"
            )
        known = has_clean(target)
        if not bool(known.any()):
            return logits.sum() * 0.0  # the mean over no image would be nan
        image, clean = logits[known], target[known]
        total = _LOSSES[self.of_pixels](image, clean)
        if self.gradient_weight:
            total = total + self.gradient_weight * gradient_loss(image, clean)
        return total

    def predict(
        self,
        model: DomainModel,
        image: Tensor,
        domain: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """The restored images and those they are made of, both 0 to 1: (N, 2, C, H, W)."""
        restored = model(image, domain, weights=weights, embedding=embedding)
        return torch.stack([restored.float(), shares_of_white(model, image)], 1)

    def store(self) -> Metric:
        """Collects measures of each image."""
        return RestorationStore()

    def metric_options(self, bins: int = 15) -> dict[str, Any]:
        """There are none."""
        return {}
