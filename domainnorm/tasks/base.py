"""Task: what a run and a method are given of a kind of label."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torchmetrics import Metric

from domainnorm.backbones import DomainModel, create_model


class Task(nn.Module, abc.ABC):
    """A network for a kind of label, its supervised loss, and how predictions are scored.

    Class constants: ``labels`` is the ``task`` of the datasets it can learn from. ``metric`` is the
    main metric of tables, which also selects checkpoints. ``boundary`` is the width of the scored
    boundaries of masks, as a share of the image's diagonal. ``class_weights``: with ``none`` all
    classes weigh the same in the loss, with ``balanced`` rare ones weigh more.

    Args:
        class_names: Names of the K classes, in the order of the outputs.
    """

    labels: str = ""
    metric: str = ""
    boundary: float = 0.02
    class_weights: Literal["none", "balanced"] = "none"

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = list(class_names)

    def create_model(self, name: str, norm: Any, domains: Sequence[str], **options: Any) -> Any:
        """A network for this task around a timm backbone, with conditional norms.

        An output for each class, unless overridden.

        Args:
            name: A timm architecture.
            norm: See `domainnorm.convert_norms`.
            domains: Names of the domains.
            **options: ``pretrained``, ``weights``, ``unseen`` and keywords of timm, see
                `domainnorm.create_model`.
        """
        return create_model(name, len(self.class_names), norm, domains, **options)

    def look_through(self, name: str, **options: Any) -> None:
        """Take note of the recipe's backbone, where losses or tests look at images through it.

        Args:
            name: A timm architecture.
            **options: ``pretrained``, ``weights`` and keywords of timm, see
                `domainnorm.create_model`.
        """

    def check_input(self, model: DomainModel, size: tuple[int, int]) -> None:
        """Refuse a height and width that the network cannot take; every size unless overridden."""

    def weigh_classes(self, frequency: Tensor) -> None:
        """Set the weights of the classes from `DomainDataModule.class_frequency`, (K,)."""

    def set_window(self, size: tuple[int, int] | None) -> None:
        """Take note of the size of training crops; None when training sees whole images."""

    @abc.abstractmethod
    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar supervised loss; labels of −1 do not count."""

    def predict(
        self,
        model: DomainModel,
        image: Tensor,
        domain: Tensor | None = None,
        *,
        weights: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Tensor:
        """Outputs for whole images, in evaluation.

        Args:
            model: The network.
            image: (N, 3, H, W).
            domain: Domain labels (N,).
            weights: Soft domain weights (N, D) instead.
            embedding: (N, E), for norms that take one.
        """
        logits: Tensor = model(image, domain, weights=weights, embedding=embedding)
        return logits

    @abc.abstractmethod
    def store(self) -> Metric:
        """A fresh metric that collects ``update(logits, target, index)``.

        Its ``compute`` returns what `Evaluated` describes.
        """

    @abc.abstractmethod
    def metric_options(self, bins: int = 15) -> dict[str, Any]:
        """Options of the metrics of what `store` collects, see `Evaluated.metrics`.

        Args:
            bins: Bins of the calibration error, where the task has one.
        """
