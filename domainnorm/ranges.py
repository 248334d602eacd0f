"""Ranges of options by their names, and words of policies; for recipes and calls, without torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, get_args, get_origin

from domainnorm.errors import unknown
from domainnorm.registry import Parameter

# What becomes of samples of unknown domains, and of those that an encoder finds near no known one;
# what norms get to know in tests. `domainnorm.condition` says what each does.
Unseen: TypeAlias = Literal["error", "mean", "nearest", "batch", "estimate", "mixture"]
Far: TypeAlias = Literal["mean", "batch"]
Conditioned: TypeAlias = Literal["id", "estimate", "id_or_estimate", "mixture", "embedding"]
# How training images of labelled domains are drawn, see `domainnorm.data.sampler.ClassDraws`.
Sampling: TypeAlias = Literal["uniform", "balanced", "rare"]
# How test images follow each other in a stream, see `domainnorm.data.sampler.Stream`.
StreamOrder: TypeAlias = Literal[
    "shuffled", "by_class", "stored", "continual", "returning", "gradual", "mixed"
]
# The corruptions of ImageNet-C.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
# How twins of domains are called whose images have a corruption, or the style of another domain.
CORRUPTED, TRANSLATED = "_corrupted", "_translated"
# Which domains share rows of norms while anything is learned, see `domainnorm.methods.roles`.
Rows: TypeAlias = Literal["domain", "role", "one"]
ESTIMATED: tuple[Unseen, ...] = ("estimate", "mixture")

LARGEST_SCALE = 64  # by which images are enlarged, of restoration

# What the labels of a task are, in words.
_LABELS = {
    "classification": "one class per image",
    "multilabel": "several findings per image",
    "segmentation": "masks",
    "translation": "images to translate",
    "restoration": "images to restore",
    "generation": "images to generate",
}
OF_ANY_DATASET = ("translation", "restoration")  # whatever labels it has; none are read
OWN_METHODS = ("translation", "generation")  # tasks for methods that name them, and no others
_COUNTS = {
    "rank": "1 or more; 'shared' has no rows",
    "stride": "1 (every pixel) or more",
    "num_clusters": "a positive number",
    **dict.fromkeys(
        [
            "num_groups",
            "embedding_size",
            "hidden",
            "map_channels",
            "spatial_axes",
            "embedding",
            "epochs",
            "width",
            "blocks",
            "steps",
            "size",
            "buckets",
            "fisher_images",
            "augmentations",
            "map_size",
            "num_kernels",
            "generator_steps",
            "mask_size",
            "start_patience",
            "end_patience",
            "neighbours",
            "supports",
            "iterations",
            "memory",
            "patches",
            "reset",
        ],
        "1 or more",
    ),
}
_LARGEST = 2**31 - 1  # what counts of anything here can be
_FROM_ZERO: tuple[Callable[[float], bool], str] = (lambda number: number >= 0, "0 or more")
_NUMBERS: dict[str, tuple[Callable[[float], bool], str]] = {
    "momentum": (
        lambda number: 0 <= number <= 1,
        "a number in [0, 1], or null for the cumulative average",
    ),
    **dict.fromkeys(("radius", "prior", "age_weight", "entropy_weight"), _FROM_ZERO),
    "temperature": (lambda number: number > 0, "a positive number"),
    "dropout": (lambda number: 0 <= number < 1, "a probability in [0, 1)"),
    **dict.fromkeys(
        ("threshold", "mask_ratio"),
        (lambda number: 0 <= number <= 1, "a probability in [0, 1]"),
    ),
    "guard": (lambda number: -1 <= number <= 1, "a number in [-1, 1]"),
    "backbone_rate": (lambda number: number > 0, "a positive number"),
    "share": (lambda number: 0 <= number <= 1, "a share in [0, 1], 'unlike' or 'layers'"),
    "least": (lambda number: 0 <= number <= 1, "a share in [0, 1]"),
    "tolerance": (lambda number: number >= 1, "1 or more"),
    "run_length": (lambda number: number > 1, "more than 1 image"),
    **dict.fromkeys(
        ("margin", "layer_decay", "first_stage", "depth"),
        (lambda number: 0 < number <= 1, "a share above 0, at most 1"),
    ),
    **dict.fromkeys(
        ("overlap", "warmup", "label_smoothing", "decay", "label_decay", "restore", "floor"),
        (lambda number: 0 <= number < 1, "a share in [0, 1)"),
    ),
    **dict.fromkeys(
        ("val_fraction", "test_fraction"),
        (lambda number: 0 < number < 1, "a number between 0 and 1, both excluded"),
    ),
    **dict.fromkeys(
        ("eps", "lr", "weight_decay", "focal_gamma", "gamma", "beta", "redundancy", "step_size"),
        _FROM_ZERO,
    ),
}


def problem_of_task(method: str, kinds: Iterable[str], labels: str) -> str:
    """What is wrong with a method of some kinds of labels, none for all, for a task with others."""
    named = tuple(kinds)
    if labels in named or not (named or labels in OWN_METHODS):
        return ""
    fitting = (
        " or ".join(_LABELS.get(kind, kind) for kind in named) or "tasks with labels to predict"
    )
    return f"'{method}' is for {fitting}, but this task has {_LABELS.get(labels, labels)}"


def labels_for(labels: str) -> str:
    """The ``task`` of the datasets that a task with some kind of labels can learn from."""
    return "classification" if labels == "generation" else labels


def problem_of_opened(
    reset: object, rows: str, *, has_encoder: bool, reads_attributes: bool, has_rows: bool
) -> str:
    """What is in the way of a stream whose rows are opened, see `OnlineMethod`.

    Args:
        reset: Of the method.
        rows: ``data.rows``.
        has_encoder: Whether the model has a domain encoder.
        reads_attributes: Whether that reads attributes instead of images.
        has_rows: Whether the norms have a row for each domain.
    """
    if not has_encoder:
        return (
            "'opened' needs a domain encoder; train with 'encoder: style', or take 'told' for "
            "images of one domain"
        )
    if reads_attributes:
        return (
            "'opened' needs an encoder of images, but this one reads attributes; train with "
            "'encoder: style', 'backbone' or 'cnn'"
        )
    if not has_rows:
        return "'opened' would change nothing, since no norm depends on the domain"
    if rows == "one":
        return "'opened' has no row to open, since data.rows is 'one'; set it to 'domain'"
    return "" if reset != "domain" else "'opened' beside reset: domain, which forgets opened rows"


def problem_of_sampling(sampling: str, labels: str) -> str:
    """What is wrong with drawing images by their classes where labels are of a kind."""
    words = get_args(Sampling)
    if sampling not in words:
        return unknown("value", sampling, words)
    fits = {"balanced": ("classification",), "rare": ("classification", "segmentation")}
    if labels in fits.get(sampling, (labels,)):
        return ""
    way = "'rare' or 'uniform'" if labels == "segmentation" else "'uniform'"
    return f"'{sampling}' needs one class per image, but there are {_LABELS[labels]}; take {way}"


def problem_of_embedding(size: int, taken: Iterable[int]) -> str:
    """What is wrong with the size of an encoder's embeddings, by the sizes that norms take."""
    sizes = sorted(set(taken))
    if sizes == [size]:
        return ""
    found = f"size {', '.join(map(str, sizes))}" if sizes else "none"
    return (
        f"its embeddings have size {size}, but the norms of this model take {found}; use the norm "
        f"'film', or modulation 'hyper', with embedding_size {size}"
    )


