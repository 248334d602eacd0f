"""The command `start`: from a folder of one's own images to a recipe."""

from __future__ import annotations

import re
import shlex
import shutil
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from domainnorm import recipe
from domainnorm.cli.data_commands import flow_yaml, read_keys, reading_bar
from domainnorm.cli.parser import Command, Parser
from domainnorm.errors import DataError, RecipeError, counted
from domainnorm.recipe.problems import Problems
from domainnorm.recipe.sections import read_named
from domainnorm.recipe.tree import SUFFIXES, split_overrides
from domainnorm.registry import DATASETS
from domainnorm.storage import make_folders, whole_file
from domainnorm.terminal import create_console, printable, say

if TYPE_CHECKING:
    from domainnorm.data.inspection.look import Look  # needs numpy and OpenCV

_WORDS = {  # in names of folders, domains and classes
    "cells": ("cell", "cells", "blood", "wbc", "leukocyte", "lymphocyte", "nucleus"),
    "histology": ("histology", "tissue", "tumor", "tumour", "slide", "slides", "stroma"),
    "fundus": ("fundus", "retina", "retinal", "vessel", "vessels", "optic"),
    "xray": ("xray", "x-ray", "chest", "effusion", "pneumonia"),
    "mri": ("mri", "mr", "t1", "t2", "flair", "prostate", "brain"),
    "digits": ("digits", "digit", "mnist", "usps", "svhn"),
    "driving": ("road", "sidewalk", "street", "streets", "driving", "dusk", "night", "fog"),
}
_GREY = ("xray", "mri", "digits")  # of images without colours
_SIDES = (64, 160)  # of images, in pixels: what two cores train on in minutes
_MASKS, _CROP = 320, 128  # side of images with masks, which are learned in crops
_FEW = 0.5  # share of labelled images, below which a domain has a few labels
_UNEVEN = 2  # times that one class is more frequent than another
_COLOURS_ALIKE = 0.6  # share of images that colours put into the right domain, up to which


@dataclass(frozen=True)
class Plan:
    """Which domains are learned from, and which are adapted to.

    Args:
        source: Domains with labels.
        target: Domains that the model adapts to.
        labels: How many labels the targets have: ``none``, a ``few`` or ``all``.
        shots: Labels per class, or masks, of a target with few labels.
        left: Domains that the recipe does not name.
    """

    source: list[str]
    target: list[str]
    labels: str
    shots: int | None = None
    left: Sequence[str] = ()


def _configure(parser: Parser) -> None:
    text = "folder with one subfolder per domain, or a table; key=value sets keys of the dataset"
    parser.add_argument("words", nargs="+", metavar="FOLDER [key=value]", help=text)
    text = "recipe to write (default: the folder's name with .yaml)"
    parser.add_argument("--output", type=Path, metavar="YAML", help=text)
    parser.add_argument("--force", action="store_true", help="overwrite the output")


def _start(arguments: Namespace) -> int:
    """Look, choose, write the recipe, and say what was chosen and why."""
    # Deferred: `domainnorm --help` reads this file, and images are for later.
    from domainnorm.data.inspection.look import look_at, recognized  # noqa: PLC0415

    names, overrides = split_overrides(arguments.words)
    if len(names) != 1:
        raise DataError(f"got {' '.join(names) or 'no folder'}, expected one folder or table")
    place = Path(names[0])
    output: Path = arguments.output or Path(f"{_stem(place)}.yaml")
    if output.suffix not in SUFFIXES:
        raise DataError(f"--output: '{output.name}', expected a name that ends with .yaml")
    if output.exists() and not arguments.force:
        raise DataError(f"{output} exists; use --force to overwrite it, or --output")
    name, options = recognized(names[0])
    keys = read_keys(overrides, "domainnorm start")
    problems = Problems()
    read_named({"name": name, **options, **keys}, DATASETS, "data", problems)
    if problems:
        raise RecipeError(problems.lines, "domainnorm start")
    look = look_at(name, {**options, **keys}, reading_bar(create_console()))
    plan = choose(look)
    text, reasons = write_recipe(look, plan, place)
    make_folders(output.absolute().parent)
    with whole_file(output) as partial:  # what was there stays where the new one is refused
        partial.write_text(text, encoding="utf-8")
        try:
            recipe.load_recipe(str(partial))
        except RecipeError as error:
            raise RecipeError(error.problems, str(output)) from error
    _tell(look, plan, reasons)
    say(f"\n{output}: written; next:")
    for command, purpose in _next(look, plan, output):
        say(f"  {command:<50}  {purpose}")
    return 0


