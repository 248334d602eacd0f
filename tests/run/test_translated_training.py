"""A translator in the training and the test of another run: the step `Translate` and twins."""

import numpy as np
import pytest

from domainnorm.errors import CheckpointError, DataError, RecipeError
from domainnorm.recipe import load_recipe
from domainnorm.run.models import Styles
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.stage import made_of
from tests.run import tiny
from tests.run.test_translation import WORDS as TRANSLATION
from tests.run.tiny import call, metrics, newest, run

BACKBONE = "backbone.pretrained=false"


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A few steps at a high rate: what it makes is another image."""
    words = [word for word in TRANSLATION if word != "method=stylize"]
    given = "method={name: stylize, lr: 0.05, style_weight: 100}"
    return run(tmp_path_factory.mktemp("translator"), *words, given, "trainer.max_epochs=3")


def parts_of(*words):
    parts = Parts(tiny.recipe(BACKBONE, *words))
    return parts, {stage.label: stage for stage in plan_stages(parts.recipe)}


def steps_of(translator, *words):
    """Steps of each stage that the recipe plans, by domain."""
    parts, stages = parts_of(
        f"augment={{source: [{{name: Translate, run: {translator}}}]}}", *words
    )
    return {name: parts._augment(stage) for name, stage in stages.items()}


def test_what_the_translator_says_is_what_the_command_writes(translator, tmp_path):
    styles = Styles(translator)
    image = np.random.default_rng(0).integers(0, 255, (48, 40, 3), np.uint8)
    changed = styles(image, "colour_cast")
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    assert not np.array_equal(changed, image)
    assert np.array_equal(changed, styles(image, "colour_cast"))


def test_methods_that_see_no_target_train_on_the_images_as_they_are(translator):
    found = steps_of(translator, "method=joint", "compare=[source_only]")
    assert found["source_only"] == {"clean": [], "colour_cast": []}
    (step,) = found["joint"]["clean"]
    assert (step["name"], step["to"]) == ("Translate", ["colour_cast"])


def test_images_of_a_batch_are_translated_with_the_probability_asked_for(translator):
    def batch(p):
        step = f"[{{name: Translate, run: {translator}, to: colour_cast, p: {p}}}]"
        parts, stages = parts_of(f"augment={{source: {step}}}", "method=joint", "compare=[]")
        data = parts.data(stages["joint"], parts.model(stages["joint"]))
        found = next(iter(data.train_dataloader()))
        return found["image"][found["domain"] == 0].numpy()

    changed = np.abs(batch(1.0) - batch(0.0)).max((1, 2, 3))
    assert (changed > 0).all()
    assert 0 < (np.abs(batch(0.5) - batch(0.0)).max((1, 2, 3)) > 0).sum() < len(changed)


def test_twin_has_the_labels_of_its_domain_and_the_style_of_another(translator):
    twin = f"data.translate={{run: {translator}, to: clean}}"
    parts, _ = parts_of(
        twin, "data.target=[colour_cast_translated]", "method=source_only", "compare=[]"
    )
    data = parts.dataset
    own = data.positions(["colour_cast"], "test")
    twins = data.positions(["colour_cast_translated"], "test")
    assert [data.records[one].target for one in own] == [data.records[one].target for one in twins]
    styles = Styles(translator)
    for one, other in zip(own[:3], twins[:3], strict=True):
        assert np.array_equal(styles(data.image(one), "clean"), data.image(other))


@pytest.mark.slow
def test_run_with_both_works_and_can_be_resumed(translator, tmp_path):
    words = (
        BACKBONE,
        f"augment={{source: [{{name: Translate, run: {translator}, p: 1.0}}]}}",
        f"data.translate={{run: {translator}, to: clean}}",
        "data.target=[colour_cast, colour_cast_translated]",
        "method=restyle",
        "compare=[source_only]",
        "trainer.max_epochs=1",
    )
    folder = run(tmp_path, *words)
    found = metrics(folder)
    assert {domain for _, domain in found} == {"clean", "colour_cast", "colour_cast_translated"}
    assert call("run", "--resume", str(folder)) == 0
    assert newest(tmp_path) == folder


def test_other_weights_of_the_translator_are_other_data(translator):
    parts, stages = parts_of(
        f"augment={{source: [{{name: Translate, run: {translator}}}]}}", "method=joint"
    )
    parts.check_images(stages.values())
    made = made_of(parts, stages["joint"])["recipe"]
    assert made[f"translator {translator}"] == Styles(translator).digest


def test_style_of_a_domain_that_the_stage_does_not_have_is_taken_if_it_is_named(translator):
    words = "data.source=[textured]", "data.target=[clean]", "method=source_only", "compare=[]"
    with pytest.raises(DataError, match="none of which is another domain"):
        steps_of(translator, "data.source=[clean]", "data.target=[textured]", "method=joint")
    step = f"augment={{source: [{{name: Translate, run: {translator}, to: colour_cast}}]}}"
    parts, stages = parts_of(*words, step)
    (made,) = parts._augment(stages["source_only"])["textured"]
    assert made["to"] == ["colour_cast"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["augment={source: [Translate]}"], "augment.source: Translate.run: "),
        (["augment={source: [{name: Translate, run: 3}]}"], "Translate.run: "),
        (["data.translate={run: somewhere}"], "data.translate.to: "),
        (["data.translate={run: somewhere, to: clean}"], "'clean_translated'"),
        (
            ["data.translate={run: a, to: clean}", "data.corrupt={name: fog, severity: 1}"],
            "data.translate: is given beside data.corrupt",
        ),
        (["data.translate={folder: a}"], "data.translate: unknown key 'folder'"),
    ],
)
def test_wrong_recipe_is_told(words, told):
    with pytest.raises(RecipeError) as error:
        load_recipe("quickstart", words)
    assert told in str(error.value)


def test_wrong_run_or_style_is_told_before_anything_trains(translator, tmp_path):
    recipe = tiny.recipe(
        BACKBONE, f"augment={{source: [{{name: Translate, run: {tmp_path}}}]}}", "method=joint"
    )
    with pytest.raises(CheckpointError, match=r"Translate\.run: .*neither a run folder"):
        Parts(recipe).check_images(plan_stages(recipe))
    target = "data.target=[colour_cast_translated]"
    with pytest.raises(DataError, match=r"data\.translate\.to: unknown domain 'claen'"):
        parts_of(f"data.translate={{run: {translator}, to: claen}}", target)


def test_run_of_another_task_is_no_translator(tmp_path):
    folder = run(tmp_path, BACKBONE, "method=source_only", "compare=[]", "trainer.max_epochs=1")
    with pytest.raises(CheckpointError, match="task 'classification', expected 'translation'"):
        Styles(folder)


def test_wrong_value_of_a_step_is_told_before_anything_trains(translator):
    step = f"augment={{source: [{{name: Translate, run: {translator}, p: -1}}]}}"
    recipe = tiny.recipe(BACKBONE, step, "method=restyle", "compare=[source_only]")
    with pytest.raises(DataError) as error:
        Parts(recipe).check_images(plan_stages(recipe))
    expected = (
        "augment, images of clean[0]: Translate.p: got -1: expected greater than or equal to 0"
    )
    assert expected in str(error.value)
    assert "object at" not in str(error.value)
    assert "\n" not in str(error.value)


def test_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder; check the path"):
        Styles(tmp_path / "gone")
