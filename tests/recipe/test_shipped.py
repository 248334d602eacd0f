"""Every file in ``recipes/`` and ``configs/`` is usable as it ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from domainnorm.recipe import list_shipped, load_recipe, needs_network
from domainnorm.recipe.load import KEYS
from domainnorm.recipe.schema import Named, labels_of
from domainnorm.recipe.tree import read_yaml, recipe_name, shipped_folder

RECIPES = sorted(shipped_folder("recipes").rglob("*.y*ml"))
CONFIGS = sorted(shipped_folder("configs").rglob("*.y*ml"))


def _label(file: Path) -> str:
    return "/".join(file.parts[-2:])


def test_recipes_and_configs_are_found():
    assert len(RECIPES) >= 4
    assert len(CONFIGS) >= 6


def test_every_file_is_listed():
    listed = len(list_shipped("recipes")) + len(list_shipped("configs"))
    assert listed == len(RECIPES) + len(CONFIGS)


@pytest.mark.parametrize("file", RECIPES, ids=_label)
def test_shipped_recipe_passes_the_check_under_its_name(file):
    name = recipe_name(file)
    assert load_recipe(name).name == name


@pytest.mark.parametrize("file", RECIPES, ids=_label)
def test_shipped_recipe_is_checked_without_its_network(file):
    assert not needs_network(load_recipe(str(file)))


@pytest.mark.parametrize("file", RECIPES, ids=_label)
def test_resolved_recipe_reads_back_equal(file, tmp_path):
    recipe = load_recipe(str(file))
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(str(copy)) == recipe


@pytest.mark.parametrize("file", RECIPES, ids=_label)
def test_resolved_recipe_names_no_parts(file):
    assert "configs:" not in load_recipe(str(file)).to_yaml()


@pytest.mark.parametrize("file", RECIPES, ids=_label)
def test_recipe_header_says_what_data_and_command(file):
    head = file.read_text(encoding="utf-8").partition("\nconfigs:")[0]
    page, _, anchor = re.search(r"docs/(data\w*\.md)(#)([\w-]+)", head).groups()
    text = (shipped_folder("recipes").parent / "docs" / page).read_text(encoding="utf-8")
    assert f'id="{anchor}"' in text or f"\n## {anchor}\n" in text or f"\n### {anchor}\n" in text
    assert f"domainnorm run {recipe_name(file)}" in head


@pytest.mark.parametrize("file", [*RECIPES, *CONFIGS], ids=_label)
def test_file_starts_with_its_summary(file):
    assert file.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("file", CONFIGS, ids=_label)
def test_config_passes_the_check_as_part_of_a_recipe(file, tmp_path):
    content = read_yaml(file)
    assert set(content) <= set(KEYS) - {"configs"}
    name = file.relative_to(shipped_folder("configs")).with_suffix("")
    path = tmp_path / "recipe.yaml"
    data = content.get("data", {})
    named = Named(data.get("name", "scans"), data)
    task = {"classification": "classification", "segmentation": "segmentation"}
    path.write_text(
        f"configs: [data/scans, {name.as_posix()}]\n"
        f"task: {task.get(labels_of(named), 'multilabel')}\n"
        "backbone: {name: resnet10t}\nmethod: source_only\n"
        "data: {source: [a], target: [b]}\n"
    )
    assert load_recipe(str(path)).method.name == "source_only"


def test_shipped_name_may_carry_its_suffix():
    assert load_recipe("medical/wbc.yaml") == load_recipe("medical/wbc")


def test_copy_outside_the_shipped_folder_is_named_by_its_stem(tmp_path):
    copy = tmp_path / "mine.yaml"
    copy.write_text(load_recipe("quickstart").to_yaml())
    assert load_recipe(str(copy)).name == "mine"
