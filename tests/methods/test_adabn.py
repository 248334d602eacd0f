import copy

import pytest
import torch

from domainnorm.errors import ConversionError
from domainnorm.methods.reestimation import MomentPass
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
from tests.reference.methods import pooled_moments

TARGET_ROW = ONE.all.index("colour_cast")
FIRST = "backbone.bn1.statistics"


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