def _stem(place: Path) -> str:
    resolved = place.resolve()
    name = resolved.stem if resolved.is_file() else resolved.name
    return re.sub(r"[^\w.-]+", "_", name) or "recipe"


def choose(look: Look) -> Plan:
    """Sources are the domains with labels, targets those without, or with few.

    Raises:
        DataError: One domain, or no label.
    """
    names = look.dataset.domain_names
    share = {name: len(look.labelled(name)) / max(look.count(name), 1) for name in names}
    labelled = [name for name in names if share[name] >= _FEW]
    if len(names) < 2:
        raise DataError(
            f"{look.options['root']}: one domain, {names[0]}, expected two or more; put the images "
            "of each site, scanner or hour into a folder of their own, or find domains by style: "
            f"domainnorm data domains {shlex.quote(str(look.options['root']))}"
        )
    if not labelled:
        raise DataError(
            f"{look.options['root']}: no domain has labels for at least half of its images; label "
            "the images of one domain (docs/data.md). Without any label images can be given the "
            "style of another domain: domainnorm docs translation"
        )
    others = [name for name in names if name not in labelled]
    if not others:
        smallest = min(labelled, key=look.count)
        return Plan([name for name in labelled if name != smallest], [smallest], "all")
    few = [name for name in others if look.labelled(name, "train")]
    if not few:  # a few that are all for tests are not learned
        return Plan(labelled, others, "none")
    left = [name for name in others if name not in few]
    return Plan(labelled, few, "few", min(_shots(look, name) for name in few), left)


def _shots(look: Look, domain: str) -> int:
    own = look.labelled(domain, "train")
    if look.dataset.task != "classification":
        return len(own)
    return min(count for count in look.class_counts([domain]).values() if count)


class Choice(NamedTuple):
    """Methods, with their options, and why these."""

    method: dict[str, Any]
    compare: list[Any]
    why: str


def choose_methods(look: Look, plan: Plan) -> Choice:
    """What fits the labels of the targets, and their kind."""
    if look.dataset.task == "restoration":
        return _choose_restoring(plan)
    slow = {} if look.dataset.task == "segmentation" else {"backbone_rate": 0.1}
    source_only = {"name": "source_only", "lr": 3e-3, **slow}
    default = {"name": "default", "lr": 2e-3, **slow}
    findings = look.dataset.task == "multilabel"  # of them nothing learns from predictions
    if plan.labels == "all":
        return Choice(
            {"name": "joint", "lr": 3e-3, **slow},
            [source_only, "adabn" if findings else default],
            "joint: source and target have labels, and one model learns from both; the other "
            "methods show the result without target labels",
        )
    if plan.labels == "few":
        shots = counted(plan.shots or 0, "shot")
        if findings:
            why = f"finetune with {shots}: the target has a few labels, and finetune learns them"
            return Choice({"name": "finetune"}, [source_only], why)
        why = (
            f"default with {shots}: the target has a few labels; default learns from them and from "
            "the unlabelled images, finetune only from the labels"
        )
        return Choice(default, [source_only, "finetune"], why)
    if findings:
        why = "adabn: the target has no labels; adabn estimates its moments from its images"
        return Choice({"name": "adabn"}, [source_only], why)
    why = (
        "default: the target has no labels; default adapts, unless its guard finds that this harms"
    )
    return Choice(default, [source_only, "adabn"], why)


