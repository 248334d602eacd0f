"""How a condition is checked, and who sees it when."""

import copy
import pickle

import numpy as np
import pytest
import torch

from domainnorm.condition import Condition, as_condition
from domainnorm.errors import ConditionError
from domainnorm.slot import ConditionSlot

NAMES = ("a", "b", "c")
IMAGE = torch.zeros(2, 3, 4, 4)


def labels(domain, image=IMAGE, names=NAMES):
    return as_condition(domain, None, names, image).domain


@pytest.mark.parametrize(
    ("domain", "wanted"),
    [
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([2, 0], dtype=torch.int32), [2, 0]),
        (torch.tensor([2, 0], dtype=torch.uint8), [2, 0]),
        (["c", "a"], [2, 0]),
        (("b", "b"), [1, 1]),
        ([2, 0], [2, 0]),
        (np.array([2, 0]), [2, 0]),
        ("b", [1, 1]),
        (1, [1, 1]),
        (np.int64(1), [1, 1]),
    ],
    ids=repr,
)
def test_ways_to_name_domains(domain, wanted):
    found = labels(domain)
    assert found.dtype == torch.long
    assert found.tolist() == wanted


def test_only_domain_is_the_default():
    assert labels(None, names=("a",)).tolist() == [0, 0]


@pytest.mark.parametrize("domain", ["b", 1, [], torch.zeros(0, dtype=torch.long)], ids=repr)
def test_empty_batch_has_no_labels(domain):
    found = labels(domain, image=IMAGE[:0])
    assert found.dtype == torch.long
    assert found.shape == (0,)


def test_soft_weights_are_kept():
    weights = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    assert as_condition(None, weights, NAMES, IMAGE).weights is weights


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (None, r"domain: missing; this model serves 3 domains \(a, b, c\), pass domain="),
        (torch.tensor([0.0, 1.0]), r"got torch.float32 labels, expected integers; use .long\(\)"),
        (torch.tensor([True, False]), "got torch.bool labels"),
        (torch.tensor([0, 1, 2]), r"got shape \(3,\), expected \(2,\): one per image"),
        (torch.tensor([[0], [1]]), r"got shape \(2, 1\), expected \(2,\)"),
        (torch.tensor(1), r"got shape \(\), expected \(2,\)"),
        (torch.tensor([0, 3]), "label 3 is out of range, this model's domains are: 0 a, 1 b, 2 c"),
        (torch.tensor([-1, 0]), "label -1 is out of range"),
        (3, "label 3 is out of range"),
        (-1, "label -1 is out of range"),
        ([0, 5], "label 5 is out of range"),
        (["a"], "got 1 names for 2 images"),
        ([], "got 0 names for 2 images"),
        (["a", "d"], "unknown domain 'd'.*known: a, b, c"),
        ("d", "unknown domain 'd'"),
        ([0.5, 1.0], "got 0.5, expected a name or an integer label"),
        (1.0, "got 1.0, expected a name or an integer label"),
        (["a", None], "got None, expected a name or an integer label"),
    ],
    ids=repr,
)
def test_bad_domain_is_answered(domain, message):
    with pytest.raises(ConditionError, match=message):
        labels(domain)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.full((2, 2), 0.5), r"got \(2, 2\) torch.float32, expected a float tensor \(2, 3\)"),
        (torch.full((3, 3), 1 / 3), r"got \(3, 3\)"),
        (torch.ones(2, 3, dtype=torch.long), "torch.int64, expected a float tensor"),
        (torch.ones(2, 3), "a row sums to 3, expected 1"),
        (torch.tensor([[1.0, 0, 0], [torch.nan, 0, 1]]), "a row sums to nan, expected 1"),
    ],
)
def test_bad_weights_are_answered(weights, message):
    with pytest.raises(ConditionError, match=message):
        as_condition(None, weights, NAMES, IMAGE)


def test_weights_that_are_no_tensor_are_answered():
    with pytest.raises(ConditionError, match="weights: got list, expected a float tensor"):
        as_condition(None, [[0.5, 0.5, 0.0]] * 2, NAMES, IMAGE)


def test_weights_beside_a_domain_are_refused():
    with pytest.raises(ConditionError, match="both domain and weights were given"):
        as_condition("a", torch.full((2, 3), 1 / 3), NAMES, IMAGE)


def test_weights_select_a_mixture_of_rows():
    weights = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    table = torch.tensor([[0.0, 4.0], [8.0, 0.0]])
    found = Condition(weights=weights).select(table)
    torch.testing.assert_close(found, torch.tensor([[6.0, 1.0], [0.0, 4.0]]))


@pytest.mark.parametrize(
    "condition",
    [Condition(domain=torch.tensor([2, 0])), Condition(weights=torch.eye(3)[[2, 0]])],
    ids=["domain", "weights"],
)
def test_folded_rows_repeat_the_condition_of_their_image(condition):
    slot = ConditionSlot()
    with slot.holding(condition):
        found = slot.read("attn.bn", 6, folded=True).select(torch.arange(3.0)[:, None])
    assert found.flatten().tolist() == [2, 2, 2, 0, 0, 0]


@pytest.mark.parametrize(("rows", "folded"), [(4, False), (5, True), (1, True)])
def test_other_numbers_of_rows_are_refused_with_the_path(rows, folded):
    slot = ConditionSlot()
    message = rf"attn\.bn: {rows} rows for 2 domain labels"
    condition = Condition(domain=torch.tensor([0, 1]))
    with slot.holding(condition), pytest.raises(ConditionError, match=message):
        slot.read("attn.bn", rows, folded)


def test_slot_gives_back_the_former_condition():
    slot = ConditionSlot()
    outer, inner = (Condition(domain=torch.tensor([d])) for d in (0, 1))
    with slot.holding(outer):
        with slot.holding(inner):
            assert slot.current is inner
        assert slot.current is outer
    assert slot.current is None


def test_slot_is_empty_after_an_error():
    slot = ConditionSlot()
    with pytest.raises(ZeroDivisionError), slot.holding(Condition(domain=torch.tensor([0]))):
        raise ZeroDivisionError
    assert slot.current is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copied_slot_is_empty(copied):
    slot = ConditionSlot()
    with slot.holding(Condition(domain=torch.tensor([0]))):
        other = copied(slot)
    assert other.current is None


def test_backward_gives_back_the_condition_of_the_block_around_it():
    slot = ConditionSlot()
    outer, other = (Condition(domain=torch.tensor([d])) for d in (0, 1))
    output = torch.ones(1, requires_grad=True) * 2
    slot.arm_backward({"logits": [output]}, other)
    seen = []
    leaf = torch.ones(1, requires_grad=True)
    inner = leaf * 1
    inner.register_hook(lambda _: seen.append(slot.current))
    output = inner * 2
    slot.arm_backward((output,), other)
    with slot.holding(outer):
        output.sum().backward()
        assert slot.current is outer
    assert seen == [other]
