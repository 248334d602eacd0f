from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from domainnorm.data import DomainBalancedBatchSampler, Draw
from domainnorm.data.sampler import ClassDraws
from domainnorm.errors import DataError
from tests.reference.sampling import rare_class_rates

LABELS = [2] * 5 + [0] * 20 + [1] * 11


def sampler(batch_size: int = 7, epoch: int = 0, **options) -> DomainBalancedBatchSampler:
    options = {"seed": 0, **options}
    return DomainBalancedBatchSampler(
        options.pop("labels", LABELS), batch_size=batch_size, epoch=lambda: epoch, **options
    )


def domains(batch: list[Draw]) -> list[int]:
    return [LABELS[draw.position] for draw in batch]


@pytest.mark.parametrize("batch_size", [3, 4, 7, 9, 32])
def test_batches_have_the_asked_size(batch_size):
    assert {len(batch) for batch in sampler(batch_size)} == {batch_size}


@pytest.mark.parametrize("batch_size", [3, 4, 7, 9, 32])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_an_epoch_shows_every_sample_at_least_once(batch_size, world_size):
    ranks = [sampler(batch_size, rank=rank, world_size=world_size) for rank in range(world_size)]
    drawn = {draw.position for rank in ranks for batch in rank for draw in batch}
    assert drawn == set(range(len(LABELS)))


@pytest.mark.parametrize(("world_size", "batches"), [(1, 9), (2, 5), (4, 3)])
def test_number_of_batches_is_that_of_the_largest_domain(world_size, batches):
    draws = sampler(world_size=world_size)
    assert (len(draws), len(list(draws))) == (batches, batches)


def test_batches_are_grouped_by_domain():
    assert all(domains(batch) == sorted(domains(batch)) for batch in sampler())


def test_domains_have_equal_shares_of_every_batch():
    shares = [set(Counter(domains(batch)).values()) for batch in sampler(9)]
    assert shares == [{3}] * len(shares)


def test_remainder_rotates_over_domains():
    extra = [Counter(domains(batch)).most_common(1)[0][0] for batch in sampler(7)]
    assert extra == [0, 1, 2] * 3


def test_large_domain_is_not_repeated_before_it_is_used_up():
    drawn = [d.position for b in sampler(6) for d in b if LABELS[d.position] == 0]
    assert len(drawn) == len(set(drawn)) == 20


def test_small_domain_starts_over():
    drawn = [d.position for b in sampler(6) for d in b if LABELS[d.position] == 2]
    counts = Counter(drawn)
    assert len(counts) == 5
    assert max(counts.values()) - min(counts.values()) <= 1


def test_repeated_sample_has_another_seed():
    seeds = [d.seed for b in sampler() for d in b]
    assert len(set(seeds)) == len(seeds)


def test_same_seed_and_epoch_give_the_same_batches():
    assert list(sampler(epoch=3)) == list(sampler(epoch=3))


@pytest.mark.parametrize("other", [{"epoch": 1}, {"seed": 1}])
def test_epoch_and_seed_change_order_and_augmentation(other):
    first, second = list(sampler()), list(sampler(**other))
    assert [d.position for b in first for d in b] != [d.position for b in second for d in b]
    assert not {d.seed for b in first for d in b} & {d.seed for b in second for d in b}


def test_epoch_is_read_whenever_an_iterator_is_made():
    epochs = iter([0, 1])
    draws = DomainBalancedBatchSampler(LABELS, batch_size=6, seed=0, epoch=lambda: next(epochs))
    assert list(draws) == list(sampler(6, epoch=0))
    assert list(draws) == list(sampler(6, epoch=1))


def test_ranks_divide_the_draws_of_one_process():
    ranks = [[d for b in sampler(3, world_size=2, rank=rank) for d in b] for rank in range(2)]
    assert not set(ranks[0]) & set(ranks[1])
    assert sorted(ranks[0] + ranks[1]) == sorted(d for b in sampler(6) for d in b)


def test_single_domain_is_a_permutation():
    draws = sampler(5, labels=[1] * 15)
    assert sorted(d.position for b in draws for d in b) == list(range(15))


