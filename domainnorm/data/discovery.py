"""Domains of a pile of images, found by style and compared with what is known of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from domainnorm.data.images import WHITE, Progress, read_all, read_image
from domainnorm.data.piles import Pile
from domainnorm.data.table import write_lines
from domainnorm.encoders import FoundDomains, find_domains, style_features
from domainnorm.errors import DataError


@dataclass(frozen=True)
class Discovery:
    """What `discover_domains` found.

    Args:
        pile: Where the images are from.
        places: Positions in the pile of the images that could be read, (N,).
        found: Their domains.
        problems: What is wrong with each of the others, starting with its file.
        white: Value of 16-bit files that is shown as white.
    """

    pile: Pile
    places: list[int]
    found: FoundDomains
    problems: list[str]
    white: int = WHITE

    @property
    def domain_names(self) -> list[str]:
        """``style_1`` for the largest domain, and so on."""
        width = len(str(self.found.num_domains))
        return [f"style_{label + 1:0{width}d}" for label in range(self.found.num_domains)]

    @property
    def domains(self) -> list[str]:
        """Names of the domains of the images, (N,)."""
        names = self.domain_names
        return [names[label] for label in self.found.domain.tolist()]

    @property
    def splits(self) -> list[str]:
        """Splits of the images, (N,)."""
        return [self.pile.rows[place].split for place in self.places]

    def column(self, name: str) -> list[str]:
        """What the pile says of the images, (N,), as `Pile.column`."""
        values = self.pile.column(name)
        return [values[place] for place in self.places]

    def typical(self, label: int, count: int, size: int) -> list[NDArray[np.uint8]]:
        """The training images nearest to the centre of a domain, see `reduced_to`."""
        training = torch.tensor([split == "train" for split in self.splits])
        chosen = self.found.typical(label, count, training)
        files = (self.pile.rows[self.places[at]].file for at in chosen)
        return [reduced_to(read_image(self.pile.root / file, self.white), size) for file in files]

    def agreement(self, name: str) -> float | None:
        """Adjusted Rand index of the domains with a column that has groups of images.

        None where the column says the same of all images, something else of each, or nothing of
        one. 1 is the same partition, 0 what chance gives.

        Reference:
            Hubert and Arabie, Comparing Partitions, Journal of Classification 1985, eq. 5.
        """
        given = self.column(name)
        if not all(given) or not 1 < len(set(given)) < len(given):
            return None
        return float(adjusted_rand_score(given, self.domains))

    def write(self, table: Path) -> None:
        """Write the lines of the pile as a CSV manifest with the domains that were found."""
        name = self.pile.names["domain"]
        write_lines(
            table,
            [
                {**self.pile.lines[place], name: domain}
                for place, domain in zip(self.places, self.domains, strict=True)
            ],
        )


def discover_domains(
    pile: Pile,
    num_domains: int | None = None,
    *,
    max_domains: int = 8,
    size: int = 96,
    white: int = WHITE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Discovery:
    """Read all images of a pile in parallel and find domains in those of the training split.

    The others are assigned to these domains. Images that cannot be read are left out.

    Args:
        pile: The images.
        num_domains: K; as many as there are stable splits for when None.
        max_domains: Largest K that is found.
        size: Shorter side in pixels that larger images are reduced to.
        white: Value of 16-bit files that is shown as white.
        seed: See `find_domains`.
        progress: Wraps the readings, of which it is told the number.

    Raises:
        DataError: No training image can be read.
        ConditionError: See `find_domains`.
    """
    styles = list(
        read_all(lambda row: _style(pile.root / row.file, size, white), pile.rows, progress)
    )
    places = [at for at, style in enumerate(styles) if isinstance(style, Tensor)]
    training = torch.tensor([pile.rows[at].split == "train" for at in places], dtype=torch.bool)
    problems = [style for style in styles if isinstance(style, str)]
    if not bool(training.any()):
        first = f", such as {problems[0]}" if problems else ""
        raise DataError(
            f"{pile.root}: none of {len(styles)} images is one of split train that can be read; "
            f"domains are found in these alone{first}"
        )
    found = find_domains(
        torch.stack([style for style in styles if isinstance(style, Tensor)]),
        num_domains,
        max_domains=max_domains,
        shaping=training,
        seed=seed,
    )
    return Discovery(pile, places, found, problems, white)


def _style(file: Path, size: int, white: int) -> Tensor | str:
    """Style features (F,) of a file, or what is wrong with it."""
    try:
        image = read_image(file, white)
    except DataError as error:
        return str(error)
    if min(image.shape[:2]) < 2:
        return f"{file}: {image.shape[1]} × {image.shape[0]} pixels, expected at least 2 × 2"
    return style_of(image, size)


@torch.no_grad()
def style_of(image: NDArray[np.uint8], size: int) -> Tensor:
    """Style features (F,) of an image (H, W, 3), see `reduced_to`."""
    pixels = torch.from_numpy(reduced_to(image, size)).permute(2, 0, 1)[None]
    return style_features(pixels.float() / 255)[0]


def reduced_to(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) with a shorter side of at most ``size`` pixels, averaged over areas."""
    factor = size / min(image.shape[:2])
    if factor >= 1:
        return image  # enlarging would only add blur
    sides = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, sides, interpolation=cv2.INTER_AREA), dtype=np.uint8)
