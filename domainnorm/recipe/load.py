"""Reads a recipe: file, parts and overrides in, a checked `Recipe` or every problem at once out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domainnorm.errors import RecipeError, unknown
from domainnorm.ranges import Conditioned, Far, Unseen
from domainnorm.recipe.norm import read_norm
from domainnorm.recipe.problems import Problems, spelled
from domainnorm.recipe.rules import (
    check_attributes,
    check_augment,
    check_backbone,
    check_conditioned,
    check_crop,
    check_crop_task,
    check_decoder,
    check_domains,
    check_end_to_end,
    check_estimates,
    check_far,
    check_mask_size,
    check_methods,
    check_precision,
    check_size,
    check_task,
    read_seeds,
    read_transfers,
)
from domainnorm.recipe.schema import (
    BackboneConfig,
    DataConfig,
    EvaluationConfig,
    Named,
    Recipe,
    TrainerConfig,
    Transfer,
)
from domainnorm.recipe.sections import fixed_parameters, read_fixed, read_named, read_section
from domainnorm.recipe.tree import find_recipe, merged_tree, recipe_name, resolved_tree
from domainnorm.registry import DATASETS, ENCODERS, METHODS, PERTURBATIONS, TASKS, Parameter

_PREFIX = {"prefix": Parameter("prefix", str, "")}
_AS = {"as": Parameter("as", str | None, None)}
_PLACE = {"where": Parameter("where", str | list[str] | None, None)}
DEFAULT_COMPARE = ("source_only", "oracle")
KEYS = (
    "configs",
    "task",
    "backbone",
    "norm",
    "perturb",
    "encoder",
    "condition",
    "data",
    "augment",
    "method",
    "compare",
    "trainer",
    "evaluation",
    "unseen",
    "far",
    "checkpoint",
    "seed",
)


def load_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        reference: Path of a YAML file, or the name of a shipped recipe such as ``medical/wbc``.
        overrides: ``key=value`` with a dotted key and a YAML value. ``method=tent`` replaces the
            section, ``method.lr=1e-2`` changes one key of it.

    Raises:
        RecipeError: Everything that is wrong with the recipe and the overrides.
    """
    file = find_recipe(reference)
    problems = Problems()
    try:
        tree = resolved_tree(merged_tree(file, overrides, problems), problems)
    except RecipeError as error:
        if not problems:
            raise
        raise RecipeError([*problems.lines, *error.problems], reference) from error
    values = _read(tree, problems)
    if problems:
        raise RecipeError(problems.lines, reference)
    return Recipe(name=recipe_name(file), **values)


