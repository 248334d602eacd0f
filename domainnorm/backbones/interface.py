"""timm's methods on a converted network: the same names, with the domain of each sample."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from domainnorm.backbones.conversion import Conversion
from domainnorm.backbones.kinds import kind_of
from domainnorm.condition import Condition
from domainnorm.errors import ConversionError
from domainnorm.norms import ConditionalNorm
from domainnorm.slot import ConditionSlot


class TimmInterface(nn.Module):
    """What a timm network offers beside its forward pass, for the one inside a `DomainModel`.

    Every method is the backbone's own, under the condition of the batch; none is looked up by
    magic, so that a misspelt attribute stays an error.
    """

    backbone: nn.Module
    slot: ConditionSlot
    conversion: Conversion

    @abstractmethod
    def _condition(
        self,
        image: Tensor,
        domain: Tensor | Sequence[str] | str | int | None,
        *,
        features: bool = False,
    ) -> Condition: ...

    def _under(self, condition: Condition, method: Any, *arguments: Any, **options: Any) -> Any:
        """Call ``method`` under a condition, which a recompute during backward sees again."""
        with self.slot.holding(condition):
            output = method(*arguments, **options)
            if condition.settle is not None:
                condition = self.slot.current or condition
        self.slot.arm_backward(output, condition)
        return output

    def _own(self, name: str) -> Any:
        method = getattr(self.backbone, name, None)
        if method is None:
            raise ConversionError(
                f"{name}: {type(self.backbone).__name__} has no such method; it belongs to timm's "
                "networks, and not to those made with features_only=True"
            )
        return method

    def forward_features(
        self, image: Tensor, domain: Tensor | Sequence[str] | str | int | None = None
    ) -> Any:
        """The features before pooling and head, (N, F, H, W) or (N, L, F); ``domain`` as ever.

        Raises:
            ConversionError: Not a timm network.
            ConditionError: See `domainnorm.labels.as_condition`.
        """
        condition = self._condition(image, domain)
        return self._under(condition, self._own("forward_features"), image)

    def forward_head(
        self,
        features: Tensor,
        domain: Tensor | Sequence[str] | str | int | None = None,
        *,
        pre_logits: bool = False,
    ) -> Any:
        """Logits of what `forward_features` gave; the head of many networks holds a norm too.

        Args:
            features: (N, F, H, W) or (N, L, F).
            domain: See `DomainModel.forward`.
            pre_logits: Stop before the classifier, (N, F).

        Raises:
            ConversionError: Not a timm network.
            ConditionError: See `domainnorm.labels.as_condition`.
        """
        condition = self._condition(features, domain, features=True)
        return self._under(condition, self._own("forward_head"), features, pre_logits=pre_logits)

    def forward_intermediates(
        self,
        image: Tensor,
        domain: Tensor | Sequence[str] | str | int | None = None,
        **options: Any,
    ) -> Any:
        """Final features and a list of feature maps; ``options`` are timm's own.

        Raises:
            ConversionError: Not a timm network.
            ConditionError: See `domainnorm.labels.as_condition`.
        """
        condition = self._condition(image, domain)
        return self._under(condition, self._own("forward_intermediates"), image, **options)

    def get_classifier(self) -> Any:
        """The last layer; a pair of layers in networks that learned by distillation."""
        return self._own("get_classifier")()

    def reset_classifier(self, num_classes: int, **options: Any) -> None:
        """Replace the last layer by a new one of ``num_classes``, 0 for none, as timm does.

        Where that brings a new norm with it, as in LeViT, the conditional one in its place stays:
        what it normalizes is the same. A norm in a place that had none is shared by all domains,
        with a warning.
        """
        reset = self._own("reset_classifier")
        former = dict(self.backbone.named_modules())
        reset(num_classes, **options)
        for path, layer in list(self.backbone.named_modules()):
            if kind_of(layer) is None:
                continue
            if path not in former:
                warnings.warn(
                    f"{path} ({type(layer).__name__}): a norm that came with the new classifier "
                    "and that all domains share; convert a network with it to give each its own",
                    stacklevel=2,
                )
            elif isinstance(former[path], ConditionalNorm):
                self.backbone.set_submodule(path, former[path])
        paths = {path for path, norm in self.named_modules() if isinstance(norm, ConditionalNorm)}
        # A head may lose its norm together with its classifier.
        kept = (layer for layer in self.conversion if f"backbone.{layer.path}" in paths)
        self.conversion = Conversion(kept)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks during backward instead of keeping what they computed."""
        self._own("set_grad_checkpointing")(enable)

    @property
    def num_features(self) -> int:
        """F, channels of `forward_features`."""
        return int(self.backbone.num_features)  # type: ignore[arg-type]

    @property
    def num_classes(self) -> int:
        """K, 0 without a classifier."""
        return int(self.backbone.num_classes)  # type: ignore[arg-type]

    @property
    def feature_info(self) -> Any:
        """Channels and reductions of the feature maps, as timm declares them."""
        return self.backbone.feature_info

    @property
    def pretrained_cfg(self) -> Any:
        """What the pretrained weights expect, for `timm.data.resolve_model_data_config`."""
        return self.backbone.pretrained_cfg
