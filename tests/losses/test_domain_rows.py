import pytest
import torch

from domainnorm.errors import DomainNormError
from domainnorm.losses import domain_rows_loss
from tests.reference.losses import domain_rows


def tables():
    return [torch.randn(d, c, dtype=torch.float64) for d, c in ((3, 4), (3, 7), (2, 1))]


def test_equals_the_triple_loop():
    given = tables()
    found = domain_rows_loss(given).item()
    assert found == pytest.approx(domain_rows([table.tolist() for table in given]), rel=1e-12)


def test_gradient_equals_finite_differences():
    given = [table.requires_grad_() for table in tables()]
    assert torch.autograd.gradcheck(lambda *rows: domain_rows_loss(rows), given)


def test_row_is_pulled_by_its_own_deviation_alone():
    table = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(domain_rows_loss([table]), table)
    torch.testing.assert_close(gradient, 2 * (table - table.mean(0)).detach() / table.numel())


def test_equal_rows_have_no_loss():
    assert domain_rows_loss([torch.randn(1, 6).expand(3, 6)]).item() == pytest.approx(0, abs=1e-12)


def test_generators_are_taken():
    given = tables()
    torch.testing.assert_close(domain_rows_loss(t for t in given), domain_rows_loss(given))


def test_no_tables_are_refused():
    with pytest.raises(DomainNormError, match="no tables; the norms have no rows of domains"):
        domain_rows_loss([])
