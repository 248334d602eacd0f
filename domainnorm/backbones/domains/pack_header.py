"""What a domain pack says of itself, read without torch and without trusting the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from domainnorm.errors import CheckpointError
from domainnorm.storage import DAMAGED

VERSION = 1
KEY = "domainnorm_pack"
# A pack of the largest timm networks has about a thousand tensors, 150 bytes of header each.
_LARGEST_HEADER = 4 * 2**20
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}


@dataclass(frozen=True)
class PackHeader:
    """What a domain pack says of itself.

    Args:
        domain: Name of the domain.
        backbone: timm architecture, or empty where the network is not timm's.
        layers: Module path -> norm, ``statistics*modulation`` and their ε.
        shared: Part of the network -> SHA-256 of its weights that are no domain's own.
        made_with: Version of domainnorm that wrote it.
        encoder: SHA-256 of the domain encoder, apart from what it knows of single domains; empty
            where the pack does not tell it anything.
        digest: SHA-256 of the tensors of the pack and of all that is said here; empty in packs of
            before.
        version: Format version.
    """

    domain: str
    backbone: str
    layers: dict[str, str]
    shared: dict[str, str]
    made_with: str
    encoder: str = ""
    digest: str = ""
    version: int = VERSION

    def to_json(self) -> str:
        """As it stands in the metadata of the file."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a safetensors file: ``dtype`` as the format spells it, and shape."""

    dtype: str
    shape: tuple[int, ...]


def read_pack_header(path: str | Path) -> tuple[PackHeader, dict[str, TensorInfo]]:
    """The header of a domain pack and what tensors it holds; no tensor is read.

    A safetensors file is the size of a JSON header in 8 bytes, the header, then bytes without
    gaps. Every number in it is checked before it is used.

    Raises:
        CheckpointError: A file that is missing, truncated, oversized or no domain pack.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            content = json.loads(file.read(length))
        header = _header(_text(content["__metadata__"], KEY))
        tensors = {name: value for name, value in content.items() if name != "__metadata__"}
        return header, _tensors(tensors, size - 8 - length)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except DAMAGED as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{path}: not a complete domain pack ({reason[:200]}); expected a file that "
            "save_domain or a run has written"
        ) from error


def _header(text: str) -> PackHeader:
    fields = json.loads(text)
    version = fields["version"]
    if version != VERSION:
        raise ValueError(f"format version {version!r}, this program reads {VERSION}")
    return PackHeader(
        _text(fields, "domain") or _refuse("an empty domain name"),
        _text(fields, "backbone"),
        {path: _text(fields["layers"], path) for path in fields["layers"]},
        {part: _text(fields["shared"], part) for part in fields["shared"]},
        _text(fields, "made_with"),
        _text(fields, "encoder") if "encoder" in fields else "",
        _text(fields, "digest") if "digest" in fields else "",
    )


def _text(fields: Mapping[str, Any], key: str) -> str:
    """A text that may be shown in a terminal."""
    value = fields[key]
    if not isinstance(value, str) or not value.isprintable() or not key.isprintable():
        raise TypeError(f"{key!r} is not a printable text")
    return value


def _tensors(listed: Mapping[str, Any], size: int) -> dict[str, TensorInfo]:
    found, spans = {}, []
    for name, fields in listed.items():
        dtype, shape = fields["dtype"], tuple(fields["shape"])
        begin, end = fields["data_offsets"]
        numbers = (*shape, begin, end)
        if not all(type(number) is int and number >= 0 for number in numbers):
            _refuse(f"{name!r} has a shape or place that is no whole number")
        if dtype not in _BYTES or end - begin != prod(shape) * _BYTES[dtype]:
            _refuse(f"{name!r}, {dtype} {shape}, does not fit its {end - begin} bytes")
        spans.append((begin, end))
        found[name] = TensorInfo(dtype, shape)
    ends = [0, *sorted(end for _, end in spans)]
    if [begin for begin, _ in sorted(spans)] != ends[:-1] or ends[-1] != size:
        _refuse(f"its tensors are not the {size} bytes after the header")
    return found


def _refuse(reason: str) -> Any:
    raise ValueError(reason)
