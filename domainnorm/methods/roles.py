"""Which domains are source and which target, and which of them share rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from domainnorm.errors import DomainNormError, unknown
from domainnorm.ranges import Rows


@dataclass(frozen=True)
class Roles:
    """Which domains of the model are source and which are target.

    Args:
        source: Names of labelled domains to learn from.
        target: Names of domains to adapt to.
        rows: Which of them share the rows of their norms while anything is learned: none, those of
            a ``role``, or all, as ``one``.

    Raises:
        DomainNormError: A text instead of a list of names, a name twice, or unknown ``rows``.
    """

    source: tuple[str, ...]
    target: tuple[str, ...] = ()
    rows: Rows = "domain"

    def __post_init__(self) -> None:
        for role in ("source", "target"):
            names = getattr(self, role)
            if isinstance(names, str):
                raise DomainNormError(f"Roles: {role}={names!r}, expected a list of names")
            object.__setattr__(self, role, tuple(names))
        if twice := [name for name, count in Counter(self.all).items() if count > 1]:
            raise DomainNormError(f"Roles: {', '.join(twice)} given twice; a domain has one role")
        if self.rows not in get_args(Rows):
            raise DomainNormError(f"Roles: {unknown('value of rows', self.rows, get_args(Rows))}")

    @property
    def all(self) -> tuple[str, ...]:
        """Source domains, then target domains."""
        return self.source + self.target

    def check(self, domain_names: Sequence[str]) -> None:
        """Refuse domains that a model with these has no rows for.

        Raises:
            DomainNormError: Names the first such domain, and the nearest one that there is.
        """
        for name in self.all:
            if name not in domain_names:
                raise DomainNormError(f"Roles: {unknown('domain', name, domain_names)}")

    @property
    def lenders(self) -> tuple[int, ...]:
        """Label of each of `all` -> that of the domain whose rows its images have in training."""
        if self.rows == "domain":
            return tuple(range(len(self.all)))
        first = len(self.source) if self.rows == "role" else 0
        return (0,) * len(self.source) + (first,) * len(self.target)

    def lent(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Domains whose rows the images of these domains have, each once."""
        labels = (self.lenders[self.all.index(name)] for name in names)
        return tuple(self.all[label] for label in dict.fromkeys(labels))


def domains_of(role: str, roles: Roles) -> tuple[str, ...]:
    """Names of the domains that a class constant means."""
    meaning = {"source": roles.source, "target": roles.target, "all": roles.all, "": ()}
    return meaning[role]
