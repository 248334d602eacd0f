"""Which domains are source and which target, and which of them share rows."""

from __future__ import annotations

from dataclasses import dataclass

from domainnorm.ranges import Rows


@dataclass(frozen=True)
class Roles:
    """Which domains of the model are source and which are target.

    Args:
        source: Names of labelled domains to learn from.
        target: Names of domains to adapt to.
        rows: Which of them share the rows of their norms while anything is learned: none, those of
            a ``role``, or all, as ``one``.
    """

    source: tuple[str, ...]
    target: tuple[str, ...] = ()
    rows: Rows = "domain"

    @property
    def all(self) -> tuple[str, ...]:
        """Source domains, then target domains: the order of the model's rows."""
        return self.source + self.target

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
