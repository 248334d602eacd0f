"""Runs whose norms are conditioned on an estimate."""

import pytest
import torch
from safetensors.torch import load_file

from domainnorm.backbones import create_model
from domainnorm.errors import RecipeError
from domainnorm.recipe import load_recipe
from domainnorm.run.models import attach_encoder, load_stored
from tests.run.tiny import TRANSFER, assert_tested_again, call, figures, metrics, recipe, run
from tests.run.tiny import WORDS as WORDS_OF_RUN


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


WORDS = ("encoder=style", "data.image_size=48")


@pytest.fixture(scope="module", params=[slow("id"), "mixture", slow("id_or_estimate")])
def estimated(request, tmp_path_factory):
    return run(
        tmp_path_factory.mktemp("runs"), *WORDS, f"condition={request.param}", "compare=[adabn]"
    )


@pytest.mark.slow
def test_encoder_knows_the_domains_whose_images_a_stage_has_seen(estimated):
    found = metrics(estimated)
    assert found["source_only", "clean"]["domain_accuracy"] == 1
    assert found["source_only", "colour_cast"]["domain_accuracy"] is None
    assert found["source_only", "colour_cast"]["domain_known"] < 0.5
    assert found["adabn", "colour_cast"]["domain_accuracy"] > 0.5


def test_adaptation_without_the_source_keeps_what_the_encoder_knows_of_it(estimated):
    stages = estimated / TRANSFER / "seed0"
    before, after = (
        load_file(stages / name / "model.safetensors") for name in ("source_only", "adabn")
    )
    for name in before:
        if name.startswith("encoder.mlp") or name == "encoder.gaussians.whitening":
            assert torch.equal(before[name], after[name]), name
    assert torch.equal(before["encoder.gaussians.mean"][0], after["encoder.gaussians.mean"][0])
    assert after["encoder.gaussians.count"].min() > 0


def test_testing_again_gives_the_same_table(estimated, capsys):
    assert_tested_again(estimated, capsys)


def test_stored_model_works_on_images_alone(estimated):
    stored = load_stored(estimated / TRANSFER / "seed0" / "adabn")
    assert stored.model.unseen == "mixture"
    assert stored.model(torch.rand(2, 3, 48, 48)).isfinite().all()


@pytest.mark.slow
def test_run_with_an_encoder_that_reads_the_backbone(tmp_path):
    words = ("encoder=backbone", "condition=estimate", "compare=[]", *WORDS[1:])
    with figures(drawn=True):
        folder = run(tmp_path, *words)
    found = metrics(folder)
    assert found["tent", "clean"]["domain_accuracy"] > 0.9
    for kind in ("nearest", "embeddings", "layers"):
        assert list((folder / "figures").glob(f"{kind}_*.png")), kind
    model = load_stored(folder).model
    assert model(torch.rand(2, 3, 48, 48)).isfinite().all()


def end_to_end(output, *words):
    encoder = () if any(word.startswith("encoder=") for word in words) else ("encoder=style",)
    given = (*encoder, "condition=embedding", "norm=film", "data.image_size=48", *words)
    return run(output, *given)


@pytest.mark.slow
def test_encoder_that_learns_with_the_network(tmp_path, capsys):
    folder = end_to_end(tmp_path, "compare=[source_only]")
    stages = folder / TRANSFER / "seed0"
    before, after = (
        load_file(stages / name / "model.safetensors") for name in ("source_only", "tent")
    )
    assert before["encoder.spread"].std() > 0  # standardized before it learned
    assert before["encoder.gaussians.count"].tolist() == [20, 0]  # of its domain alone
    assert torch.equal(before["encoder.mlp.0.weight"], after["encoder.mlp.0.weight"])
    found = metrics(folder)
    assert found["source_only", "clean"]["domain_accuracy"] == 1
    stored = load_stored(stages / "tent")
    images = torch.rand(2, 3, 48, 48)
    embedding = stored.model.embed(images)
    assert torch.equal(stored.model(images, "clean"), stored.model(images, "colour_cast"))
    assert torch.equal(stored.model(images), stored.model(images, "clean", embedding=embedding))
    kinds = {path.name.partition("_")[0] for path in (folder / "figures").iterdir()}
    assert "embeddings" in kinds
    assert "layers" not in kinds  # no norm has anything of a domain's own
    assert_tested_again(folder, capsys)
    assert call("test", str(folder), "condition=mixture") == 2
    assert "trained with 'embedding', which 'mixture' cannot replace" in capsys.readouterr().err


