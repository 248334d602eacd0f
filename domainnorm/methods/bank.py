"""What a method remembers of each image, by its index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.methods.base import Method


class Bank(nn.Module):
    """A value for each image, (*size), written and read by index; it grows as images are seen.

    An attribute of a method: it is moved and stored with it, and a checkpoint of any length loads.

    Args:
        *size: Of one value; none for a number.
        fill: Of images that were not written yet.
        dtype: Of the values.
    """

    values: Tensor

    def __init__(self, *size: int, fill: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.fill = fill
        self.register_buffer("values", torch.empty(0, *size, dtype=dtype))

    def write(self, index: Tensor, values: Tensor) -> None:
        """Remember ``values`` (N, *size) of the images ``index`` (N,), without their gradients."""
        self._grow(int(index.max()) + 1)
        self.values[index] = values.detach().to(self.values)

    def read(self, index: Tensor) -> Tensor:
        """The values (N, *size) of the images ``index`` (N,)."""
        self._grow(int(index.max()) + 1)
        return self.values[index]

    def _grow(self, length: int) -> None:
        if (missing := length - len(self.values)) > 0:
            rows = self.values.new_full((missing, *self.values.shape[1:]), self.fill)
            self.values = torch.cat([self.values, rows])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if (stored := state_dict.get(f"{prefix}values")) is not None:
            self.values = self.values.new_empty(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


@torch.no_grad()
def describe(method: Method) -> tuple[Tensor, Tensor, Tensor]:
    """Index (N,), features (N, F) and logits (N, K) of all target images, by the model as it is."""
    method.model.eval()
    found = [(batch["index"], *method.features(batch)) for batch in method.sweep()]
    method.model.train()
    index, features, logits = (torch.cat(parts) for parts in zip(*found, strict=True))
    return index, features, logits
