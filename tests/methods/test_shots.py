"""A few labels of the target beside what each method sees."""

import pytest
import torch
from torch.testing import assert_close

from domainnorm.methods import domains_of
from domainnorm.registry import METHODS
from tests.methods.bench import ONE, fit, make_model, scans, source_model

VALUES = {"dann": {"hidden": 8}, "tent": {"epochs": 1}, "mean_teacher": {"threshold": 0.0}}


def learned(name, **options):
    model = source_model() if METHODS.load(name).starts_from == "source_only" else make_model()
    return fit(name, model, ONE, shots=1, **VALUES.get(name, {}), **options)


@pytest.mark.parametrize("name", ["finetune", "joint", "mcc", "mean_teacher", "dann", "shot"])
def test_labels_of_shots_are_seen_and_no_others_of_the_target(name):
    done = learned(name)
    shots = set(done.data.shots.all)
    assert len(shots) == 10
    for batch in done.seen.batches:
        target = batch["domain"] == 1
        known = {int(one) for one in batch["index"][target & batch["labelled"]]}
        assert known <= shots
        told = batch["target"][target] >= 0
        assert torch.equal(told, batch["labelled"][target])
    assert tuple(done.data.val_domains) == tuple(
        name for name in domains_of(done.method.labelled, ONE) if name in ONE.source
    )


@pytest.mark.parametrize("name", ["tent", "shot"])
def test_method_without_labels_learns_those_of_shots_too(name):
    logged = learned(name).trainer.callback_metrics
    assert float(logged["train/shots"]) > 0
    parts = [float(value) for key, value in logged.items() if key != "train/loss"]
    assert float(logged["train/loss"]) == pytest.approx(sum(parts), rel=1e-5)


def test_losses_without_labels_never_see_shots():
    class Watched(METHODS.load("shot")):
        def losses(self, batch):
            assert not batch["labelled"].any()
            return super().losses(batch)

    assert fit(Watched, source_model(), ONE, shots=1).seen.losses


def test_methods_without_any_label_step_by_losses():
    for name in METHODS.names():
        kind = METHODS.load(name)
        if kind.takes_shots and kind.protocol == "fit" and not kind.labelled:
            assert fit(name, source_model(), ONE, shots=1).method.automatic_optimization


def test_clean_moments_of_a_target_are_those_of_its_shots():
    done = learned("joint", moments="clean", lr=0.0)
    norm, maps = next(iter(done.model.norms())), []
    norm.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0]))
    pixels = [scans().image(position) for position in done.data.shots.all]
    images = torch.stack([done.data.evaluation_pipeline(one, 0) for one in pixels])
    done.model.eval()(images, "colour_cast")
    found = norm.statistics.running_mean[1]
    assert_close(found, maps[0].mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
