from __future__ import annotations

from domainnorm.recipe import load_recipe


def test_show_prints_the_resolved_recipe_and_nothing_else_in_a_pipe(domainnorm):
    assert domainnorm("show", "quickstart").stdout == load_recipe("quickstart").to_yaml()


def test_show_applies_overrides(domainnorm):
    expected = load_recipe("quickstart", ["seed=[1,2]", "norm=cin"]).to_yaml()
    assert domainnorm("show", "quickstart", "seed=[1,2]", "norm=cin").stdout == expected
