"""Domain encoders by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from domainnorm.encoders.base import DomainEncoder
from domainnorm.errors import DomainNormError, unknown
from domainnorm.registry import Registry

ENCODERS = Registry("encoder", "domainnorm.encoders")


def list_encoders() -> list[str]:
    """Names for `create_encoder`."""
    return ENCODERS.names()


def create_encoder(
    name: str,
    /,
    num_domains: int,
    network: nn.Module | None = None,
    in_chans: int = 3,
    **options: Any,
) -> DomainEncoder:
    """Make a domain encoder.

    Args:
        name: A name of `list_encoders` (``"style"``).
        num_domains: D.
        network: The backbone whose domain is estimated; an encoder may share parts of it.
        in_chans: Channels of the images.
        **options: Its keywords (``embedding``, …).

    Raises:
        UnknownNameError: No such encoder; the message gives the nearest.
        DomainNormError: An option it does not have.
    """
    entry = ENCODERS.entry(name)
    for option in options:
        if option not in entry.parameters:
            listing = unknown("option", option, entry.parameters)
            raise DomainNormError(f"encoder '{name}': {listing}")
    made: DomainEncoder = entry.load()(num_domains, network, in_chans, **options)
    return made
