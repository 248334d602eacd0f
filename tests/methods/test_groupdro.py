import pytest
import torch
from torch.testing import assert_close

from domainnorm.methods import Roles
from tests.methods.bench import METHODS, ONE, TWO, fit, make, make_model
from tests.reference.adaptation import group_weights
from tests.reference.losses import cross_entropy

SHARED = Roles(("clean", "textured"), ("colour_cast",), "role")


class Watched(METHODS.load("groupdro")):
    """Keeps the losses of domains, written out, and the weights and the loss after each step."""

    def __init__(self, *given, **options):
        super().__init__(*given, **options)
        self.losses_seen, self.weights_seen, self.totals = [], [], []

    def losses(self, batch):
        with torch.no_grad():
            logits = self.outputs(batch)
        rows = [
            cross_entropy(
                logits[batch["group"] == g].tolist(), batch["target"][batch["group"] == g]
            )
            for g in range(2)
        ]
        done = super().losses(batch)
        self.losses_seen.append(rows)
        self.weights_seen.append(self.domain_weights.tolist())
        self.totals.append(float(done["supervised"].detach()))
        return done


@pytest.mark.parametrize("roles", [TWO, SHARED], ids=["own rows", "shared rows"])
def test_weights_and_loss_are_those_of_the_paper(roles):
    options = {"step_size": 1.0, "precision": "64-true"}
    done = fit(Watched, make_model(roles=roles), roles, **options).method
    expected = group_weights(done.losses_seen, 1.0)
    assert_close(torch.tensor(done.weights_seen), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    sums = [
        sum(weight * loss for weight, loss in zip(*pair, strict=True))
        for pair in zip(expected, done.losses_seen, strict=True)
    ]
    assert done.totals == pytest.approx([float(total) for total in sums], rel=1e-4)
    assert max(expected[-1]) > 0.51


def test_one_source_is_plain_supervision():
    torch.manual_seed(0)
    plain = fit("source_only", make_model(roles=ONE), ONE)
    torch.manual_seed(0)
    robust = fit("groupdro", make_model(roles=ONE), ONE)
    assert plain.seen.losses == pytest.approx(robust.seen.losses, rel=1e-6)


def test_large_losses_leave_the_weights_finite():
    method = make("groupdro", make_model(roles=TWO), TWO, step_size=1e4)
    method._reweigh(torch.tensor([50.0, 1.0]))
    assert method.domain_weights.tolist() == [1, 0]
    method._reweigh(torch.tensor([1.0, 2.0]))
    assert method.domain_weights.isfinite().all()


def test_weights_are_logged_by_domain():
    done = fit("groupdro", make_model(roles=TWO), TWO)
    logged = [float(done.trainer.callback_metrics[f"train/weight_{n}"]) for n in TWO.source]
    assert sum(logged) == pytest.approx(1)
