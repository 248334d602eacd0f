"""The norm classes that can be converted: how each is read, and filled again.

A class is looked up by its exact type. A subclass may carry more than its base (timm's
``BatchNormAct2d`` carries the activation), and a swap that does not know would delete it without
a word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import timm.layers as timm_layers
import torch
from timm.layers import norm as timm_norm
from timm.layers import norm_act as timm_norm_act
from timm.models import metaformer
from torch import Tensor, nn

from domainnorm.errors import ConversionError, unknown
from domainnorm.norms.kernels.per_sample import accumulate_dtype

Family: TypeAlias = Literal["batch", "instance", "layer", "group", "rms", "deviation"]

# The conditional norm of each family that gives the outputs of the layer it replaces.
KIN: dict[str, str] = {
    "batch": "dsbn",
    "instance": "cin",
    "layer": "cln",
    "group": "cgn",
    "rms": "crms",
    "deviation": "deviation*table",
}
_SIZES = {"batch": "num_features", "instance": "num_features", "group": "num_channels"}


@dataclass(frozen=True)
class NormKind:
    """How a class of norm layers is read: its formula, and the names of its attributes.

    Args:
        family: Which moments it takes: ``batch`` (running ones in evaluation), ``instance`` (pixels
            of a sample), ``layer`` (channels of a position), ``group``, ``rms``, or ``deviation``
            (the standard deviation of the channels, the mean is kept).
        channels_last: Whether channels are the last axis of its input, not the second.
        axes: Axes of pixels, 1 to 3, where channels are the second axis and its class tells.
        activation: Whether it ends with its children ``drop`` and ``act``, in this order.
        frozen: Whether a batch norm takes its running moments in training as well.
        scale: Attribute of the scale, (C,); the layer may hold None there.
        shift: Attribute of the shift, (C,), or None for a class that has no place for one.
        eps: Attribute of what is added to the variance, or the number itself.
        num_features: Attribute of C, for layers without scale; None: that of torch's classes.
        to_channels_last: Whether its output is channels_last in memory whatever its input is, as
            that of timm's ``LayerNorm2d``; convolutions after it are faster for it.
        maps_too: Whether it takes maps (N, C, H, W) besides tokens, whose channels are last.
    """

    family: Family
    channels_last: bool = False
    axes: int | None = None
    activation: bool = False
    frozen: bool = False
    scale: str = "weight"
    shift: str | None = "bias"
    eps: str | float = "eps"
    num_features: str | None = None
    to_channels_last: bool = False
    maps_too: bool = False

    @property
    def kin(self) -> str:
        """Name of the conditional norm that preserves the function."""
        return KIN[self.family]

    @property
    def size_attribute(self) -> str:
        """Where a layer without scale has C."""
        return self.num_features or _SIZES.get(self.family, "normalized_shape")

    def size(self, layer: nn.Module) -> int:
        """C."""
        scale = self.read(layer, self.scale)
        if scale is not None:
            return len(scale)
        size = getattr(layer, self.size_attribute)
        return int(size if isinstance(size, int) else size[-1])

    def options(self, layer: nn.Module) -> dict[str, Any]:
        """Constants of the layer, as options of a norm."""
        eps = getattr(layer, self.eps) if isinstance(self.eps, str) else self.eps
        if eps is None:  # torch.nn.RMSNorm: the resolution of the type it computes in
            scale = self.read(layer, self.scale)
            wide = torch.float32 if scale is None else accumulate_dtype(scale)
            eps = torch.finfo(wide).eps
        found: dict[str, Any] = {"eps": eps}
        if self.channels_last:
            found["tokens"] = True
        if self.family == "group":
            found["num_groups"] = layer.num_groups
        if self.family == "batch" and hasattr(layer, "momentum"):
            found["momentum"] = layer.momentum
        if self.frozen:
            found["frozen"] = True
        return found

    @staticmethod
    def read(layer: nn.Module, attribute: str | None) -> Tensor | None:
        """A tensor of the layer, None where it has none."""
        found: Tensor | None = None if attribute is None else getattr(layer, attribute, None)
        return found

    def problems(self, layer: nn.Module) -> Iterator[str]:
        """Why this very layer cannot be converted; nothing if it can."""
        shape = getattr(layer, "normalized_shape", (1,))
        if not isinstance(shape, int) and len(shape) != 1:
            yield (
                f"normalizes over the axes {tuple(shape)} together, conditional norms over one "
                "axis of channels"
            )
        for attribute in (self.scale, self.shift):
            tensor = self.read(layer, attribute)
            if tensor is not None and tensor.ndim != 1:
                yield f"its {attribute} has the shape {tuple(tensor.shape)}, expected (C,)"
        running = self.read(layer, "running_mean") is not None
        if self.family == "batch" and not running:
            yield (
                "batch norm without running statistics (track_running_stats=False) has no moments "
                "to start from"
            )
        if self.family == "instance" and running:
            yield "instance norm with running statistics normalizes by them in evaluation"
        if getattr(layer, "process_group", None) is not None:
            yield "synchronizes over a process group of its own, conditional norms over all ranks"
        if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
            yield "has hooks, which the new layer would not have; remove them, or add them later"

    @torch.no_grad()
    def write(
        self,
        layer: nn.Module,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor | None = None,
        var: Tensor | None = None,
        batches: Tensor | None = None,
    ) -> None:
        """Fill a layer of this kind, whose own tensors may be on the meta device.

        Args:
            layer: Changed in place. What it does not have stays absent where it would do nothing:
                a scale of 1, a shift of 0.
            scale: (C,).
            shift: (C,).
            mean: Running mean, (C,), for layers that have one.
            var: Running variance, (C,), likewise.
            batches: Batches the moments have seen, (); 0 when None.

        Raises:
            ConversionError: A shift that is not 0, for a class that has no place for one (RMS).
        """
        for attribute, value, neutral in ((self.scale, scale, 1), (self.shift, shift, 0)):
            _fill(layer, attribute, value, neutral)
        if self.read(layer, "running_mean") is not None and mean is not None and var is not None:
            layer.running_mean, layer.running_var = mean.clone(), var.clone()
            if self.read(layer, "num_batches_tracked") is not None:
                zero = torch.zeros((), dtype=torch.long, device=mean.device)
                layer.num_batches_tracked = zero if batches is None else batches.clone()

    def write_constants(self, layer: nn.Module, **constants: Any) -> None:
        """Give a layer of this kind the constants of a norm, those that it has.

        Args:
            layer: Changed in place, after `write`: a default eps depends on the dtype. One whose
                eps is fixed has to have this one already.
            **constants: ``eps``, and ``momentum`` of batch norms.
        """
        known = self.options(layer)
        for name, value in constants.items():
            if name in known and known[name] != value:
                attribute = self.eps if name == "eps" else name
                assert isinstance(attribute, str)
                setattr(layer, attribute, value)


def _fill(layer: nn.Module, attribute: str | None, value: Tensor, neutral: int) -> None:
    current = None if attribute is None else getattr(layer, attribute, None)
    if current is None and bool((value == neutral).all()):
        return
    if attribute is None or not hasattr(layer, attribute):
        what = "scale" if neutral else "shift"
        raise ConversionError(
            f"{type(layer).__name__} has no {what}, but the {what} of the domain is not {neutral}; "
            f"keep the conditional layer, or train with its {what} frozen"
        )
    if isinstance(current, Tensor) and not isinstance(current, nn.Parameter):
        setattr(layer, attribute, value.clone())
    else:
        flag = current is None or current.requires_grad
        setattr(layer, attribute, nn.Parameter(value.clone(), requires_grad=flag))


def kind_of(layer: nn.Module) -> NormKind | None:
    """The kind of a layer, by its exact class."""
    cls = type(layer)
    return KINDS.get(cls) or _NAMED.get(f"{cls.__module__}.{cls.__qualname__}")


def base_kind(layer: nn.Module) -> type[nn.Module] | None:
    """The nearest base of the layer's class that is in the table, if the class itself is not."""
    bases = type(layer).__mro__[1:]
    return None if kind_of(layer) else next((base for base in bases if base in KINDS), None)


