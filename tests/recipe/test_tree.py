from __future__ import annotations

import pytest

from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe


@pytest.fixture
def part(tmp_path):
    """Write ``configs/<name>.yaml`` beside the recipe."""

    def make(name: str, text: str) -> None:
        file = tmp_path / "configs" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    return make


def test_later_parts_win_and_the_recipe_wins_over_parts(write, part):
    part("a", "trainer: {max_epochs: 1, threads: 1, limit_batches: 1}\n")
    part("b", "trainer: {threads: 2, limit_batches: 2}\n")
    trainer = load_recipe(write(configs="[a, b]", trainer="{limit_batches: 3}")).trainer
    assert (trainer.max_epochs, trainer.threads, trainer.limit_batches) == (1, 2, 3)


def test_part_beside_the_recipe_hides_the_shipped_one(write, part):
    part("trainer/cpu", "trainer: {max_epochs: 77}\n")
    assert load_recipe(write(configs="[trainer/cpu]")).trainer.max_epochs == 77


def test_part_that_names_parts_is_refused(write, part):
    part("a", "configs: [trainer/cpu]\n")
    with pytest.raises(RecipeError, match=r"configs\[0\]: 'a' names parts; only a recipe may"):
        load_recipe(write(configs="[a]"))


def test_broken_part_is_named_with_line_and_column(write, part, tmp_path):
    part("a", "trainer: {\n")
    with pytest.raises(RecipeError, match=r"configs/a.yaml: 1 problem\n  - line 2, column 1"):
        load_recipe(write(configs="[a]"))


def test_other_norm_replaces_the_section_of_a_part(write, part):
    part("a", "norm: {name: dsbn, momentum: 0.2}\n")
    assert load_recipe(write(configs="[a]", norm="{early: cin, late: dsbn}")).norm == {
        "early": "cin",
        "late": "dsbn",
    }


@pytest.mark.parametrize(
    ("override", "section", "expected"),
    [
        ("seed=1", "seeds", [1]),
        ("seed=[1,2]", "seeds", [1, 2]),
        ("norm=dsbn", "norm", "dsbn"),
        ("norm=null", "norm", None),
        ("norm.where=all", "norm", {"name": "cin", "where": "all"}),
        ("norm={early: cin}", "norm", {"early": "cin"}),
        ("checkpoint=a=b", "checkpoint", "a=b"),
    ],
)
def test_override_wins_over_the_recipe(write, override, section, expected):
    assert getattr(load_recipe(write(norm="cin"), [override]), section) == expected


def test_override_with_a_list_replaces_the_list(write):
    assert load_recipe(write(), ["data.source=[a,b]"]).data.source == ["a", "b"]


def test_later_override_wins(write):
    assert load_recipe(write(), ["seed=1", "seed=2"]).seeds == [2]


def test_override_of_a_named_section_replaces_its_options(write):
    overrides = ["method.nonsense=1", "method=adabn"]
    assert load_recipe(write(), overrides).method.name == "adabn"


def test_override_reaches_a_key_of_a_section_given_as_name(write):
    with pytest.raises(RecipeError, match=r"method.nonsense: unknown key"):
        load_recipe(write(), ["method.nonsense=1"])


def test_override_changes_the_parts(write):
    path = write(configs="[trainer/cpu]")
    assert load_recipe(path, ["configs=[trainer/gpu]"]).trainer.accelerator == "gpu"


def test_override_reaches_a_key_of_an_encoder_given_as_name(write):
    recipe = load_recipe(write(encoder="style"), ["encoder.hidden=8"])
    assert (recipe.encoder.name, recipe.encoder.options["hidden"]) == ("style", 8)


def test_other_encoder_replaces_that_of_a_part(write, part):
    part("base", "encoder: {name: style, hidden: 8}\n")
    recipe = load_recipe(write(configs="[base]", encoder="{name: cnn}"))
    assert recipe.encoder == load_recipe(write(encoder="cnn")).encoder
