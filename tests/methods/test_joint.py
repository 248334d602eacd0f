import pytest
import torch

from domainnorm.errors import ConversionError
from domainnorm.losses import domain_rows_loss
from tests.methods.bench import make, make_model

BATCH = {
    "image": torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
    "target": torch.tensor([0, 1, 2, 3]),
    "domain": torch.tensor([0, 1, 1, 0]),
}


# A step without a trainer: Lightning says that nothing is logged.
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def spread_model(norm="dsbn"):
    model = make_model(norm)
    with torch.no_grad():
        for layer in model.norms():
            for row in layer.modulation.rows():
                row.normal_()
    return model


def loss(method):
    return method.training_step(BATCH, 0)


@pytest.mark.parametrize("norm", ["dsbn", {"statistics": "batch", "modulation": "lowrank"}])
def test_rows_weight_adds_the_distance_of_rows_to_their_mean(norm):
    model = spread_model(norm)
    rows = [row for layer in model.norms() for row in layer.modulation.rows()]
    plain, pulled = (loss(make("joint", model, rows_weight=weight)) for weight in (0.0, 0.5))
    torch.testing.assert_close(pulled, plain + 0.5 * domain_rows_loss(rows))


def test_rows_weight_brings_rows_together():
    model = spread_model()
    rows = [row for layer in model.norms() for row in layer.modulation.rows()]
    before = domain_rows_loss(rows).item()
    # What the weight adds: the gradient of the task may well push rows apart.
    plain, pulled = (
        torch.autograd.grad(loss(make("joint", model, rows_weight=weight)), rows)
        for weight in (0.0, 100.0)
    )
    with torch.no_grad():
        for row, without, gradient in zip(rows, plain, pulled, strict=True):
            row.sub_(0.05 * (gradient - without))
    assert domain_rows_loss(rows).item() < before


def test_rows_weight_without_rows_is_refused():
    with pytest.raises(ConversionError, match=r"method\.rows_weight: got 0\.5, but no norm has a"):
        make("joint", make_model("bn"), rows_weight=0.5)
