"""Augmentation pipelines whose random draws depend on a seed and on nothing else."""

from __future__ import annotations

import inspect
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import albumentations
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.data.augmentation.rand_stain_na import Colours
from domainnorm.data.augmentation.steps import (
    arguments_of,
    check_augmentation,
    own_transforms,
)
from domainnorm.data.masks import VOID
from domainnorm.data.preprocessing import Preprocessing
from domainnorm.errors import DataError
from domainnorm.registry import TRANSFORMS

Step = str | Mapping[str, Any]
Steps = Sequence[Step] | Mapping[str, Sequence[Step]]
Pixels = NDArray[np.uint8]
References = Callable[[int], Pixels]
# What a label-free score changes of an image: colours as another camera or stain would have them.
STRONG_VIEW: list[dict[str, Any]] = [
    {
        "name": "ColorJitter",
        "brightness": [0.6, 1.4],
        "contrast": [0.5, 1.5],
        "saturation": [0.5, 1.5],
        "hue": [-0.08, 0.08],
        "p": 1.0,
    },
    {"name": "RandomGamma", "gamma_limit": [55, 180], "p": 1.0},
    {"name": "GaussianBlur", "sigma_limit": [0.1, 1.2], "blur_limit": 0, "p": 0.3},
]


class Views(NamedTuple):
    """What a pipeline makes of an image."""

    image: Tensor  # (3, H, W), float32
    mask: Tensor | None  # (H, W), int64, with -1 for no class; None without a mask
    strong: Tensor | None  # a second view, (3, H, W); None when the pipeline has none
    clean: Tensor | None = None  # what the image should be, (3, H, W); None where none was given


class Pipeline:
    """Resize, random steps, then the fixed tail: centre or random crop, normalize, to tensor.

    Steps see an image at its input size: a blur of one pixel is one pixel of the network for files
    of any size, and for images of `CachedDataset` too.

    ``strong`` are the steps of a second view, applied to the first view; None for one view. The
    other arguments are those of `build_pipeline`.
    """

    def __init__(
        self,
        transforms: Sequence[Any],
        preprocessing: Preprocessing,
        where: str = "augment",
        *,
        strong: Sequence[Any] | None = None,
        references: References | None = None,
    ) -> None:
        self.weak = _RandomSteps(transforms, references, where)
        self.strong = None if strong is None else _RandomSteps(strong, references, where)
        self.preprocessing = preprocessing
        self.where = where

    @property
    def needs_colours(self) -> bool:
        """Whether a step wants to know the colours of the training images, see `set_colours`."""
        return self.weak.needs_colours or (self.strong is not None and self.strong.needs_colours)

    def set_colours(self, colours: Colours) -> None:
        """Tell the steps the colours of the training images, see `colours_of`."""
        self.weak.colours = colours
        if self.strong is not None:
            self.strong.colours = colours

    def __call__(self, image: Pixels, seed: int) -> Tensor:
        """Augment and preprocess one image: (h, w, 3) to (3, H, W). See `views`."""
        return self.views(image, None, seed).image

    def views(
        self,
        image: Pixels,
        mask: Pixels | None,
        seed: int,
        *,
        strong: bool = True,
        clean: Pixels | None = None,
    ) -> Views:
        """Augment and preprocess one image and its mask alike.

        Args:
            image: (h, w, 3) RGB pixels, 0 to 255; not modified.
            mask: (h, w) classes, 255 for none; None without one.
            seed: Non-negative seed of every random draw.
            strong: Whether the second view is wanted.
            clean: (h, w, 3), what the image should be, which every step changes by the same draw.

        Raises:
            DataError: A step failed on this image, or returned something that is no RGB image.
        """
        for what, beside in (("mask", mask), ("clean image", clean)):
            if beside is not None and beside.shape[:2] != image.shape[:2]:
                raise DataError(
                    f"{self.where}: a {what} of {beside.shape[1]} × {beside.shape[0]} pixels for "
                    f"an image of {image.shape[1]} × {image.shape[0]}; they must have the same size"
                )
        image = self.preprocessing.resized(image)
        mask = None if mask is None else self.preprocessing.resized(mask, is_mask=True)
        clean = None if clean is None else self.preprocessing.resized(clean)
        image, mask, clean = self.weak(image, mask, seed, clean)
        weak, classes = self.preprocessing.pair(image, mask, seed)
        aim = None if clean is None else self.preprocessing.pair(clean, None, seed)[0]
        if not strong or self.strong is None:
            return Views(weak, classes, None, aim)
        # The same seed cuts the same crop; the draws of the steps are others.
        changed = self.strong(image, None, seed + 1)[0]
        return Views(weak, classes, self.preprocessing.pair(changed, None, seed)[0], aim)


