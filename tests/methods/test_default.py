import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchmetrics.functional import cohen_kappa

from domainnorm.evaluation.certainty import certainty_of
from domainnorm.methods.default import agreement, counts_of, forgotten, known_to
from domainnorm.methods.reestimation import between, estimate_moments
from tests.methods.bench import METHODS, ONE, TWO, fit, make_model, source_model

SOURCE, TARGET = 0, 1


def test_agreement_is_the_mean_of_cohens_kappa_of_each_class_against_the_rest():
    first, second = torch.tensor([0, 0, 1, 1, 3, 0]), torch.tensor([0, 1, 1, 1, 3, 3])
    counts = counts_of(first, second, 5)
    assert known_to(counts).tolist() == [True, True, False, True, False]
    expected = [float(cohen_kappa(first == k, second == k, task="binary")) for k in (0, 1, 3)]
    assert agreement(counts, known_to(counts)) == pytest.approx(sum(expected) / 3)


def test_one_class_for_all_does_not_agree_beyond_chance():
    before = counts_of(torch.arange(4), torch.arange(4), 4)
    after = counts_of(torch.zeros(4).long(), torch.zeros(4).long(), 4)
    assert agreement(before, known_to(before)) == 1
    assert agreement(after, known_to(before)) == 0


def test_a_forgotten_class_counts():
    before = counts_of(torch.arange(4), torch.arange(4), 4)
    after = counts_of(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 2, 2]), 4)
    assert agreement(after, known_to(before)) == 3 / 4


def test_a_class_is_forgotten_when_it_is_hardly_predicted_any_more():
    label = torch.arange(4).repeat_interleave(100)  # a quarter each, of both views
    before = counts_of(label, label, 5)
    for left, lost in ((0, 1), (9, 1), (10, 0)):
        now = torch.where((label == 2) & (torch.arange(400) >= 200 + left), 1, label)
        assert forgotten(before, counts_of(now, now, 5)) == lost


@pytest.mark.parametrize("num_classes", [4, 65, 345])
def test_classes_that_are_equally_frequent_are_all_known(num_classes):
    before = counts_of(torch.arange(num_classes), torch.arange(num_classes), num_classes)
    assert bool(known_to(before).all())
    one = counts_of(torch.zeros(num_classes).long(), torch.zeros(num_classes).long(), num_classes)
    assert agreement(one, known_to(before)) == 0
    assert forgotten(before, one) == num_classes - 1


