"""What domains own of a network: the tensors with a row for each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from domainnorm.encoders import DomainEncoder
from domainnorm.norms import ConditionalNorm
from domainnorm.norms.statistics.running import RunningMoments


class OwnedRows(NamedTuple):
    """A parameter or buffer (D, *) of a model.

    Args:
        key: Its name in the state of the model.
        owner: The module that has it.
        name: Its name there.
    """

    key: str
    owner: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        """The parameter or buffer itself."""
        tensor: Tensor = getattr(self.owner, self.name)
        return tensor

    @property
    def bytes(self) -> int:
        """What a row of parameters or running moments takes; 0 of a counter."""
        row = self.tensor[0]
        return row.numel() * row.element_size() if row.is_floating_point() else 0


def owned_rows(network: nn.Module, *, aliases: bool = False) -> Iterator[OwnedRows]:
    """The tensors of conditional norms with a row per domain, in definition order.

    ``aliases``: those of a norm in several places under each of their names.
    """
    for path, norm in network.named_modules(remove_duplicate=not aliases):
        if not isinstance(norm, ConditionalNorm):
            continue
        for name in norm.modulation.row_names:
            yield OwnedRows(f"{path}.modulation.{name}", norm.modulation, name)
        if isinstance(norm.statistics, RunningMoments) and norm.statistics.tracks_domains:
            for name in norm.statistics.row_names:
                yield OwnedRows(f"{path}.statistics.{name}", norm.statistics, name)


def encoder_rows(encoder: DomainEncoder | None) -> list[OwnedRows]:
    """The tensors in which a model's encoder has a row per domain; none without an encoder."""
    if encoder is None:
        return []
    gaussians = encoder.gaussians
    return [OwnedRows(f"encoder.gaussians.{name}", gaussians, name) for name in gaussians.row_names]


def value_problem(key: str, values: Tensor) -> str:
    """What is wrong with the numbers of a stored tensor, by its name; nothing when empty."""
    unbounded = key.endswith("gaussians.threshold")  # of domains without held-out images
    if bool(values.isnan().any() if unbounded else (~values.isfinite()).any()):
        return f"{key} has values that are not finite"
    if key.endswith(("running_var", "num_batches_tracked")) and bool((values < 0).any()):
        return f"{key} has negative values"
    return ""


def digest_of(tensors: Mapping[str, Tensor], header: Any = None) -> str:
    """SHA-256 over name, dtype, shape and bytes of tensors, sorted by name.

    ``header``: a dataclass of what is said of them, whose own fields but ``digest`` count too.
    """
    digest = hashlib.sha256()
    if header is not None:
        said = {name: value for name, value in asdict(header).items() if name != "digest"}
        digest.update(json.dumps(said, sort_keys=True).encode())
    for key, tensor in sorted(tensors.items()):
        add_to(digest, key, tensor)
    return digest.hexdigest()


def add_to(digest: hashlib._Hash, key: str, tensor: Tensor) -> None:
    """One tensor more; see `digest_of`."""
    value = tensor.detach().cpu().contiguous()
    digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
    digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
