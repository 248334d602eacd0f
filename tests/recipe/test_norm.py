from __future__ import annotations

import re

import pytest

from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe.norm import read_norm
from domainnorm.recipe.problems import Problems


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_catalogue_name_is_a_norm(name):
    problems = Problems()
    assert read_norm(name, problems) == name
    assert not problems


@pytest.mark.parametrize(
    ("value", "fragment"),
    [
        (3, "norm: got 3, expected a norm name"),
        ({}, "norm: got an empty mapping, expected a norm name"),
        ({"name": "dsbm"}, "norm.name: unknown norm 'dsbm': did you mean 'dsbn'?"),
        ({"name": "cin", "wher": "all"}, "norm.wher: unknown key 'wher'"),
        ({"name": "cin", "where": 3}, "norm.where: got 3, expected all, stem, early, late,"),
        ({"name": "cin", "where": []}, "norm.where: got an empty list"),
        ({"name": "cin", "where": ["all", "a b"]}, "norm.where: got 'a b', expected all"),
        ({"name": "cin", "eps": "x"}, "norm.eps: got 'x', expected a number"),
        ({"name": "cin", "statistics": "batch"}, "norm.statistics: got 'batch' beside a name"),
        ({"statistics": "instance"}, "norm.modulation: missing, expected one of"),
        (
            {"statistics": "instanc", "modulation": "table"},
            "norm.statistics: unknown statistics 'instanc': did you mean 'instance'?",
        ),
        (
            {"statistics": "instance", "modulation": "tabel"},
            "norm.modulation: unknown modulation 'tabel': did you mean 'table'?",
        ),
        ({"where": "all"}, "norm: got 'where' without a name"),
        ({"early": "cinn"}, "norm.early: unknown norm 'cinn': did you mean 'cin'?"),
        ({"early": {"name": "cin", "where": "all"}}, "norm.early.where: unknown key 'where'"),
        ({"early": ["cin"]}, "norm.early: got ['cin'], expected a norm name"),
        ({"a b": "cin"}, "norm.a b: got 'a b', expected all, stem, early, late,"),
    ],
)
def test_a_wrong_norm_is_answered_with_its_key(value, fragment):
    problems = Problems()
    read_norm(value, problems)
    assert re.search(re.escape(fragment), "\n".join(problems.lines))


def test_a_rule_can_ask_for_the_norm_that_keeps_the_function():
    problems = Problems()
    assert read_norm({"all": "cin", "late": None}, problems) == {"all": "cin", "late": None}
    assert not problems


def test_options_are_converted_to_the_type_of_the_signature():
    assert read_norm({"name": "dsbn", "eps": "1e-3"}, Problems()) == {"name": "dsbn", "eps": 1e-3}
