"""Options of what a finished run does; without torch, since the command line shows their help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from domainnorm import data
from domainnorm.errors import DomainNormError
from domainnorm.ranges import Far, Unseen

_SMALLEST_TILE = 32
_WHITE = "pixel value of 16-bit images that is white (default: as in training)"


def _option(default: Any, text: str, **argument: Any) -> Any:
    """A field with its default, what it means, and what `argparse` has to know beside them."""
    return field(default=default, metadata={"help": text, **argument})


def _number(kind: type, default: float, text: str) -> Any:
    return _option(default, f"{text} (default: %(default)s)", type=kind, metavar="X")


@dataclass(frozen=True)
class PredictOptions:
    """How images are predicted; `domainnorm predict --help` explains the fields.

    Raises:
        DomainNormError: A batch of no images, or a wrong ``white``.
    """

    domain: str | None = _option(None, "known domain of all images", metavar="NAME")
    unseen: Unseen | None = _option(  # noqa: RUF009 - it makes a field
        None,
        "norms for images without a known domain. error: refuse them. estimate, mixture: by the "
        "encoder. nearest: the domain with the nearest moments. mean: the mean of all domains. "
        "batch: statistics of the images that are predicted together. Default: the recipe's "
        "condition if that is estimate or mixture, else its unseen",
        choices=get_args(Unseen),
    )
    far: Far | None = _option(  # noqa: RUF009
        None,
        "norms for images that the encoder finds near no known domain (default: far of the recipe)",
        choices=get_args(Far),
    )
    batch_size: int | None = _option(
        None,
        "images per batch (default: data.eval_batch_size of the recipe)",
        type=int,
        metavar="N",
    )
    white: int | None = _option(None, _WHITE, type=int, metavar="V")

    def __post_init__(self) -> None:
        _check(self.batch_size, self.white)


@dataclass(frozen=True)
class TranslateOptions:
    """What images are translated to; `domainnorm translate --help` says what the fields mean."""

    to: str = _option(
        None,
        "domain, image file, or words, whose style the images get",
        metavar="STYLE",
        required=True,
    )
    between: Sequence[str] | None = _option(
        None,
        "two domains; a strip shows some images on the way from one to the other",
        nargs=2,
        metavar="DOMAIN",
    )
    tile: int | None = _option(
        None,
        "side of tiles, which the network sees in the pixels of the file, and not the whole image "
        "at data.image_size; for runs that were trained on parts of large images",
        type=int,
        metavar="PIXELS",
    )

    def __post_init__(self) -> None:
        _check_tile(self.tile)


@dataclass(frozen=True)
class RestoreOptions:
    """How images are restored; `domainnorm restore --help` says what the fields mean."""

    domain: str | None = _option(
        None, "domain of all images; needed where the norms look at it", metavar="NAME"
    )
    size: Literal["enlarged", "same"] = _option(
        "enlarged",
        "enlarged: images are the small ones, and grow by scale of data.degrade, or of pairs (64 "
        "pixels become 256 by 4). same: they are as large as they should be (default: "
        "%(default)s)",
        choices=("enlarged", "same"),
    )
    tile: int | None = _option(
        None,
        "side of tiles of the result that the network sees, for images too large for memory",
        type=int,
        metavar="PIXELS",
    )

    def __post_init__(self) -> None:
        _check_tile(self.tile)


@dataclass(frozen=True)
class GenerateOptions:
    """What images are made; `domainnorm generate --help` says what the fields mean.

    Raises:
        DomainNormError: A number out of range.
    """

    domain: Sequence[str] | None = _option(
        None, "domains of the images (default: all of the run)", nargs="+", metavar="NAME"
    )
    class_names: Sequence[str] | None = _option(
        None,
        "classes of the images (default: all of the run)",
        nargs="+",
        metavar="NAME",
        option="--class",
    )
    text: str | None = _option(
        None,
        "what the images show, in words, for a run with an encoder of text; without --class no "
        "class is asked for beside it",
        metavar="WORDS",
    )
    count: int = _number(int, 10, "images of each class and domain")
    seed: int = _number(int, 0, "what the noise is drawn from")
    steps: int | None = _option(
        None, "steps from noise to an image (default: task.steps)", type=int, metavar="X"
    )
    guidance: float | None = _option(
        None,
        "how much more of its class an image shows than one of no class, 1 for the class as it is "
        "(default: task.guidance)",
        type=float,
        metavar="X",
    )

    def __post_init__(self) -> None:
        least = {"count": 1, "seed": 0, "steps": 1, "guidance": 1}
        for name, lowest in least.items():
            if (value := getattr(self, name)) is not None and not value >= lowest:
                raise DomainNormError(f"--{name}: got {value}, expected {lowest} or more")


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is followed; see `adapt_online`, and `domainnorm adapt --help`.

    Raises:
        DomainNormError: A batch of no images, or a wrong ``white``.
    """

    domain: str | None = _option(
        None,
        "domain of all images, whose rows adapt (default: with a method, the target of the run if "
        "it has only one)",
        metavar="NAME",
    )
    batch_size: int = _number(int, 8, "images per batch")
    max_domains: int = _number(int, 8, "most domains that may be opened")
    white: int | None = _option(None, _WHITE, type=int, metavar="X")

    def __post_init__(self) -> None:
        _check(self.batch_size, self.white)


def _check_tile(tile: int | None) -> None:
    if tile is not None and tile < _SMALLEST_TILE:
        raise DomainNormError(f"--tile: {tile}, expected {_SMALLEST_TILE} pixels or more")


def _check(batch_size: int | None, white: int | None) -> None:
    if batch_size is not None and batch_size < 1:
        raise DomainNormError(f"batch_size: got {batch_size}, expected 1 or more")
    if white is not None:
        data.checked_white(white)
