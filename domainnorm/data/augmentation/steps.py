"""Steps of an augmentation pipeline, checked without importing albumentations.

A step is the name of a transform of albumentations or of our own, or a mapping ``{name: Rotate,
limit: 10}`` whose other keys are arguments of the transform. albumentations itself only warns about
an unknown argument and then ignores it, and importing it takes a second; so its source text is read
instead.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from domainnorm.errors import DataError, nearest
from domainnorm.registry import TRANSFORMS

_CLASS = re.compile(r"^class (\w+)\(([\w, .=]*)\):", re.MULTILINE)
_NEXT_TOP_LEVEL = re.compile(r"^[^\s#)]", re.MULTILINE)
_EXPORTS = re.compile(r"^__all__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
_ROOTS = frozenset({"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"})
# They need something a recipe cannot hold: reference images, fonts, functions, volumes.
_SKIPPED_FOLDERS = frozenset({"mixing", "text", "other", "spectrogram", "transforms3d"})
# Normalization is the fixed tail of every pipeline and images are RGB; albumentations itself warns
# against the next two in favour of Affine and ElasticTransform; the others need boxes or masks.
_SKIPPED = frozenset(
    {
        "Normalize",
        "ToRGB",
        "ShiftScaleRotate",
        "PiecewiseAffine",
        "MaskDropout",
        "ConstrainedCoarseDropout",
        "CropNonEmptyMaskIfExists",
        "RandomCropNearBBox",
        "BBoxSafeRandomCrop",
        "RandomSizedBBoxSafeCrop",
        "AtLeastOneBBoxRandomCrop",
    }
)


@dataclass(frozen=True)
class _Transform:
    file: Path
    start: int
    exported: bool
    bases: tuple[str, ...]


def list_transforms() -> list[str]:
    """Names of the transforms that a step can name, albumentations' and our own, sorted.

    Raises:
        DataError: albumentations is not installed.
    """
    theirs = (
        name
        for name, transform in _classes().items()
        if transform.exported
        and transform.file.parent.name not in _SKIPPED_FOLDERS
        and not name.startswith("Base")
        and name not in _SKIPPED | _ROOTS
        and _ROOTS & set(_ancestors(name))
    )
    return sorted({*theirs, *own_transforms()})


def own_transforms() -> dict[str, str]:
    """Names of the transforms that albumentations lacks → their names in `TRANSFORMS`.

    Raises:
        DataError: One of another package is called like one that is there.
    """
    found: dict[str, str] = {}
    for name in TRANSFORMS.names():
        entry = TRANSFORMS.entry(name)
        other = found.setdefault(entry.attribute, name)
        twin = TRANSFORMS.entry(other).origin if other != name else ""
        if entry.distribution is not None and entry.attribute in _classes():
            twin = "albumentations"
        if twin:
            raise DataError(
                f"augment: two transforms are called {entry.attribute}, that of {twin} and "
                f"{entry.origin}; rename the class of one"
            )
    return found


def moves_pixels(name: str) -> bool:
    """Whether a transform changes where things are, so that a mask has to follow."""
    own = own_transforms()
    bases = TRANSFORMS.entry(own[name]).lineage if name in own else [name]
    classes = [base.rpartition(".")[2] for base in bases]
    return "DualTransform" in {*classes, *(one for base in classes for one in _ancestors(base))}


def list_arguments(name: str) -> list[str]:
    """Names of the arguments of a transform, its own or its nearest base's that has a constructor.

    Raises:
        DataError: albumentations is not installed.
    """
    if name in own_transforms():
        return list(TRANSFORMS.entry(own_transforms()[name]).parameters)
    for ancestor in (name, *_ancestors(name)):
        arguments = _constructor(ancestor)
        if arguments is not None:
            return arguments
    return []


def check_augmentation(steps: object, where: str) -> list[str]:
    """`check_steps` of a list of steps, or of ``{weak: steps, strong: steps}``."""
    if not isinstance(steps, Mapping):
        return check_steps(steps, where)
    problems = [
        f"{where}.{key}: unknown key, expected weak and strong"
        for key in steps
        if key not in ("weak", "strong")
    ]
    for key in ("weak", "strong"):
        problems += check_steps(steps.get(key, []), f"{where}.{key}")
    if problems:
        return problems
    names = [arguments_of(step)[0] for step in steps.get("strong", [])]
    return [
        f"{where}.strong[{position}]: {name} moves pixels, so the two views would not match; put "
        "it under weak"
        for position, name in enumerate(names)
        if moves_pixels(name)
    ]


def check_steps(steps: object, where: str) -> list[str]:
    """Problems of a list of steps; an empty list when there are none.

    Args:
        steps: What a recipe gives: a list whose items are names or mappings with a ``name``.
        where: Key of the list, such as ``augment.default``; every problem starts with it.

    Raises:
        DataError: albumentations is not installed.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        return [f"{where}: {steps!r}, expected a list of steps such as [HorizontalFlip]"]
    return [
        problem
        for position, step in enumerate(steps)
        for problem in _problems(step, f"{where}[{position}]")
    ]