def _read(tree: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    for key in tree:
        if key not in KEYS:
            problems.add(key, unknown("key", key, KEYS))
    backbone = read_fixed(tree.get("backbone"), BackboneConfig, "backbone", problems)
    given = tree.get("backbone") or {}
    backbone = check_backbone(backbone, given, problems)
    data, dataset = _read_data(tree.get("data"), problems)
    dataset = read_parts(dataset, problems)
    transfers = read_transfers(data, problems)
    check_domains(transfers, problems, listed=bool(data["transfers"]))
    for key in ("image_size", "crop_size"):
        check_size(f"data.{key}", data[key], problems)
    check_crop(data["image_size"], data["crop_size"], problems)
    method = _read_method(tree.get("method"), "method", problems)
    compare = _read_compare(tree, method, transfers, problems)
    check_methods(method, compare, transfers, problems)
    task = read_named(tree.get("task"), TASKS, "task", problems)
    encoder = None
    if tree.get("encoder") is not None:
        encoder = read_named(tree["encoder"], ENCODERS, "encoder", problems)
    usual: Unseen = "error" if encoder is None else "mixture"
    condition = _read_value(tree, Parameter("condition", Conditioned, "id"), problems)
    unseen = _read_value(tree, Parameter("unseen", Unseen, usual), problems)
    far = _read_value(tree, Parameter("far", Far | None, None), problems)
    has_encoder = tree.get("encoder") is not None
    if not has_encoder:
        check_estimates(condition, unseen, problems)
    check_far(far, condition, unseen, problems, has_encoder=has_encoder)
    check_conditioned(condition, tree.get("norm"), problems)
    check_end_to_end(condition, encoder, tree.get("norm"), problems)
    check_attributes(encoder, data["attributes"], problems)
    check_task(task, dataset, problems)
    check_decoder(task, problems)
    check_crop_task(data["crop_size"], task, problems)
    evaluation = EvaluationConfig(**_fixed(tree, "evaluation", EvaluationConfig, problems))
    trainer = TrainerConfig(**_fixed(tree, "trainer", TrainerConfig, problems))
    check_precision(trainer.precision, encoder, problems)
    check_mask_size(evaluation.mask_size, task, problems)
    return {
        "task": task,
        "backbone": None if problems.among("backbone") else BackboneConfig(**backbone),
        "norm": read_norm(tree.get("norm"), problems),
        "perturb": read_perturb(tree.get("perturb"), problems),
        "encoder": encoder,
        "condition": condition,
        "data": DataConfig(**data),
        "dataset": dataset,
        "augment": check_augment(tree.get("augment"), transfers, problems),
        "method": method,
        "compare": compare,
        "trainer": trainer,
        "evaluation": evaluation,
        "unseen": unseen,
        "far": far,
        "checkpoint": _read_value(tree, Parameter("checkpoint", str | None, None), problems),
        "seeds": read_seeds(tree.get("seed", 0), problems),
    }


def _fixed(tree: Mapping[str, Any], key: str, schema: type, problems: Problems) -> dict[str, Any]:
    return read_fixed(tree.get(key), schema, key, problems)


def _read_value(tree: Mapping[str, Any], parameter: Parameter, problems: Problems) -> Any:
    """A key of the recipe that is no section."""
    name, inner = parameter.name, Problems()
    section = {name: tree[name]} if name in tree else {}
    value = read_section(section, {name: parameter}, "", inner)[name]
    problems.add_lines(line.removeprefix(".") for line in inner.lines)
    return value


def _read_data(section: Any, problems: Problems) -> tuple[dict[str, Any], Named | None]:
    """The section's fixed keys, and the dataset with the keys of its own signature."""
    if not isinstance(section, Mapping):
        expected = "a mapping with 'name', 'source', 'target' and the keys of the dataset"
        problems.add("data", f"got {spelled(section)}, expected {expected}")
        return read_fixed(None, DataConfig, "data", Problems()), None
    fixed = fixed_parameters(DataConfig)
    name = section.get("name")
    if not isinstance(name, str) or name not in DATASETS.names():
        text = unknown("dataset", name, DATASETS.names())
        if "name" not in section:
            text = f"missing, expected one of {', '.join(DATASETS.names())}"
        problems.add("data.name", text)
        return read_fixed(section, DataConfig, "data", problems, closed=False), None
    own = DATASETS.entry(name).parameters
    data = read_fixed(section, DataConfig, "data", problems, closed=False)
    options = {key: section[key] for key in section if key != "name" and key not in fixed}
    for key in options:
        if key not in own:
            problems.add(f"data.{key}", unknown("key", key, ["name", *fixed, *own]))
    return data, Named(name, read_section(options, own, "data", problems))


def _read_method(value: Any, key: str, problems: Problems) -> Named | None:
    named = read_named(value, METHODS, key, problems, more=_AS)
    if named is None:
        return None
    options = dict(named.options)
    label = options.pop("as") or named.name
    return Named(named.name, options, "" if label == named.name else label)


def _read_compare(
    tree: Mapping[str, Any],
    method: Named | None,
    transfers: Sequence[Transfer],
    problems: Problems,
) -> list[Named | None]:
    """The further methods; when none are stated, the usual two as far as they apply."""
    if "compare" in tree:
        stated = tree["compare"]
        if not isinstance(stated, list):
            problems.add("compare", f"got {spelled(stated)}, expected a list of methods")
            return []
        return [
            _read_method(value, f"compare[{index}]", problems) for index, value in enumerate(stated)
        ]
    own = method.label if method else None
    usual = [name for name in DEFAULT_COMPARE if name != own]
    if not all(transfer.target for transfer in transfers):
        usual = [name for name in usual if name != "oracle"]
    return [read_named(name, METHODS, "compare", problems) for name in usual]


def read_parts(dataset: Named | None, problems: Problems) -> Named | None:
    """The dataset with every part checked and its defaults spelled out; others as they are."""
    if (
        dataset is None
        or dataset.name != "join"
        or not isinstance(dataset.options.get("parts"), list)
    ):
        return dataset
    read = [
        read_named(part, DATASETS, f"data.parts[{number}]", problems, more=_PREFIX)
        for number, part in enumerate(dataset.options["parts"])
    ]
    parts = [{"name": part.name, **part.options} for part in read if part is not None]
    return Named(dataset.name, {**dataset.options, "parts": parts})


def read_perturb(value: Any, problems: Problems) -> list[Named | None]:
    """The perturbations of a recipe, in the order they are written.

    Args:
        value: None, a name, ``{name, where, ...}`` or a list of these.
        problems: Takes what is wrong.
    """
    if not isinstance(value, list):
        return [] if value is None else [_read_perturbation(value, "perturb", problems)]
    return [
        _read_perturbation(item, f"perturb[{index}]", problems) for index, item in enumerate(value)
    ]


def _read_perturbation(value: Any, key: str, problems: Problems) -> Named | None:
    named = read_named(value, PERTURBATIONS, key, problems, more=_PLACE)
    if named is not None and named.options["where"] == []:
        problems.add(f"{key}.where", "got an empty list, expected stem, stage1, … or module paths")
    return named