def test_certainty_is_the_uncertainty_coefficient_of_image_and_class():
    logits = [torch.randn(5, 4) * 3, torch.randn(2, 4) * 3]
    probability = torch.cat(logits).softmax(1).double().numpy()
    joint = probability / len(probability)  # of image and class
    information = (joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum()
    entropy = -(joint.sum(0) * np.log(joint.sum(0))).sum()
    assert certainty_of(logits) == pytest.approx(information / entropy, abs=1e-6)


def test_certainty_of_masks_is_that_of_their_pixels():
    logits = torch.randn(2, 3, 4, 5)
    assert certainty_of([logits]) == pytest.approx(
        certainty_of([logits.movedim(1, -1).flatten(0, -2)])
    )


def test_who_always_says_the_same_is_not_certain_and_who_tells_all_classes_apart_is():
    assert certainty_of([torch.tensor([[100.0, 0.0]]).expand(6, 2)]) == 0
    assert certainty_of([torch.tensor([[3.0, 0.0]]).expand(6, 2)]) == pytest.approx(0, abs=1e-6)
    assert certainty_of([100 * torch.eye(3)]) == pytest.approx(1)


def test_the_limit_of_smoothed_labels_that_the_docstring_gives():
    smooth = (0.9 * torch.eye(10) + 0.01).log()
    assert certainty_of([smooth]) == pytest.approx(0.78, abs=0.005)


def test_a_source_model_that_is_unsure_of_the_target_is_kept_and_nothing_trained():
    start = source_model()
    before = copy.deepcopy(start.state_dict())
    done = fit("default", start, lr=1e-3, certainty=1.0, fallback="source")
    assert done.method.unsure
    assert done.method.trainer.global_step == 0
    assert set(done.method.facts) == {"certainty", "adapted"}
    assert done.method.merit == -1
    for model in (done.model, done.method.deployed):
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("rows", ["domain", "one"])
@pytest.mark.parametrize("norm", ["dsbn", {"early": "bn", "late": "dsbn"}])
def test_an_unsure_source_model_gets_moments_of_the_target_where_they_are_unlike(norm, rows):
    """Into the row of the target alone: what is of all domains would change on the source, too."""
    start = make_model(norm)
    full = copy.deepcopy(start)
    done = fit("default", start, replace(ONE, rows=rows), lr=1e-3, certainty=1.0)
    assert done.method.facts["moments"] == 1
    assert done.method.trained_parameters == 0
    estimate_moments(full, done.method.sweep(domains=ONE.target))
    deployed = done.method.deployed.state_dict()
    for key, found in done.model.state_dict().items():
        assert torch.equal(found, deployed[key])
        if "num_batches" in key:
            continue
        if "running" not in key or len(found) == 1:
            assert torch.equal(found, done.before[key]), key
            continue
        pairs = []
        for state in (done.before, full.state_dict()):
            path = key.rpartition("running")[0]
            pairs.append(
                (state[path + "running_mean"][TARGET], state[path + "running_var"][TARGET])
            )
        wanted = between(*pairs, "layers", 1e-5, least=0.5)[key.endswith("var")]
        torch.testing.assert_close(found[TARGET], wanted)
        assert not torch.equal(found[TARGET], done.before[key][TARGET])
        assert torch.equal(found[SOURCE], done.before[key][SOURCE])


def test_without_rows_of_moments_an_unsure_source_model_is_kept_as_it_is():
    start = source_model("bn")
    before = copy.deepcopy(start.state_dict())
    done = fit("default", start, lr=1e-3, certainty=1.0)
    assert "moments" not in done.method.facts
    assert all(torch.equal(v, before[k]) for k, v in done.model.state_dict().items())


@pytest.mark.parametrize("of_target", [0.3, 0.7])
def test_the_moments_of_the_target_may_tell_what_those_of_the_source_do_not(of_target, monkeypatch):
    start = source_model()
    before = copy.deepcopy(start.state_dict())
    values = iter([0.2, of_target])
    monkeypatch.setattr("domainnorm.methods.default.certainty_of", lambda _: next(values))
    done = fit("default", start, lr=1e-3, guard=0.9, fallback="source")
    assert done.method.facts["certainty"] == of_target
    assert done.method.unsure == (of_target < 0.5)
    if done.method.unsure:
        assert all(torch.equal(v, before[k]) for k, v in done.model.state_dict().items())


def test_counts_of_masks_are_those_of_their_pixels():
    first, second = torch.randint(0, 3, (2, 4, 5)), torch.randint(0, 3, (2, 4, 5))
    whole = counts_of(first, second, 3)
    assert torch.equal(whole, counts_of(first.flatten(), second.flatten(), 3))


@pytest.mark.slow
def test_an_adaptation_that_loses_agreement_is_undone():
    torch.manual_seed(0)
    start = fit("oracle", epochs=20, lr=3e-3).model
    before = copy.deepcopy(start.state_dict())
    done = fit("default", start, lr=0.3, optimizer="sgd", threshold=0.0, certainty=0.0)
    for model in (done.model, done.method.deployed):
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
    facts = done.method.facts
    assert facts["adapted"] == 0
    assert facts["agreement_after"] < facts["agreement_before"]
    assert done.method.trained_parameters == done.method.trained_bytes == 0


@pytest.mark.parametrize(
    ("after", "guard", "adapted"),
    [
        (0.75, -0.2, 1.0),
        (0.75, -0.21, 0.0),
        (0.71, -0.02, 1.0),
        (0.70, -0.02, 0.0),
        (0.70, 0.0, 1.0),
        (0.69, 0.0, 0.0),
        (0.69, 0.05, 1.0),
    ],
)
def test_views_have_to_agree_more_the_more_predictions_have_changed(
    after, guard, adapted, monkeypatch
):
    """Agreement before is 0.7, and that of predictions before and after 0.75."""
    values = iter([0.7, after, 0.75])
    monkeypatch.setattr("domainnorm.methods.default.agreement", lambda *_: next(values))
    monkeypatch.setattr("domainnorm.methods.default.forgotten", lambda *_: 0.0)
    done = fit("default", source_model(), lr=1e-3, guard=guard, certainty=0.0)
    facts = done.method.facts
    assert facts["changed"] == 0.25
    assert facts["adapted"] == adapted
    assert (facts["agreement_before"], facts["agreement_after"]) == (0.7, after)


def test_both_states_see_the_same_views():
    """Of a state and itself nothing has changed, whatever the steps of augmentation draw."""
    done = fit("default", source_model(), lr=1e-3, certainty=0.0)
    state = {key: value.clone() for key, value in done.method.deployed.state_dict().items()}
    before, after, same = done.method._counts(state, state)
    assert torch.equal(before, after)
    assert torch.equal(same, same.diag().diag())
    assert same.sum() == before.sum()


def test_an_adaptation_that_forgets_a_class_is_undone(monkeypatch):
    monkeypatch.setattr("domainnorm.methods.default.forgotten", lambda *_: 1.0)
    start = source_model()
    before = copy.deepcopy(start.state_dict())
    done = fit("default", start, lr=1e-3, guard=0.9, certainty=0.0)
    assert done.method.facts["adapted"] == 0
    assert all(torch.equal(v, before[k]) for k, v in done.model.state_dict().items())


@pytest.mark.parametrize("guard", [1.0, 0.9])
def test_all_domains_share_a_row_unless_the_source_model_is_kept(guard, monkeypatch):
    """Two sources: their rows differ, and those of the target are the mean of them."""
    monkeypatch.setattr("domainnorm.methods.default.forgotten", lambda *_: 1.0)
    seen = []

    class Seen(METHODS.load("default")):
        def _labels_of(self, source, target):
            if not seen:
                seen.append({k: v.clone() for k, v in self.model.state_dict().items()})
            assert not self.own_rows
            return super()._labels_of(source, target)

    before = copy.deepcopy(source_model(roles=TWO).state_dict())
    done = fit(Seen, source_model(roles=TWO), TWO, lr=1e-3, guard=guard, certainty=0.0)
    name = next(name for name in before if name.endswith("modulation.scale"))
    assert_close(seen[0][name][0], before[name][:2].mean(0))
    rows = done.method.deployed.state_dict()[name]
    if guard == 1:
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(rows[0], rows[2])
        assert not torch.equal(rows[2], before[name][2])
    else:
        assert torch.equal(rows, before[name])
    done.method.share_rows()  # as a stage does after training
    assert torch.equal(done.method.deployed.state_dict()[name], rows)
    batch = {"domain": torch.tensor([0, 1, 2])}
    assert done.method._shared(batch)["domain"].tolist() == ([0, 0, 0] if guard == 1 else [0, 1, 2])


def test_a_guard_of_one_keeps_every_adaptation():
    start = source_model()
    before = copy.deepcopy(start.state_dict())
    done = fit("default", start, lr=1e-3, guard=1.0)
    assert done.method.facts["adapted"] == 1
    assert any(not torch.equal(v, before[k]) for k, v in done.model.state_dict().items())
    assert all(
        torch.equal(v, done.method.deployed.state_dict()[k])
        for k, v in done.model.state_dict().items()
    )
