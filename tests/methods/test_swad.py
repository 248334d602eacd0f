import copy
import random

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from domainnorm.errors import DomainNormError
from domainnorm.methods.reestimation import MomentPass
from domainnorm.methods.swad import LossValley, WeightMean
from tests.methods.bench import METHODS, ONE, TWO, fit, make, make_data, make_model
from tests.reference.adaptation import loss_valley


def averaged(losses, *patience):
    """First and last segment that the rule keeps, going through the losses one by one."""
    valley = LossValley(*patience)
    kept, doubtful = [], []
    for number, loss in enumerate(losses):
        valley.observe(loss)
        if valley.has_ended:
            doubtful = []
        elif valley.above:
            doubtful.append(number)
        else:
            kept = ([] if valley.age == 1 else [*kept, *doubtful]) + [number]
            doubtful = []
    kept += doubtful
    assert kept == list(range(kept[0], kept[-1] + 1))
    return kept[0], kept[-1]


@pytest.mark.parametrize(
    ("losses", "segments"),
    [
        ([5, 4, 3, 2, 1], (4, 4)),
        ([5, 4, 1, 2, 1], (2, 4)),
        ([3, 1, 1.1, 1.2, 1.1, 9, 9], (1, 4)),
        ([3, 1, 1.1, 1.2, 9, 1.1, 9], (1, 6)),
        ([3, 1, 1.1, 1.2, 9, 9, 0.1, 0.1], (1, 3)),
    ],
)
def test_valley_starts_where_losses_stop_to_fall_and_ends_where_they_rise(losses, segments):
    assert averaged(losses, 3, 2, 1.3) == segments


def test_valley_is_that_of_the_paper():
    chance = random.Random(0)
    for _ in range(300):
        patience = chance.randint(1, 4), chance.randint(1, 4), chance.choice([1.0, 1.1, 1.5])
        losses = [chance.randint(1, 9) for _ in range(chance.randint(1, 14))]
        assert averaged(losses, *patience) == loss_valley(losses, *patience)


def test_mean_of_means_is_the_mean_of_all():
    vectors = torch.randn(7, 5)
    first, second = WeightMean(5), WeightMean(5)
    for number, vector in enumerate(vectors):
        (first if number < 3 else second).add(vector)
    first.merge(second)
    assert_close(first.mean, vectors.mean(0))
    assert (int(first.count), int(second.count)) == (7, 0)


def test_mean_is_never_narrower_than_float32():
    assert WeightMean(3).bfloat16().mean.dtype == torch.float32
    assert WeightMean(3).double().mean.dtype == torch.float64


class Watched(METHODS.load("swad")):
    """Keeps the weights after every step, and the losses of validation; the latter can be given."""

    given = ()

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.epochs_seen, self.losses_seen = [[]], []

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        self.epochs_seen[-1].append(nn.utils.parameters_to_vector(self.model.parameters()).detach())

    def _validation_loss(self):
        self.losses_seen.append(super()._validation_loss())
        self.epochs_seen.append([])
        return self.given[len(self.losses_seen) - 1] if self.given else self.losses_seen[-1]


class Given(Watched):
    given = (3.0, 1.0, 1.2, 9.0, 9.0)


@pytest.fixture(scope="module")
def done():
    options = {"epochs": 5, "start_patience": 2, "end_patience": 2, "precision": "64-true"}
    torch.manual_seed(0)
    return fit(Given, make_model(roles=TWO), TWO, **options)


def test_weights_are_the_mean_of_all_steps_of_the_valley(done):
    steps = [vector for epoch in done.method.epochs_seen[1:3] for vector in epoch]
    found = nn.utils.parameters_to_vector(done.model.parameters()).detach()
    rows = {id(p) for norm in done.model.norms() for p in norm.modulation.rows()}
    shared = torch.cat(
        [torch.full((p.numel(),), id(p) not in rows) for p in done.model.parameters()]
    )
    assert shared.any()
    assert_close(found[shared], torch.stack(steps).mean(0)[shared])


def test_loss_of_validation_is_the_mean_of_domains_whatever_their_size():
    method = make("swad", make_model(roles=TWO), TWO)
    method._losses = {
        0: [(torch.tensor(1.0), 3), (torch.tensor(5.0), 1)],
        1: [(torch.tensor(4.0), 2)],
    }
    assert method._validation_loss() == pytest.approx((2 + 4) / 2)


def test_loss_of_validation_is_logged_after_every_epoch(done):
    assert len(done.method.losses_seen) == 5
    assert all(0 < loss < 10 for loss in done.method.losses_seen)
    assert float(done.trainer.callback_metrics["val/loss"]) == 9.0


def test_moments_are_those_of_the_averaged_weights_on_training_images(done):
    expected = copy.deepcopy(done.model)
    moments = MomentPass(expected)
    with torch.no_grad():
        for batch in done.data.train_dataloader():
            moments.observe(
                {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
            )
    moments.write()
    for label in range(2):
        for found, wanted in zip(done.model.norms(), expected.norms(), strict=True):
            for key in ("running_mean", "running_var"):
                pair = [getattr(norm.statistics, key)[label] for norm in (found, wanted)]
                assert_close(*pair, rtol=1e-9, atol=1e-12)


def test_result_is_the_same_when_asked_for_twice(done):
    before = copy.deepcopy(done.method.state_dict())
    done.method.on_fit_end()
    for key, tensor in done.method.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert_close(tensor, before[key], rtol=1e-12, atol=1e-14)


def test_rate_stays_at_its_peak_after_the_warm_up():
    done = fit("swad", epochs=5, lr=0.01, warmup=0.3)
    steps, rising = len(done.seen.rates), int(0.3 * len(done.seen.rates))
    rates = [min(1, (step + 1) / (rising + 1)) for step in range(steps)]
    assert done.seen.rates == pytest.approx([0.01 * rate for rate in rates])


def test_without_validation_nothing_is_trained():
    method = make("swad", make_model())
    method.eval_domains = ()
    with pytest.raises(DomainNormError, match="swad: no validation images"):
        method.on_fit_start()
    assert make_data("swad", method.model, ONE, 16).val_domains == ["clean"]
