"""Losses and averages in float32 where the network is in half precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Loss = TypeVar("_Loss", bound=Callable[..., Tensor])


def in_float32(loss: _Loss) -> _Loss:
    """Decorate a loss to get tensors in half precision as float32, and to compute outside autocast.

    Within autocast products of matrices are in half precision whatever they are given, and there
    is no singular value decomposition. Wider tensors stay as they are.
    """

    @functools.wraps(loss)
    def wide(*arguments: Any, **options: Any) -> Tensor:
        given = (*arguments, *options.values())
        device = next((one.device.type for one in given if isinstance(one, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            named = {name: _widened(value) for name, value in options.items()}
            return loss(*map(_widened, arguments), **named)

    return wide  # type: ignore[return-value]


class WideBuffers(nn.Module):
    """A module whose own buffers stay at least in float32, whatever precision it is moved to.

    In half precision a moving average stops to move.
    """

    def _apply(self, *given: Any, **options: Any) -> WideBuffers:
        super()._apply(*given, **options)  # type: ignore[no-untyped-call]
        for name, buffer in [*self.named_buffers(recurse=False)]:
            setattr(self, name, _widened(buffer))
        return self


def _widened(argument: Any) -> Any:
    if isinstance(argument, Tensor) and argument.is_floating_point():
        return argument.to(torch.promote_types(argument.dtype, torch.float32))
    return argument