class _RandomSteps:
    """The random steps of one view; those that need images of other domains if there are some."""

    def __init__(
        self, transforms: Sequence[Any], references: References | None, where: str
    ) -> None:
        def needs_reference(transform: Any) -> bool:
            return "references" in transform.targets_as_params

        used = [one for one in transforms if references or not needs_reference(one)]
        self.references = references if any(map(needs_reference, used)) else None
        self.needs_colours = any("colours" in one.targets_as_params for one in used)
        self.colours: Colours | None = None
        # Compose would otherwise seed itself from the system; every call seeds it anew.
        beside = {"clean": "image"}
        self.compose = (
            albumentations.Compose(used, seed=0, additional_targets=beside) if used else None
        )
        self.where = where

    def __call__(
        self, image: Pixels, mask: Pixels | None, seed: int, clean: Pixels | None = None
    ) -> tuple[Pixels, Pixels | None, Pixels | None]:
        """Image, mask and clean image after all steps; see `Pipeline.views`."""
        if self.compose is None:
            return image, mask, clean
        # Compose.set_random_seed gives every step a generator of its own with the same seed, so
        # two flips would always agree; one shared generator keeps steps independent.
        generator = np.random.Generator(np.random.PCG64(seed))
        self.compose.set_random_state(generator, random.Random(seed))
        given: dict[str, Any] = {"image": image}
        if mask is not None:
            given["mask"] = mask
        if clean is not None:
            given["clean"] = clean
        if self.references is not None:
            given["references"] = [self.references(seed)]
        if self.needs_colours:
            if self.colours is None:
                raise DataError(
                    f"{self.where}: a step needs `set_colours` of training images first"
                )
            given["colours"] = self.colours
        try:
            done = self.compose(**given)
        except Exception as error:  # each transform raises kinds of its own, cv2.error among them
            raise DataError(
                f"{self.where}: a step failed on an image of {image.shape[1]} × {image.shape[0]} "
                f"pixels: {error}; change its arguments"
            ) from error
        augmented = done["image"]
        if augmented.dtype != np.uint8 or augmented.ndim != 3 or augmented.shape[2] != 3:
            raise DataError(
                f"{self.where}: the steps returned {augmented.dtype} of shape {augmented.shape}, "
                "expected uint8 (h, w, 3); remove the step that changes type or channels"
            )
        return augmented, done.get("mask"), done.get("clean")


def build_pipeline(
    steps: Steps,
    preprocessing: Preprocessing,
    where: str = "augment",
    references: References | None = None,
) -> Pipeline:
    """Make the pipeline of a list of steps; an empty list gives the fixed tail alone.

    Args:
        steps: Names of transforms, or ``{name: Rotate, limit: 10}``; ``{weak: steps, strong:
            steps}`` for a second view, whose steps do not move pixels.
        preprocessing: The fixed tail.
        where: Key of the list in the recipe, such as ``augment.default``.
        references: Gives images of other domains, from the training images a method may see;
            steps that need one (FDA, HistogramMatching) are left out when it is None.

    Returns:
        A function of an (h, w, 3) uint8 image and a seed that gives a (3, H, W) float32 tensor.

    Raises:
        DataError: Unknown transform or argument, or a value that the transform refuses.
    """
    problems = check_augmentation(steps, where)
    if problems:
        raise DataError("\n".join(problems))
    if isinstance(steps, Mapping):
        weak = _created(steps.get("weak", []), f"{where}.weak")
        strong = _created(steps.get("strong", []), f"{where}.strong")
        return Pipeline(weak, preprocessing, where, strong=strong, references=references)
    return Pipeline(_created(steps, where), preprocessing, where, references=references)


def check_values(steps: Steps, where: str) -> None:
    """Raise the DataError that `build_pipeline` would, for values that a transform refuses."""
    views = steps.items() if isinstance(steps, Mapping) else [("", steps)]
    for view, listed in views:
        _created(listed, f"{where}.{view}" if view else where)


def _created(steps: Sequence[Step], where: str) -> list[Any]:
    return [_create(step, f"{where}[{position}]") for position, step in enumerate(steps)]


def _create(step: Step, where: str) -> Any:
    name, arguments = arguments_of(step)
    own = own_transforms()
    kind = TRANSFORMS.load(own[name]) if name in own else getattr(albumentations, name)
    fill = inspect.signature(kind.__init__).parameters.get("fill_mask")
    if fill is not None and fill.default == 0:
        # Pixels that a rotation uncovers have no class; albumentations calls them class 0.
        arguments = {"fill_mask": VOID, **arguments}
    try:
        with warnings.catch_warnings():
            # albumentations only warns about an argument that it cannot use, and then ignores it.
            warnings.simplefilter("error", UserWarning)
            return kind(**arguments)
    except (TypeError, ValueError, UserWarning) as error:
        raise DataError(f"{where}: {_refusal(name, arguments, error)}") from error


def _refusal(name: str, arguments: Mapping[str, Any], error: BaseException) -> str:
    """What a transform says of its values; most are checked by pydantic, which names the key."""
    told: Any = error.__cause__ or error.__context__
    if not hasattr(told, "errors"):
        return f"{name} refuses {dict(arguments)}: {error}"
    said: dict[
        tuple[str, str], list[str]
    ] = {}  # of each key; one of several types has a line for each
    for one in told.errors():
        key = ".".join([name, *map(str, one["loc"][:1])])
        text = one["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        said.setdefault((key, repr(one["input"])), []).append(text)
    return "; ".join(
        f"{key}: got {value}: {', or '.join(messages)}" for (key, value), messages in said.items()
    )