def _range_of(name: str) -> tuple[Callable[[float], bool], str] | None:
    return _FROM_ZERO if name.endswith("_weight") else _NUMBERS.get(name)


def problem_of(parameter: Parameter, value: Any) -> str:
    """What is wrong with the value of an option: ``got 5, expected …``; empty where nothing is."""
    words = get_args(parameter.annotation)
    if get_origin(parameter.annotation) is Literal and value not in words:
        return unknown("value", value, words)
    spelled = [word for one in words if get_origin(one) is Literal for word in get_args(one)]
    if spelled and str not in words and isinstance(value, str) and value not in spelled:
        return unknown("value", value, spelled)
    if value is None:
        return ""
    expected = ""
    if parameter.annotation in (int, float) and isinstance(value, str):
        expected = "a number"
    elif isinstance(value, int) and abs(value) > _LARGEST and not parameter.name.endswith("seed"):
        expected = f"at most {_LARGEST}"
    elif parameter.name in _COUNTS and isinstance(value, (int, float)):
        whole = isinstance(value, int)
        expected = ("" if value >= 1 else _COUNTS[parameter.name]) if whole else "a whole number"
    elif isinstance(value, (int, float)) and (known := _range_of(parameter.name)):
        fits, range_in_words = known
        expected = "" if math.isfinite(value) and fits(value) else range_in_words
    return f"got {value!r}, expected {expected}" if expected else ""
