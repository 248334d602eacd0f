"""What the norm layers of a network see, found by running it on an example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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
    network: nn.Module, layers: Mapping[str, nn.Module], example: Tensor
) -> dict[str, LayerInput]:
    """Run ``network`` in evaluation mode and look at the inputs of ``layers``.

    LeViT, EfficientViT and others fold tokens or windows into the batch axis. That the rows of one
    image are consecutive there is checked, not assumed: in a batch of two images, the second half
    of the rows has to be what the second image gives alone.

    Args:
        network: Left as it was.
        layers: Norm layers by module path.
        example: (N, C, H, W).
    """
    other = torch.flip(example, (-1, -2)) * 0.5 + 0.25
    pair = _record(network, layers, torch.cat([other, example]))
    images = 2 * len(example)
    unequal = {path for path, seen in pair.items() if any(len(x) != images for x in seen)}
    alone: dict[str, list[Tensor]] = {}
    if unequal:
        alone = _record(network, {path: layers[path] for path in unequal}, example)
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


def _record(
    network: nn.Module, layers: Mapping[str, nn.Module], image: Tensor
) -> dict[str, list[Tensor]]:
    seen: dict[str, list[Tensor]] = {}

    def recorder(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def record(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = inputs[0]
            # Values are looked at only where rows are not images; shapes cost nothing to keep.
            keep = x.clone() if len(x) != len(image) else x.new_empty(1).expand(x.shape)
            seen.setdefault(path, []).append(keep)

        return record

    hooks = [layer.register_forward_pre_hook(recorder(path)) for path, layer in layers.items()]
    try:
        with evaluating(network):
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _consecutive(alone: list[Tensor], pair: list[Tensor]) -> bool:
    return len(alone) == len(pair) and all(
        len(both) == 2 * len(single)
        and torch.allclose(both[len(single) :].float(), single.float(), rtol=0.01, atol=1e-3)
        for single, both in zip(alone, pair, strict=True)
    )
