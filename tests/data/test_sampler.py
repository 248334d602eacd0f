from __future__ import annotations

from collections import Counter

import pytest

from domainnorm.data import DomainBalancedBatchSampler, Draw
from domainnorm.errors import DataError

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
