"""The parts of the dataset ``join``, which are datasets with their own keys."""

from __future__ import annotations

from domainnorm.recipe.problems import Problems
from domainnorm.recipe.registries import DATASETS
from domainnorm.recipe.schema import Named
from domainnorm.recipe.sections import read_named
from domainnorm.registry import Parameter

_PREFIX = {"prefix": Parameter("prefix", str, "")}


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


def parts_of(dataset: Named) -> list[Named]:
    """The datasets that one joins; itself where it joins none."""
    joined = dataset.options.get("parts") if dataset.name == "join" else None
    return [Named(part["name"], part) for part in joined] if joined else [dataset]


def labels_of(dataset: Named) -> str:
    """The task that a dataset has labels for; of joined ones that of the first."""
    return str(DATASETS.entry(parts_of(dataset)[0].name).constants.get("task", ""))