def _problems(step: object, where: str) -> Iterator[str]:
    if isinstance(step, str):
        step = {"name": step}
    if not isinstance(step, Mapping) or not isinstance(step.get("name"), str):
        yield (
            f"{where}: {step!r}, expected the name of an albumentations transform or "
            "{name: Rotate, limit: 10}"
        )
        return
    name = step["name"]
    known = list_transforms()
    if name not in known:
        match = nearest(name, known)
        hint = f"did you mean '{match}'?" if match else f"known: {', '.join(known)}"
        yield f"{where}: no transform '{name}' can be used here; {hint}"
        return
    arguments = list_arguments(name)
    for key in step:
        if key != "name" and key not in arguments:
            match = nearest(key, arguments)
            hint = f"did you mean '{match}'? " if match else ""
            yield f"{where}.{key}: {name} has no argument '{key}'; {hint}it has " + ", ".join(
                arguments
            )


@cache
def _classes() -> dict[str, _Transform]:
    """Every class of albumentations that the source text defines at top level."""
    spec = importlib.util.find_spec("albumentations")
    if spec is None or spec.origin is None:
        raise DataError("augment: albumentations is not installed; pip install albumentations")
    root = Path(spec.origin).parent
    files = [*sorted((root / "augmentations").rglob("*.py")), root / "core/transforms_interface.py"]
    found: dict[str, _Transform] = {}
    for file in files:
        if file.name == "functional.py":
            continue
        text = file.read_text(encoding="utf-8")
        exports = _EXPORTS.search(text)
        for match in _CLASS.finditer(text):
            bases = tuple(base.strip() for base in match[2].split(",") if "=" not in base)
            exported = exports is not None and f'"{match[1]}"' in exports[1]
            found[match[1]] = _Transform(file, match.start(), exported, bases)
    return found


def _ancestors(name: str) -> Iterator[str]:
    transform = _classes().get(name)
    for base in transform.bases if transform else ():
        yield base
        yield from _ancestors(base)


@cache
def _constructor(name: str) -> list[str] | None:
    """Argument names of the ``__init__`` that the class itself defines, or None without one."""
    transform = _classes().get(name)
    if transform is None:
        return None
    text = transform.file.read_text(encoding="utf-8")[transform.start :]
    # Parsing one class instead of its 6,000-line module keeps this below a few milliseconds.
    end = _NEXT_TOP_LEVEL.search(text, 1)
    body = ast.parse(text[: end.start()] if end else text).body[0]
    for item in getattr(body, "body", []):
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return [argument.arg for argument in [*item.args.args[1:], *item.args.kwonlyargs]]
    return None


def steps_for(augment: Mapping[str, Any], domain: str, role: str) -> Any:
    """What a recipe's ``augment`` says of a domain: its own steps, else its role's or the default.

    Args:
        augment: Domain name, ``source``, ``target`` or ``default`` → steps, see
            `check_augmentation`.
        domain: Name of a domain.
        role: ``source`` or ``target``.
    """
    return next((augment[key] for key in (domain, role, "default") if key in augment), [])


def arguments_of(step: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and keyword arguments of a step that has no problems."""
    if isinstance(step, str):
        return step, {}
    return step["name"], {key: value for key, value in step.items() if key != "name"}