def test_batch_smaller_than_the_number_of_domains_is_refused():
    with pytest.raises(DataError, match=r"batch_size: 2 for 3 training domains; .* at least 3"):
        sampler(2)


def test_no_images_are_refused():
    with pytest.raises(DataError, match="no images to draw batches from"):
        sampler(labels=[])


# Of domain 0, whose positions are 5 to 24: fifteen images of class 0, four of 2, one of 3.
POSITIONS = np.arange(5, 25)
CLASSES = np.array([0] * 15 + [2] * 4 + [3])
ONE_HOT = np.eye(4, dtype=np.int64)[CLASSES]
BALANCED = {0: ClassDraws.of(POSITIONS, ONE_HOT, None)}
RARE = {0: ClassDraws.of(POSITIONS, ONE_HOT, 0.3)}
by_class = pytest.mark.parametrize("draws", [BALANCED, RARE], ids=["balanced", "rare"])


def classes_drawn(batches):
    drawn = [d.position for batch in batches for d in batch if LABELS[d.position] == 0]
    assert set(drawn) <= set(POSITIONS.tolist())
    return [int(CLASSES[position - 5]) for position in drawn]


def test_balanced_classes_are_drawn_equally_often():
    found = classes_drawn(sampler(6, by_class=BALANCED))
    counts = Counter(found)
    assert set(counts) == {0, 2, 3}
    assert max(counts.values()) - min(counts.values()) <= 1
    assert {len(set(found[at : at + 3])) for at in range(len(found) - 2)} == {3}


def test_images_of_a_balanced_class_follow_each_other_without_repetition():
    drawn = [d.position for b in sampler(24, by_class=BALANCED) for d in b]
    of_class_2 = [at for at in drawn if 20 <= at < 24]
    assert set(of_class_2[:4]) == {20, 21, 22, 23}


@by_class
@pytest.mark.parametrize("roles", [None, {0: "labelled", 1: "unlabelled", 2: "unlabelled"}])
def test_classes_change_neither_shares_nor_other_domains_nor_seeds(draws, roles):
    plain, other = (list(sampler(roles=roles, by_class=one)) for one in (None, draws))
    assert len(plain) == len(other)
    for before, after in zip(plain, other, strict=True):
        assert domains(before) == domains(after)
        assert [d.seed for d in before] == [d.seed for d in after]
        rest = [[d for d in one if LABELS[d.position] != 0] for one in (before, after)]
        assert rest[0] == rest[1]


@by_class
def test_ranks_divide_the_draws_by_class_of_one_process(draws):
    options = {"by_class": draws, "world_size": 2}
    ranks = [[d for b in sampler(3, rank=rank, **options) for d in b] for rank in range(2)]
    assert not set(ranks[0]) & set(ranks[1])
    assert sorted(ranks[0] + ranks[1]) == sorted(d for b in sampler(6, by_class=draws) for d in b)


@by_class
def test_draws_by_class_depend_on_seed_and_epoch_alone(draws):
    assert list(sampler(epoch=3, by_class=draws)) == list(sampler(epoch=3, by_class=draws))
    assert list(sampler(epoch=3, by_class=draws)) != list(sampler(epoch=4, by_class=draws))


@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.3, 10.0])
def test_rates_of_rare_classes_are_those_of_the_paper(temperature):
    counts = np.array([[90, 10, 0, 0], [60, 0, 0, 40], [99, 1, 0, 0]])
    draws = ClassDraws.of(np.array([3, 5, 8]), counts, temperature)
    assert draws.rates == pytest.approx(rare_class_rates([249, 11, 40], temperature))
    assert [found.tolist() for found in draws.members] == [[3, 5, 8], [3, 8], [5]]


def test_rare_classes_are_drawn_at_their_rates():
    found = Counter(c for n in range(40) for c in classes_drawn(sampler(6, n, by_class=RARE)))
    share = np.array([found[c] for c in (0, 2, 3)]) / sum(found.values())
    assert share == pytest.approx(rare_class_rates([15, 4, 1], 0.3), abs=0.05)
