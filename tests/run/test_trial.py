"""Runs that are tried: without training, or on drawn data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from domainnorm.errors import RecipeError
from domainnorm.ranges import OF_ANY_DATASET, OWN_METHODS, labels_for
from domainnorm.recipe import Recipe, list_shipped, load_recipe
from domainnorm.registry import DATASETS
from domainnorm.run import rehearse, run_recipe
from domainnorm.run.parts import Parts
from domainnorm.run.trial import sample_recipe
from tests.run.tiny import call

SMALL = ("data.per_domain=40", "backbone.name=test_resnet")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("norm=film", "encoder=style", "condition=embedding"),
        ("norm=film", "encoder=style", "condition=mixture"),
        ("backbone.options={in_chans: 1}",),
        ("method=joint", "compare=[restyle, finetune]", "augment.source=[FDA]"),
        ("data.batch_size=1", "method=source_only", "compare=[]"),
    ],
    ids=" ".join,
)
def test_good_runs_pass(words):
    rehearse(load_recipe("quickstart", [*SMALL, *words]))


def test_refusals_of_all_stages_are_named_once():
    words = ["norm=in", "backbone.name=resnet10t", "method=joint", "compare=[source_only]"]
    with pytest.raises(RecipeError) as raised:
        rehearse(load_recipe("quickstart", [SMALL[0], *words]))
    (line,) = raised.value.problems
    assert line.startswith("layer4.0.bn1: instance statistics of a map with one element")


def test_unknown_domain_and_place_are_named():
    with pytest.raises(RecipeError, match="unknown domain 'claen': did you mean 'clean'"):
        rehearse(load_recipe("quickstart", [*SMALL, "data.source=[claen]"]))
    with pytest.raises(RecipeError, match=r"perturb: mixstyle: .*stage9"):
        rehearse(load_recipe("quickstart", [*SMALL, "perturb={name: mixstyle, where: [stage9]}"]))


RECIPES = sorted(list_shipped("recipes"))


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Recipe]:
    def make(reference: str, *words: str) -> Recipe:
        return sample_recipe(load_recipe(reference, words), tmp_path / "sample")

    return make


@pytest.mark.slow
@pytest.mark.parametrize("reference", RECIPES)
def test_sample_has_the_domains_and_labels_of_every_recipe(small, reference):
    parts = Parts(small(reference))
    assert set(parts.recipe.domains) <= set(parts.dataset.domain_names)
    assert labels_for(parts.task().labels) in (parts.dataset.task, *OF_ANY_DATASET)


@pytest.mark.slow
@pytest.mark.parametrize("reference", sorted(list_shipped("recipes")))
def test_recipe_on_its_sample_is_still_a_recipe(small, reference, tmp_path):
    recipe = small(reference)
    (tmp_path / "small.yaml").write_text(recipe.to_yaml())
    assert load_recipe(str(tmp_path / "small.yaml")) == recipe


def test_recipe_runs_on_its_sample(small, tmp_path):
    words = ("backbone.name=test_efficientnet", "trainer.threads=1", "method=adabn", "compare=[]")
    recipe = small("medical/wbc", *words)
    folder = run_recipe(recipe, tmp_path / "runs")
    assert len(list(folder.glob("stages/*/*/*/model.safetensors"))) == 2 * len(recipe.transfers)


@pytest.mark.slow
@pytest.mark.parametrize("reference", RECIPES)
def test_every_recipe_runs_on_its_sample(small, reference, tmp_path):
    recipe = small(reference, "trainer.threads=1")
    folder = run_recipe(recipe, tmp_path / "runs")
    methods = {method.name for method in (recipe.method, *recipe.compare)}
    if recipe.task.name not in OWN_METHODS:
        methods |= {"source_only"}
    expected = len(recipe.transfers) * len(methods)
    assert len(list(folder.glob("stages/*/*/*/model.safetensors"))) == expected


def test_parts_of_a_joined_sample_have_the_same_classes(tmp_path):
    text = """\
task: segmentation
backbone: {name: test_resnet}
norm: dsbn
data:
  name: join
  parts:
    - {name: folder_masks, root: a, prefix: eyes_}
    - {name: folder_masks, root: b, prefix: other_}
  source: [eyes_drive]
  target: [other_clinic]
  image_size: 64
