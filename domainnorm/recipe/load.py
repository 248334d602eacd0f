"""Loading of a recipe: file, parts and overrides in, a checked `Recipe` or all problems out.

Each section is read on its own here; what they have to satisfy together stands in `rules`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from domainnorm.backbones.architectures import USUAL, architectures
from domainnorm.errors import RecipeError, similar, unknown
from domainnorm.ranges import OWN_METHODS, Conditioned, Far, Sampling, Unseen
from domainnorm.recipe.meanings import unknown_key
from domainnorm.recipe.norm import read_norm
from domainnorm.recipe.problems import Problems
from domainnorm.recipe.rules import check_together
from domainnorm.recipe.schema import (
    PRECISIONS,
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
from domainnorm.registry import (
    CALLBACKS,
    DATASETS,
    ENCODERS,
    LOGGERS,
    METHODS,
    PERTURBATIONS,
    SAMPLERS,
    TASKS,
    Parameter,
    Registry,
)

_NO_KEYS = ("name", "dataset", "seeds")  # of a `Recipe`; all its other fields are keys
KEYS = ("configs", *(one.name for one in fields(Recipe) if one.name not in _NO_KEYS), "seed")
# What named sections take beside the options of what they name.
_ALIAS = {"as": Parameter("as", str | None, None)}
_PLACE = {"where": Parameter("where", str | list[str] | None, None)}
_PREFIX = {"prefix": Parameter("prefix", str, "")}


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
    recipe = _read(tree, recipe_name(file), problems)
    check_together(recipe, problems)
    if problems:
        raise RecipeError(problems.lines, reference)
    return recipe


def _read(tree: Mapping[str, Any], name: str, problems: Problems) -> Recipe:
    """The recipe with every section as far as it can be read; named ones are None otherwise."""
    for key in tree:
        if key not in KEYS:
            problems.add(key, unknown_key(key, KEYS))
    backbone = _read_backbone(tree.get("backbone"), problems)
    data, dataset = _read_data(tree.get("data"), problems)
    method = _read_method(tree.get("method", "default"), "method", problems)
    task = read_named(tree.get("task"), TASKS, "task", problems)
    encoder = tree.get("encoder")
    if encoder is not None:
        encoder = read_named(encoder, ENCODERS, "encoder", problems)
    seeds = tree.get("seed", 0)
    values: dict[str, Any] = {
        **_read_values(tree, "error" if encoder is None else "mixture", problems),
        "task": task,
        "backbone": backbone,
        "norm": read_norm(tree.get("norm"), problems),
        "perturb": _read_perturb(tree.get("perturb"), problems),
        "encoder": encoder,
        "data": data,
        "dataset": dataset,
        "augment": {} if tree.get("augment") is None else tree["augment"],
        "method": method,
        "compare": _read_compare(tree, task, method, data, problems),
        "seeds": seeds if isinstance(seeds, list) else [seeds],
    }
    trainer = _spelled_out(tree.get("trainer"), problems)
    values["trainer"] = TrainerConfig(**read_fixed(trainer, TrainerConfig, "trainer", problems))
    evaluation = read_fixed(tree.get("evaluation"), EvaluationConfig, "evaluation", problems)
    return Recipe(name=name, **values, evaluation=EvaluationConfig(**evaluation))


def _spelled_out(section: Any, problems: Problems) -> Any:
    """The section ``trainer`` without what it may have for short: names, and a precision."""
    if not isinstance(section, Mapping):
        return section
    section = dict(section)
    if isinstance(section.get("precision"), (str, int)):
        section["precision"] = PRECISIONS.get(str(section["precision"]), section["precision"])
    for name, registry in (("logger", LOGGERS), ("callbacks", CALLBACKS)):
        if name in section:
            section[name] = _read_several(section[name], registry, f"trainer.{name}", problems)
    return section


def _read_several(
    given: Any, registry: Registry, key: str, problems: Problems
) -> list[dict[str, Any]]:
    """Names with their options, of a name, a mapping with ``name`` or a list of these."""
    stated = _one_or_several(given, key).items()
    read = [read_named(item, registry, where, problems) for where, item in stated]
    named = [{"name": one.name, **one.options} for one in read if one is not None]
    for name, count in Counter(one["name"] for one in named).items():
        if count > 1:
            problems.add(key, f"names '{name}' {count} times")
    return named


def _one_or_several(given: Any, key: str) -> dict[str, Any]:
    """What stands under a key, or each item of a list there, by its dotted key; nothing of null."""
    if isinstance(given, list):
        return {f"{key}[{index}]": item for index, item in enumerate(given)}
    return {} if given is None else {key: given}


def _read_values(tree: Mapping[str, Any], unseen: Unseen, problems: Problems) -> dict[str, Any]:
    """The keys that are no sections; ``unseen`` has a default of its own."""
    parameters = {
        "condition": Parameter("condition", Conditioned, "id"),
        "unseen": Parameter("unseen", Unseen, unseen),
        "far": Parameter("far", Far | None, None),
        "checkpoint": Parameter("checkpoint", str | None, None),
    }
    given = {key: tree[key] for key in parameters if key in tree}
    return read_section(given, parameters, "", problems)


def _read_backbone(section: Any, problems: Problems) -> BackboneConfig:
    """The backbone; a file of weights implies ``pretrained`` unless that is denied."""
    section = {"name": section} if isinstance(section, str) else section
    values = read_fixed(section, BackboneConfig, "backbone", problems)
    architecture = values.get("name", "").partition(".")[0]
    if "/" not in architecture and architecture not in {"", *architectures()}:
        known = similar(architecture, architectures(), USUAL)
        problems.add("backbone.name", unknown("network of timm", architecture, known))
    if values["weights"] is not None and section.get("pretrained") is not False:
        values["pretrained"] = True
    return BackboneConfig(**{"name": "", **values})


def _read_data(section: Any, problems: Problems) -> tuple[DataConfig, Named | None]:
    """The section's fixed keys, and the dataset with the keys of its own signature."""
    if not isinstance(section, Mapping):
        expected = "a mapping with 'name', 'source', 'target' and the keys of the dataset"
        problems.expect("data", section, expected)
        section = {}
    values = read_fixed(section, DataConfig, "data", problems, closed=False)
    for index, transfer in enumerate(values["transfers"]):
        key = f"data.transfers[{index}]"
        read = read_section(transfer, fixed_parameters(Transfer), key, problems)
        values["transfers"][index] = {"source": [], **read}
    values["sampling"] = _read_sampling(values["sampling"], problems)
    data, name = DataConfig(**values), section.get("name")
    if not isinstance(name, str) or name not in DATASETS.names():
        text = unknown("dataset", name, DATASETS.names())
        if "name" not in section:
            text = f"missing, expected one of {', '.join(DATASETS.names())}"
        problems.add("data.name", text)
        return data, None
    own = DATASETS.entry(name).parameters
    options = {key: section[key] for key in section if key != "name" and key not in values}
    for key in options:
        if key not in own:
            problems.add(f"data.{key}", unknown_key(key, ["name", *values, *own], "data"))
    options = read_section(options, own, "data", problems)
    if name == "join" and isinstance(options.get("parts"), list):
        options["parts"] = _read_parts(options["parts"], problems)
    return data, Named(name, options)


