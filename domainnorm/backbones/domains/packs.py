"""Domain packs: all that one domain owns of a model, in one file of kilobytes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from domainnorm.backbones.checkpoint import save_whole
from domainnorm.backbones.domains.domain_rows import add_domain, check_name
from domainnorm.backbones.domains.owned_rows import (
    OwnedRows,
    add_to,
    digest_of,
    encoder_rows,
    value_problem,
)
from domainnorm.backbones.domains.pack_header import KEY, PackHeader, read_pack_header
from domainnorm.backbones.model import DomainModel
from domainnorm.errors import CheckpointError, ConditionError, unknown
from domainnorm.norms import ConditionalNorm
from domainnorm.registry import MODULATIONS, STATISTICS, Registry

_ENCODER = "encoder.gaussians."


def save_domain(model: DomainModel, domain: str, file: str | Path) -> None:
    """Write the parameters of ``domain``: rows of scale, shift or code, and running moments.

    The header describes the network that the pack fits: layers, their norms, and a digest of the
    weights that all domains share. The shared head is not in the pack. The encoder's Gaussian of
    the domain is, for models with the same encoder.

    Args:
        model: Not changed.
        domain: One of its domains.
        file: safetensors; an existing one is replaced only when the new one is complete.

    Raises:
        ConditionError: No such domain.
        CheckpointError: No norm of the model has anything of a domain's own, or the file cannot be
            written.
    """
    save_domains(model, {domain: Path(file)})


def save_domains(model: DomainModel, files: dict[str, Path]) -> None:
    """`save_domain` for several domains, domain -> file; what they share is hashed once."""
    owned = list(model.domain_rows())
    if not owned:
        raise CheckpointError(
            "no norm of this model has its own scale, shift or running moments for each domain, so "
            "there is nothing to save; convert with a norm that has, such as 'dsbn' or 'cbn'"
        )
    layers, shared = _layers(model), _shared_digests(model)
    backbone = str(getattr(model.backbone, "pretrained_cfg", {}).get("architecture") or "")
    for domain, file in files.items():
        if domain not in model.domain_names:
            raise ConditionError(unknown("domain", domain, model.domain_names))
        if file.is_dir():
            raise CheckpointError(
                f"{file}: is a folder, expected a file to write; name one in it, such as "
                f"{file / domain}.safetensors"
            )
        row = model.domain_names.index(domain)
        known = model.encoder is not None and bool(model.encoder.gaussians.known[row])
        encoder = _encoder_digest(model) if known else ""
        told = encoder_rows(model.encoder) if known else []
        tensors = {rows.key: rows.tensor[row].detach().clone() for rows in (*owned, *told)}
        made = version("domainnorm")
        header = PackHeader(domain, backbone, layers, shared, made, encoder)
        header = dataclasses.replace(header, digest=digest_of(tensors, header))
        try:
            save_whole(tensors, file, {KEY: header.to_json()})
        except SafetensorError as error:
            raise CheckpointError(
                f"{file}: cannot be written ({error}); free some space, or choose another place"
            ) from error


def load_domain(
    model: DomainModel, file: str | Path, name: str | None = None, *, replace: bool = False
) -> str:
    """Add the domain of a pack to a model, or replace one of its domains.

    Everything is checked before the model changes: the file, its layers, shapes, number formats and
    values, and that the shared weights are those that the pack was made with. If the model has the
    encoder that the pack was made with, this encoder then knows the domain too. Another encoder
    needs `extend_encoder` with images of the domain.

    Args:
        model: Changed in place, as by `add_domain`.
        file: What `save_domain` has written.
        name: Name of the domain in this model; None: the one in the pack.
        replace: Whether a domain of that name may be overwritten.

    Returns:
        The name.

    Raises:
        CheckpointError: A file that is missing, truncated or hostile, a pack that does not fit
            (the first layer, tensor or part that differs is named), or a name that is taken.
        ConditionError: A name that cannot be printed.
    """
    header, tensors = read_pack(model, file)
    name = header.domain if name is None else check_name(name)
    if name in model.domain_names and not replace:
        raise CheckpointError(
            f"{file}: this model has a domain '{name}' already; give another name=, or "
            "replace=True to overwrite it"
        )
    if name not in model.domain_names:
        add_domain(model, name)
    row = model.domain_names.index(name)
    with torch.no_grad():
        if model.encoder is not None:
            model.encoder.gaussians.count[row] = 0
        for rows in (*model.domain_rows(), *_told(model, header)):
            rows.tensor[row] = tensors[rows.key].to(rows.tensor.device)
    return name


def read_pack(model: DomainModel, file: str | Path) -> tuple[PackHeader, dict[str, Tensor]]:
    """The header and tensors of a pack that fits ``model``, which is not changed.

    Raises:
        CheckpointError: See `load_domain`.
    """
    header, infos = read_pack_header(file)
    told = _told(model, header)
    wanted = {rows.key: rows.tensor for rows in (*model.domain_rows(), *told)}
    shapes = {
        name: info.shape for name, info in infos.items() if told or not name.startswith(_ENCODER)
    }
    problem = _first_problem(model, header, shapes, wanted)
    if problem:
        whose = f"of '{header.backbone}'" if header.backbone else "of a network"
        raise CheckpointError(f"{file}: pack {whose} does not fit this model: {problem}")
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: not a complete domain pack ({error})") from error
    for key, value in wanted.items():
        problem = _value_problem(key, tensors[key], value)
        if problem:
            raise CheckpointError(f"{file}: {problem}; the file is damaged or was tampered with")
    if header.digest and header.digest != digest_of(tensors, header):
        raise CheckpointError(f"{file}: its content has changed since it was saved; get it again")
    return header, tensors


def _told(model: DomainModel, header: PackHeader) -> list[OwnedRows]:
    """What the encoder knows of domains, if it is the one that the pack was made with."""
    same = model.encoder is not None and header.encoder == _encoder_digest(model)
    return encoder_rows(model.encoder) if same else []


def _first_problem(
    model: DomainModel,
    header: PackHeader,
    shapes: dict[str, tuple[int, ...]],
    rows: Mapping[str, Tensor],
) -> str:
    layers, former = _layers(model), _layers(model, spelled=_module_name)
    found = {
        path: layers[path] if norm == former.get(path) else norm
        for path, norm in header.layers.items()
    }
    for path in _differing(layers, found):
        ours, theirs = layers.get(path, "absent"), found.get(path, "absent")
        return f"layer '{path}' is {ours} here, {theirs} in the pack"
    wanted = {key: tuple(tensor.shape[1:]) for key, tensor in rows.items()}
    for key in _differing(wanted, shapes):
        return f"{key} is {wanted.get(key, 'absent')} here, {shapes.get(key, 'absent')} in the pack"
    digests = _shared_digests(model)
    for part in _differing(digests, header.shared):
        return (
            f"the shared weights of '{part}' are not those it was made with; a pack fits the very "
            "network it was trained in, in the same number format, and copies of it"
        )
    return ""


def _value_problem(key: str, stored: Tensor, rows: Tensor) -> str:
    if stored.dtype != rows.dtype or stored.shape != rows.shape[1:]:
        return f"{key} is {stored.dtype}, expected {rows.dtype}"
    return value_problem(key, stored)


def _differing(first: Mapping[str, object], second: Mapping[str, object]) -> Iterable[str]:
    """Keys of one, of the other or of unequal values, in order."""
    return (key for key in {**first, **second} if first.get(key) != second.get(key))


def _layers(
    model: DomainModel, spelled: Callable[[Registry, type], str] = Registry.name_of
) -> dict[str, str]:
    """Module path -> norm, as files of a pack spell it."""
    return {
        path: f"{spelled(STATISTICS, type(norm.statistics))}*"
        f"{spelled(MODULATIONS, type(norm.modulation))}"
        f" eps={getattr(norm.statistics, 'eps', 0.0):g}"
        for path, norm in model.backbone.named_modules()
        if isinstance(norm, ConditionalNorm)
    }


def _module_name(registry: Registry, half: type) -> str:
    """How packs of version 0.1.0 and before spell a half of a norm that a user has registered."""
    own = half.__module__.startswith(f"{registry.package}.")
    return registry.name_of(half) if own else half.__module__.rpartition(".")[2]


def _encoder_digest(model: DomainModel) -> str:
    """SHA-256 of all of the encoder but its rows of domains."""
    assert model.encoder is not None
    rows = {f"gaussians.{key}" for key in model.encoder.gaussians.row_names}
    state = model.encoder.state_dict()
    return digest_of({key: tensor for key, tensor in state.items() if key not in rows})


def _shared_digests(model: DomainModel) -> dict[str, str]:
    """Part of the backbone -> SHA-256 over name, dtype, shape and bytes of its shared tensors."""
    own = {(id(rows.owner), rows.name) for rows in model.domain_rows()}
    modules = dict(model.named_modules(remove_duplicate=False))
    hashes: dict[str, hashlib._Hash] = {}
    for key, tensor in sorted(model.state_dict().items()):
        owner, _, name = key.rpartition(".")
        if (id(modules.get(owner)), name) in own or key.startswith("encoder."):
            continue  # what guesses the domain decides nothing about what a domain needs
        part = key.removeprefix("backbone.").partition(".")[0]
        add_to(hashes.setdefault(part, hashlib.sha256()), key, tensor)
    return {part: digest.hexdigest() for part, digest in hashes.items()}
