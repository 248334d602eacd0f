"""Refusals of data: an error at once, or a list of everything for the command that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from domainnorm.errors import DataError, DomainNormError, counted

Made = TypeVar("Made")
_COLLECTED: ContextVar[list[str] | None] = ContextVar("problems of data", default=None)


def refuse(message: str) -> None:
    """Raise, or take note inside `collecting`, where the caller goes on as well as it can.

    Raises:
        DataError: Nobody collects; the error has this message.
    """
    collected = _COLLECTED.get()
    if collected is None:
        raise DataError(message)
    if message not in collected:
        collected.append(message)


@contextmanager
def refusing() -> Iterator[None]:
    """Hand what is wrong with one thing to `refuse`, so that the others are looked at, too.

    Raises:
        DataError: Nobody collects.
    """
    try:
        yield
    except DataError as error:
        refuse(str(error))


@contextmanager
def reading(file: object, what: str, way: str = "replace the file") -> Iterator[None]:
    """Whatever a decoder raises while a file is read is an error that names the file.

    Raises:
        DataError: ``file: not a readable what (reason); way``; one of ours goes on as it is.
    """
    try:
        yield
    except DomainNormError:
        raise
    except Exception as error:  # decoders raise what they like, of damaged files above all
        told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        if told.startswith("cannot identify image file"):  # and then what Pillow was given
            told = "truncated, damaged or another format"
        reason = " ".join(told.split()) or type(error).__name__
        raise DataError(f"{file}: not a readable {what} ({reason}); {way}") from error


class LeftOut:
    """Files that are no record of a dataset, by what they are, with an example of each."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, file: str) -> None:
        """One file, and what it is; its name may be one that cannot be written."""
        shown = file.encode(errors="backslashreplace").decode()
        self._found.setdefault(kind, []).append(shown)

    @property
    def files(self) -> set[str]:
        """All of them."""
        return {file for files in self._found.values() for file in files}

    def join(self, other: LeftOut) -> None:
        """Those of another dataset, too."""
        for kind, files in other._found.items():
            self._found.setdefault(kind, []).extend(files)

    def __iter__(self) -> Iterator[str]:
        """What to say of each kind."""
        for kind, files in self._found.items():
            yield f"left out: {counted(len(files), 'file')} ({kind}), such as {files[0]}"


def is_collecting() -> bool:
    """Whether every file is going to be read anyway, so that looking for it first is idle."""
    return _COLLECTED.get() is not None


@contextmanager
def collecting() -> Iterator[list[str]]:
    """Collect what `refuse` says instead of raising it."""
    problems: list[str] = []
    token = _COLLECTED.set(problems)
    try:
        yield problems
    finally:
        _COLLECTED.reset(token)


def attempted(create: Callable[[], Made]) -> tuple[Made | None, list[str]]:
    """What ``create`` makes, if it can, and all that it refuses."""
    with collecting() as problems:
        try:
            return create(), problems
        except DataError as error:
            problems.append(str(error))
    return None, problems
