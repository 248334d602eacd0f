"""Which way images that are predicted are read: as the run's dataset reads its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domainnorm.errors import ConditionError
from domainnorm.recipe import Recipe
from domainnorm.recipe.registries import DATASETS
from domainnorm.run.file_model import white_of_training
from domainnorm.run.predictions.dicom import DicomImages
from domainnorm.run.predictions.image_list import list_images
from domainnorm.run.predictions.options import PredictOptions
from domainnorm.run.predictions.source import FileImages, ImageSource
from domainnorm.run.predictions.volumes import VolumeImages

# What pixels of DICOM files and volumes depend on.
_SHOWN = ("axis", "spacing", "window")


def predicted_images(
    recipe: Recipe,
    place: Path,
    written: Path,
    options: PredictOptions,
    *,
    domains: Sequence[str],
    attributes: Sequence[str],
) -> ImageSource:
    """The images of a folder, list, table or file.

    Args:
        recipe: Of the run.
        place: Folder, list, table or file.
        written: Where the predictions go, of which none is an image.
        options: How they are predicted.
        domains: Those of the model.
        attributes: What the model's encoder reads, if it reads any.

    Raises:
        ConditionError: An option that is for other files.
        DataError: No images, or parts of the run's data that show their files differently.
    """
    parts = _parts(recipe)
    kinds = {DATASETS.load(name).reads for name, _ in parts}
    ways = [{key: given.get(key) for key in _SHOWN} for _, given in parts]
    if kinds == {"images"}:
        return FileImages(list_images(place, written), options.white or white_of_training(recipe))
    if len(kinds) > 1 or any(way != ways[0] for way in ways):
        raise ConditionError(
            "data.parts: the run was trained on files that are read in different ways "
            f"({', '.join(name for name, _ in parts)}), and nothing tells which of them is that of "
            "these images; convert them, and train on one kind"
        )
    if options.white is not None:
        raise ConditionError(
            f"white: it is for 16-bit image files, and the run's dataset '{parts[0][0]}' shows "
            "values by data.window; leave it out"
        )
    if kinds == {"volumes"}:
        return VolumeImages(place, written, parts[0][1])
    # Scanners that an option names are those of all images.
    known = domains if options.domain is None else ()
    return DicomImages(place, written, parts[0][1], known, attributes)


def _parts(recipe: Recipe) -> list[tuple[str, Mapping[str, Any]]]:
    """Name and options of the run's dataset, or of each that it joins."""
    dataset = recipe.dataset
    joined = dataset.options.get("parts") if dataset.name == "join" else None
    if not joined:
        return [(dataset.name, dataset.options)]
    return [(part["name"], part) for part in joined]
