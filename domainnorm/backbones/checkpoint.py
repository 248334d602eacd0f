"""Weights of a model in one safetensors file, with the names of its domains and classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from domainnorm.backbones.domains.domain_rows import set_rows
from domainnorm.backbones.domains.owned_rows import (
    digest_of,
    encoder_rows,
    owned_rows,
    value_problem,
)
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import CheckpointError
from domainnorm.storage import DAMAGED, whole_file

VERSION = 1
_ENCODER = "encoder."


@dataclass(frozen=True)
class ModelHeader:
    """What a weights file says about its model.

    Args:
        backbone: timm architecture.
        domain_names: Domains, in row order.
        class_names: Classes, in output order.
        end_to_end: Whether its encoder has learned with the network.
        digest: SHA-256 of the tensors and of all that is said here; empty in files of before.
        version: Format version of the file.
    """

    backbone: str
    domain_names: tuple[str, ...]
    class_names: tuple[str, ...]
    end_to_end: bool = False
    digest: str = ""
    version: int = VERSION


def save_model(model: DomainModel, path: str | Path, backbone: str, classes: Sequence[str]) -> None:
    """Write all weights; an existing file is replaced only when the new one is complete."""
    stored, names = _stored(model), (model.domain_names, tuple(classes))
    header = ModelHeader(backbone, *names, model.end_to_end)
    header = replace(header, digest=digest_of(stored, header))
    save_whole(stored, path, {"domainnorm": json.dumps(asdict(header))})


def save_whole(tensors: dict[str, Tensor], path: str | Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file; an existing one is replaced only when the new one is complete."""
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata=metadata)


def _stored(model: DomainModel) -> dict[str, Tensor]:
    """The state as safetensors takes it: contiguous, and no two names for one memory."""
    stored, taken = {}, set()
    for name, tensor in model.state_dict().items():
        place = tensor.untyped_storage().data_ptr()
        own = tensor.clone() if place in taken else tensor
        stored[name] = own.detach().contiguous()
        taken.add(place)
    return stored


def read_header(path: str | Path) -> ModelHeader:
    """The header of a file written by `save_model`.

    Raises:
        CheckpointError: A missing, truncated or foreign file.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            fields = json.loads((file.metadata() or {})["domainnorm"])
        if fields["version"] != VERSION:
            raise ValueError(f"format version {fields['version']}, this program reads {VERSION}")
        return ModelHeader(
            str(fields["backbone"]),
            _names(fields, "domain_names"),
            _names(fields, "class_names"),
            bool(fields.get("end_to_end", False)),
            str(fields.get("digest", "")),
        )
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except (*DAMAGED, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: not a complete model file of domainnorm ({error}); expected the "
            "model.safetensors of a finished stage"
        ) from error


def _names(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    if not isinstance(fields[key], list):
        raise TypeError(f"{key} is not a list")
    names = tuple(map(str, fields[key]))
    if "" in names or len(set(names)) < len(names):
        raise ValueError(f"{key} are not distinct")
    return names


def load_model(model: DomainModel, path: str | Path, sources: Sequence[str] = ()) -> ModelHeader:
    """Load weights into ``model``, matching rows of domains by name.

    Args:
        model: Changed in place, and only if everything fits.
        path: File written by `save_model`.
        sources: Domains from which the rows of domains that the file does not know are set; all
            domains of the file when empty.

    Raises:
        CheckpointError: A missing, truncated or foreign file, or one of another network; the
            first tensors that do not fit are named.
    """
    header = read_header(path)
    if header.end_to_end != model.end_to_end:
        ways = ("with", "without") if header.end_to_end else ("without", "with")
        raise CheckpointError(
            f"{path}: a model {ways[0]} an encoder trained end to end, expected one {ways[1]}; "
            "'condition: embedding' in a recipe sets this, in Python attach_encoder(..., "
            "end_to_end=True)"
        )
    with safe_open(str(path), framework="pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    # Files of before have a digest of their numbers alone, or none.
    if header.digest not in ("", digest_of(stored, header), digest_of(stored)):
        raise CheckpointError(f"{path}: its content has changed since it was saved; train it again")
    for name, tensor in stored.items():
        if problem := value_problem(name, tensor):
            raise CheckpointError(
                f"{path}: {problem}, so predictions would be NaN; the training has diverged, or "
                "the file is damaged"
            )
    known = [name for name in model.domain_names if name in header.domain_names]
    if not known:
        raise CheckpointError(
            f"{path}: its domains ({', '.join(header.domain_names)}) share none with the model's "
            f"({', '.join(model.domain_names)})"
        )
    owned = (*owned_rows(model, aliases=True), *encoder_rows(model.encoder))
    tables = {rows.key for rows in owned}
    if not any(name.startswith(_ENCODER) for name in stored):  # it was made without an encoder
        own = model.state_dict()
        stored |= {name: own[name] for name in own if name.startswith(_ENCODER)}
    shapes = _shapes(model, stored)
    state = {
        name: _rows_by_name(tensor, found, header.domain_names, model)
        if (found := stored.get(name)) is not None and name in tables
        else found
        for name, tensor in model.state_dict().items()
    }
    wrong = [
        f"{name} {tuple(stored[name].shape) if name in stored else 'missing'}, expected {shape}"
        for name, shape in shapes.items()
        if (found := state[name]) is None or found.shape != shape
    ]
    wrong += [f"{name} unexpected" for name in stored if name not in state]
    if wrong:
        raise CheckpointError(
            f"{path}: {len(wrong)} tensors do not fit this model (file: {header.backbone}): "
            f"{'; '.join(wrong[:3])}"
        )
    model.load_state_dict(state)
    for name in model.domain_names:
        if name not in header.domain_names:
            set_rows(model, name, [source for source in sources if source in known] or known)
    return header


def _shapes(model: DomainModel, stored: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """What the model's state has to be, where its encoder takes on the sizes of the file's."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if model.encoder is not None:
        of_encoder = {
            name.removeprefix(_ENCODER): tensor
            for name, tensor in stored.items()
            if name.startswith(_ENCODER)
        }
        own = model.encoder.shapes_in(of_encoder)
        shapes |= {_ENCODER + name: shape for name, shape in own.items()}
    return shapes


def _rows_by_name(
    current: Tensor, stored: Tensor, names: Sequence[str], model: DomainModel
) -> Tensor:
    """The stored tensor of a norm, its domain rows reordered to the model's domains."""
    if stored.shape == current.shape and names == model.domain_names:
        return stored
    rest = current.shape[1:]
    if (stored.shape, current.shape) != ((len(names), *rest), (model.num_domains, *rest)):
        return stored
    rows = current.clone()
    for row, name in enumerate(model.domain_names):
        if name in names:
            rows[row] = stored[list(names).index(name)]
    return rows
