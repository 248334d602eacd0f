"""The reference is made of the code, and says something of each name and key."""

import re
from dataclasses import fields

import pytest

from domainnorm.cli.program import COMMANDS
from domainnorm.cli.reference import REGISTRIES, describe, entries_of, made_pages
from domainnorm.data.augmentation.steps import list_transforms
from domainnorm.norms.catalogue import CATALOGUE
from domainnorm.recipe.load import KEYS
from domainnorm.recipe.schema import BackboneConfig, DataConfig, EvaluationConfig, TrainerConfig
from domainnorm.registry import REQUIRED

ROW = re.compile(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", re.MULTILINE)
ENTRIES = [(kind, name) for kind in REGISTRIES for name in entries_of(kind)]


def page(name):
    return made_pages()[f"reference/{name}"][1]()


@pytest.mark.parametrize(("kind", "name"), ENTRIES)
def test_each_key_of_a_name_is_explained(kind, name):
    text = describe(kind, name)
    assert text.startswith(f"## {name}\n")
    rows = {key: (told, values, default) for key, told, values, default in ROW.findall(text)}
    parameters = entries_of(kind)[name].parameters
    assert list(rows) == list(parameters)
    for key, (told, values, default) in rows.items():
        assert len(told) > 5
        assert values
        assert (default == "required") == (parameters[key].default is REQUIRED)


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_norm_has_the_keys_of_both_halves(name):
    keys = {row[0] for row in ROW.findall(describe("norms", name))}
    halves = (
        ("statistics", CATALOGUE[name].statistics),
        ("modulations", CATALOGUE[name].modulation),
    )
    assert keys == {
        key for kind, half in halves for key in REGISTRIES[kind][0].entry(half).parameters
    }


@pytest.mark.parametrize("schema", [BackboneConfig, DataConfig, TrainerConfig, EvaluationConfig])
def test_each_key_of_a_section_is_explained(schema):
    title = schema.__name__.removesuffix("Config").lower()
    section = page("recipe").split(f"## {title}\n")[1].split("\n## ")[0]
    assert [row[0] for row in ROW.findall(section)] == [one.name for one in fields(schema)]
    assert all(len(row[1]) > 5 for row in ROW.findall(section))


def test_each_key_of_a_recipe_is_explained():
    head = page("recipe").split("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", head, re.MULTILINE))
    assert list(rows) == list(KEYS)
    assert all(len(told) > 5 for told in rows.values())


def test_what_one_may_write_is_shown_as_a_recipe_has_it():
    rows = {key: row for key, *row in ROW.findall(describe("methods", "adabn"))}
    assert rows["moments"][1:] == ["`clean`, `as_trained`", "`clean`"]
    rows = {key: row for key, *row in ROW.findall(describe("statistics", "domain"))}
    assert rows["momentum"] == [
        "Weight of the new batch in [0, 1]; null for the cumulative average.",
        "number, null",
        "`0.1`",
    ]


def test_steps_of_augmentation_are_called_as_recipes_call_them():
    assert set(entries_of("transforms")) <= set(list_transforms())
    assert describe("transforms", "RandConv").startswith("## RandConv\n")


def test_each_command_and_action_has_its_help():
    heads = re.findall(r"^##+ (.+)$", page("commands"), re.MULTILINE)
    assert set(COMMANDS) <= set(heads)
    assert {"pack save", "data check"} <= set(heads)


def test_a_name_is_described_by_list(domainnorm):
    done = domainnorm("list", "methods", "tent")
    assert done.returncode == 0
    assert "| `lr` |" in done.stdout
    assert "arXiv:2006.10726" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("methods", "tnt"), "did you mean 'tent'?"),
        (("norms", "cinn"), "did you mean 'cin'?"),
        (("recipes", "quickstart"), "domainnorm show quickstart"),
    ],
)
def test_names_that_are_not_there_are_answered(domainnorm, words, said):
    done = domainnorm("list", *words)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_made_page_is_printed_from_a_heading_on(domainnorm):
    done = domainnorm("docs", "reference/recipe#trainer")
    assert done.stdout.startswith("## trainer\n")
    assert "| `max_epochs` |" in done.stdout
