"""Whether predicted classes come in runs."""

from __future__ import annotations

import pytest
import torch

from domainnorm.streams import Runs
from tests.reference import streams


def taken_in(*batches):
    runs = Runs()
    for batch in batches:
        runs.update(torch.tensor(batch, dtype=torch.long))
    return runs


@pytest.mark.parametrize(("memory", "counted"), [(256, 128), (5, 4)])
@pytest.mark.parametrize(
    "batches",
    [
        [[0, 0, 1, 2, 1, 0]],
        [[1, 1, 1], [0, 0, 0]],
        [[0], [1], [0], [1], [2], [2], [2]],
        [[0, 1], [0, 1, 2, 2, 2, 2], [2]],
    ],
)
def test_value_is_that_of_the_formula(monkeypatch, batches, memory, counted):
    monkeypatch.setattr("domainnorm.streams.runs._LABELS", memory)
    monkeypatch.setattr("domainnorm.streams.runs._PAIRS", counted)
    assert taken_in(*batches).value == pytest.approx(
        streams.runs(batches, memory, counted), abs=1e-9
    )


def test_batches_that_follow_each_other_are_neighbours():
    assert taken_in([0, 0], [1, 2, 2], [], [2, 1]).pairs == 6


def test_predictions_that_change_are_no_runs():
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, 2 + number // 2, (64,), generator=generator) for number in range(16)]
    changing = taken_in(*(one.tolist() for one in drawn))
    assert abs(changing.value) < 2.5


def test_shuffled_labels_are_near_zero_and_ordered_ones_far():
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, 5, (200,), generator=generator) for _ in range(300)]
    values = torch.tensor([taken_in(*one[:120].view(-1, 20).tolist()).value for one in drawn])
    assert abs(float(values.mean())) < 0.2
    assert abs(float(values.std()) - 1) < 0.15
    assert min(taken_in(*one.sort().values.view(-1, 20).tolist()).value for one in drawn) > 10


def test_order_is_forgotten_when_it_ends_and_found_when_it_begins():
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.randint(0, 5, (600,), generator=generator)
    ordered = shuffled.sort().values
    batches = [one.view(-1, 20).tolist() for one in (shuffled, ordered, shuffled)]
    runs, values = Runs(), []
    for part in batches:
        for batch in part:
            runs.update(torch.tensor(batch))
        values.append(runs.value)
    assert abs(values[0]) < 2.5
    assert values[1] > 10
    assert abs(values[2]) < 4
    assert runs.pairs == pytest.approx(128)


def test_few_equal_neighbours_among_many_classes_say_nothing():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        drawn = torch.randint(0, 1000, (400,), generator=generator)
        assert taken_in(*drawn.view(-1, 20).tolist()).value < 4
    assert taken_in(*drawn.sort().values.repeat_interleave(4).view(-1, 20).tolist()).value > 4


@pytest.mark.parametrize("labels", [[], [1], [0, 1], [2, 2, 2, 2]])
def test_nothing_is_said_of_too_few_labels_or_one_class(labels):
    assert taken_in(labels).value == 0


def test_what_was_taken_in_can_be_gone_on_from():
    runs, other = taken_in([0, 0, 1, 2]), Runs()
    other.stored = runs.stored
    for one in (runs, other):
        one.update(torch.tensor([2, 1]))
    assert other.stored[:3] == runs.stored[:3]
    assert other.value == runs.value
