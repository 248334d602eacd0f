"""Which way images are read: as the run's dataset reads its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainnorm.data.files import white_of
from domainnorm.errors import ConditionError, DataError
from domainnorm.recipe import Recipe
from domainnorm.recipe.schema import parts_of
from domainnorm.registry import DATASETS
from domainnorm.serve.images.dicom import DicomImages
from domainnorm.serve.images.image_list import list_images
from domainnorm.serve.images.source import FileImages, ImageSource
from domainnorm.serve.images.volumes import VolumeImages

# What pixels of DICOM files and volumes depend on.
_SHOWN = ("axis", "spacing", "window")


def find_source(
    recipe: Recipe,
    place: Path,
    written: Path,
    *,
    white: int | None = None,
    known: Sequence[str] = (),
    attributes: Sequence[str] = (),
) -> ImageSource:
    """The images of a folder, list, table or file.

    Args:
        recipe: Of the run.
        place: Folder, list, table or file.
        written: Where the predictions go, of which none is an image.
        white: Value of 16-bit files that is shown as white; as in training when None.
        known: Domains that headers may tell.
        attributes: What the model's encoder reads, if it reads any.

    Raises:
        ConditionError: ``white``, and the run reads other files.
        DataError: No images; or parts of the run's data that show their files differently.
    """
    parts = parts_of(recipe.dataset)
    kinds = {DATASETS.load(part.name).reads for part in parts}
    ways = [{key: part.options.get(key) for key in _SHOWN} for part in parts]
    if kinds == {"images"}:
        return FileImages(list_images(place, written), white or _white_of_training(recipe))
    if len(kinds) > 1 or any(way != ways[0] for way in ways):
        names = ", ".join(part.name for part in parts)
        raise DataError(
            "data.parts: the run was trained on files that are read in different ways "
            f"({names}), and nothing tells which of them is that of these images; convert them, "
            "and train on one kind"
        )
    if white is not None:
        raise ConditionError(
            f"white: it is for 16-bit image files, and the run's dataset '{parts[0].name}' shows "
            "values by data.window; leave it out"
        )
    if kinds == {"volumes"}:
        return VolumeImages(place, written, parts[0].options)
    return DicomImages(place, written, parts[0].options, known, attributes)


def _white_of_training(recipe: Recipe) -> int:
    """16-bit value that training showed as white.

    Raises:
        DataError: The parts of its data have different ones.
    """
    white = white_of(recipe.dataset.options)
    if white is None:
        raise DataError(
            "data.white: the parts of the run's data have different ones; say which is that of "
            "these images with --white"
        )
    return white