def _choose_restoring(plan: Plan) -> Choice:
    """Nothing is learned of images alone, and one network without norms restores all domains."""
    source_only = {"name": "source_only", "lr": 2e-3}
    if plan.labels == "none":
        why = "source_only: the target has no clean images, and no method restores without them"
        return Choice(source_only, [], why)
    why = "joint: source and target have clean images, and one network learns from both"
    return Choice({"name": "joint", "lr": 2e-3}, [source_only], why)


def write_recipe(look: Look, plan: Plan, place: Path) -> tuple[str, list[str]]:
    """The recipe, and why it is as it is."""
    masks = look.dataset.task == "segmentation"
    classes = look.dataset.task == "classification"
    pairs = look.dataset.task == "restoration"
    part, known = _augmentation(look, place)
    side, shape = _side(look)
    least = min(
        sum(r.domain == name and r.split == "train" for r in look.dataset.records)
        for name in (*plan.source, *plan.target)
    )
    counts = look.class_counts(plan.source) if classes else {}
    uneven = bool(counts) and max(counts.values()) > _UNEVEN * max(min(counts.values()), 1)
    task: dict[str, Any] = {"name": look.dataset.task}
    task |= {"label_smoothing": 0.1} if classes else {}
    task |= {"decoder": "unet", "width": 64} if masks else {}
    task |= {"norms": False} if pairs else {}
    chosen = choose_methods(look, plan)
    crop = _SIDES[0] if pairs else _CROP
    cropped = min(shape) > 2 * crop if pairs else side > _SIDES[1]
    network = [("backbone", "tf_efficientnet_lite0", "only its normalization of images is taken")]
    guide = "docs/restoration.md"
    sized = "height and width of most clean images; smaller ones lack detail"
    if not pairs:
        guide = "docs/methods/which_method.md"
        network = [
            ("backbone", "{name: tf_efficientnet_lite0, pretrained: true}", "any network of timm"),
            ("norm", "cin" if masks else "dsbn", "domainnorm list norms"),
        ]
        sized = f"most images are {shape[1]} × {shape[0]}; larger is slower"
    device = "gpu" if shutil.which("nvidia-smi") else "cpu"
    fields: list[tuple[str, str, str]] = [
        ("configs", flow_yaml([f"augment/{part}", f"trainer/{device}"]), known),
        ("task", flow_yaml(task), "norms: true, and norm: cin, is worth a try" if pairs else ""),
        *network,
        ("data", "", ""),
        ("  name", look.name, ""),
        *((f"  {key}", flow_yaml(value), "") for key, value in look.options.items()),
        ("  source", flow_yaml(plan.source), f"methods learn from its {_labels(look)}"),
        ("  target", flow_yaml(plan.target), _of_target(look, plan)),
        ("  image_size", flow_yaml([*shape] if pairs else side), sized),
        *([("  crop_size", str(crop), "training sees random parts")] if cropped else []),
        ("  batch_size", str(8 if masks or pairs else 16 if least < 100 else 32), ""),
    ]
    if plan.shots is not None:
        what = "images of each class" if classes else "target images"
        fields.append(("  shots", str(plan.shots), f"labelled {what} that methods learn from"))
    if uneven:
        fields.append(("  sampling", "balanced", "some classes are rare"))
    fields += [
        ("method", flow_yaml(chosen.method), guide),
        ("compare", flow_yaml(chosen.compare), "in the same table"),
        ("trainer", flow_yaml({"max_epochs": 20, "min_steps": 400 if masks else 250}), ""),
        ("seed", "0", "[0, 1, 2] gives mean and spread, and takes three times as long"),
    ]
    head = printable(f"# {_sum(look, plan.source)} → {_sum(look, plan.target)}").replace("\n", " ")
    head += "\n# Run: domainnorm run FILE\n"
    return head + "".join(map(_line, fields)), _reasons(look, plan, part, chosen.why)


