"""What the values of a recipe have to satisfy together, beyond the type of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from domainnorm.data.augmentation.steps import check_augmentation
from domainnorm.errors import unknown
from domainnorm.ranges import problem_of_embedding
from domainnorm.recipe.norm import embedding_sizes, reads_domains, takes_embedding
from domainnorm.recipe.problems import Problems, spelled
from domainnorm.recipe.schema import Named, Transfer, labels_of
from domainnorm.recipe.sections import fixed_parameters, read_section
from domainnorm.registry import ENCODERS, METHODS, TASKS

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
LARGEST_SEED = 2**32 - 1


def check_backbone(
    values: dict[str, Any], given: Mapping[str, Any], problems: Problems
) -> dict[str, Any]:
    """The backbone's values; a file of weights implies ``pretrained`` unless that is denied.

    Args:
        values: Converted values, defaults filled in.
        given: The section as written, which tells a default from a denial.
        problems: Takes what is wrong.
    """
    name = values.get("name")
    if name is not None and not _ARCHITECTURE.fullmatch(name):
        expected = "an architecture of timm, with an optional tag: resnet50 or resnet50.a1_in1k"
        problems.add("backbone.name", f"got {spelled(name)}, expected {expected}")
    for option, value in values["options"].items():
        key = f"backbone.options.{option}"
        items = value if isinstance(value, list) else [value]
        if option in _TAKEN:
            problems.add(key, "is set by the run; leave it out")
        elif any(isinstance(item, (Mapping, list)) for item in items):
            problems.add(key, f"got {spelled(value)}, expected a plain value or a list of them")
        elif option == "in_chans" and value not in (1, 3):
            expected = "3, or 1: images are read in colour, and a network of one channel gets grey"
            problems.add(key, f"got {spelled(value)}, expected {expected}")
    weights = values["weights"]
    if weights is None:
        return values
    if not weights.endswith(_WEIGHTS):
        expected = f"a file that ends in {', '.join(_WEIGHTS)}"
        problems.add("backbone.weights", f"got {spelled(weights)}, expected {expected}")
    if given.get("pretrained") is False:
        text = "is given although backbone.pretrained is false; drop one of the two"
        problems.add("backbone.weights", text)
    return {**values, "pretrained": True}


def read_transfers(data: Mapping[str, Any], problems: Problems) -> list[Transfer]:
    """The transfers of the run, from ``source`` and ``target`` or from ``transfers``."""
    if not data["transfers"]:
        return [Transfer(data["source"], data["target"])]
    if data["source"] or data["target"]:
        text = "is given beside data.source or data.target; empty one of the two (transfers=[])"
        problems.add("data.transfers", text)
    read = []
    for index, transfer in enumerate(data["transfers"]):
        key = f"data.transfers[{index}]"
        values = read_section(transfer, fixed_parameters(Transfer), key, problems)
        read.append(Transfer(values.get("source", []), values["target"]))
    return read


def check_domains(transfers: Sequence[Transfer], problems: Problems, *, listed: bool) -> None:
    """Sources are given, names fit into paths, no domain is in a transfer twice.

    Args:
        transfers: What `read_transfers` returned.
        problems: Takes what is wrong.
        listed: Whether they come from ``data.transfers``; tells the keys of messages.
    """
    for index, transfer in enumerate(transfers):
        key = f"data.transfers[{index}]" if listed else "data"
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
            for name, count in Counter(names).items():
                if count > 1:
                    problems.add(f"{key}.{role}", f"names '{name}' {count} times")
                if not _DOMAIN.fullmatch(name) or not name.isprintable():
                    text = f"got {spelled(name)}, expected a printable domain name without slashes"
                    problems.add(f"{key}.{role}", text)


def check_size(key: str, size: int | list[int] | None, problems: Problems) -> None:
    """One positive number or two."""
    sides = size if isinstance(size, list) else [1 if size is None else size]
    if min(sides, default=0) < 1 or len(sides) > 2:
        expected = "a positive number of pixels or [height, width]"
        problems.add(key, f"got {spelled(size)}, expected {expected}")


def check_task(task: Named | None, dataset: Named | None, problems: Problems) -> None:
    """The dataset has labels of the kind that the task learns from."""
    if task is None or dataset is None:
        return
    wanted = TASKS.entry(task.name).constants.get("labels")
    found = labels_of(dataset)
    if found not in (wanted, ""):
        text = f"'{task.name}' learns from labels for {wanted}, dataset '{dataset.name}' has some"
        problems.add("task", f"{text} for {found}; change task or data.name")


def check_decoder(task: Named | None, problems: Problems) -> None:
    """A segmentation network has a loss, and a width that its decoder takes."""
    if task is None or TASKS.entry(task.name).constants.get("labels") != "segmentation":
        return
    weights = [task.options.get(f"{loss}_weight", 0) for loss in ("ce", "dice", "focal")]
    if not any(weights):
        text = "got 0 beside dice_weight and focal_weight of 0, expected one above"
        problems.add("task.ce_weight", text)
    width = task.options.get("width", 32)
    if task.options.get("decoder") == "fpn" and width % 32:
        problems.add("task.width", f"got {width}, decoder 'fpn' takes multiples of 32")


def check_crop(
    image_size: int | list[int] | None, crop_size: int | list[int] | None, problems: Problems
) -> None:
    """A crop is no larger than the image that it is cut from."""
    if image_size is None or crop_size is None or problems.among("data"):
        return
    sides, parts = (
        [size] * 2 if isinstance(size, int) else (size * 2)[:2] for size in (image_size, crop_size)
    )
    if any(part > side for part, side in zip(parts, sides, strict=True)):
        text = f"got {spelled(crop_size)}, expected no more than data.image_size, "
        problems.add("data.crop_size", text + spelled(image_size))


def check_crop_task(
    crop_size: int | list[int] | None, task: Named | None, problems: Problems
) -> None:
    """Only masks can be cut together with their images."""
    if crop_size is None or task is None:
        return
    if TASKS.entry(task.name).constants.get("labels") != "segmentation":
        text = f"{spelled(crop_size)}, but task '{task.name}' looks at whole images; leave the key"
        problems.add("data.crop_size", f"{text} out, or add RandomResizedCrop to augment")


def check_mask_size(mask_size: str, task: Named | None, problems: Problems) -> None:
    """Only masks have a size of their own."""
    if mask_size == "input" or task is None:
        return
    if TASKS.entry(task.name).constants.get("labels") != "segmentation":
        text = f"'original' is for masks, and task '{task.name}' has none; leave the key out"
        problems.add("evaluation.mask_size", text)


def check_methods(
    method: Named | None,
    compare: Sequence[Named | None],
    transfers: Sequence[Transfer],
    problems: Problems,
) -> None:
    """No label twice, and no method that needs a target where a transfer has none."""
    seen: set[str] = set()
    for index, named in enumerate((method, *compare)):
        key = "method" if index == 0 else f"compare[{index - 1}]"
        if named is None:
            continue
        if named.label.casefold() in seen:
            text = f"'{named.label}' is already a method of this recipe; leave it out, or give it a"
            other = f"{{name: {named.name}, as: {named.name}_2}}"
            problems.add(key, f"{text} name of its own: {other}")
        elif named.alias in METHODS.names():
            text = f"got '{named.alias}', the name of another method; take a new name"
            problems.add(f"{key}.as", text)
        elif not _LABEL.fullmatch(named.label):
            expected = "letters, digits and _ . + - in between, at most 64"
            problems.add(f"{key}.as", f"got {spelled(named.label)}, expected {expected}")
        seen.add(named.label.casefold())
        constants = METHODS.entry(named.name).constants
        needs_target = "target" in (constants.get("labelled"), constants.get("unlabelled"))
        without = [transfer for transfer in transfers if not transfer.target]
        if needs_target and without and not problems.among("data"):
            text = f"'{named.name}' needs images of a target domain, but data.target is empty"
            problems.add(key, text)


def check_augment(
    section: Any, transfers: Sequence[Transfer], problems: Problems
) -> dict[str, Any]:
    """The augmentation steps of each domain, every step known to albumentations."""
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        expected = "a mapping such as {default: [HorizontalFlip]}"
        problems.add("augment", f"got {spelled(section)}, expected {expected}")
        return {}
    domains = [name for transfer in transfers for name in (*transfer.source, *transfer.target)]
    known = list(dict.fromkeys(("default", "source", "target", *domains)))
    for name, steps in section.items():
        key = f"augment.{name}"
        if name not in known and not problems.among("data"):
            problems.add(key, unknown("domain", name, known))
        problems.add_lines(check_augmentation(steps, key))
    return dict(section)


def read_seeds(value: Any, problems: Problems) -> list[int]:
    """The seeds: whole numbers from 0 to 2³²−1, each once."""
    seeds = value if isinstance(value, list) else [value]
    plain = [seed for seed in seeds if isinstance(seed, int) and not isinstance(seed, bool)]
    if len(plain) < len(seeds) or not seeds:
        problems.add("seed", f"got {spelled(value)}, expected a whole number or a list of them")
    elif min(plain) < 0 or max(plain) > LARGEST_SEED:
        problems.add("seed", f"got {spelled(value)}, expected numbers from 0 to {LARGEST_SEED}")
    elif len(set(plain)) < len(plain):
        problems.add("seed", f"got {spelled(value)}, expected each seed once")
    return plain


def check_estimates(condition: str, unseen: str, problems: Problems) -> None:
    """Nothing is estimated where there is no encoder."""
    for key, value in (("condition", condition), ("unseen", unseen)):
        if value in ("estimate", "id_or_estimate", "mixture", "embedding"):
            text = f"'{value}' needs a domain encoder; add 'encoder: style', or leave the key out"
            problems.add(key, text)


def check_far(
    far: str | None, condition: str, unseen: str, problems: Problems, *, has_encoder: bool
) -> None:
    """Where nothing is estimated, no image is far from what is known."""
    estimated = ("estimate", "id_or_estimate", "mixture")
    if far is None:
        return
    if not has_encoder:
        text = f"'{far}' is for what a domain encoder says; add 'encoder: style', or leave the key"
        problems.add("far", f"{text} out")
    elif condition not in estimated and unseen not in estimated:
        text = f"'{far}' is for images whose domain is estimated; add 'condition: mixture' or"
        problems.add("far", f"{text} 'unseen: mixture', or leave the key out")


def check_precision(precision: str, encoder: Named | None, problems: Problems) -> None:
    """What an encoder looks at, moments, is worth nothing in a narrow type."""
    if encoder is not None and precision in ("16-true", "bf16-true"):
        mixed = precision.replace("true", "mixed")
        text = f"'{precision}' makes the encoder as narrow; take '{mixed}', or leave 'encoder' out"
        problems.add("trainer.precision", text)


def check_conditioned(condition: str, norm: Any, problems: Problems) -> None:
    """An estimate is for norms that look at it."""
    if condition in ("estimate", "id_or_estimate", "mixture") and not reads_domains(norm):
        text = f"'{condition}' would change nothing, since no norm looks at the domain; take norms"
        problems.add("condition", f"{text} that do, such as 'norm: dsbn', or leave the key out")


def check_end_to_end(condition: str, encoder: Named | None, norm: Any, problems: Problems) -> None:
    """An encoder that learns with the network reads no input of norms; some take what it says."""
    if condition != "embedding" or encoder is None:
        return
    if not takes_embedding(norm):
        text = "'embedding' is for norms that take one, and 'norm' names none; add 'norm: film', or"
        problems.add("condition", f"{text} 'hyper' as a modulation")
    elif text := problem_of_embedding(encoder.options["embedding"], embedding_sizes(norm)):
        problems.add("encoder", text)
    if ENCODERS.entry(encoder.name).constants.get("reads_backbone"):
        text = f"'embedding' is wanted by the first norm, whose input '{encoder.name}' reads;"
        problems.add("condition", f"{text} take 'encoder: style', 'cnn', 'metadata' or 'text'")


def check_attributes(encoder: Named | None, attributes: Sequence[str], problems: Problems) -> None:
    """An encoder that reads attributes has some, each once."""
    for name, count in Counter(attributes).items():
        if count > 1:
            problems.add("data.attributes", f"names '{name}' {count} times")
    reads = encoder and ENCODERS.entry(encoder.name).constants.get("reads_attributes")
    if encoder and reads and not attributes:
        text = f"'{encoder.name}' estimates domains from attributes of the images, and there are"
        problems.add("encoder", f"{text} none; name some, such as data.attributes: [scanner]")
