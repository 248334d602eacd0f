"""The norm layers of a network: which there are, why some cannot be conditioned, what they see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import timm
import torch
from timm.layers import ScaledStdConv2d, ScaledStdConv2dSame
from timm.models.mlp_mixer import Affine
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from domainnorm.backbones.conversion.kinds import NormKind, base_kind, kind_of
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


@dataclass(frozen=True)
class LayerInput:
    """The input of one norm layer.

    Args:
        size: Elements per channel and row; the least where the layer runs several times.
        folded: Whether each image reaches the layer as several consecutive rows.
        problem: Why its rows do not belong to one image each, or empty.
    """

    size: int
    folded: bool = False
    problem: str = ""


def probe_inputs(
    network: nn.Module,
    layers: Mapping[str, nn.Module],
    example: Tensor,
    run: Callable[[Tensor], Any] | None = None,
) -> dict[str, LayerInput]:
    """Run ``network``, or ``run``, in evaluation mode and look at the inputs of its ``layers``.

    LeViT, EfficientViT and others fold tokens or windows into the batch axis. That the rows of one
    image are consecutive there is checked, not assumed: in a batch of two images, the second half
    of the rows has to be what the second image gives alone.
    """
    other = torch.flip(example, (-1, -2)) * 0.5 + 0.25
    with evaluating(network):
        pair = _record(run or network, layers, torch.cat([other, example]))
        images = 2 * len(example)
        unequal = {path for path, seen in pair.items() if any(len(x) != images for x in seen)}
        alone: dict[str, list[Tensor]] = {}
        if unequal:
            alone = _record(run or network, {path: layers[path] for path in unequal}, example)
    found = {}
    for path, seen in pair.items():
        size = min(x.shape[2:].numel() for x in seen)
        folded = path in unequal and _consecutive(alone.get(path, []), seen)
        problem = ""
        if path in unequal and not folded:
            rows = next(len(x) for x in seen if len(x) != images)
            problem = f"sees {rows} rows for {images} images, and not those of one after the other"
        found[path] = LayerInput(size, folded, problem)
    return found


def replace_modules(network: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """``network`` with modules in the places of others, old -> new, under each of their names."""
    for alias, module in list(network.named_modules(remove_duplicate=False)):
        if alias and module in new:
            parent, _, name = alias.rpartition(".")
            setattr(network.get_submodule(parent), name, new[module])
    return new.get(network, network)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; training flags come back after it."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def unobserved(network: nn.Module) -> Iterator[None]:
    """Forward hooks wait inside the block, but those of torch, which make weights ready."""
    tables = [t for m in network.modules() for t in (m._forward_pre_hooks, m._forward_hooks)]
    former = [(table, dict(table)) for table in tables if table]
    for table, hooks in former:
        for key, hook in hooks.items():
            made_in = getattr(hook, "__module__", None) or type(hook).__module__
            if made_in.partition(".")[0] != "torch":
                del table[key]
    try:
        yield
    finally:
        for table, hooks in former:
            table.clear()
            table.update(hooks)


def _record(
    run: Callable[[Tensor], Any], layers: Mapping[str, nn.Module], image: Tensor
) -> dict[str, list[Tensor]]:
    seen: dict[str, list[Tensor]] = {}

    def recorder(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0]
            # Values are looked at only where rows are not images; shapes cost nothing to keep.
            keep = x.clone() if len(x) != len(image) else x.new_empty(1).expand(x.shape)
            seen.setdefault(path, []).append(keep)

        return record

    with ExitStack() as hooks:
        for path, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(recorder(path)))
        run(image)
    return seen


def _consecutive(alone: list[Tensor], pair: list[Tensor]) -> bool:
    return len(alone) == len(pair) and all(
        len(both) == 2 * len(single) and _ends_with(both.float(), single.float())
        for single, both in zip(alone, pair, strict=True)
    )


def _ends_with(pair: Tensor, alone: Tensor) -> bool:
    """Whether the second half of the rows are those of the second image alone.

    In half precision they differ by rounding, which is far less than what rows differ by.
    """
    second = pair[len(alone) :]
    if torch.allclose(second, alone, rtol=0.01, atol=1e-3):
        return True
    spread = (pair - pair.mean(0)).square().mean()
    return bool((second - alone).square().mean() < spread / 16)