_TARGETS = {
    "none": "methods see its images, not its {0}",
    "few": "methods see its images and its few {0}",
    "all": "only joint (†) learns from its {0}",
}


def _of_target(look: Look, plan: Plan) -> str:
    if plan.labels == "none" and look.dataset.task == "restoration":
        return "nothing is learned from its images"
    return _TARGETS[plan.labels].format(_labels(look))


def _line(field: tuple[str, str, str]) -> str:
    key, value, comment = field
    text = f"{key}: {value}".rstrip()
    return f"{text:<46}  # {comment}\n" if comment else f"{text}\n"


def _augmentation(look: Look, place: Path) -> tuple[str, str]:
    """The part of the augmentation, and why, as a comment."""
    if look.dataset.task == "restoration":
        return "flips", "colours and sharpness are what is learned"
    kind, known = _kind(look, place)
    return f"strong_{kind}", known


def _kind(look: Look, place: Path) -> tuple[str, str]:
    """The part of strong augmentation that fits, and why, as a comment."""
    dataset = look.dataset
    kinds = {record.metadata.get("modality", "") for record in dataset.records}
    names = [place.resolve().name, look.name, *kinds, *dataset.domain_names, *dataset.class_names]
    words = {word for name in names for word in re.split(r"[^a-z0-9-]+", name.lower())}
    words |= {part for word in words for part in word.split("_")}
    kinds_of = _WORDS if look.colours else {kind: _WORDS[kind] for kind in _GREY}
    found = {kind: sorted(words.intersection(telling)) for kind, telling in kinds_of.items()}
    kind = max(found, key=lambda kind: len(found[kind]))
    if found[kind]:
        return kind, f"'{found[kind][0]}' in the names"
    if look.colours:
        return "natural", "or strong_cells, _histology, _fundus, _driving"
    return "xray", "grey images; or strong_mri"


