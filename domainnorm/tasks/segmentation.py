"""Segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from domainnorm.backbones import DomainModel, tiled_inference
from domainnorm.errors import DataError, DomainNormError, unknown
from domainnorm.evaluation import SegmentationStore
from domainnorm.losses import dice_loss, focal_loss
from domainnorm.losses.checks import check_classes
from domainnorm.registry import register
from domainnorm.tasks.base import Task
from domainnorm.tasks.decoders import PLAIN, create_segmentation_model, size_multiple

# Axes of each view beside the image itself.
_MIRRORED: dict[str, list[list[int]]] = {
    "none": [],
    "horizontal": [[-1]],
    "vertical": [[-2]],
    "both": [[-1], [-2], [-2, -1]],
}


@register
class Segmentation(Task):
    """One class per pixel: cross-entropy, Dice and focal loss, scored by IoU and Dice per class.

    ``loss = w_ce CE + w_dice Dice + w_focal Focal``, each over the labelled pixels of a batch. With
    ``class_weights: balanced``, pixels of class k weigh ``median_j f[j] / f[k]`` in CE and Focal;
    f[k] is the share of class k in the training images in which it occurs. A class that never
    occurs weighs 0. Images larger than the training crops are predicted in windows of the size of a
    crop; predictions are blended where windows overlap.

    Args:
        class_names: Names of the K classes.
        decoder: Decoder of segmentation_models_pytorch over a timm encoder: ``unet``, ``fpn``,
            ``deeplabv3plus``, ``segformer`` and ``upernet`` for encoders with feature maps of
            several sizes; ``dpt`` or ``pyramid`` for plain vision transformers. ``pyramid`` is
            our own light decoder, see `domainnorm.tasks.pyramid`.
        width: Largest number of channels in the decoder.
        ce_weight: Weight of the cross-entropy, at least 0.
        dice_weight: Weight of `dice_loss`, at least 0.
        focal_weight: Weight of `focal_loss`, at least 0.
        focal_gamma: Focusing parameter γ of the focal loss, at least 0.
        label_smoothing: Probability mass ε of CE spread over all classes, in [0, 1): ``CE = (1 - ε)
            CE_y + ε/K Σ_k w[k]/w[y] CE_k``; Dice and Focal have none.
        class_weights: ``none``, or ``balanced`` for classes with few pixels; ``balanced`` reads
            all training masks.
        overlap: Overlap of neighbouring windows in evaluation, as a share of a window, in [0, 1).
        flips: In evaluation, average the probabilities of an image and its mirror images. ``both``
            averages four views, for images without an upright position.

    Raises:
        DomainNormError: All three weights are 0, or a number is out of range.

    Reference:
        Weights: Eigen and Fergus, Predicting Depth, Surface Normals and Semantic Labels, ICCV 2015,
        arXiv:1411.4734, sec. 4.3.2 (median frequency balancing).
    """

    labels: str = "segmentation"
    metric: str = "miou"
    class_weight: Tensor | None

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        decoder: Literal[
            "unet", "fpn", "deeplabv3plus", "segformer", "upernet", "dpt", "pyramid"
        ] = "unet",
        width: int = 128,
        ce_weight: float = 1.0,
        dice_weight: float = 0.0,
        focal_weight: float = 0.0,
        focal_gamma: float = 2.0,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        overlap: float = 0.5,
        flips: Literal["none", "horizontal", "vertical", "both"] = "none",
    ) -> None:
        super().__init__(class_names)
        weights = {"ce": ce_weight, "dice": dice_weight, "focal": focal_weight}
        if min(weights.values()) < 0 or not any(weights.values()):
            raise DomainNormError(
                f"task: ce_weight {ce_weight}, dice_weight {dice_weight}, focal_weight "
                f"{focal_weight}; expected none below 0, one above"
            )
        if focal_gamma < 0:
            raise DomainNormError(f"task.focal_gamma: {focal_gamma}, expected 0 or more")
        if not 0 <= label_smoothing < 1:
            raise DomainNormError(
                f"task.label_smoothing: {label_smoothing}, expected a share in [0, 1)"
            )
        if not 0 <= overlap < 1:
            raise DomainNormError(f"task.overlap: {overlap}, expected a share in [0, 1)")
        if flips not in _MIRRORED:
            raise DomainNormError(f"task.flips: {unknown('value', flips, _MIRRORED)}")
        self.decoder = decoder
        self.width = width
        self.weights = weights
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.register_buffer("class_weight", None, persistent=False)
        self.overlap = overlap
        self.flips = flips
        self.window: tuple[int, int] | None = None

    def create_model(self, name: str, norm: Any, domains: Sequence[str], **options: Any) -> Any:
        """See `create_segmentation_model`."""
        options = {**options, "decoder": self.decoder, "width": self.width}
        return create_segmentation_model(name, len(self.class_names), norm, domains, **options)

    def check_input(self, model: DomainModel, size: tuple[int, int]) -> None:
        """Refuse a size that is no multiple of what encoder and decoder need.

        Raises:
            DataError: Names the size, and the next one that works.
        """
        step = size_multiple(model.backbone)
        if size[0] % step or size[1] % step:
            larger = [side + -side % step for side in size]
            other = "" if self.decoder in PLAIN else "; decoder 'unet' takes any size"
            raise DataError(
                f"data.image_size, data.crop_size: {size[0]} × {size[1]} pixels, but decoder "
                f"'{self.decoder}' over this encoder takes multiples of {step}, such as {larger}"
                f"{other}"
            )

    def set_window(self, size: tuple[int, int] | None) -> None:
        """Predict larger images in windows of this height and width."""
        self.window = size

    def weigh_classes(self, frequency: Tensor) -> None:
        """Set the weights of the classes from their shares of the images that have them, (K,)."""
        present = frequency > 0
        if bool(present.any()):
            weight = torch.where(present, frequency[present].median() / frequency, 0.0)
            self.class_weight = weight.float()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted sum of losses of ``logits`` (N, K, H, W) and ``target`` (N, H, W), −1 void.

        Raises:
            DomainNormError: See `check_classes`.
        """
        check_classes("segmentation loss", logits, target)
        if bool((target < 0).all()):
            return logits.sum() * 0.0  # the mean over no pixel would be nan
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = logits.sum() * 0.0
        weight = None if self.class_weight is None else self.class_weight.to(logits)
        weighs = weight is None or bool(weight[target[target >= 0]].any())
        if self.weights["ce"] and weighs:  # else a mean over no weight, nan
            total = total + self.weights["ce"] * F.cross_entropy(
                logits, target, weight, ignore_index=-1, label_smoothing=self.label_smoothing
            )
        if self.weights["dice"]:
            total = total + self.weights["dice"] * dice_loss(logits, target)
        if self.weights["focal"]:
            total = total + self.weights["focal"] * focal_loss(
                logits, target, self.focal_gamma, class_weight=weight
            )
        return total

    @torch.no_grad()
    def predict(
        self,
        model: DomainModel,
        image: Tensor,
        domain: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities or logits (N, K, H, W) of whole images (N, 3, H, W)."""
        known = {"domain": domain, "weights": weights, "embedding": embedding}
        logits = self._logits(model, image, **known)
        if not _MIRRORED[self.flips]:
            return logits
        views = [logits.log_softmax(1)]
        for axes in _MIRRORED[self.flips]:
            mirrored = self._logits(model, image.flip(axes), **known)
            views.append(mirrored.flip(axes).log_softmax(1))
        # Probabilities are averaged, not logits: one confident view must not outvote the others.
        return torch.stack(views).logsumexp(0)

    def _logits(self, model: DomainModel, image: Tensor, **known: Tensor | None) -> Tensor:
        window = self.window
        if window is None or (image.shape[-2] <= window[0] and image.shape[-1] <= window[1]):
            logits: Tensor = model(image, **known)
            return logits
        overlap = (int(self.overlap * window[0]), int(self.overlap * window[1]))
        weights = known.pop("weights")
        domain = known if weights is None else {**known, "domain": weights}
        return tiled_inference(
            model, image, tile=window, overlap=overlap, domain=domain, progress=False
        )

    def store(self) -> Metric:
        """Collects counts of pixels for each image."""
        return SegmentationStore(len(self.class_names), boundary=self.boundary)

    def metric_options(self, bins: int = 15) -> dict[str, Any]:
        """The names of the classes; there is no calibration error."""
        return {"class_names": self.class_names}
