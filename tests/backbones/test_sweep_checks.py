"""The checks of the sweep find what they are for, and its page can be read back."""

import pytest
import timm
import torch
from timm.layers import LayerNorm2d
from torch import nn

from domainnorm.backbones import convert_norms, fold_domain
from tests.backbones.sweep import logits, page
from tests.backbones.sweep.kept import DOMAINS, Kept
from tests.backbones.sweep.logits import compare, differing, distance, outputs
from tests.backbones.sweep.run import run_sweep
from tests.backbones.sweep.survey import survey

NAMES = ["test_convnext", "test_resnet", "test_nfnet", "test_efficientnet_evos"]


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), LayerNorm2d(4)).double()


def converted(norm=None, where="all"):
    plain = network()
    kept = Kept(plain)
    return kept, convert_norms(plain, norm, DOMAINS, where=where)


def test_conversion_that_keeps_everything_has_no_problems():
    kept, model = converted()
    assert kept.problems(model) == []


def test_changed_values_and_shapes_are_found():
    kept, model = converted()
    model.backbone[0].weight.data += 1
    model.backbone[1].statistics.running_mean[1] += 1
    model.backbone[1].statistics.running_var = torch.ones(3, 4, dtype=torch.float64)
    assert kept.problems(model) == [
        "1.running_mean has other values",
        "1.running_var became torch.float64 (3, 4)",
        "0.weight has other values",
    ]


def test_lost_and_left_tensors_are_found():
    kept, model = converted()
    del model.backbone[0].bias
    model.backbone[0].register_buffer("new", torch.zeros(1))
    assert kept.problems(model) == ["0.bias is lost", "backbone.0.new is left over"]


def test_layers_that_were_left_alone_are_found():
    kept, model = converted(where="1")
    found = kept.problems(model)
    assert "2.weight is lost" in found
    assert "converted Counter({'BatchNorm2d': 1})" in found


def test_norm_that_is_not_the_kin_is_found():
    kept, model = converted({"all": None, "1": "cbn"})
    assert "1 (BatchNorm2d) became cbn, exact=True" in kept.problems(model)


def test_folded_values_that_differ_are_found():
    kept, model = converted()
    assert differing(fold_domain(model, "a"), kept) == []
    model.backbone[2].modulation.shift.data[0] += 1
    assert differing(fold_domain(model, "a"), kept) == ["folded: 2.bias has other values"]
    assert differing(nn.Sequential(), kept)[0].startswith("folded: other keys, ['0.bias', ")


def test_lost_activation_is_a_difference_far_above_what_is_allowed():
    plain = logits.move(timm.create_model("test_efficientnet").double())
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    wanted = outputs(plain.eval(), image)
    model = convert_norms(plain, None, DOMAINS).eval()
    assert distance(outputs(model, image, "a"), wanted) < logits.TOLERANCE
    next(model.norms()).act = nn.Identity()
    assert distance(outputs(model, image, "a"), wanted) > 1e-3


def test_undefined_outputs_are_wrong():
    found = logits.Comparison("name", [64, 64], False, {"evaluation": float("nan")}, [])
    assert found.wrong() == ["evaluation: relative difference nan, allowed 1e-10"]


@pytest.mark.parametrize("name", NAMES)
def test_architectures_are_surveyed(name):
    found = survey(name)
    assert found.wrong() == []
    assert bool(found.refusal) == (name in ("test_nfnet", "test_efficientnet_evos"))
    assert sum(found.norms.values()) == {"test_convnext": 14, "test_resnet": 15}.get(name, 0)


def test_page_can_be_read_back():
    surveys = [survey(name) for name in NAMES]
    comparisons = {name: compare(name) for name in NAMES[:2]}
    text = page.render(surveys, comparisons)
    assert "4 architectures: 2 converted, 2 refused." in text
    families = page.rows_of(text, page.FAMILIES)
    assert families == [page.family_row(found) for found in page.by_family(surveys).values()]
    assert families[0] == (
        "convnext", "1", "LayerNorm 1 · LayerNorm2d 1", "`cln`", "all"
    )  # fmt: skip
    assert [row[0] for row in page.rows_of(text, page.REFUSED)] == ["efficientnet", "nfnet"]
    assert [row[2:5] for row in page.rows_of(text, page.SIGNATURES)] == [
        ("1", "`test_convnext`", "64×64"),
        ("1", "`test_resnet`", "64×64"),
    ]


@pytest.mark.slow
def test_sweep_goes_on_from_its_cache(tmp_path):
    cache = tmp_path / "sweep.jsonl"
    first = run_sweep(["test_resnet"], 1, cache)
    lines = cache.read_text().splitlines()
    assert len(lines) == 2
    surveys, comparisons = run_sweep(["test_resnet", "test_nfnet"], 1, cache)
    assert cache.read_text().splitlines()[:2] == lines
    assert list(surveys) == ["test_resnet", "test_nfnet"]
    assert (surveys["test_resnet"], comparisons) == (first[0]["test_resnet"], first[1])
