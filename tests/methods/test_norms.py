"""Alignment and self-regularization under every norm that needs no more than a domain."""

import torch

from domainnorm.norms import list_norms
from domainnorm.registry import METHODS
from tests.combinations import covering
from tests.methods.bench import make, make_model
from tests.methods.test_mcd import Plain

NAMES = ["bnm", "cdan", "coral", "dann", "infomax", "mcc", "mcd", "mmd"]
NORMS = {name: name for name in list_norms() if name not in ("spade", "film")}
NORMS |= {name: {"name": name, "num_groups": 8} for name in ("gn", "cgn")}


@covering(1, name=NAMES, norm=NORMS)
def test_losses_reach_rows_of_both_domains(name, norm):
    class Halfway(Plain if name == "mcd" else METHODS.load(name)):
        progress = 0.5

    model = make_model(NORMS[norm])
    method = make(Halfway, model).train()
    before = [row.detach().clone() for one in model.norms() for row in one.modulation.rows()]
    losses = method.losses(
        {
            "image": torch.rand(7, 3, 64, 64),
            "target": torch.tensor([3, 1, 4, 1, -1, -1, -1]),
            "domain": torch.tensor([0, 0, 0, 0, 1, 1, 1]),
            "labelled": torch.tensor([True] * 4 + [False] * 3),
        }
    )
    assert all(bool(loss.isfinite()) for loss in losses.values())
    rows = [row for one in model.norms() for row in one.modulation.rows()]
    if name == "mcd":
        moved = [row - old for row, old in zip(rows, before, strict=True)]
    else:
        moved = torch.autograd.grad(sum(losses.values()), rows) if rows else []
    # Not in each table: residual branches that start at zero pass no gradient yet.
    reached = [change.flatten(1).any(1) for change in moved]
    assert not reached or bool(torch.stack(reached).any(0).all())