method: adabn
compare: []
"""
    (tmp_path / "joined.yaml").write_text(text)
    recipe = sample_recipe(load_recipe(str(tmp_path / "joined.yaml")), tmp_path / "sample")
    dataset = Parts(recipe).dataset
    assert dataset.domain_names == ["eyes_drive", "other_clinic"]
    assert dataset.class_names == ["ground", "vehicle", "person"]


def test_everything_is_small(small):
    recipe = small("medical/wbc", "data.num_workers=2", "trainer.max_epochs=9", "seed=[4,5]")
    assert (recipe.data.image_size, recipe.data.batch_size, recipe.data.num_workers) == (64, 8, 0)
    assert (recipe.trainer.max_epochs, recipe.trainer.limit_batches) == (1, 2)
    assert (recipe.seeds, recipe.evaluation.resamples) == ([4], 50)


@pytest.mark.slow
def test_seeds_of_the_command_line_are_all_run(tmp_path):
    words = ("quickstart", "--sample", "seed=[4,5]", "method=source_only", "compare=[]")
    small = ("backbone.name=test_resnet", "trainer.threads=1", "data.target=[colour_cast]")
    assert call("run", *words, *small, "--output", str(tmp_path)) == 0
    made = tmp_path.glob("quickstart-sample/*/stages/*/*")
    assert {place.name for place in made} == {"seed4", "seed5"}


def test_no_method_trains_longer(small):
    done = small("driving/camvid_dusk")
    assert {method.options.get("epochs") for method in (done.method, *done.compare)} <= {None, 1}


@pytest.mark.parametrize("words", [(), ("method=tent", "compare=[default]")])
def test_default_is_tried_however_unsure_the_source_model_of_a_sample_is(small, words):
    recipe = small("quickstart", *words)
    (method,) = [one for one in (recipe.method, *recipe.compare) if one.name == "default"]
    assert method.options["certainty"] == 0


def test_any_machine_will_do(small):
    recipe = small("medical/wbc", "trainer.accelerator=gpu", "trainer.precision=16-mixed")
    assert (recipe.trainer.accelerator, recipe.trainer.precision) == ("cpu", "32-true")


def test_nothing_is_fetched(small, tmp_path):
    words = ("backbone.weights=x.safetensors", "checkpoint=y.safetensors")
    recipe = small("medical/wbc", *words)
    assert (recipe.backbone.pretrained, recipe.backbone.weights) == (False, None)
    assert recipe.checkpoint is None


@pytest.mark.parametrize(
    ("size", "expected"),
    [("null", 64), ("96", 64), ("32", 32), ("[512,1024]", [32, 64]), ("[600,600]", [64, 64])],
)
def test_images_keep_their_shape(small, size, expected):
    assert small("medical/wbc", f"data.image_size={size}").data.image_size == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet10t", "resnet10t"),
        ("resnet50", "test_efficientnet"),
        ("convnext_tiny", "test_convnext"),
        ("vit_small_patch16_224", "test_vit"),  # no decoder for one is for the other
        ("swin_tiny_patch4_window7_224", "test_convnext"),
    ],
)
def test_large_network_is_replaced_by_a_small_one_of_its_family(small, capsys, name, expected):
    assert small("quickstart", f"backbone.name={name}", "norm=null").backbone.name == expected
    told = capsys.readouterr().out
    assert (f"sample: {expected} in place of {name}" in told) == (name != expected)


def test_network_whose_layers_are_named_stays(small):
    words = ("backbone.name=resnet50", "norm={layer1: cin, layer4.*: dsbn}")
    assert small("quickstart", *words).backbone.name == "resnet50"


def test_sample_lies_below_the_folder(small, tmp_path):
    root = Path(small("medical/wbc").dataset.options["root"])
    assert root.is_absolute()
    assert root.is_relative_to(tmp_path / "sample")


def test_table_of_the_user_is_not_looked_for(small):
    recipe = small("medical/wbc", "data.splits=folds.csv")
    assert Parts(recipe).dataset.class_names == ["car", "dog", "house", "person"]


def test_every_part_of_a_join_gets_a_sample(small):
    parts = ", ".join(
        f"{{name: folder_masks, root: {domain}, domains: [{domain}], void_outside: view}}"
        for domain in ("day", "dusk")
    )
    words = (
        "task=segmentation",
        "data.name=join",
        f"data.parts=[{parts}]",
        "data.source=[day]",
        "data.target=[dusk]",
    )
    dataset = DATASETS.load("join")(**small("quickstart", *words).dataset.options)
    assert dataset.domain_names == ["day", "dusk"]
    assert 255 in dataset.mask(0)[0]  # outside of the field of view
