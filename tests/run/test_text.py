"""Runs whose norms are conditioned on what is written about their images."""

import pytest
import torch

from domainnorm.backbones import load_domain
from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe
from domainnorm.run.models import load_stored
from tests.run.shops import SHOPS, run_folder, write_recipe, write_shops
from tests.run.tiny import assert_tested_again, call, metrics

CAMERAS = {"shop_a": "Canon EOS", "shop_b": "Nikon Coolpix"}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Pictures of two shops, each with a note of its own that names a camera of one maker."""
    root = tmp_path_factory.mktemp("shops")
    write_shops(root, "note", lambda n, shop: f"Taken with a {CAMERAS[shop]} {n}, by daylight.")
    return write_recipe(root, "note", "text")


@pytest.fixture(scope="module")
def folder(asked, tmp_path_factory):
    return run_folder(asked, tmp_path_factory.mktemp("runs"))


def test_domain_is_told_by_notes_that_training_did_not_have(folder):
    found = metrics(folder)
    for shop in SHOPS:
        assert found["joint", shop]["domain_accuracy"] == 1


def test_testing_again_gives_the_same_table(folder, capsys):
    assert_tested_again(folder, capsys)


def test_stored_model_and_its_packs_know_the_words(folder):
    stage = folder / "stages" / "shop_a-to-shop_b" / "seed0" / "joint"
    model = load_stored(stage).model
    image, notes = torch.rand(2, 3, 32, 32), {"note": ["a canon", "NIKON D5"]}
    assert model.estimate(image, notes).domain.tolist() == [0, 1]
    assert model(image, attributes=notes).isfinite().all()
    load_domain(model, stage / "packs" / "shop_b.safetensors", "again")
    again = model.estimate(image, notes).weights
    torch.testing.assert_close(again[:, 1], again[:, 2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.attributes=[]"],
            "encoder: 'text' estimates domains from attributes of images, but there are none; "
            "name some, such as data.attributes: [scanner]",
        ),
        (["encoder={name: text, buckets: 0}"], "encoder.buckets: got 0, expected 1 or more"),
        (["encoder={name: text, bucket: 9}"], "unknown key 'bucket': did you mean 'buckets'?"),
        (["encoder={name: text, dropout: 2}"], "encoder.dropout: got 2.0, expected a probability"),
    ],
)
def test_mistakes_are_named(asked, words, message):
    with pytest.raises(RecipeError) as raised:
        load_recipe(asked, words)
    assert message in str(raised.value)


@pytest.mark.slow
def test_words_can_condition_the_norms_directly(asked, tmp_path, capsys):
    """The encoder learns with the network."""
    words = ("norm=film", "condition=embedding", "compare=[source_only, adabn]")
    assert call("run", asked, *words, "--output", str(tmp_path)) == 0
    folder = next(tmp_path.glob("*/*/metrics.json")).parent
    model = load_stored(folder / "stages/shop_a-to-shop_b/seed0/joint").model
    notes = {"note": ["a canon", "a nikon"]}
    assert model(torch.rand(2, 3, 32, 32), attributes=notes).isfinite().all()
    assert_tested_again(folder, capsys)


@pytest.mark.slow
def test_methods_without_the_source_learn_further_words(asked, tmp_path):
    words = ("method=adabn", "compare=[source_only, finetune]")
    assert call("run", asked, *words, "--output", str(tmp_path)) == 0
    found = metrics(next(tmp_path.glob("*/*/metrics.json")).parent)
    assert found["adabn", "shop_b"]["domain_accuracy"] > 0.9
