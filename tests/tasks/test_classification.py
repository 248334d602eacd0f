import pytest
import torch

from domainnorm.errors import DomainNormError
from domainnorm.tasks.classification import Classification
from tests.reference.losses import balanced_weights, cross_entropy

COUNTS = [6, 3, 1, 0]
TARGET = torch.tensor([0, 1, -1, 2, 0, -1])


def make(**options):
    task = Classification(list("abcd"), **options)
    if task.class_weights == "balanced":
        task.weigh_classes(torch.tensor(COUNTS).double() / sum(COUNTS))
    return task


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_loss_equals_the_loop(smoothing, weights):
    logits = torch.randn(6, 4)
    weight = balanced_weights(COUNTS) if weights == "balanced" else None
    expected = cross_entropy(logits.tolist(), TARGET.tolist(), weight, smoothing)
    loss = make(label_smoothing=smoothing, class_weights=weights).loss(logits, TARGET)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_unlabelled_samples_have_no_gradient():
    logits = torch.randn(6, 4, requires_grad=True)
    make(label_smoothing=0.1).loss(logits, TARGET).backward()
    assert [bool(row.any()) for row in logits.grad] == (TARGET >= 0).tolist()


def test_batch_without_labels_has_zero_loss_and_zero_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = make().loss(logits, torch.full((3,), -1))
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(logits.grad, torch.zeros(3, 4))


def test_balanced_weights_have_mean_one_over_images():
    weight = make(class_weights="balanced").class_weight
    assert (weight * torch.tensor(COUNTS)).sum().item() == pytest.approx(sum(COUNTS))


def test_class_without_images_has_weight_zero():
    assert make(class_weights="balanced").class_weight[3].item() == 0


def test_class_weights_are_no_part_of_a_checkpoint():
    assert make(class_weights="balanced").state_dict() == {}


def test_narrow_logits_are_scored_in_float32():
    loss = make().loss(torch.randn(6, 4).bfloat16(), TARGET)
    assert loss.dtype == torch.float32


def test_store_gives_back_what_it_was_given():
    task = make()
    store = task.store()
    logits = torch.eye(4) * 9
    store.update(logits, torch.arange(4), torch.arange(4))
    assert store.compute().metrics(**task.metric_options())["accuracy"] == 1


def test_labels_that_do_not_fit_are_named():
    with pytest.raises(DomainNormError, match=r"loss: target has label 4, expected 0 to 3 for 4"):
        make().loss(torch.randn(2, 4), torch.tensor([0, 4]))
    with pytest.raises(DomainNormError, match=r"target \(3,\) .* expected labels \(2,\)"):
        make().loss(torch.randn(2, 4), torch.tensor([0, 1, 2]))


def test_labels_without_weight_cost_nothing():
    task = make(class_weights="balanced")
    logits = torch.randn(2, len(task.class_names), requires_grad=True)
    loss = task.loss(logits, torch.tensor([3, -1]))  # of class 3 there is no training image
    loss.backward()
    assert loss.item() == 0
    assert not bool(logits.grad.any())
