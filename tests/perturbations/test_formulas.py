"""Values and gradients against the formulas of the papers, for the numbers that were drawn."""

import pytest
import torch

from domainnorm.perturbations import create_perturbation
from domainnorm.perturbations.styles import draw_beta
from tests.reference import perturbations as reference

N, C, L = 5, 3, 6


def features():
    torch.manual_seed(1)
    x = torch.randn(N, C, L, dtype=torch.float64) * torch.rand(N, C, 1, dtype=torch.float64)
    return (x + torch.randn(N, C, 1, dtype=torch.float64)).requires_grad_()


def draws(name, alpha=0.1):
    """The random numbers of one call after ``torch.manual_seed(3)``, in the order of the code."""
    torch.manual_seed(3)
    torch.rand(())
    if name == "dsu":
        return [torch.randn(N, C, 1, dtype=torch.float64)[..., 0] for _ in range(2)]
    partner = torch.randperm(N)
    if name == "padain":
        return [partner]
    own = draw_beta(alpha, torch.empty(N, 1, 1, dtype=torch.float64))
    return [partner, own[:, 0, 0]]


@pytest.mark.parametrize("name", ["mixstyle", "efdmix", "dsu", "padain"])
def test_values_and_gradients_equal_the_reference(name):
    options = {} if name == "efdmix" else {"eps": 1e-3}
    perturbation, weight = create_perturbation(name, p=1.0, **options), torch.rand(N, C, L)
    found, wanted = features(), features()
    torch.manual_seed(3)
    output = perturbation(found)
    expected = getattr(reference, name)(wanted, *draws(name), *options.values())
    torch.testing.assert_close(output, expected)
    (output * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad)


def test_own_part_follows_the_beta_distribution():
    own = draw_beta(0.1, torch.empty(20_000, 1))
    var = 1 / (4 * (2 * 0.1 + 1))  # of Beta(a, a)
    assert own.mean().item() == pytest.approx(0.5, abs=0.02)
    assert own.var().item() == pytest.approx(var, abs=0.01)


def test_efdmix_without_own_part_gives_exactly_the_values_of_the_partner():
    x = features().detach()
    torch.manual_seed(3)
    partner, own = draws("efdmix", alpha=0.01)
    torch.manual_seed(3)
    output = create_perturbation("efdmix", p=1.0, alpha=0.01)(x)
    given = own < 1e-12
    assert given.any()
    torch.testing.assert_close(output.sort(2).values[given], x[partner].sort(2).values[given])


def test_large_means_do_not_cancel():
    x = features().detach() + 1000
    outputs = []
    for value in (x, x.float()):
        torch.manual_seed(3)
        outputs.append(create_perturbation("padain", p=1.0)(value).double())
    torch.testing.assert_close(*outputs, rtol=0, atol=5e-3)  # float32 resolves 6e-5 at 1000


def test_padain_gives_the_moments_of_the_partner():
    x = features().detach()
    (partner,) = draws("padain")
    torch.manual_seed(3)
    output = create_perturbation("padain", p=1.0, eps=0.0)(x)
    torch.testing.assert_close(output.mean(2), x[partner].mean(2))
    torch.testing.assert_close(output.var(2), x[partner].var(2))


def test_dsu_keeps_the_average_style_of_many_draws():
    x = features().detach()
    perturbation = create_perturbation("dsu", p=1.0)
    mean = torch.stack([perturbation(x) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(mean, x, rtol=0, atol=0.15)
