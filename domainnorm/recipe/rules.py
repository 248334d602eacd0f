"""Rules that the values of a recipe have to satisfy together, beyond the type of each."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from domainnorm.data.augmentation.steps import arguments_of, check_augmentation, steps_for
from domainnorm.errors import unknown
from domainnorm.ranges import (
    CORRUPTED,
    CORRUPTIONS,
    TRANSLATED,
    problem_of_embedding,
    problem_of_opened,
    problem_of_task,
)
from domainnorm.recipe.norm import embedding_sizes, reads_domains
from domainnorm.recipe.problems import Problems, spelled
from domainnorm.recipe.schema import BackboneConfig, DataConfig, Named, Recipe
from domainnorm.recipe.task_rules import check_task
from domainnorm.registry import ENCODERS, METHODS, TASKS, VALIDATORS

_ARCHITECTURE = re.compile(r"\w+(\.[\w-]+)?")
_DOMAIN = re.compile(r"[^/\\.\s][^/\\]*")
_LABEL = re.compile(r"[A-Za-z0-9_]([\w.+-]{0,62}\w)?", re.ASCII)
_WEIGHTS = (".safetensors", ".pth", ".pt")
# create_model is called with these by the run itself, or they would load files it does not check.
_TAKEN = (
    "cache_dir",
    "checkpoint_path",
    "features_only",
    "model_name",
    "num_classes",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "scriptable",
)
_LARGEST_SEED = 2**32 - 1
_LARGEST_SIDE = 65536
_ESTIMATED = ("estimate", "id_or_estimate", "mixture")  # of `condition` and `unseen`


def check_together(recipe: Recipe, problems: Problems) -> None:
    """Note everything that is wrong with values which are right on their own.

    ``problems`` has what was wrong with each section; named ones that could not be read are None.
    """
    _check_backbone(recipe.backbone, problems)
    _check_domains(recipe, problems)
    _check_sizes(recipe.data, problems)
    _check_stream(recipe.data, problems)
    _check_corruption(recipe, problems)
    _check_translation(recipe, problems)
    _check_generated(recipe, problems)
    check_task(recipe, problems)
    _check_methods(recipe, problems)
    _check_condition(recipe, problems)
    if recipe.encoder is not None:
        _check_encoder(recipe.encoder, recipe, problems)
    _check_augment(recipe, problems)
    _check_protocols(recipe, problems)
    _check_selection(recipe, problems)
    _check_seeds(recipe.seeds, problems)


def _check_backbone(backbone: BackboneConfig, problems: Problems) -> None:
    if not _ARCHITECTURE.fullmatch(backbone.name):
        expected = "an architecture of timm, with an optional tag: resnet50 or resnet50.a1_in1k"
        problems.expect("backbone.name", backbone.name, expected)
    for option, value in backbone.options.items():
        key = f"backbone.options.{option}"
        items = value if isinstance(value, list) else [value]
        if option in _TAKEN:
            problems.add(key, "is set by the run; leave it out")
        elif any(isinstance(item, (Mapping, list)) for item in items):
            problems.expect(key, value, "a plain value or a list of them")
        elif option == "in_chans" and value not in (1, 3):
            expected = "3, or 1: images are read in colour, a network of one channel gets them grey"
            problems.expect(key, value, expected)
    if backbone.weights is not None and not backbone.weights.endswith(_WEIGHTS):
        expected = f"a file that ends in {', '.join(_WEIGHTS)}"
        problems.expect("backbone.weights", backbone.weights, expected)
    if backbone.weights is not None and not backbone.pretrained:
        text = "is given although backbone.pretrained is false; drop one of the two"
        problems.add("backbone.weights", text)


def _check_domains(recipe: Recipe, problems: Problems) -> None:
    """Sources are given, names fit into paths, no domain is in a transfer twice."""
    data, transfers = recipe.data, recipe.transfers
    if data.transfers and (data.source or data.target):
        text = "is given beside data.source or data.target; empty one of the two (transfers=[])"
        problems.add("data.transfers", text)
    for index, transfer in enumerate(transfers):
        key = f"data.transfers[{index}]" if data.transfers else "data"
        if transfer in transfers[:index]:
            problems.add(key, f"is the same as data.transfers[{transfers.index(transfer)}]")
        if not transfer.source:
            text = "no domains given, expected at least one such as [site_a]"
            problems.add(f"{key}.source", text)
        both = set(transfer.source) & set(transfer.target)
        if both:
            text = f"'{min(both)}' is also a source, expected other domains"
            problems.add(f"{key}.target", text)
        for role, names in (("source", transfer.source), ("target", transfer.target)):
            _check_once(f"{key}.{role}", names, problems)
            for name in names:
                if not _DOMAIN.fullmatch(name) or not name.isprintable():
                    expected = "a printable domain name without slashes"
                    problems.expect(f"{key}.{role}", name, expected)


def _check_stream(data: DataConfig, problems: Problems) -> None:
    """Runs where there are some."""
    if data.stream_run is not None and data.stream_order not in ("by_class", "returning"):
        text = f"is for the orders 'by_class' and 'returning', got '{data.stream_order}'"
        problems.add("data.stream_run", text)


def _check_corruption(recipe: Recipe, problems: Problems) -> None:
    """A known corruption, a severity of five, and a twin that is used."""
    given = recipe.data.corrupt
    if given is None:
        return
    problems.check_keys("data.corrupt", given, ["name", "severity"])
    name, severity = given.get("name"), given.get("severity")
    if name not in CORRUPTIONS:
        problems.add("data.corrupt.name", unknown("corruption", str(name), CORRUPTIONS))
    if type(severity) is not int or not 1 <= severity <= 5:
        problems.expect("data.corrupt.severity", severity, "a whole number from 1 to 5")
    if not recipe.twinned:
        text = "is given, but no source or target is a corrupted domain, such as"
        problems.add("data.corrupt", f"{text} '{recipe.domains[0]}{CORRUPTED}'")


def _check_translation(recipe: Recipe, problems: Problems) -> None:
    """A run and one of its domains, and a twin that is used."""
    given = recipe.data.translate
    if given is None:
        return
    problems.check_keys("data.translate", given, ["run", "to"])
    for key in ("run", "to"):
        if not given.get(key) or not isinstance(given[key], str):
            expected = "the folder of a run of task translation, and one of its domains"
            problems.expect(f"data.translate.{key}", given.get(key), expected)
    if recipe.data.corrupt is not None:
        problems.add("data.translate", "is given beside data.corrupt; drop one of the two")
    elif not recipe.twinned:
        text = "is given, but no source or target is a translated domain, such as"
        problems.add("data.translate", f"{text} '{recipe.domains[0]}{TRANSLATED}'")


def _check_generated(recipe: Recipe, problems: Problems) -> None:
    """A folder, a weight, and labels that its images can have."""
    given = recipe.data.generated
    if given is None:
        return
    problems.check_keys("data.generated", given, ["root", "weight"])
    root, weight = given.get("root"), given.get("weight", 1)
    if not root or not isinstance(root, str):
        expected = "a folder that `domainnorm generate` has written"
        problems.expect("data.generated.root", root, expected)
    if type(weight) not in (int, float) or not 0 < weight < math.inf:
        problems.expect("data.generated.weight", weight, "a number above 0")
    if recipe.task.name != "classification":
        text = f"has images of a class, which task '{recipe.task.name}' does not learn from"
        problems.add("data.generated", text)


def _check_once(key: str, names: Sequence[str], problems: Problems) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            problems.add(key, f"names '{name}' {count} times")


def _check_sizes(data: DataConfig, problems: Problems) -> None:
    """One positive number or two; a crop is no larger than the image that it is cut from."""
    for key, size in (("data.image_size", data.image_size), ("data.crop_size", data.crop_size)):
        sides = size if isinstance(size, list) else [1 if size is None else size]
        if min(sides, default=0) < 1 or len(sides) > 2 or max(sides) > _LARGEST_SIDE:
            expected = f"1 to {_LARGEST_SIDE} pixels or [height, width]"
            problems.expect(key, size, expected)
    if data.image_size is None or data.crop_size is None or problems.among("data"):
        return
    whole, crop = (
        [size] * 2 if isinstance(size, int) else (size * 2)[:2]
        for size in (data.image_size, data.crop_size)
    )
    if any(part > side for part, side in zip(crop, whole, strict=True)):
        expected = f"no more than data.image_size, {spelled(data.image_size)}"
        problems.expect("data.crop_size", data.crop_size, expected)


def _check_methods(recipe: Recipe, problems: Problems) -> None:
    """No label twice, and no method that needs a target where a transfer has none."""
    seen: set[str] = set()
    for index, named in enumerate((recipe.method, *recipe.compare)):
        key = "method" if index == 0 else f"compare[{index - 1}]"
        if named is None:
            continue
        if named.label.casefold() in seen:
            text = (
                f"'{named.label}' is already a method of this recipe; leave it out, or rename it:"
            )
            problems.add(key, f"{text} {{name: {named.name}, as: {named.name}_2}}")
        elif named.alias in METHODS.names():
            text = f"got '{named.alias}', the name of another method; take a new name"
            problems.add(f"{key}.as", text)
        elif not _LABEL.fullmatch(named.label):
            expected = "letters, digits and _ . + - between them, at most 64 characters"
            problems.expect(f"{key}.as", named.label, expected)
        seen.add(named.label.casefold())
        constants = METHODS.entry(named.name).constants
        needs_target = "target" in (constants.get("labelled"), constants.get("unlabelled"))
        needs_target &= not constants.get("without_target")
        has_target = all(transfer.target for transfer in recipe.transfers)
        if needs_target and not has_target and not problems.among("data"):
            text = f"'{named.name}' needs images of a target domain, but data.target is empty"
            problems.add(key, text)

        _check_labels(named, key, recipe.task, problems)


def _check_labels(named: Named, key: str, task: Named | None, problems: Problems) -> None:
    """The labels of the task are of a kind that a method can do with."""
    if task is None:
        return
    labels = TASKS.entry(task.name).constants.get("labels", "")
    constants = METHODS.entry(named.name).constants
    if text := problem_of_task(named.name, constants.get("tasks", ()), labels):
        problems.add(key, text)
    for option, value in constants.get("for_masks", ()):
        if labels != "segmentation" and named.options.get(option) == value:
            text = f"got {spelled(value)}, which is for masks, but task '{task.name}' has none"
            problems.add(f"{key}.{option}", text)


def _check_protocols(recipe: Recipe, problems: Problems) -> None:
    """Two views of target images where a method compares them, one device for a stream of them."""
    for named in (recipe.method, *recipe.compare):
        constants = METHODS.entry(named.name).constants if named else {}
        if constants.get("views") == "two":
            _check_views(named.name, recipe, problems)
        if constants.get("style_steps"):
            _check_styles(named.name, constants["style_steps"], recipe, problems)
        if constants.get("protocol") == "online":
            for key in ("devices", "num_nodes"):
                if (given := getattr(recipe.trainer, key)) not in (1, "auto"):
                    text = f"got {given}, but devices cannot share the one stream of images of"
                    problems.add(f"trainer.{key}", f"{text} '{named.name}'; set it to 1")
        if named and named.options.get("rows") == "opened" and not problems.among("encoder"):
            _check_opened(named, recipe, problems)


def _check_opened(method: Named, recipe: Recipe, problems: Problems) -> None:
    encoder, reads = recipe.encoder, False
    if encoder is not None:
        reads = bool(ENCODERS.entry(encoder.name).constants.get("reads_attributes"))
    text = problem_of_opened(
        method.options.get("reset"),
        recipe.data.rows,
        has_encoder=encoder is not None,
        reads_attributes=reads,
        has_rows=reads_domains(recipe.norm),
    )
    if text:
        problems.add("method.rows", text)


def _check_views(method: str, recipe: Recipe, problems: Problems) -> None:
    for domain in dict.fromkeys(name for one in recipe.transfers for name in one.target):
        if not isinstance(_steps_of(domain, "target", recipe), Mapping):
            text = f"method '{method}' needs a weak and a strong view of the images of"
            way = "take a part augment/strong_*, or {weak: [...], strong: [...]}"
            problems.add("augment.target", f"{text} '{domain}', but there is only one; {way}")
            return


def _check_styles(method: str, wanted: Sequence[str], recipe: Recipe, problems: Problems) -> None:
    for domain in dict.fromkeys(name for one in recipe.transfers for name in one.source):
        steps = _steps_of(domain, "source", recipe)
        if check_augmentation(steps, "augment.source"):
            return  # what is wrong with them is told already
        seen = steps.get("weak", []) if isinstance(steps, Mapping) else steps
        if not {arguments_of(step)[0] for step in seen} & set(wanted):
            text = f"method '{method}' needs a step that restyles images of '{domain}':"
            problems.add("augment.source", f"{text} {' or '.join(wanted)}; add one")
            return


def _steps_of(domain: str, role: str, recipe: Recipe) -> Any:
    return steps_for(recipe.augment if isinstance(recipe.augment, Mapping) else {}, domain, role)


def _check_selection(recipe: Recipe, problems: Problems) -> None:
    """An epoch is chosen by something that there is, for labels that the validator is for."""
    asked, key = recipe.evaluation.selection, "evaluation.selection"
    reads = {name: VALIDATORS.entry(name).arguments for name in VALIDATORS.names()}
    # Others compare with labels of the source, or with a teacher that not every method has.
    lacking = ("source", "source_features", "student")
    usable = [name for name, read in reads.items() if not set(lacking) & set(read)]
    if asked not in ("last", "validation", "oracle", *usable):
        words = ("last", "validation", "oracle", *usable)
        problems.add(key, unknown("value", asked, words))
    for name in ("patience", "keep_best"):
        if asked == "last" and (given := getattr(recipe.trainer, name)) is not None:
            text = f"got {given}, but {key}=last does not score epochs; set"
            problems.add(f"trainer.{name}", f"{text} {key}=validation, or leave it out")
    if asked in ("last", "validation") or problems.among(key):
        return
    if not all(transfer.target for transfer in recipe.transfers) and not problems.among("data"):
        problems.add(key, f"'{asked}' needs images of a target domain, but data.target is empty")
    if asked == "oracle" or recipe.task is None:
        return
    labels = TASKS.entry(recipe.task.name).constants.get("labels", "")
    kinds = ("classification",) + (() if "features" in reads[asked] else ("segmentation",))
    if text := problem_of_task(asked, kinds, labels):
        problems.add(key, text)
    if recipe.evaluation.score_images == 0:
        problems.add("evaluation.score_images", f"got 0, but selection '{asked}' needs images")


def _check_condition(recipe: Recipe, problems: Problems) -> None:
    """Something is estimated only by an encoder, for norms that look at it, or far from nothing."""
    condition, far = recipe.condition, recipe.far
    has_encoder = recipe.encoder is not None or problems.among("encoder")
    for key, value in (("condition", condition), ("unseen", recipe.unseen)):
        if value in (*_ESTIMATED, "embedding") and not has_encoder:
            text = f"'{value}' needs a domain encoder; add 'encoder: style', or leave the key out"
            problems.add(key, text)
    if far is not None and not has_encoder:
        text = f"'{far}' needs a domain encoder; add 'encoder: style', or leave the key out"
        problems.add("far", text)
    elif far is not None and condition not in _ESTIMATED and recipe.unseen not in _ESTIMATED:
        text = f"'{far}' is for images whose domain is estimated; add 'condition: mixture' or"
        problems.add("far", f"{text} 'unseen: mixture', or leave the key out")
    if condition in _ESTIMATED and not reads_domains(recipe.norm):
        text = f"'{condition}' would change nothing, since no norm depends on the domain; take one"
        problems.add("condition", f"{text} that does, such as 'norm: dsbn', or leave the key out")
    _check_once("data.attributes", recipe.data.attributes, problems)


def _check_encoder(encoder: Named, recipe: Recipe, problems: Problems) -> None:
    """An encoder has what it reads, in numbers wide enough, and norms that take what it says."""
    constants, precision = ENCODERS.entry(encoder.name).constants, recipe.trainer.precision
    if constants.get("reads_attributes") and not recipe.data.attributes:
        text = f"'{encoder.name}' estimates domains from attributes of images, but there are none;"
        problems.add("encoder", f"{text} name some, such as data.attributes: [scanner]")
    if precision in ("16-true", "bf16-true"):  # moments are worth nothing in a narrow type
        mixed = precision.replace("true", "mixed")
        text = f"'{precision}' is too coarse for an encoder; take '{mixed}', or leave 'encoder' out"
        problems.add("trainer.precision", text)
    for key in ("keep_best", "keep_every"):
        if getattr(recipe.trainer, key) is not None:
            text = f"keeps no encoder, since '{encoder.name}' learns where domains are at the end"
            problems.add(f"trainer.{key}", f"{text}; leave the key or 'encoder' out")
    if recipe.condition != "embedding":
        return
    sizes = embedding_sizes(recipe.norm)
    if not sizes:
        text = "'embedding' needs norms that take one; set 'norm: film', or modulation 'hyper'"
        problems.add("condition", text)
    elif text := problem_of_embedding(encoder.options["embedding"], sizes):
        problems.add("encoder", text)
    if constants.get("reads_backbone"):
        text = (
            f"encoder '{encoder.name}' reads the input of the first norm, which needs 'embedding';"
        )
        problems.add("condition", f"{text} take 'encoder: style', 'cnn', 'metadata' or 'text'")


def _check_augment(recipe: Recipe, problems: Problems) -> None:
    """The steps of each domain are known to albumentations."""
    if not isinstance(recipe.augment, Mapping):
        problems.expect("augment", recipe.augment, "a mapping such as {default: [HorizontalFlip]}")
        return
    known = list(dict.fromkeys(("default", "source", "target", *recipe.domains)))
    for name, steps in recipe.augment.items():
        key = f"augment.{name}"
        if name not in known and not problems.among("data"):
            problems.add(key, unknown("domain", name, known))
        if found := check_augmentation(steps, key):
            problems.add_lines(found)
            continue
        views = steps.values() if isinstance(steps, Mapping) else [steps]
        for step, given in (arguments_of(one) for view in views for one in view):
            if step == "Translate" and not isinstance(given.get("run"), str):
                expected = "the folder of a run of task translation"
                problems.expect(f"{key}: Translate.run", given.get("run"), expected)


def _check_seeds(seeds: Sequence[Any], problems: Problems) -> None:
    """Whole numbers from 0 to 2³²−1, each once."""
    plain = [seed for seed in seeds if isinstance(seed, int) and not isinstance(seed, bool)]
    expected = ""
    if len(plain) < len(seeds) or not seeds:
        expected = "a whole number or a list of them"
    elif min(plain) < 0 or max(plain) > _LARGEST_SEED:
        expected = f"numbers from 0 to {_LARGEST_SEED}"
    elif len(set(plain)) < len(plain):
        expected = "each seed once"
    if expected:
        value = seeds[0] if len(seeds) == 1 else seeds
        problems.expect("seed", value, expected)
