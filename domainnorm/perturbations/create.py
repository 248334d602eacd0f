"""Perturbations by name."""

from __future__ import annotations

from typing import Any

from domainnorm.errors import DomainNormError, unknown
from domainnorm.perturbations.base import Perturbation
from domainnorm.registry import Registry

PERTURBATIONS = Registry("perturbation", "domainnorm.perturbations")


def list_perturbations() -> list[str]:
    """Names for `create_perturbation`."""
    return PERTURBATIONS.names()


def create_perturbation(name: str, **options: Any) -> Perturbation:
    """Make a perturbation.

    Args:
        name: A name of `list_perturbations` (``"mixstyle"``).
        **options: Its keywords (``p``, ``channel_axis``, …).

    Raises:
        UnknownNameError: No such perturbation; the message gives the nearest.
        DomainNormError: An option it does not have, or a value out of range.
    """
    entry = PERTURBATIONS.entry(name)
    for option in options:
        if option not in entry.parameters:
            raise DomainNormError(
                f"perturbation '{name}': " + unknown("option", option, entry.parameters)
            )
    made: Perturbation = entry.load()(**options)
    return made