def register_norm_class(cls: type[nn.Module], family: Family, **attributes: Any) -> None:
    """Let `convert_norms` convert one more class, which has to compute what its family does.

    Conversion replaces the layer by ``scale · normalize(x) + shift`` of the family; whatever else
    the class does is lost. Subclasses of ``cls`` are not included. A later call for the same class
    replaces the earlier one.

    Args:
        cls: The class of the layers.
        family: ``batch``, ``instance``, ``layer``, ``group``, ``rms`` or ``deviation``.
        **attributes: Where the class differs from torch's, see `NormKind`: ``channels_last``,
            ``activation``, ``scale``, ``shift``, ``eps``, …

    Raises:
        ConversionError: Not a module class, or a family or an attribute that does not exist.

    Example:
        >>> register_norm_class(LlamaRMSNorm, "rms", channels_last=True, eps="variance_epsilon")
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ConversionError(f"register_norm_class: got {cls!r}, expected a class of nn.Module")
    if family not in KIN:
        raise ConversionError(
            f"register_norm_class({cls.__name__}): " + unknown("family", family, KIN)
        )
    try:
        KINDS[cls] = NormKind(family, **attributes)
    except TypeError as error:
        known = ", ".join(name for name in NormKind.__dataclass_fields__ if name != "family")
        raise ConversionError(
            f"register_norm_class({cls.__name__}): {error}; known attributes: {known}"
        ) from None


def _kinds() -> Iterable[tuple[NormKind, tuple[type[nn.Module], ...]]]:
    """The table: classes of timm and torch."""
    t, norm, act = timm_layers, timm_norm, timm_norm_act
    yield NormKind("batch", axes=1), (nn.BatchNorm1d,)
    yield NormKind("batch", axes=2), (nn.BatchNorm2d,)
    yield NormKind("batch", axes=3), (nn.BatchNorm3d,)
    yield NormKind("batch"), (nn.SyncBatchNorm,)
    yield NormKind("batch", axes=2, activation=True), (t.BatchNormAct2d, t.SyncBatchNormAct)
    yield NormKind("batch", axes=2, frozen=True), (act.FrozenBatchNorm2d,)
    yield NormKind("batch", axes=2, frozen=True, activation=True), (t.FrozenBatchNormAct2d,)
    yield NormKind("instance", axes=1), (nn.InstanceNorm1d,)
    yield NormKind("instance", axes=2), (nn.InstanceNorm2d,)
    yield NormKind("instance", axes=3), (nn.InstanceNorm3d,)
    maps = (norm.LayerNorm2d, norm.LayerNorm2dFp32, norm.LayerNormExp2d)
    yield NormKind("layer", axes=2, to_channels_last=True), (*maps, metaformer.LayerNorm2dNoBias)
    tokens = (nn.LayerNorm, norm.LayerNorm, norm.LayerNormFp32, metaformer.LayerNormNoBias)
    yield NormKind("layer", channels_last=True), tokens
    yield (
        NormKind("layer", axes=2, activation=True, to_channels_last=True),
        (act.LayerNormAct2d, act.LayerNormAct2dFp32),
    )
    yield (
        NormKind("layer", channels_last=True, activation=True),
        (act.LayerNormAct, act.LayerNormActFp32),
    )
    groups = (nn.GroupNorm, norm.GroupNorm, norm.GroupNorm1, metaformer.GroupNorm1NoBias)
    yield NormKind("group"), groups
    yield NormKind("group", activation=True), (act.GroupNormAct, act.GroupNorm1Act)
    yield NormKind("rms", axes=2, shift=None), (norm.RmsNorm2d, norm.RmsNorm2dFp32)
    yield (
        NormKind("rms", channels_last=True, shift=None),
        (nn.RMSNorm, norm.RmsNorm, norm.RmsNormFp32),
    )
    yield (
        NormKind("rms", axes=2, activation=True, shift=None),
        (act.RmsNormAct2d, act.RmsNormAct2dFp32),
    )
    yield (
        NormKind("rms", channels_last=True, activation=True, shift=None),
        (act.RmsNormAct, act.RmsNormActFp32),
    )
    yield NormKind("deviation", axes=2, shift=None), (norm.SimpleNorm2d, norm.SimpleNorm2dFp32)
    yield (
        NormKind("deviation", channels_last=True, shift=None),
        (norm.SimpleNorm, norm.SimpleNormFp32),
    )


KINDS: dict[type[nn.Module], NormKind] = {
    cls: kind for kind, classes in _kinds() for cls in classes
}
# Of packages that need not be imported for it.
_SMP = "segmentation_models_pytorch"
_NAMED: dict[str, NormKind] = {
    "torchvision.models.convnext.LayerNorm2d": NormKind("layer", axes=2, to_channels_last=True),
    "torchvision.ops.misc.FrozenBatchNorm2d": NormKind("batch", axes=2, frozen=True),
    f"{_SMP}.decoders.upernet.decoder.LayerNorm2d": NormKind(
        "layer", axes=2, to_channels_last=True
    ),
    f"{_SMP}.encoders.mix_transformer.LayerNorm": NormKind(
        "layer", channels_last=True, maps_too=True
    ),
}
