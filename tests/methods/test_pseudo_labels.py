import pytest
import torch
from torch.testing import assert_close

from domainnorm.methods.pseudo_labels import PseudoLabels
from tests.reference.adaptation import aligned, fairness_losses, free_thresholds
from tests.reference.losses import probabilities

SOURCE = torch.tensor([0, 0, 0, 1, -1])


def batches(count=5, num_classes=4):
    scale = torch.linspace(3, 1, num_classes, dtype=torch.float64)
    return [torch.randn(12, num_classes, dtype=torch.float64) * scale for _ in range(count)]


def probable(logits):
    return [[probabilities(row) for row in batch.tolist()] for batch in logits]


def test_free_thresholds_are_those_of_the_paper():
    labels, given = PseudoLabels(4, 0.9, "free", decay=0.7).double(), batches()
    p = probable(given)
    for logits, rows, thresholds in zip(given, p, free_thresholds(p, 0.7), strict=True):
        label, sure = labels(logits, SOURCE)
        best = [max(range(4), key=row.__getitem__) for row in rows]
        assert label.tolist() == best
        expected = [row[k] >= thresholds[k] for row, k in zip(rows, best, strict=True)]
        assert sure.tolist() == expected
        assert_close((labels.level * labels.usual / labels.usual.max()).tolist(), thresholds)


def test_thresholds_of_the_class_that_is_usual_are_the_highest():
    labels = PseudoLabels(2, 0.9, "free", decay=0.0).double()
    mostly_first = torch.tensor([[3.0, 0.0]] * 9 + [[0.0, 3.0]]).double()
    labels(mostly_first, SOURCE)
    thresholds = labels.level * labels.usual / labels.usual.max()
    assert thresholds[0] == labels.level > thresholds[1]


@pytest.mark.parametrize("prior", ["uniform", "estimated", "start"])
def test_alignment_is_that_of_the_reference(prior):
    labels, given = PseudoLabels(4, 0.5, prior=prior, decay=0.6).double(), batches()
    sources = [torch.randint(-1, 4, (9,)) for _ in given]
    known = [source.tolist() if prior == "estimated" else None for source in sources]
    first = [row for batch in probable(given[:2]) for row in batch]
    labels.anchor(given[:2])
    start = [sum(column) / len(first) for column in zip(*first, strict=True)]
    expected = aligned(probable(given), known, 0.6, start if prior == "start" else None)
    for logits, source, rows in zip(given, sources, expected, strict=True):
        label, sure = labels(logits, source)
        wanted = torch.tensor(rows, dtype=torch.float64)
        assert_close(label, wanted.argmax(1))
        assert_close(sure, wanted.amax(1) >= 0.5)


def test_estimated_prior_leaves_predictions_that_have_the_sources_shares():
    p = torch.tensor([[0.9, 0.1]] * 3 + [[0.2, 0.8]], dtype=torch.float64)  # mean .725
    source = torch.tensor([0] * 29 + [1] * 11)
    for prior, expected in (("estimated", [0, 0, 0, 1]), ("uniform", [0, 0, 0, 1])):
        labels = PseudoLabels(2, 0.85, prior=prior).double()
        label, sure = labels(p.log(), source)
        assert label.tolist() == expected
        # Equal classes would make the rare one surer than it is.
        assert sure.tolist() == [prior == "estimated"] * 3 + [prior == "uniform"]


def test_pixels_are_samples():
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    flat = logits.movedim(1, -1).flatten(0, -2)
    found = []
    for given in (logits, flat):
        labels = PseudoLabels(3, 0.5, "free", "uniform", decay=0.5).double()
        found.append([part.flatten() for part in labels(given, SOURCE)])
    assert_close(found[0], found[1])


def test_averages_go_on_from_a_checkpoint_as_they_were():
    given = batches()
    one, other = (PseudoLabels(4, 0.9, "free", "estimated", decay=0.8).double() for _ in range(2))
    for logits in given[:3]:
        one(logits, SOURCE)
    other.load_state_dict(one.state_dict())
    for logits in given[3:]:
        assert_close(one(logits, SOURCE), other(logits, SOURCE))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


@pytest.mark.parametrize("rule", ["fixed", "free"])
def test_fairness_is_that_of_the_reference(rule):
    labels, weak = PseudoLabels(4, 0.6, rule, decay=0.7, fair=True).double(), batches()
    strong = [logits + torch.randn_like(logits) for logits in weak]
    counted, found = [], []
    for logits, changed in zip(weak, strong, strict=True):
        _, sure = labels(logits, SOURCE)
        weight = sure * torch.rand(len(sure), dtype=torch.float64)
        counted.append(weight.tolist())
        found.append(float(labels.fairness_loss(changed, weight)))
    expected = fairness_losses(probable(weak), probable(strong), counted, 0.7)
    assert found == pytest.approx(expected, rel=1e-12)
    assert min(found) > 0


def test_fairness_of_pixels_is_that_of_samples():
    labels = PseudoLabels(3, 0.5, decay=0.5, fair=True).double()
    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    labels(logits, SOURCE)
    weight = torch.rand(2, 4, 5, dtype=torch.float64)
    flat = logits.movedim(1, -1).flatten(0, -2)
    assert_close(labels.fairness_loss(logits, weight), labels.fairness_loss(flat, weight.flatten()))


def test_descent_on_fairness_brings_predictions_near_to_what_is_usual():
    labels = PseudoLabels(3, 0.5, decay=0.0, fair=True).double()
    # The third class is likely and never wins, so little is predicted of it.
    usual = torch.tensor([[0.5, 0.1, 0.4], [0.1, 0.5, 0.4], [0.2, 0.3, 0.5]]).double().log()
    labels(usual, SOURCE)
    logits = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 0.1]]).double().requires_grad_()
    before = labels.fairness_loss(logits, torch.ones(3))
    (gradient,) = torch.autograd.grad(before, logits)
    after = labels.fairness_loss(logits - 0.1 * gradient, torch.ones(3))
    assert after < before
    assert_close(
        torch.autograd.grad(labels.fairness_loss(usual.requires_grad_(), torch.ones(3)), usual)[0],
        torch.zeros(3, 3).double(),
    )


def test_no_sure_sample_has_no_fairness():
    labels = PseudoLabels(3, 0.5, fair=True).double()
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    loss = labels.fairness_loss(logits, torch.zeros(4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert_close(logits.grad, torch.zeros_like(logits))


def test_a_fixed_threshold_without_prior_keeps_no_state():
    assert not PseudoLabels(4, 0.9).state_dict()


@pytest.mark.parametrize(("rule", "prior"), [("free", "none"), ("fixed", "estimated")])
def test_averages_move_where_the_network_is_in_half_precision(rule, prior):
    labels = PseudoLabels(3, 0.9, rule, prior, decay=0.999, fair=True).bfloat16()
    before = {name: value.clone() for name, value in labels.named_buffers()}
    logits = torch.tensor([[4.0, 0.0, 0.0]] * 4).bfloat16()
    labels(logits, torch.tensor([0, 1, -1]))
    for name, value in labels.named_buffers():
        assert not value.is_floating_point() or value.dtype == torch.float32, name
        assert name == "anchored" or not torch.equal(value, before[name]), name
