"""Batch norms of a plain network folded into the convolutions before them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from domainnorm.backbones.conversion.norm_layers import evaluating, replace_modules
from domainnorm.errors import ConversionError
from domainnorm.slot import tensors_in

# Relative, in float64: what may be folded differs by rounding, 1e-15 and what a deep network makes
# of it; what may not differs by much more. Some of timm's reparameterizations compute in float32.
_TOLERANCE = 1e-6
_TOLERANCE_SINGLE = 1e-4
_NO_SUCH_PAIR = "no convolution or linear layer alone feeds it"

Pairs: TypeAlias = dict[str, str]  # batch norm -> the layer before it, module paths


def fuse_norms(network: nn.Module, example: Tensor) -> dict[str, str]:
    """Fold evaluation batch norms into the convolution or linear layer that feeds them, in place.

    ``weight · scale / sqrt(var + eps)``, ``(bias - mean) · scale / sqrt(var + eps) + shift``.
    Nothing is assumed of the network's code: layers that feed each other are found by running it,
    and a folding stays only where the outputs on ``example`` and on noise, in float64, are those of
    the network before. Networks that know how to make themselves plain (RepVGG and LeViT in timm)
    do so first. Dropout and activation of ``BatchNormAct2d`` stay. The network is put in evaluation
    mode, and must not be trained afterwards.

    Args:
        network: Changed in place.
        example: (N, C, H, W), of a size that the network takes.

    Returns:
        Path -> reason of the batch norms that stayed.

    Raises:
        ConversionError: The network does not run on ``example``.
    """
    network.eval()
    judge = _Judge(network, example)
    if judge.accepts(_reparameterize, _TOLERANCE_SINGLE):
        _reparameterize(network)
        judge = _Judge(network, example)
    pairs, reasons = _find_pairs(network, example)
    if not judge.accepts(lambda other: _fold(other, pairs)):
        pairs, wrong = _one_by_one(judge, pairs)
        for path, source in wrong.items():
            reasons[path] = f"folded into {source}, it would change the outputs"
    _fold(network, pairs)
    return reasons


def _one_by_one(judge: _Judge, pairs: Pairs) -> tuple[Pairs, Pairs]:
    """The pairs that keep the outputs, and those that do not."""
    good: Pairs = {}
    wrong: Pairs = {}
    for path, source in pairs.items():
        attempt = {**good, path: source}
        kept = judge.accepts(lambda other, tried=attempt: _fold(other, tried))  # type: ignore[misc]
        (good if kept else wrong)[path] = source
    return good, wrong


class _Judge:
    """Tells whether a change of the network keeps its outputs."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        # On the CPU, since some accelerators have no float64.
        self.network = copy.deepcopy(network).cpu().double().requires_grad_(False)
        noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
        self.images = torch.cat([example.cpu(), noise]).double()
        try:
            self.wanted = self._outputs(self.network)
        except RuntimeError as error:
            raise ConversionError(
                f"{type(network).__name__}: cannot be run on {tuple(example.shape)} in float64, "
                f"which fusing needs for its check ({error}); pass an example= of a size that it "
                "takes, or fold without fuse"
            ) from error

    def accepts(self, change: Callable[[nn.Module], None], tolerance: float = _TOLERANCE) -> bool:
        """Whether the network gives the same outputs after ``change``, which is tried on a copy."""
        changed = copy.deepcopy(self.network)
        try:
            change(changed)
            found = self._outputs(changed)
        except (RuntimeError, AttributeError, TypeError):  # what was changed is used in other ways
            return False
        sizes = [old.abs().max().clamp(min=1e-30) for old in self.wanted]
        return len(found) == len(self.wanted) > 0 and all(
            new.shape == old.shape and bool((new - old).abs().max() <= tolerance * size)
            for new, old, size in zip(found, self.wanted, sizes, strict=True)
        )

    def _outputs(self, network: nn.Module) -> list[Tensor]:
        with evaluating(network):
            return list(tensors_in(network(self.images)))


def _reparameterize(network: nn.Module) -> None:
    dtypes = {parameter.dtype for parameter in network.parameters()}
    reparameterize_model(network, inplace=True)
    if len(dtypes) == 1:  # timm 1.0 makes the new layers of RepViT in float32, whatever the others
        network.to(dtypes.pop())


def _find_pairs(network: nn.Module, example: Tensor) -> tuple[Pairs, Pairs]:
    """Batch norms whose input is the very tensor a layer returned; the others with a reason."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that no id is used twice
    fed: dict[str, list[str | None]] = {}
    runs: dict[str, int] = {}

    def returns(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: Any, output: Tensor) -> None:
            made[id(output)] = (path, output)
            runs[path] = runs.get(path, 0) + 1

        return hook

    def receives(path: str) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            source, _tensor = made.get(id(inputs[0]), (None, None))
            fed.setdefault(path, []).append(source)

        return hook

    with evaluating(network), ExitStack() as hooks:
        for path, module in network.named_modules():
            if _may_hold_norm(module):
                hooks.enter_context(module.register_forward_hook(returns(path)))
            elif _is_norm(module):
                hooks.enter_context(module.register_forward_pre_hook(receives(path)))
                fed[path] = []
        network(example)
    pairs = {
        path: sources[0]
        for path, sources in fed.items()
        if len(sources) == 1 and sources[0] is not None and runs[sources[0]] == 1
    }
    return pairs, {path: _NO_SUCH_PAIR for path in fed if path not in pairs}


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def _may_hold_norm(module: nn.Module) -> bool:
    if isinstance(module, _ConvTransposeNd):
        return module.groups == 1  # torch's formula is for one group
    return isinstance(module, (_ConvNd, nn.Linear))


@torch.no_grad()
def _fold(network: nn.Module, pairs: Mapping[str, str]) -> None:
    for norm_path, source_path in pairs.items():
        norm, source = network.get_submodule(norm_path), network.get_submodule(source_path)
        assert isinstance(norm, _BatchNorm)
        if isinstance(source, nn.Linear):
            fused: nn.Module = fuse_linear_bn_eval(source, norm)
        else:
            assert isinstance(source, _ConvNd)
            fused = fuse_conv_bn_eval(source, norm, isinstance(source, _ConvTransposeNd))
        carried = [getattr(norm, name, nn.Identity()) for name in ("drop", "act")]
        carried = [part for part in carried if type(part) is not nn.Identity]
        rest = nn.Sequential(*carried) if carried else nn.Identity()
        replace_modules(network, {source: fused, norm: rest})
