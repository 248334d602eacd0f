import copy

import pytest
import torch

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError
from domainnorm.norms import create_norm
from tests.reference.norms import reference_norm

assignments = pytest.mark.parametrize("assignment", ["hard", "soft"])


def cluster(assignment="hard", num_clusters=2, channels=3, **options):
    options = {"num_clusters": num_clusters, "assignment": assignment, **options}
    return create_norm("cluster_in", channels, 1, **options)


def run(norm, x):
    with norm.slot.holding(Condition()):
        return norm(x)


def styled(labels, channels=3):
    """Images of two styles that are far apart."""
    scale = torch.tensor([1.0, 4.0])[labels][:, None, None, None]
    shift = torch.tensor([0.0, 20.0])[labels][:, None, None, None]
    return torch.randn(len(labels), channels, 6, 5) * scale + shift


LABELS = torch.tensor([0, 1, 0, 1, 1, 0, 1])


@assignments
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_values_and_gradients_equal_the_reference(assignment, mean):
    norm = cluster(assignment, num_clusters=3).double()
    for _ in range(2):
        run(norm, torch.randn(8, 3, 4, 5).double() + torch.randn(8, 1, 1, 1) + mean)
    x = torch.randn(8, 3, 4, 5).double() + torch.randn(8, 1, 1, 1) + mean
    weight, results = torch.randn_like(x), []
    for function in (run, lambda norm, x: reference_norm(norm, Condition(), x)):
        value = x.clone().requires_grad_()
        output = function(copy.deepcopy(norm), value)
        # The reference takes weights from numbers: no gradient flows through the assignment.
        (output * weight).sum().backward()
        results.append((output, value.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@assignments
def test_styles_that_are_far_apart_are_found_like_labelled_domains(assignment):
    norm, labelled = cluster(assignment, temperature=0.01), create_norm("dsbn", 3, 2)
    for _ in range(3):
        x = styled(LABELS)
        with labelled.slot.holding(Condition(domain=LABELS)):
            wanted = labelled(x)
        torch.testing.assert_close(run(norm, x), wanted, rtol=1e-3, atol=1e-3)
    x = styled(LABELS)
    with labelled.slot.holding(Condition(domain=LABELS)):
        wanted = labelled.eval()(x)
    torch.testing.assert_close(run(norm.eval(), x), wanted, rtol=1e-2, atol=1e-2)


@assignments
def test_absent_cluster_keeps_its_state_bit_for_bit(assignment):
    norm = cluster(assignment, temperature=1e-3)
    run(norm, styled(LABELS))
    before = copy.deepcopy(norm.statistics.state_dict())
    far = int(norm.statistics.centroids[:, 0].argmax())
    run(norm, styled(torch.zeros(5, dtype=torch.long)))
    for key in ("centroids", "clusters.running_mean", "clusters.running_var"):
        after = norm.statistics.state_dict()[key]
        assert torch.equal(after[far], before[key][far])
        assert not torch.equal(after[1 - far], before[key][1 - far])


def test_first_batch_gives_centroids_that_are_its_samples():
    norm = cluster(momentum=0.0)
    x = styled(LABELS)
    run(norm, x)
    style = torch.cat([x.mean((2, 3)), x.var((2, 3), unbiased=False).sqrt()], dim=1)
    apart = torch.cdist(norm.statistics.centroids, style).amin(1)
    torch.testing.assert_close(apart, torch.zeros(2), rtol=0, atol=1e-4)
    assert norm.statistics.found.all()


def test_batches_of_one_fill_clusters_one_after_another():
    norm = cluster()
    run(norm, styled(torch.tensor([0])))
    assert norm.statistics.found.sum() == 1
    run(norm, styled(torch.tensor([1])))
    assert norm.statistics.found.all()


@assignments
def test_all_clusters_start_as_the_layer_they_replace(assignment):
    norm, stock = cluster(assignment).eval(), torch.nn.BatchNorm2d(3).eval()
    stock.running_mean.normal_(), stock.running_var.uniform_(0.5, 2)
    norm.statistics.start(stock.running_mean, stock.running_var, stock.num_batches_tracked)
    x = torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(run(norm, x), stock(x))


@assignments
def test_momentum_none_is_the_cumulative_average(assignment):
    norm = cluster(assignment, num_clusters=1, momentum=None)
    batches = [torch.randn(4, 3, 3, 3) for _ in range(3)]
    for batch in batches:
        run(norm, batch)
    wanted = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(norm.statistics.clusters.running_mean[0], wanted)


@pytest.mark.parametrize("options", [{"num_clusters": 0}, {"temperature": 0.0}])
def test_numbers_that_are_not_positive_are_refused(options):
    (name,) = options
    with pytest.raises(DomainNormError, match=f"{name}: got 0.*expected a positive number"):
        cluster(**options)
