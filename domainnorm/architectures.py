"""Names of timm's architectures."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import timm

from domainnorm.errors import UnknownNameError


def check_architecture(name: str, usual: Sequence[str]) -> None:
    """Refuse a name that timm does not know.

    Args:
        name: An architecture, with an optional tag.
        usual: What is offered where no name is like it.

    Raises:
        UnknownNameError: The message gives the nearest.
    """
    if not timm.is_model(name):
        similar = get_close_matches(name, timm.list_models(), n=8, cutoff=0.5)
        raise UnknownNameError("timm architecture", name, similar or usual)
