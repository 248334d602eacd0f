"""How a stream is followed."""

from __future__ import annotations

from dataclasses import dataclass

from domainnorm.data.dataset import checked_white
from domainnorm.errors import DomainNormError


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is followed; see `StreamAdapter`.

    Args:
        batch_size: Images that are predicted together; they learn from those before them.
        run_length: Images between false alarms, in expectation.
        max_domains: How many domains may be opened.
        share: Largest part of the stream's moments in those of a new domain.
        prior: Images of a new domain after which half of that part is reached.
        depth: Part of the norm layers, from the input on, that take on such moments.
        lr: Of entropy minimization in new domains; 0 for statistics alone.
        white: Value of 16-bit files that is shown as white; as in training when None.

    Raises:
        DomainNormError: A batch of no images, a wrong ``white``; the adapter refuses what else is
            out of range.
    """

    batch_size: int = 8
    run_length: float = 10_000
    max_domains: int = 8
    share: float = 0.2
    prior: float = 32
    depth: float = 0.75
    lr: float = 0.0
    white: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise DomainNormError(f"batch_size: got {self.batch_size}, expected 1 or more")
        if self.white is not None:
            checked_white(self.white)
