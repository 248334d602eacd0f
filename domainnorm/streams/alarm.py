"""The alarm that a stream has entered a domain nobody knows, at a stated rate of false alarms."""

from __future__ import annotations

import math
from typing import Any

from domainnorm.errors import DomainNormError

# Share of the evidence that is bet on each image.
_STAKE = 0.3


class NoveltyAlarm:
    """Sequential test of whether images are unlike known domains more often than they may be.

    An image of a known domain is *unlike* it with a probability of at most ``rate``. On each image
    a part of the evidence is bet at fair odds, ``b = 0.7 + 0.3 · unlike / rate``, whose
    expectation is at most 1 as long as that holds; ``evidence ← max(1, evidence) · b``, and an
    alarm is raised where it reaches ``run_length``. Then at least ``run_length`` images lie, in
    expectation, between false alarms: images that are drawn independently, as the held-out ones
    were. Frames of a video are not; take every k-th.

    Args:
        run_length: Images between false alarms, more than 1.

    Raises:
        DomainNormError: A run length of 1 or less, or an infinite one.

    Reference:
        Vovk et al., Testing randomness online, Statistical Science 2021, arXiv:1906.09256, sec. 4
        (CUSUM of conformal bets); Lorden, Procedures for reacting to a change in distribution,
        Annals of Mathematical Statistics 1971, theorem 2 (run length).
        Differs: bets on one event, beyond a threshold, with a bound on its probability given the
        held-out images, so that what follows a change never enters what it is compared with.
    """

    def __init__(self, run_length: float = 10_000) -> None:
        if not run_length > 1:
            raise DomainNormError(f"run_length: got {run_length}, expected more than 1 image")
        if math.isinf(run_length):
            raise DomainNormError(
                f"run_length: got {run_length}, expected a finite number of images; to open no "
                "domain, set max_domains (`--max-domains`) to 0"
            )
        self.run_length = run_length
        self.evidence = 1.0

    @property
    def is_quiet(self) -> bool:
        """Whether nothing speaks for a new domain."""
        return self.evidence <= 1

    def update(self, unlike: bool, rate: float) -> bool:
        """Take in one image.

        Args:
            unlike: Whether it is unlike all known domains.
            rate: Bound on the probability of that, in (0, 1]; at 1 nothing is bet.

        Returns:
            Whether this is an alarm; the evidence then starts anew.
        """
        self.evidence = max(1.0, self.evidence) * (1 - _STAKE + _STAKE * unlike / rate)
        raised = self.evidence >= self.run_length
        if raised:
            self.evidence = 1.0
        return raised

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs."""
        return {"evidence": self.evidence}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one stopped."""
        self.evidence = float(state["evidence"])