def test_embedding_of_another_size_is_refused_before_training(tmp_path, capsys):
    norm = "norm={name: film, embedding_size: 8}"
    words = ("encoder=style", "condition=embedding", norm, *WORDS_OF_RUN)
    assert call("run", "quickstart", *words, "--output", str(tmp_path)) == 2
    assert "encoder: its embeddings have size 16, but the norms of this model take size 8" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_checkpoint_without_its_encoder_is_refused(tmp_path, capsys):
    plain = run(tmp_path / "plain", "norm=film", "compare=[source_only]", "method=adabn")
    checkpoint = plain / TRANSFER / "seed0" / "source_only"
    words = ("encoder=style", "condition=embedding", "norm=film", f"checkpoint={checkpoint}")
    assert call("run", "quickstart", *WORDS_OF_RUN, *words, "--output", str(tmp_path)) == 1
    message = "a model without an encoder trained end to end, expected one with"
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_encoder_forgets_domains_whose_images_it_no_longer_embeds_as_it_did(tmp_path):
    method = "method={name: finetune, train: all, epochs: 1}"
    folder = end_to_end(tmp_path, method, "compare=[source_only]")
    stages = folder / TRANSFER / "seed0"
    before, after = (
        load_file(stages / name / "model.safetensors") for name in ("source_only", "finetune")
    )
    assert not torch.equal(before["encoder.mlp.0.weight"], after["encoder.mlp.0.weight"])
    assert before["encoder.gaussians.count"].tolist() == [20, 0]
    assert after["encoder.gaussians.count"].tolist() == [0, 20]


@pytest.mark.slow
def test_small_network_as_an_encoder_that_learns_with_the_network(tmp_path):
    words = ("encoder={name: cnn, backbone: test_resnet}", "compare=[]", "method=source_only")
    folder = end_to_end(tmp_path, *words)
    assert metrics(folder)["source_only", "clean"]["domain_accuracy"] == 1


@pytest.mark.parametrize(
    "norm",
    ["film", "{early: film, late: dsbn}", "{all: {statistics: instance, modulation: hyper}}"],
)
def test_norms_that_take_an_embedding_are_found(norm):
    assert recipe("encoder=style", "condition=embedding", f"norm={norm}").condition == "embedding"


@pytest.mark.parametrize("words", [["condition=estimate", "unseen=error"], []], ids=str)
def test_policy_for_far_images_reaches_the_model(words, tmp_path):
    asked = recipe("encoder=style", "far=batch", *words)
    (tmp_path / "recipe.yaml").write_text(asked.to_yaml())
    assert load_recipe(str(tmp_path / "recipe.yaml")).far == "batch"
    model = create_model("test_resnet", norm="dsbn", domains=["a", "b"])
    attach_encoder(asked, model)
    assert model.far == "batch"


def test_estimate_of_every_condition_is_spelled_out_in_the_resolved_recipe(tmp_path):
    asked = recipe("encoder={name: style, embedding: 8}", "condition=estimate")
    (tmp_path / "recipe.yaml").write_text(asked.to_yaml())
    assert load_recipe(str(tmp_path / "recipe.yaml")) == asked
    assert asked.encoder.options == {"hidden": 64, "embedding": 8}
    assert asked.unseen == "mixture"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["condition=estimate"], "condition: 'estimate' needs a domain encoder; add 'encoder: sty"),
        (["unseen=mixture"], "unseen: 'mixture' needs a domain encoder"),
        (["far=mean"], "far: 'mean' needs a domain encoder; add 'encoder: style'"),
        (["encoder=style", "far=maen"], "far: got 'maen', expected 'mean' or 'batch'"),
        (["encoder=style", "unseen=error", "far=mean"], "far: 'mean' is for images whose domain"),
        (["encoder=styel"], "encoder: unknown encoder 'styel': did you mean 'style'"),
        (["encoder={name: style, embeding: 3}"], "encoder.embeding: unknown key 'embeding': did"),
        (["encoder={name: style, embedding: 0}"], "encoder.embedding: got 0, expected 1 or more"),
        (["encoder={name: cnn, size: -1}"], "encoder.size: got -1, expected 1 or more"),
        (["encoder=style", "condition=maybe"], "condition: got 'maybe', expected 'id' or"),
        (["condition=embedding"], "condition: 'embedding' needs a domain encoder"),
        (
            ["encoder=style", "condition=embedding", "norm=dsbn"],
            "condition: 'embedding' needs norm",
        ),
        (["encoder=style", "condition=embedding", "norm={early: cin}"], "set 'norm: film'"),
        (["encoder=style", "trainer.precision=bf16-true"], "'bf16-true' is too coarse for an en"),
        (["encoder=style", "condition=mixture", "norm=bn"], "'mixture' would change nothing, sin"),
        (["encoder=style", "condition=estimate", "norm={late: bn}"], "no norm depends on the d"),
        (
            ["encoder=backbone", "condition=embedding", "norm=film"],
            "condition: encoder 'backbone' reads the input",
        ),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(RecipeError, match=message):
        recipe(*words)


@pytest.mark.parametrize(
    "norm", ["null", "cin", "crms", "ibn_a", "film", "{early: in, late: cbn}", "{late: null}"]
)
def test_norms_that_may_differ_between_domains_take_an_estimate(norm):
    assert recipe("encoder=style", "condition=mixture", f"norm={norm}").condition == "mixture"
