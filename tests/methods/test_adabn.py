import copy

import pytest
import torch

from domainnorm.backbones import norms_at
from domainnorm.errors import ConversionError
from domainnorm.methods.reestimation import MomentPass
from domainnorm.norms import ConditionalNorm
from domainnorm.norms.statistics.running import RunningMoments
from tests.methods.bench import (
    ONE,
    changed,
    fit,
    images,
    logits,
    make,
    make_model,
    rows_changed,
    source_model,
)
from tests.reference.domains import symmetric_divergence
from tests.reference.methods import pooled_moments

TARGET_ROW = ONE.all.index("colour_cast")
FIRST = "backbone.bn1.statistics"
EPS = 1e-5


def first_inputs(model):
    """What the first norm sees of every training image of the target, one image at a time."""
    maps, model = [], copy.deepcopy(model).eval()
    norm = next(model.norms())
    norm.register_forward_pre_hook(lambda module, inputs: maps.append(inputs[0][0]))
    with torch.no_grad():
        for image in images("colour_cast", "train"):
            model(image[None], "colour_cast")
    return maps


# 24 training images: a batch that they fill, that they do not fill, and one larger than all.
@pytest.mark.parametrize("batch_size", [8, 16, 36])
def test_moments_equal_those_of_the_whole_training_set(batch_size):
    model = source_model()
    mean, var = pooled_moments(first_inputs(model))
    done = fit("adabn", model, batch_size=batch_size)
    statistics = next(done.model.norms()).statistics
    assert isinstance(statistics, RunningMoments)
    found = statistics.running_mean[TARGET_ROW], statistics.running_var[TARGET_ROW]
    torch.testing.assert_close(found[0], torch.tensor(mean), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], torch.tensor(var), rtol=1e-4, atol=1e-5)


def test_ranks_count_an_image_once_and_run_each_batch(monkeypatch):
    model = source_model()
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append(None))
    image = images("colour_cast", "train")
    domain = torch.full((2,), TARGET_ROW)
    # Both ranks' batches of two images, and the three that the second rank counts.
    ranks = [[[0, 1], [1, 2]], [[3, 2], [4, 5]], [[4, 4], [5, 0]]]
    monkeypatch.setattr("domainnorm.methods.reestimation.several_ranks", lambda: True)
    monkeypatch.setattr("domainnorm.methods.reestimation.distributed.get_rank", lambda: 1)
    found = MomentPass(model)
    for both in ranks:
        monkeypatch.setattr(
            "domainnorm.methods.reestimation.rows_of_ranks",
            lambda own, both=both: torch.tensor(both),
        )
        found.observe({"index": torch.tensor(both[1]), "image": image[both[1]], "domain": domain})
    assert len(passes) == len(ranks)
    maps = [first_inputs(model)[position] for position in (2, 4, 5)]
    found.write()
    statistics = next(model.norms()).statistics
    mean, _ = pooled_moments(maps)
    torch.testing.assert_close(
        statistics.running_mean[TARGET_ROW], torch.tensor(mean), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("norm", ["dsbn", "cin"])
def test_only_running_moments_change(norm):
    done = fit("adabn", source_model(norm))
    names = changed(done.before, done.model)
    assert names
    assert all(".statistics." in name for name in names)


@pytest.mark.parametrize("norm", ["dsbn", "cin"])
def test_only_rows_of_the_target_change(norm):
    done = fit("adabn", source_model(norm))
    assert rows_changed(done.before, done.model, changed(done.before, done.model)) == {TARGET_ROW}


def test_source_keeps_its_outputs_bit_for_bit():
    model = source_model()
    expected = logits(model, "clean")
    assert torch.equal(logits(fit("adabn", model).model, "clean"), expected)


def test_target_outputs_change():
    model = source_model()
    before = logits(model, "colour_cast")
    assert not torch.allclose(logits(fit("adabn", model).model, "colour_cast"), before)


def test_no_parameter_is_counted_as_trained():
    assert make("adabn", make_model()).trained_parameters == 0


def test_model_without_running_moments_says_so():
    with pytest.raises(ConversionError, match=r"adabn: this model has no running moments.*'dsbn'"):
        make("adabn", make_model({"all": "in"}))


def target_rows(model):
    """Running mean and variance of the target at each norm, by path."""
    found = {}
    for path, norm in model.backbone.named_modules():
        if isinstance(norm, ConditionalNorm):
            mean, var = norm.statistics.running_mean, norm.statistics.running_var
            found[path] = mean[TARGET_ROW].clone(), var[TARGET_ROW].clone()
    return found


@pytest.fixture(scope="module")
def rows():
    """Of the source model, and after adabn as published."""
    return target_rows(source_model()), target_rows(fit("adabn", source_model()).model)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_lies_between_the_moments_of_both(rows, share):
    found = target_rows(fit("adabn", source_model(), share=share).model)
    for path, moments in found.items():
        for k in range(2):
            expected = (1 - share) * rows[0][path][k] + share * rows[1][path][k]
            torch.testing.assert_close(moments[k], expected)


@pytest.mark.parametrize("least", [0.0, 0.4])
def test_unlike_channels_take_the_moments_of_the_target(rows, least):
    found = target_rows(fit("adabn", source_model(), share="unlike", least=least).model)
    shares = []
    for path, moments in found.items():
        (mean, var), (new_mean, new_var) = rows[0][path], rows[1][path]
        for c in range(len(mean)):
            distance = symmetric_divergence(mean[c], var[c] + EPS, new_mean[c], new_var[c] + EPS)
            shares.append(max(least, float(distance / (1 + distance))))
            expected = mean[c] + shares[-1] * (new_mean[c] - mean[c])
            torch.testing.assert_close(moments[0][c], expected, rtol=1e-3, atol=1e-5)
    assert least <= min(shares) < max(shares) < 1


@pytest.mark.parametrize(("where", "kept"), [("early", "late"), ("late", "early")])
def test_norms_elsewhere_keep_the_moments_of_the_source(rows, where, kept):
    model = source_model()
    of_source = {id(norm) for norm in norms_at(model.backbone, kept)}
    norms = {p: norm for p, norm in model.backbone.named_modules() if id(norm) in of_source}
    assert 0 < len(norms) < len(rows[0])
    for path, moments in target_rows(fit("adabn", model, where=where).model).items():
        for k in range(2):
            assert torch.equal(moments[k], rows[0 if path in norms else 1][path][k])


def test_a_place_without_norms_is_refused():
    with pytest.raises(ConversionError, match="'never' matches none"):
        make("adabn", source_model(), ONE, where="never")


@pytest.mark.parametrize(("norm", "where"), [("cin", "early"), ("dsbn", [])])
def test_a_place_without_running_moments_is_refused(norm, where):
    with pytest.raises(ConversionError, match=r"method.where: .* names no norm with running"):
        make("adabn", source_model(norm), ONE, where=where)
