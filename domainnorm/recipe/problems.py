"""Problems of a recipe, collected so that everything is reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from domainnorm.errors import unknown

LONGEST_VALUE = 60
_STEP = re.compile(r"[.\[]")


class Problems:
    """Problems by dotted key; the first problem of a key stands for all that follow from it."""

    def __init__(self) -> None:
        self._lines: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    @property
    def lines(self) -> list[str]:
        """One line per problem, in the order they were found."""
        return list(self._lines.values())

    def add(self, key: str, text: str) -> None:
        """Note a problem of ``key`` unless that key or one that holds it already has one."""
        holders = (key[: match.start()] for match in _STEP.finditer(key))
        if not any(holder in self._lines for holder in holders):
            self._lines.setdefault(key, f"{key}: {text}")

    def expect(self, key: str, value: Any, expected: str) -> None:
        """Note that ``key`` has a value where something else was expected."""
        self.add(key, f"got {spelled(value)}, expected {expected}")

    def check_keys(self, key: str, given: Iterable[str], known: Sequence[str]) -> None:
        """Note keys of a mapping that it does not have."""
        for name in given:
            if name not in known:
                self.add(key, unknown("key", name, known))

    def add_lines(self, lines: Iterable[str]) -> None:
        """Note problems that already name their keys."""
        for line in lines:
            self._lines.setdefault(line, line)

    def among(self, key: str) -> bool:
        """Whether ``key`` or a key below it has a problem."""
        return any(
            known == key or known.startswith((f"{key}.", f"{key}[")) for known in self._lines
        )


def spelled(value: Any) -> str:
    """A value as YAML writes it, shortened when long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
