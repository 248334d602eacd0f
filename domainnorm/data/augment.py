"""Augmentation pipelines whose random draws depend on a seed and on nothing else."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

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
        """Augment and preprocess one image.

        Args:
            image: (h, w, 3) RGB pixels, 0 to 255; not modified.
            seed: Non-negative seed of every random draw.

        Returns:
            (3, H, W), float32.

        Raises:
            DataError: A step failed on this image, or returned something that is no RGB image.
        """
        if self.compose is None:
            return self.preprocessing(image)
        # Compose.set_random_seed gives every step a generator of its own with the same seed, so
        # two flips would always agree; one shared generator keeps steps independent.
        generator = np.random.Generator(np.random.PCG64(seed))
        self.compose.set_random_state(generator, random.Random(seed))
        try:
            augmented = self.compose(image=image)["image"]
        except Exception as error:  # each transform raises kinds of its own, cv2.error among them
            raise DataError(
                f"{self.where}: a step failed on an image of {image.shape[1]} × {image.shape[0]} "
                f"pixels: {error}; change its arguments"
            ) from error
        if augmented.dtype != np.uint8 or augmented.ndim != 3 or augmented.shape[2] != 3:
            raise DataError(
                f"{self.where}: the steps returned {augmented.dtype} of shape {augmented.shape}, "
                "expected uint8 (h, w, 3); remove the step that changes the kind of image"
            )
        return self.preprocessing(augmented)


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
    try:
        with warnings.catch_warnings():
            # albumentations only warns about an argument that it cannot use, and then ignores it.
            warnings.simplefilter("error", UserWarning)
            return getattr(albumentations, name)(**arguments)
    except (TypeError, ValueError, UserWarning) as error:
        raise DataError(f"{where}: {name} refuses {arguments}: {error}") from error