def _side(look: Look) -> tuple[int, tuple[int, int]]:
    """Side of the input in pixels, and the most frequent size of an image."""
    shape = look.sizes.most_common(1)[0][0]
    sides = sorted(min(size) for size in look.sizes.elements())
    middle = sides[len(sides) // 2]
    least, most = _SIDES
    if look.dataset.task == "segmentation" and middle >= _MASKS:
        most = _MASKS
    return max(min(middle // 32 * 32, most), least), shape


def _sum(look: Look, names: Sequence[str]) -> str:
    return ", ".join(
        f"{name} ({counted(look.count(name), 'image')}, {len(look.labelled(name))} with "
        f"{_labels(look)})"
        for name in names
    )


def _labels(look: Look) -> str:
    return "clean images" if look.dataset.task == "restoration" else "labels"


def _reasons(look: Look, plan: Plan, part: str, why: str) -> list[str]:
    told = look.told_apart(plan.source, plan.target)
    apart = "too few images to compare the style of the domains"
    if told is not None:
        told = max(told, 0.5)  # a little less is chance as well
        alike = "similar" if told <= _COLOURS_ALIKE else "different"
        apart = (
            f"source and target look {alike}: colours alone tell {100 * told:.0f} of 100 images "
            "apart (50 is chance)"
        )
    lines = [apart, why]
    if part.startswith("strong_"):
        lines.append(
            f"augment/{part}: training changes colours and sharpness at random; this helps more "
            "than any method. Check that the part fits your images"
        )
    if look.options.get("allow_missing_classes"):
        lacking = [
            f"{domain}: {', '.join(none)}"
            for domain in look.dataset.domain_names
            if look.labelled(domain)
            and (none := [name for name, n in look.class_counts([domain]).items() if not n])
        ]
        lines.append(f"no training images of {'; '.join(lacking)} (is a folder name misspelt?)")
    if plan.left:
        without = f"{', '.join(plan.left)}: no labels to learn from, so not in the recipe"
        lines.append(f"{without}; to adapt to it, run a recipe of its own with shots: null")
    if look.is_dark:
        lines.append(f"no pixel above {look.brightest} of 255; for 12-bit images set white: 4095")
    if columns := look.options.get("columns"):
        lines.append(f"columns: {flow_yaml(columns)}")
    if all(r.group == r.file for r in look.dataset.records):
        lines.append(
            "no groups: images of one patient, slide or film may be in both training and test; "
            "name the groups in a table (docs/data.md)"
        )
    tested = {record.domain for record in look.dataset.records if record.split == "test"}
    if untested := [name for name in (*plan.source, *plan.target) if name not in tested]:
        lines.append(
            f"{', '.join(untested)}: no image is left for tests, which check refuses; add images, "
            "or give splits in splits.csv (docs/data.md)"
        )
    tests = {n: sum(r.split == "test" for r in look.labelled(n)) for n in plan.target}
    few = [f"{name} {count}" for name, count in tests.items() if 0 < count < 50]
    if few:
        lines.append(f"few test images with labels ({', '.join(few)}): look at the intervals")
    return lines


def _tell(look: Look, plan: Plan, reasons: Sequence[str]) -> None:
    # Deferred: as in `_start`.
    from domainnorm.data.inspection.survey import told_of  # noqa: PLC0415

    say(f"{look.name}: {_of_what(look)}")
    say(f"source  {_sum(look, plan.source)}")
    say(f"target  {_sum(look, plan.target)}")
    for reason in reasons:
        say(f"- {reason}")
    for line in told_of(look.dataset):
        say(f"- {line}")
    if DATASETS.entry(look.name).constants.get("licence"):  # a published one
        known = [name for name in recipe.list_shipped("recipes") if _reads(name, look.name)]
        if known:
            say(f"- recipes for {look.name}: {', '.join(known)}")


def _of_what(look: Look) -> str:
    """What the labels are."""
    if look.dataset.task == "restoration":
        scale = look.options.get("scale", 1)
        larger = f", {scale} times as many pixels along both sides" if scale > 1 else ""
        return f"images, and clean ones of the same view{larger}"
    kind = "findings" if look.dataset.task == "multilabel" else "classes"
    names = look.dataset.class_names
    more = ", …" if len(names) > 8 else ""
    of_masks = "masks of " if look.dataset.task == "segmentation" else ""
    return f"{of_masks}{len(names)} {kind} ({', '.join(names[:8])}{more})"


def _reads(name: str, dataset: str) -> bool:
    return recipe.load_recipe(name).read_dataset.name == dataset


def _next(look: Look, plan: Plan, output: Path) -> list[tuple[str, str]]:
    target = Path(look.options["root"]) / plan.target[0]
    images = shlex.quote(str(target)) if target.is_dir() else "FOLDER"
    file, domain = (shlex.quote(str(one)) for one in (output, plan.target[0]))
    run = f"outputs/{shlex.quote(output.stem)}/<time>"
    used = (f"domainnorm predict {run} {images} --domain {domain}", "write a table of predictions")
    if look.dataset.task == "restoration":
        first = next(one.file for one in look.dataset.records if one.domain == plan.target[0])
        images = shlex.quote(str(Path(look.options["root"], *Path(first).parts[:2])))
        used = (f"domainnorm restore {run} {images}", "write restored images")
    return [
        (f"domainnorm data check {file}", "read every file"),
        (f"domainnorm check {file} --build", "check networks and data"),
        (f"domainnorm run {file}", "train, adapt, test; writes report.html"),
        used,
    ]


COMMANDS = {
    "start": Command(
        "Look at a folder of your images, and write a recipe that fits them.",
        _configure,
        _start,
    )
}
