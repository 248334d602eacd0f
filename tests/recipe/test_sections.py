from __future__ import annotations

from typing import Any, Literal

import pytest

from domainnorm.recipe.problems import Problems
from domainnorm.recipe.sections import describe, read_section
from domainnorm.registry import (
    DATASETS,
    METHODS,
    MODULATIONS,
    PERTURBATIONS,
    STATISTICS,
    TASKS,
    Parameter,
)

ENTRIES = [
    registry.entry(name)
    for registry in (DATASETS, METHODS, MODULATIONS, PERTURBATIONS, STATISTICS, TASKS)
    for name in registry.names()
]


def _read(hint: Any, value: Any) -> tuple[Any, list[str]]:
    problems = Problems()
    values = read_section({"x": value}, {"x": Parameter("x", hint)}, "section", problems)
    return values.get("x"), problems.lines


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 3, 3),
        (float, 3, 3.0),
        (float, "1e-3", 1e-3),
        (bool, False, False),
        (str, "a", "a"),
        (str, 1, "1"),
        (Literal["a", "b"], "b", "b"),
        (int | None, None, None),
        (int | list[int], [1, 2], [1, 2]),
        (Literal["auto"] | int, "auto", "auto"),
        (Literal["auto"] | float, 1, 1.0),
        (int | float, 1, 1),
        (list[str], ["a"], ["a"]),
        (list[float], [1, 0.5], [1.0, 0.5]),
        (tuple[float, float], [0, 1], (0.0, 1.0)),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (Any, [1, {"a": None}], [1, {"a": None}]),
    ],
)
def test_a_fitting_value_is_converted_to_its_type(hint, value, expected):
    got, problems = _read(hint, value)
    assert problems == []
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (int, True, "got true, expected a whole number"),
        (int, 1.5, "got 1.5, expected a whole number"),
        (int, None, "got null, expected a whole number"),
        (float, True, "got true, expected a number"),
        (float, "fast", "got 'fast', expected a number"),
        (float, float("nan"), "got nan, expected a number"),
        (list[float], [float("inf")], "got [inf], expected a list of numbers"),
        (bool, 1, "got 1, expected true or false"),
        (bool, "yes", "got 'yes', expected true or false"),
        (str, False, "got false, expected a text"),
        (str, ["a"], "got ['a'], expected a text"),
        (list[str], "a", "got 'a', expected a list of texts"),
        (list[str], [True], "got [True], expected a list of texts"),
        (tuple[float, float], [0], "got [0], expected a list of 2 values"),
        (dict[str, int], [1], "got [1], expected a mapping"),
        (Literal["norms", "head"], "norm", "expected 'norms' or 'head'; did you mean 'norms'?"),
        (Literal["auto"] | float, True, "got true, expected 'auto' or a number"),
        (Literal["auto"] | int, 1.5, "got 1.5, expected 'auto' or a whole number"),
    ],
)
def test_an_unfitting_value_is_one_problem_in_words(hint, value, words):
    _, problems = _read(hint, value)
    assert len(problems) == 1
    assert words in problems[0]


def test_defaults_are_not_shared_between_sections():
    parameters = {"x": Parameter("x", list[int], [1])}
    first = read_section({}, parameters, "section", Problems())
    first["x"].append(2)
    assert read_section({}, parameters, "section", Problems())["x"] == [1]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_registered_signature_is_a_schema(entry):
    problems = Problems()
    read_section({}, entry.parameters, entry.name, problems)
    assert all(": missing, expected a" in line for line in problems.lines)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_default_of_a_registered_signature_fits_its_type(entry):
    problems = Problems()
    defaults = {name: entry.parameters[name].default for name in entry.parameters}
    given = {key: value for key, value in defaults.items() if repr(value) != "required"}
    read = read_section(given, entry.parameters, entry.name, problems)
    assert not [line for line in problems.lines if ": missing" not in line]
    assert {key: read[key] for key in given} == given


def test_long_values_are_shortened():
    _, problems = _read(int, "a" * 500)
    assert len(problems[0]) < 120


@pytest.mark.parametrize(
    ("hint", "words"),
    [(int | None, "a whole number or null"), (list[dict[str, Any]], "a list of mappings")],
)
def test_types_are_described_in_words(hint, words):
    assert describe(hint) == words
