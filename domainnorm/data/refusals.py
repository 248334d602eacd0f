"""Refusals of data: an error at once, or a list of everything for the command that asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from domainnorm.errors import DataError

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
