"""Options of what a finished run does; without torch, since the command line shows their help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from domainnorm import data
from domainnorm.errors import DomainNormError
from domainnorm.ranges import Far, Unseen

_WHITE = "value of 16-bit files that is shown as white; as in training if left out"


def _help(text: str, **argument: Any) -> dict[str, Any]:
    """What a field means, and what `argparse` has to know beside it."""
    return {"help": text, **argument}


def _number(kind: type, text: str) -> dict[str, Any]:
    return _help(f"{text} (%(default)s)", type=kind, metavar="X")


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted; `domainnorm predict --help` says what the fields mean.

    Raises:
        DomainNormError: A batch of no images, or a wrong ``white``.
    """

    domain: str | None = field(
        default=None, metadata=_help("the known domain that all images are of", metavar="NAME")
    )
    unseen: Unseen | None = field(
        default=None,
        metadata=_help(
            "what stands for a domain that is not told: estimate or mixture, by the encoder; "
            "nearest, by moments; mean of all; batch, statistics of the images predicted together "
            "(default: condition of the recipe where that is an estimate, else its unseen)",
            choices=get_args(Unseen),
        ),
    )
    far: Far | None = field(
        default=None,
        metadata=_help(
            "what stands for an estimate near no known domain (default: far of the recipe)",
            choices=get_args(Far),
        ),
    )
    batch_size: int | None = field(
        default=None,
        metadata=_help(
            "images that are predicted together (default: data.eval_batch_size of the recipe)",
            type=int,
            metavar="N",
        ),
    )
    white: int | None = field(default=None, metadata=_help(_WHITE, type=int, metavar="V"))

    def __post_init__(self) -> None:
        _check(self.batch_size, self.white)


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is followed; see `StreamAdapter`, and `domainnorm adapt --help`.

    Raises:
        DomainNormError: A batch of no images, a wrong ``white``; the adapter refuses what else is
            out of range.
    """

    batch_size: int = field(default=8, metadata=_number(int, "images that are predicted together"))
    run_length: float = field(
        default=10_000, metadata=_number(float, "images between false alarms, in expectation")
    )
    max_domains: int = field(default=8, metadata=_number(int, "how many domains may be opened"))
    share: float = field(
        default=0.2,
        metadata=_number(float, "largest part of the stream's moments in those of a new domain"),
    )
    prior: float = field(
        default=32,
        metadata=_number(float, "images of a new domain after which half of that part is reached"),
    )
    depth: float = field(
        default=0.75,
        metadata=_number(
            float, "part of the norm layers, from the input on, that take on such moments"
        ),
    )
    lr: float = field(
        default=0.0,
        metadata=_number(float, "of entropy minimization in new domains; 0: statistics alone"),
    )
    white: int | None = field(default=None, metadata=_help(_WHITE, type=int, metavar="X"))

    def __post_init__(self) -> None:
        _check(self.batch_size, self.white)


def _check(batch_size: int | None, white: int | None) -> None:
    if batch_size is not None and batch_size < 1:
        raise DomainNormError(f"batch_size: got {batch_size}, expected 1 or more")
    if white is not None:
        data.checked_white(white)
