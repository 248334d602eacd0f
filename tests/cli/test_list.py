from __future__ import annotations

import pytest

from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe import list_shipped
from domainnorm.registry import (
    DATASETS,
    LOGGERS,
    METHODS,
    MODULATIONS,
    PERTURBATIONS,
    STATISTICS,
    TASKS,
    TRANSFORMS,
    VALIDATORS,
)

KINDS = {
    "recipes": list(list_shipped("recipes")),
    "configs": list(list_shipped("configs")),
    "methods": METHODS.names(),
    "norms": list(CATALOGUE),
    "statistics": STATISTICS.names(),
    "modulations": MODULATIONS.names(),
    "perturbations": PERTURBATIONS.names(),
    "datasets": DATASETS.names(),
    "tasks": TASKS.names(),
    "loggers": LOGGERS.names(),
    "transforms": [TRANSFORMS.entry(name).attribute for name in TRANSFORMS.names()],
    "validators": VALIDATORS.names(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_list_names_everything_of_a_kind(domainnorm, kind):
    words = domainnorm("list", kind).stdout.split()
    assert KINDS[kind]
    assert set(KINDS[kind]) <= set(words)


def test_list_without_kind_names_everything(domainnorm):
    words = domainnorm("list").stdout.split()
    assert {name for names in KINDS.values() for name in names} <= set(words)


def test_list_gives_the_first_comment_line_of_a_recipe(domainnorm):
    text = " ".join(domainnorm("list", "recipes").stdout.split())
    assert list_shipped("recipes")["medical/wbc"] in text
