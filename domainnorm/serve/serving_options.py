"""Options of what a finished run does; without torch, since the command line shows their help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from domainnorm import data
from domainnorm.errors import DomainNormError
from domainnorm.ranges import Far, Unseen

_WHITE = "value of 16-bit files that is shown as white; as in training if left out"


def _option(default: Any, text: str, **argument: Any) -> Any:
    """A field with its default, what it means, and what `argparse` has to know beside them."""
    return field(default=default, metadata={"help": text, **argument})


def _number(kind: type, default: float, text: str) -> Any:
    return _option(default, f"{text} (%(default)s)", type=kind, metavar="X")


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted; `domainnorm predict --help` says what the fields mean.

    Raises:
        DomainNormError: A batch of no images, or a wrong ``white``.
    """

    domain: str | None = _option(None, "the known domain that all images are of", metavar="NAME")
    unseen: Unseen | None = _option(  # noqa: RUF009 - it makes a field
        None,
        "what stands for a domain that is not told: estimate or mixture, by the encoder; "
        "nearest, by moments; mean of all; batch, statistics of the images predicted together "
        "(default: condition of the recipe where that is an estimate, else its unseen)",
        choices=get_args(Unseen),
    )
    far: Far | None = _option(  # noqa: RUF009
        None,
        "what stands for an estimate near no known domain (default: far of the recipe)",
        choices=get_args(Far),
    )
    batch_size: int | None = _option(
        None,
        "images that are predicted together (default: data.eval_batch_size of the recipe)",
        type=int,
        metavar="N",
    )
    white: int | None = _option(None, _WHITE, type=int, metavar="V")

    def __post_init__(self) -> None:
        _check(self.batch_size, self.white)


@dataclass(frozen=True)
class TranslateOptions:
    """What images are translated to; `domainnorm translate --help` says what the fields mean."""

    to: str = _option(None, "domain whose style the images get", metavar="DOMAIN", required=True)
    between: Sequence[str] | None = _option(
        None,
        "two domains; a strip shows some images on the way from one to the other",
        nargs=2,
        metavar="DOMAIN",
    )


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is followed; see `adapt_online`, and `domainnorm adapt --help`.

    Raises:
        DomainNormError: A batch of no images, or a wrong ``white``.
    """

    domain: str | None = _option(
        None,
        "the domain of all images, whose rows move (default: where a method is named the target of "
        "the run, if there is one)",
        metavar="NAME",
    )
    batch_size: int = _number(int, 8, "images that are predicted together")
    max_domains: int = _number(int, 8, "how many domains may be opened")
    white: int | None = _option(None, _WHITE, type=int, metavar="X")

    def __post_init__(self) -> None:
        _check(self.batch_size, self.white)


def _check(batch_size: int | None, white: int | None) -> None:
    if batch_size is not None and batch_size < 1:
        raise DomainNormError(f"batch_size: got {batch_size}, expected 1 or more")
    if white is not None:
        data.checked_white(white)
