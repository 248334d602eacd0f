"""Values that nothing here can be are problems of a recipe, and found at once."""

import pytest

from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe


@pytest.mark.parametrize(
    "key",
    ["data.batch_size", "trainer.max_epochs", "evaluation.resamples", "trainer.limit_batches"],
)
def test_counts_are_those_that_a_machine_can_count(key):
    with pytest.raises(RecipeError, match=rf"{key}: got 1000\d*, expected at most 2147483647"):
        load_recipe("quickstart", [f"{key}={10**30}"])


def test_images_have_sides_that_fit_a_machine():
    with pytest.raises(RecipeError, match=r"data\.image_size: got 1000000000, expected 1 to 65536"):
        load_recipe("quickstart", [f"data.image_size={10**9}"])


def test_brackets_without_end_are_refused_at_once(tmp_path):
    deep = "[" * 20_000
    (tmp_path / "deep.yaml").write_text(f"data: {deep}")
    with pytest.raises(RecipeError, match="nested too deeply to be a recipe"):
        load_recipe(str(tmp_path / "deep.yaml"))
    with pytest.raises(RecipeError, match="as a YAML value") as raised:
        load_recipe("quickstart", [f"data.source={deep}"])
    assert len(str(raised.value)) < 1000
