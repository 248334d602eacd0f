"""Storage on disk: folders that users name, files that are whole or not there, strict JSON."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import pickle
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from domainnorm.errors import CheckpointError

# What reading a damaged file of JSON, tensors or a table raises, whatever the reader.
DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error),
)
_PARTIAL, _LOCK = ".partial.", ".running"
_PNG, _GZIP, _ZIP = b"\x89PNG\r\n\x1a\n", b"\x1f\x8b", b"PK\x03\x04"


@contextmanager
def whole_file(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[Path]:
    """A path to write to, in the same folder, that becomes ``path`` when the block ends.

    Whoever reads ``path`` finds the former file or the new one, complete, also after a kill or a
    loss of power. Several processes may write it at once: the last one wins. After an error what
    was there before stays, and nothing else is left.

    Args:
        path: The file; folders above it are made.
        durable: Whether to wait until the disk has it. Not worth it for what can be made anew and
            is looked at before it is used.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The end of the name stays, since writers choose the format by it; all of it may be too long.
    partial = path.with_name(f"{_PARTIAL}{secrets.token_hex(4)}.{path.name[-40:]}")
    try:
        yield partial
        if durable:
            with partial.open("rb") as written:
                os.fsync(written.fileno())
        if not partial.stat().st_mode & 0o077:  # writers of tensors leave it to its owner alone
            partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(partial)):
            error.filename = str(path)  # what a user knows
        raise


def _umask() -> int:
    """What the process takes off the permissions of new files; only setting it tells."""
    status = Path("/proc/self/status")  # of Linux, where no other thread sees it changed
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    current = os.umask(0o022)
    os.umask(current)
    return current


def read_tensors(path: Path, device: Any = "cpu") -> Any:
    """What `torch.save` has written: tensors and plain values, no code.

    Checksums of the archive are read, which torch does not look at.

    Raises:
        ValueError: They are not those of its content; others of `DAMAGED`, what torch raises.
    """
    import torch  # noqa: PLC0415 - light commands answer without it

    data = path.read_bytes()
    if damage := damage_of(data):
        raise ValueError(damage)
    return torch.load(io.BytesIO(data), map_location=device, weights_only=True)


def remove_partial(folder: Path) -> None:
    """Remove what `whole_file` has left in a folder, and below, where it was killed."""
    for leftover in folder.rglob(f"{_PARTIAL}*"):
        with suppress(OSError):
            leftover.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside the block no other process that asks for it works in this folder.

    Nothing is asked where the system, or the file system, knows no such locks. What a killed
    process has left half-written is removed, see `remove_partial`.

    Raises:
        CheckpointError: Another one does; it is named.
    """
    with _held(folder):
        remove_partial(folder)
        yield


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    try:
        import fcntl  # noqa: PLC0415 - not of Windows
    except ImportError:
        yield
        return
    with (folder / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().strip() or "another"
            raise CheckpointError(
                f"{folder}: process {other} is working in it; wait until it ends, or stop it"
            ) from None
        except OSError:  # some network file systems
            yield
            return
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8; see `whole_file`.

    Raises:
        CheckpointError: See `make_folders`.
    """
    path = Path(path)
    make_folders(path.parent)
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(content: Any, path: str | os.PathLike[str]) -> None:
    """Write dicts, sequences, arrays and numbers as indented JSON, see `replace_text`.

    Every reader accepts it: nan, which JSON does not have, is null.
    """
    text = json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)
    replace_text(path, text + "\n")


def number_of(value: float | None) -> float:
    """The number that a JSON file has; null is nan."""
    return math.nan if value is None else float(value)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if hasattr(content, "tolist"):  # of numpy
        return _plain(content.tolist())
    return None if isinstance(content, float) and math.isnan(content) else content


def make_folders(folder: Path, *, new: bool = False) -> None:
    """Make a folder that a user has named, and those above it; a ``new`` one is not there yet.

    Raises:
        CheckpointError: There is no making folders in that place, as below /proc.
    """
    try:
        folder.mkdir(parents=True, exist_ok=not new)
    except FileNotFoundError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{folder}: cannot be written ({error.strerror}); choose another folder")


@contextmanager
def folder_beside(place: Path) -> Iterator[Path]:
    """An empty folder on the file system of ``place``, which is removed at the end.

    Raises:
        CheckpointError: See `make_folders`.
    """
    own = place.absolute()
    if not own.name:
        raise CheckpointError(f"{place}: cannot be replaced; choose another folder")
    make_folders(own.parent)
    made = own.with_name(f".{own.name[-40:]}.{secrets.token_hex(4)}")
    try:
        made.mkdir()
    except FileNotFoundError as error:
        raise _unwritable(place, error) from error
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def damage_of(data: bytes) -> str:
    """What the checksums of a PNG, gzip or zip file say against it; nothing of one that is whole.

    Nothing of other files, either. Decoders leave checksums unread, where they need no more bytes,
    or do not mind them: one flipped bit gives other pixels, or voxels, that look like any.
    """
    try:
        if data.startswith(_PNG):
            return _png_damage(data)
        if data.startswith(_GZIP):
            gzip.decompress(data)
        if data.startswith(_ZIP):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                broken = archive.testzip()
            return f"the checksum of {broken} in it is wrong" if broken else ""
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError) as error:
        return str(error) or type(error).__name__
    return ""


def _png_damage(data: bytes) -> str:
    position = len(_PNG)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        kind, told = data[position + 4 : position + 8], data[end : end + 4]
        if len(told) < 4:
            break
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(told, "big"):
            return f"the checksum of its chunk {kind.decode('ascii', 'replace')} is wrong"
        if kind == b"IEND":
            return ""
        position = end + 4
    return "truncated"


def digest_of(file: Path) -> str:
    """SHA-256 of what a file holds, in hexadecimal digits."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
