"""Errors that a user can cause, and how an unknown name is answered."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import accumulate

_MOST, _LONGEST = 16_000, 2000  # letters of all problems that a message shows, and of each


class DomainNormError(Exception):
    """Base of all errors that a recipe, a command line, data or a call can cause."""


class RecipeError(DomainNormError):
    """One or more problems in a recipe or its overrides; many, and long ones, are cut short.

    Args:
        problems: One line per problem, each naming the key, what came and what was expected.
        where: The file or recipe that holds them.
    """

    def __init__(self, problems: Iterable[str], where: str = "recipe") -> None:
        self.problems = list(problems)
        short = [one[:_LONGEST] + "…" * (len(one) > _LONGEST) for one in self.problems]
        letters = accumulate(map(len, short))
        shown = [one for one, so_far in zip(short, letters, strict=True) if so_far <= _MOST]
        lines = "".join(f"\n  - {problem}" for problem in shown)
        more = len(self.problems) - len(shown)
        rest = f"\n  and {more} more" if more else ""
        super().__init__(f"{where}: {counted(len(self.problems), 'problem')}{lines}{rest}")


class DataError(DomainNormError):
    """A file, folder, label or split that cannot be used; the message names it."""


class ConversionError(DomainNormError):
    """A network whose normalization layers cannot be converted as asked."""


class ConditionError(DomainNormError):
    """A missing, malformed or out-of-range condition (domain labels, names or weights)."""


class CheckpointError(DomainNormError):
    """A checkpoint or run folder that is missing, truncated or of another model."""


class ExportError(DomainNormError):
    """A model that cannot be exported, or a program that does not compute what its model does."""


class UnknownNameError(DomainNormError):
    """A name that is not registered; the message gives the nearest one and the list."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        super().__init__(unknown(kind, name, known))


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that looks most like ``name``, capitals or not, or None when none does."""
    names = {one.lower(): one for one in known}
    matches = get_close_matches(str(name).lower(), list(names), n=1, cutoff=0.5)
    return names[matches[0]] if matches else None


def similar(name: str, known: Iterable[str], usual: Iterable[str] = ()) -> list[str]:
    """Those of many names that look most like ``name``; the ``usual`` ones where none does."""
    return get_close_matches(name, list(known), n=8, cutoff=0.5) or list(usual)


def unknown(kind: str, name: object, known: Iterable[str], meant: str = "") -> str:
    """The sentence that answers an unknown name: what is ``meant``, or the nearest; the list."""
    names = list(known)
    # Names of recipes and parts begin with a folder, which is easily left out.
    last = {one.rpartition("/")[2]: one for one in names}
    match = meant or nearest(name, names) or last.get(nearest(name, last) or "")
    hint = f"did you mean '{match}'? " if match else ""
    listing = ", ".join(names) if names else "none"
    return f"unknown {kind} '{name}': {hint}known: {listing}"


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
