import pytest
import torch
from torch.testing import assert_close

from domainnorm.methods.cdan import RandomMap
from tests.methods.bench import METHODS, ONE, fit, make, make_model
from tests.reference.adaptation import cdan, dann_ramp


def batch_of(count=5):
    return {
        "image": torch.rand(count, 3, 32, 32).double(),
        "target": torch.tensor([3, 1, 4, -1, -1][:count]),
        "domain": torch.tensor([0, 0, 0, 1, 1][:count]),
        "labelled": torch.tensor([True, True, True, False, False][:count]),
    }


class Halfway(METHODS.load("cdan")):
    progress = 0.5


@pytest.mark.parametrize("entropy", [False, True])
def test_loss_is_that_of_the_paper(entropy):
    method = make(Halfway, make_model(), entropy=entropy, hidden=4).double()
    batch = batch_of()
    with torch.no_grad():
        found = method.losses(batch)["domain"]
        features, logits = method.features(batch)
    pairs = list(zip(features.tolist(), logits.tolist(), strict=True))

    def discriminate(products):
        with torch.no_grad():
            return float(method.discriminator(torch.tensor(products, dtype=torch.float64)))

    expected = cdan(pairs[:3], pairs[3:], discriminate, entropy)
    assert float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("options", [{}, {"entropy": True}, {"map_size": 64}])
def test_predictions_take_no_gradient_and_features_the_reversed_one(options):
    method = make(Halfway, make_model(), hidden=4, **options).double()
    method.eval()  # the same features in both passes
    batch = batch_of()
    head = method.model.backbone.get_classifier()
    kept = [p for p in method.model.parameters() if p.requires_grad]
    found = torch.autograd.grad(method.losses(batch)["domain"], kept, allow_unused=True)
    assert all(g is None for p, g in zip(kept, found, strict=True) if p in set(head.parameters()))
    features, logits = method.features(batch)
    p = logits.detach().softmax(1)
    if options.get("map_size"):
        pair = method.random_map(features, p)
    else:
        pair = torch.einsum("nf,nk->nfk", features, p).flatten(1)
    told = torch.nn.functional.softplus(
        method.discriminator(pair)[:, 0] * torch.tensor([-1, -1, -1, 1, 1])
    )
    certainty = (p * p.log()).sum(1).exp()
    weight = 1 + certainty if options.get("entropy") else torch.ones(5)
    loss = sum((weight[r] * told[r]).sum() / weight[r].sum() for r in (slice(3), slice(3, 5))) / 2
    expected = torch.autograd.grad(loss, kept, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, -dann_ramp(0.5) * other)


def test_random_map_keeps_inner_products_in_the_mean():
    f, g = torch.randn(2, 3), torch.rand(2, 4)
    found = [RandomMap(3, 4, 500)(f, g) for _ in range(200)]
    products = torch.stack([one[0] @ one[1] for one in found])
    expected = (f[0] @ f[1]) * (g[0] @ g[1])
    assert abs(products.mean() - expected) < 4 * products.std() / 200**0.5


def test_large_products_are_mapped_and_small_ones_are_whole():
    assert make("cdan", make_model()).random_map is None
    mapped = make("cdan", make_model(), map_size=64)
    assert mapped.discriminator[0].in_features == 64
    assert mapped.random_map.of_classes.shape == (10, 64)


def test_random_map_is_stored_moved_and_not_trained():
    done = fit("cdan", make_model(), ONE, hidden=8, map_size=64)
    state = done.method.state_dict()
    other = make("cdan", make_model(), hidden=8, map_size=64)
    key = "random_map.of_features"
    assert not torch.equal(other.state_dict()[key], state[key])
    other.load_state_dict(state)
    assert torch.equal(other.random_map.of_features, state[key])
    assert other.double().random_map.of_features.dtype == torch.float64
    held = {id(p) for o in done.trainer.optimizers for g in o.param_groups for p in g["params"]}
    assert not {id(buffer) for buffer in done.method.random_map.buffers()} & held
