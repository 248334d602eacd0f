"""Augmentation pipelines whose random draws depend on a seed and on nothing else."""

from __future__ import annotations

import inspect
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.data.dataset import VOID
from domainnorm.data.preprocessing import Preprocessing
from domainnorm.data.steps import arguments_of, check_steps
from domainnorm.errors import DataError

# albumentations asks a server for its newest version when it is imported.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations

Step = str | Mapping[str, Any]


class Pipeline:
    """Random steps, then the fixed tail: resize, centre crop, normalize, to tensor.

    Args:
        transforms: The random steps, in order.
        preprocessing: The fixed tail.
        where: Key of the pipeline in a recipe, for error messages.
    """

    def __init__(
        self, transforms: Sequence[Any], preprocessing: Preprocessing, where: str = "augment"
    ) -> None:
        # Compose would otherwise seed itself from the system; every call seeds it anew.
        self.compose = albumentations.Compose(list(transforms), seed=0) if transforms else None
        self.preprocessing = preprocessing
        self.where = where

    def __call__(self, image: NDArray[np.uint8], seed: int) -> Tensor:
        """Augment and preprocess one image: (h, w, 3) to (3, H, W). See `pair`."""
        return self.pair(image, None, seed)[0]

    def pair(
        self, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, seed: int
    ) -> tuple[Tensor, Tensor | None]:
        """Augment and preprocess one image and its mask alike.

        Args:
            image: (h, w, 3) RGB pixels, 0 to 255; not modified.
            mask: (h, w) classes, 255 for none; None without one.
            seed: Non-negative seed of every random draw.

        Returns:
            (3, H, W), float32, and (H, W), int64, with -1 for no class; None without a mask.

        Raises:
            DataError: A step failed on this image, or returned something that is no RGB image.
        """
        if mask is not None and mask.shape != image.shape[:2]:
            raise DataError(
                f"{self.where}: a mask of {mask.shape[1]} × {mask.shape[0]} pixels for an image of "
                f"{image.shape[1]} × {image.shape[0]}; they must have the same size"
            )
        if self.compose is not None:
            image, mask = self._augmented(self.compose, image, mask, seed)
        return self.preprocessing.pair(image, mask, seed)

    def _augmented(
        self, compose: Any, image: NDArray[np.uint8], mask: NDArray[np.uint8] | None, seed: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        # Compose.set_random_seed gives every step a generator of its own with the same seed, so
        # two flips would always agree; one shared generator keeps steps independent.
        generator = np.random.Generator(np.random.PCG64(seed))
        compose.set_random_state(generator, random.Random(seed))
        given = {"image": image} if mask is None else {"image": image, "mask": mask}
        try:
            done = compose(**given)
        except Exception as error:  # each transform raises kinds of its own, cv2.error among them
            raise DataError(
                f"{self.where}: a step failed on an image of {image.shape[1]} × {image.shape[0]} "
                f"pixels: {error}; change its arguments"
            ) from error
        augmented = done["image"]
        if augmented.dtype != np.uint8 or augmented.ndim != 3 or augmented.shape[2] != 3:
            raise DataError(
                f"{self.where}: the steps returned {augmented.dtype} of shape {augmented.shape}, "
                "expected uint8 (h, w, 3); remove the step that changes the kind of image"
            )
        return augmented, done.get("mask")


def build_pipeline(
    steps: Sequence[Step], preprocessing: Preprocessing, where: str = "augment"
) -> Pipeline:
    """Make the pipeline of a list of steps; an empty list gives the fixed tail alone.

    Args:
        steps: Names of albumentations transforms, or ``{name: Rotate, limit: 10}``.
        preprocessing: The fixed tail.
        where: Key of the list in the recipe, such as ``augment.default``.

    Returns:
        A function of an (h, w, 3) uint8 image and a seed that gives a (3, H, W) float32 tensor.

    Raises:
        DataError: Unknown transform or argument, or a value that the transform refuses.
    """
    problems = check_steps(steps, where)
    if problems:
        raise DataError("\n".join(problems))
    transforms = [_create(step, f"{where}[{position}]") for position, step in enumerate(steps)]
    return Pipeline(transforms, preprocessing, where)


def _create(step: Step, where: str) -> Any:
    name, arguments = arguments_of(step)
    if "fill_mask" in _zero_filled(name):
        # Pixels that a rotation uncovers have no class; albumentations calls them class 0.
        arguments = {"fill_mask": VOID, **arguments}
    try:
        with warnings.catch_warnings():
            # albumentations only warns about an argument that it cannot use, and then ignores it.
            warnings.simplefilter("error", UserWarning)
            return getattr(albumentations, name)(**arguments)
    except (TypeError, ValueError, UserWarning) as error:
        raise DataError(f"{where}: {name} refuses {arguments}: {error}") from error


def _zero_filled(name: str) -> set[str]:
    """Arguments of a transform whose default is the number 0."""
    signature = inspect.signature(getattr(albumentations, name).__init__)
    return {key for key, value in signature.parameters.items() if value.default == 0}