def _read_sampling(given: Any, problems: Problems) -> Any:
    """A word, or a sampler of another package with its options spelled out."""
    if isinstance(given, Mapping) and set(given) == {"name"}:
        given = given["name"]
    if isinstance(given, Mapping) or given in SAMPLERS.names():
        named = read_named(given, SAMPLERS, "data.sampling", problems)
        return "uniform" if named is None else {"name": named.name, **named.options}
    words = {"sampling": Parameter("sampling", Sampling, "uniform")}
    return read_section({"sampling": given}, words, "data", problems)["sampling"]


def _read_parts(parts: Sequence[Any], problems: Problems) -> list[dict[str, Any]]:
    """The parts of the dataset ``join``, which are datasets, with their defaults spelled out."""
    read = [
        read_named(part, DATASETS, f"data.parts[{number}]", problems, more=_PREFIX)
        for number, part in enumerate(parts)
    ]
    return [{"name": part.name, **part.options} for part in read if part is not None]


def _read_perturb(value: Any, problems: Problems) -> list[Named | None]:
    """The perturbations: of a name, ``{name, where, ...}`` or a list, in the order of it."""
    read = {
        key: read_named(item, PERTURBATIONS, key, problems, more=_PLACE)
        for key, item in _one_or_several(value, "perturb").items()
    }
    for key, named in read.items():
        if named is not None and named.options["where"] == []:
            text = "got an empty list, expected stem, stage1, … or module paths"
            problems.add(f"{key}.where", text)
    return list(read.values())


def _read_method(value: Any, key: str, problems: Problems) -> Named | None:
    named = read_named(value, METHODS, key, problems, more=_ALIAS)
    if named is None:
        return None
    label = named.options.pop("as")
    return named if label in (None, named.name) else Named(named.name, named.options, label)


def _read_compare(
    tree: Mapping[str, Any],
    task: Named | None,
    method: Named | None,
    data: DataConfig,
    problems: Problems,
) -> list[Named | None]:
    """The further methods; when none are stated, the usual two as far as they apply."""
    stated = tree.get("compare")
    if "compare" not in tree:
        targets = [transfer["target"] for transfer in data.transfers] or [data.target]
        usual = ["source_only", "oracle"] if all(targets) else ["source_only"]
        if task is not None and TASKS.entry(task.name).constants["labels"] in OWN_METHODS:
            usual = []  # there is nothing that these would learn from
        stated = [name for name in usual if method is None or name != method.label]
    if not isinstance(stated, list):
        problems.expect("compare", stated, "a list of methods")
        return []
    read = [
        _read_method(value, f"compare[{index}]", problems) for index, value in enumerate(stated)
    ]
    # The same method once more, options included, is one row of the table.
    return [
        named
        for index, named in enumerate(read)
        if named is None or named not in [method, *read[:index]]
    ]
