"""Where images that are predicted come from, and where their masks go."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.decode import read_image
from domainnorm.errors import DataError
from domainnorm.serve.file_model import write_mask
from domainnorm.serve.images.files import check_masks, mask_file
from domainnorm.serve.images.image_list import ImageList

MASKS = "masks"


class ImageSource(abc.ABC):
    """Images that are predicted, read as the training images of the run.

    Args:
        listed: Which they are, and what is told of them.
        problems: Number of an image -> why it cannot be read, as far as that is known already.
    """

    def __init__(self, listed: ImageList, problems: Mapping[int, str] | None = None) -> None:
        self.listed, self.problems = listed, problems or {}

    @abc.abstractmethod
    def pixels(self, number: int) -> NDArray[np.uint8]:
        """Pixels of one image: (h, w, 3), 0 to 255; called in several threads.

        Raises:
            DataError: It cannot be read or decoded; the message names it.
        """

    def read(self, number: int) -> NDArray[np.uint8]:
        """`pixels`, or why there are none.

        Raises:
            DataError: Names the file.
        """
        if number in self.problems:
            raise DataError(self.problems[number])
        return self.pixels(number)

    def asked(self) -> Mapping[str, Any]:
        """Options that pixels depend on."""
        return {}

    def check_masks(self) -> None:
        """Refuse images whose masks would be one file.

        Raises:
            DataError: Names the first two.
        """
        check_masks(self.listed.place, (name for name, _ in self.listed.files))

    def write_mask(self, made: Path, number: int, mask: NDArray[np.uint8]) -> str:
        """Write the mask of one image, the images in their order.

        Args:
            made: Folder of the prediction.
            number: Of the image.
            mask: Classes (h, w) at the size of its pixels.

        Returns:
            The file, below the folder.
        """
        file = Path(MASKS) / mask_file(self.listed.files[number][0])
        write_mask(mask, made / file)
        return str(file)

    def finish(self, made: Path) -> None:  # noqa: B027 - most have nothing left
        """After the last image: write what is left; nothing unless overridden."""


class FileImages(ImageSource):
    """PNG, JPEG and other image files.

    Args:
        listed: Which they are.
        white: Value of 16-bit files that is shown as white.
    """

    def __init__(self, listed: ImageList, white: int) -> None:
        super().__init__(listed)
        self._white = white

    def pixels(self, number: int) -> NDArray[np.uint8]:
        """See `ImageSource`."""
        return read_image(self.listed.files[number][1], self._white)

    def asked(self) -> Mapping[str, Any]:
        """See `ImageSource`."""
        return {"white": self._white}
