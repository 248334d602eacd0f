"""What timm's networks offer, of a network whose norms know the domain of each sample."""

from __future__ import annotations

import re
import warnings
from typing import Any

from torch import Tensor, nn

from domainnorm.backbones.conversion.converted import Conversion
from domainnorm.backbones.conversion.kinds import kind_of
from domainnorm.backbones.conversion.norm_layers import replace_modules
from domainnorm.backbones.domains.owned_rows import owned_rows
from domainnorm.condition import Domain
from domainnorm.errors import ConversionError
from domainnorm.norms import ConditionalNorm

_PREFIX = "backbone."


class TimmInterface(nn.Module):
    """timm's own methods under their names; those that see images take the domain of each as well.

    Helpers of timm find here what they look for: what has no weight decay (rows of domains, and
    what the network says), how deep each parameter lies, and what the weights were made for.
    """

    backbone: nn.Module

    def _own(self: Any, name: str) -> Any:
        method = getattr(self.backbone, name, None)
        if method is None:
            raise ConversionError(
                f"{name}: {type(self.backbone).__name__} has no such method; timm's networks have "
                "it, but not those made with features_only=True"
            )
        return method

    def forward_features(self: Any, image: Tensor, domain: Domain = None) -> Any:
        """The features before pooling and head, (N, F, H, W) or (N, L, F); ``domain`` as ever."""
        return self._under(self._condition(image, domain), self._own("forward_features"), image)

    def forward_head(
        self: Any, features: Tensor, domain: Domain = None, *, pre_logits: bool = False
    ) -> Any:
        """Logits of what `forward_features` gave; the head of many networks holds a norm too.

        Args:
            features: (N, F, H, W) or (N, L, F).
            domain: See `forward`.
            pre_logits: Stop before the classifier, (N, F).
        """
        condition = self._condition(features, domain, features=True)
        return self._under(condition, self._own("forward_head"), features, pre_logits=pre_logits)

    def forward_intermediates(
        self: Any, image: Tensor, domain: Domain = None, **options: Any
    ) -> Any:
        """Final features and a list of feature maps; ``options`` are timm's own."""
        condition = self._condition(image, domain)
        return self._under(condition, self._own("forward_intermediates"), image, **options)

    def get_classifier(self) -> Any:
        """The last layer; a pair of layers in networks that learned by distillation."""
        return self._own("get_classifier")()

    def reset_classifier(
        self: Any, num_classes: int, global_pool: str | None = None, **options: Any
    ) -> None:
        """Replace the last layer by a new one of ``num_classes``, 0 for none, as timm does.

        Where that brings a new norm with it, as in LeViT, the conditional one in its place stays:
        what it normalizes is the same. A norm in a place that had none is shared by all domains,
        with a warning.
        """
        reset = self._own("reset_classifier")
        former = dict(self.backbone.named_modules())
        reset(num_classes, *([] if global_pool is None else [global_pool]), **options)
        for path, layer in list(self.backbone.named_modules()):
            if kind_of(layer) is None:
                continue
            if path not in former:
                warnings.warn(
                    f"{path} ({type(layer).__name__}): all domains share this norm of the new "
                    "classifier; to give each its own, convert a network that already has it",
                    stacklevel=2,
                )
            elif isinstance(former[path], ConditionalNorm):
                replace_modules(self.backbone, {layer: former[path]})
        # A head may lose its norm together with its classifier.
        paths = {path for path, norm in self.named_modules() if isinstance(norm, ConditionalNorm)}
        self.conversion = Conversion(
            layer for layer in self.conversion if f"backbone.{layer.path}" in paths
        )

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

    @property
    def default_cfg(self) -> Any:
        """`pretrained_cfg` under its former name, as timm has it."""
        return self.pretrained_cfg

    @property
    def head_hidden_size(self) -> int:
        """Channels that reach the classifier."""
        return int(self.backbone.head_hidden_size)  # type: ignore[arg-type]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay leaves alone: rows of domains, and timm's own."""
        own: set[str] = getattr(self.backbone, "no_weight_decay", set)()
        named = dict(self.named_parameters())
        rows = {one.key for one in owned_rows(self) if one.key in named}
        return rows | {_PREFIX + name for name in own}

    def group_matcher(self, *, coarse: bool = False) -> Any:
        """Patterns of the names of parameters by layer, or a function, for rates by depth."""
        found = self._own("group_matcher")(coarse=coarse)
        if callable(found):
            return lambda name: found(name.removeprefix(_PREFIX))
        return {layer: _below(pattern) for layer, pattern in found.items()}


def _below(pattern: Any) -> Any:
    """A pattern of names of parameters, or several with what follows them, below the backbone."""
    if isinstance(pattern, str):
        # What an alternative starts with, it starts with below the prefix.
        inner = re.sub(r"(^|\|)\^", r"\1", pattern)
        return f"^{re.escape(_PREFIX)}(?:{inner})"
    if isinstance(pattern, (list, tuple)):
        return [(_below(one[0]), one[1]) for one in pattern]
    return pattern
