from __future__ import annotations

import pytest
import yaml

from domainnorm.recipe import load_recipe
from domainnorm.registry import PERTURBATIONS

FORMS = [
    (None, []),
    ("[]", []),
    ("mixstyle", ["mixstyle"]),
    ("{name: dsu, where: stage2, p: 0.2}", ["dsu"]),
    ("[{name: dsu, where: stem}, {name: mixstyle, where: [stage1, 'layer?.0']}]", ["dsu", "mixst"]),
]


@pytest.mark.parametrize(("text", "names"), FORMS)
def test_resolved_recipe_repeats_the_perturbations(write, tmp_path, text, names):
    recipe = load_recipe(write(perturb=text))
    assert [named.name[:5] for named in recipe.perturb] == [name[:5] for name in names]
    again = tmp_path / "again.yaml"
    again.write_text(recipe.to_yaml())
    assert load_recipe(str(again)) == recipe


@pytest.mark.parametrize("name", PERTURBATIONS.names())
def test_name_alone_stands_for_all_defaults_and_the_place_of_the_paper(write, name):
    shown = yaml.safe_load(load_recipe(write(perturb=name)).to_yaml())["perturb"]
    defaults = {key: item.default for key, item in PERTURBATIONS.entry(name).parameters.items()}
    assert shown == {"name": name, "where": None, **defaults}


def test_override_changes_one_key_and_another_name_replaces_the_section(write):
    path = write(perturb="{name: mixstyle, alpha: 0.3}")
    assert load_recipe(path, ["perturb.p=0.2"]).perturb[0].options["alpha"] == 0.3
    assert load_recipe(path, ["perturb.p=0.2"]).perturb[0].options["p"] == 0.2
    assert load_recipe(path, ["perturb=dsu"]).perturb[0].name == "dsu"
    assert load_recipe(path, ["perturb=null"]).perturb == []
