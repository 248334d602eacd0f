from __future__ import annotations

import pytest

from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe


def test_unseen_domains_are_errors_unless_the_recipe_says_otherwise():
    assert load_recipe("quickstart").unseen == "error"
    assert load_recipe("quickstart", ["unseen=nearest"]).unseen == "nearest"


def test_policy_survives_the_resolved_recipe(tmp_path):
    recipe = load_recipe("quickstart", ["unseen=batch"])
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "recipe.yaml")).unseen == "batch"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "unseen=maen",
            "unseen: got 'maen', expected 'error' or 'mean' or 'nearest' or 'batch'",
        ),
        ("unseen=[mean]", r"unseen: got \['mean'\], expected 'error' or"),
        ("unsen=mean", "unsen: unknown key 'unsen': did you mean 'unseen'"),
    ],
)
def test_unknown_policy_is_answered_with_the_choices(word, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("quickstart", [word])
