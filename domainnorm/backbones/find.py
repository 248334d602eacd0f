"""The norm layers of a network, and why some networks have none that can be conditioned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import timm
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame
from timm.models.mlp_mixer import Affine
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from domainnorm.backbones.kinds import NormKind, base_kind, kind_of
from domainnorm.errors import ConversionError
from domainnorm.norms import ConditionalNorm

# Parts of timm's class names that say what cannot be split into statistics × modulation.
_FUSED = {
    "evonorm": "normalizes and activates in one formula, which has no conditional form here",
    "filterresponse": "divides by a root mean square of pixels, which has no conditional form here",
    "inplaceabn": "fuses norm and activation in a kernel of its own",
}
_RESPONSE = "globalresponse"  # GlobalResponseNorm reweights channels: no normalization layer


def find_norms(network: nn.Module) -> dict[str, nn.Module]:
    """Every norm layer by path, those that cannot be converted included.

    Raises:
        ConversionError: There is none, or the network is converted already.
    """
    layers = {path: module for path, module in network.named_modules() if _is_norm(module)}
    if any(isinstance(module, ConditionalNorm) for module in network.modules()):
        raise ConversionError("this network is converted already; convert the original once")
    if not layers:
        raise ConversionError(_without_norms(network))
    return layers


def check_kinds(paths: Sequence[str], layers: Mapping[str, nn.Module]) -> dict[str, NormKind]:
    """The kind of each layer that is to be converted.

    Raises:
        ConversionError: Classes that are not known, or layers that cannot be converted, by path.
    """
    kinds = {path: kind for path in paths if (kind := kind_of(layers[path])) is not None}
    unknown = [path for path in paths if path not in kinds]
    if unknown:
        raise ConversionError(_refusal(unknown, layers))
    for path, kind in kinds.items():
        for problem in chain(_misread(kind, layers[path]), kind.problems(layers[path])):
            raise ConversionError(
                f"{path} ({type(layers[path]).__name__}): {problem}; leave it unconditioned with "
                f"`where`, e.g. where=['all', '!{path}']"
            )
    return kinds


def _misread(kind: NormKind, layer: nn.Module) -> Iterator[str]:
    """What attributes that were registered wrongly, or not at all, would not find, or lose."""
    how = f"register_norm_class({type(layer).__name__}, '{kind.family}', ...)"
    needed = [] if kind.read(layer, kind.scale) is not None else [kind.size_attribute]
    for attribute in (*needed, *([kind.eps] if isinstance(kind.eps, str) else [])):
        if not hasattr(layer, attribute):
            yield f"has no attribute '{attribute}'; say with {how} what its attributes are called"
    kept = {kind.scale, kind.shift, "running_mean", "running_var"}
    for name, tensor in chain(layer.named_parameters(), layer.named_buffers()):
        carried = kind.activation and name.startswith(("drop.", "act."))
        if name not in kept and not carried and tensor.is_floating_point():
            yield f"its '{name}' would be lost; say with {how} if it is the scale or the shift"


def _is_norm(module: nn.Module) -> bool:
    if kind_of(module) or base_kind(module) or isinstance(module, _NormBase):
        return True
    name = type(module).__name__.lower()
    if type(module).__module__.startswith("torch.") or _RESPONSE in name:
        return False
    if "norm" not in name and _reason(module) is None:
        return False
    # Containers (ConvNormAct, NormFreeBlock) hold layers; a module that normalizes images by mean
    # and std owns neither parameters nor running moments.
    if any(isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)) for part in module.modules()):
        return False
    own = any(True for _ in module.parameters(recurse=False))
    return own or "running_var" in dict(module.named_buffers(recurse=False))


def _reason(module: nn.Module) -> str | None:
    name = type(module).__name__.lower()
    return next((reason for word, reason in _FUSED.items() if word in name), None)


def _refusal(unknown: Sequence[str], layers: Mapping[str, nn.Module]) -> str:
    shown = ", ".join(f"{path} ({type(layers[path]).__name__})" for path in unknown[:3])
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    reason = _reason(layers[unknown[0]])
    if reason is not None:
        name = type(layers[unknown[0]]).__name__
        return f"{shown}{more}: {name} {reason}; take a backbone with batch or layer norms"
    base = base_kind(layers[unknown[0]])
    why = "not a norm class that is known"
    if base is not None:
        why = f"a subclass of {base.__name__}, which may do more than it"
    return (
        f"{shown}{more}: {why}; if it computes what its family does, say so with "
        "domainnorm.backbones.register_norm_class, else leave these layers unconditioned with "
        "`where`, e.g. where=['all', '!PATH']"
    )


def _without_norms(network: nn.Module) -> str:
    name = type(network).__name__
    kinds = {type(module) for module in network.modules()}
    reason, hint = "it has no normalization layer", ""
    if kinds & {ScaledStdConv2d, ScaledStdConv2dSame}:
        reason = "its convolutions are standardized instead (a normalizer-free network)"
    elif Affine in kinds:
        reason = "its Affine layers scale and shift without normalizing"
    architecture = (getattr(network, "pretrained_cfg", None) or {}).get("architecture", "")
    if architecture and timm.is_model(f"{architecture}_bn"):
        hint = f"{architecture}_bn, or "
    return (
        f"{name}: no norm layer to convert, {reason}; take {hint}a backbone with batch or layer "
        "norms, e.g. resnet50 or convnext_tiny"
    )
