import copy
import math

import pytest
import torch
from torch.testing import assert_close

from domainnorm import adapt_online
from domainnorm.backbones import create_model
from domainnorm.errors import ConversionError
from domainnorm.losses import opinion_entropies
from domainnorm.methods.cotta import varied
from domainnorm.methods.deyo import shuffled
from domainnorm.methods.heads import head_of
from domainnorm.methods.online_entropy import OnlineEntropy
from domainnorm.registry import METHODS, MODULATIONS
from tests.combinations import few
from tests.methods.bench import ONE, SMALL, changed, fit, images, rows_changed, source_model
from tests.reference import online

TARGET = ONE.all.index("colour_cast")
NETWORKS = {"test_resnet": "dsbn", "test_vit": None, "test_convnext": None}
NAMES = [n for n in METHODS.names() if issubclass(METHODS.load(n), OnlineEntropy)]
FLOORS = {"test_resnet": (0.3, 0.5), "test_vit": (0.4, 0.05), "test_convnext": (0.068, 1e-3)}
SURER = {"test_resnet": 20, "test_vit": 20, "test_convnext": 200}
every_network = pytest.mark.parametrize("network", few(1, NETWORKS))
every_name = pytest.mark.parametrize("name", NAMES)
GIVEN = {**SMALL, "eata": {"fisher_weight": 0.0}}


@torch.no_grad()
def network_of(name, classes=10):
    """A network in float64 that is sure of some images and not of others."""
    torch.manual_seed(0)
    model = create_model(name, classes, NETWORKS[name], ONE.all).double()
    head_of(model).weight.mul_(SURER[name])
    return model


def plain(model, share=1.0):
    """The network as the papers have it, and the scales and shifts of a share of its norms."""
    network = copy.deepcopy(model).eval()
    norms = list(network.norms())
    for norm in norms:
        norm.statistics.train()
    chosen = norms[: round(share * len(norms))]
    parameters = [p for norm in chosen for p in norm.modulation.parameters()]
    return lambda image: network(image, "colour_cast"), parameters


def batches(count=10, size=4):
    torch.manual_seed(1)
    return [torch.rand(size, 3, 64, 64, dtype=torch.float64) for _ in range(count)]


def compare(name, model, wanted, parameters, **options):
    """Outputs and moved parameters of a stream, and the reference's."""
    stream = adapt_online(model, name, domain="colour_cast", **options)
    torch.manual_seed(2)
    found = [stream(batch) for batch in batches()]
    close = {"rtol": 1e-7, "atol": 1e-9}
    assert_close(found, wanted, **close)
    assert_close([p.detach() for p in stream.method.adapted], parameters, **close)
    moved = [not torch.equal(p, q) for p, q in zip(stream.method.start, parameters, strict=True)]
    assert any(moved)
    return stream.method


@every_network
@pytest.mark.parametrize("opinion", [False, True])
def test_tent_equals_the_published_rule(network, opinion):
    model = network_of(network)
    run, parameters = plain(model)
    descent = online.Descent(parameters, 1e-3, adam=True)
    entropy_of = online.opinion_entropy if opinion else online.row_entropy
    wanted = online.tent(run, batches(), descent, entropy_of)
    compare("tent_online", model, wanted, [p.detach() for p in parameters], opinion=opinion)


@every_network
@pytest.mark.parametrize("goes_back", [False, True])
def test_sar_equals_the_published_rule(network, goes_back):
    model = network_of(network)
    run, parameters = plain(model, 0.75)
    floor, lr = FLOORS[network]
    options = {"margin": 0.97, "radius": 0.1, "floor": floor if goes_back else 0.0}
    descent = online.Descent(parameters, lr)
    wanted, returns = online.sar(run, batches(), descent, **options)
    assert bool(returns) == goes_back
    compare("sar", model, wanted, [p.detach() for p in parameters], lr=lr, **options)


@every_network
def test_deyo_equals_the_published_rule(network):
    model = network_of(network)
    run, parameters = plain(model, 0.75)
    options = {"margin": 0.97, "drop": 0.0}
    torch.manual_seed(2)
    descent = online.Descent(parameters, 0.05)
    wanted, counts = online.deyo(
        run, batches(), descent, shuffled=lambda image: shuffled(image, 4), **options
    )
    assert 0 < sum(counts) < 40
    compare("deyo", model, wanted, [p.detach() for p in parameters], lr=0.05, **options)


@every_network
def test_roid_equals_the_published_rule(network):
    model = network_of(network)
    run, parameters = plain(model)
    descent = online.Descent(parameters, 0.05, nesterov=True)
    torch.manual_seed(2)
    options = {"temperature": 0.5, "decay": 0.9}
    wanted = online.roid(run, batches(), descent, varied=varied, **options)
    wanted = [one.log_softmax(1) for one in wanted]
    stream = adapt_online(copy.deepcopy(model), "roid", domain="colour_cast", lr=0.05, **options)
    torch.manual_seed(2)
    found = [stream(batch).log_softmax(1) for batch in batches()]
    assert_close(found, wanted, rtol=1e-7, atol=1e-9)
    assert_close(stream.method.adapted, parameters, rtol=1e-7, atol=1e-9)


def test_an_opinion_cannot_become_surer_by_longer_logits():
    torch.manual_seed(0)
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    expected = torch.stack([online.opinion_entropy(row) for row in logits])
    assert_close(opinion_entropies(logits), expected)
    gradient = torch.autograd.grad(opinion_entropies(logits).sum(), logits)[0]
    assert_close((gradient * logits).sum(1), torch.zeros(5, dtype=torch.float64))
    assert bool(gradient.any())


def test_shuffled_images_have_the_same_patches():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 9, 8)
    found = shuffled(image, 4)
    assert found.shape == (2, 3, 8, 8)
    assert not torch.equal(found, image[..., :8, :])

    def patches(one):
        parts = one.unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).reshape(16, -1)
        return sorted(parts.tolist())

    for one, other in zip(found, image[..., :8, :], strict=True):
        assert patches(one) == patches(other)


@every_name
@pytest.mark.parametrize("classes", [2, 4, 7, 1000])
def test_some_images_count_whatever_the_number_of_classes(name, classes):
    model = network_of("test_resnet", classes)
    options = GIVEN.get(name, {})
    if name == "deyo":
        options = {"drop": -1.0}
    stream = adapt_online(model, name, domain="colour_cast", lr=0.05, **options)
    with torch.no_grad():
        head_of(model).weight.mul_(20)
    for batch in batches(4):
        assert bool(stream(batch).isfinite().all())
    pairs = zip(stream.method.adapted, stream.method.start, strict=True)
    assert any(not torch.equal(one, former) for one, former in pairs)


@every_name
def test_single_images_and_equal_images_stay_finite(name):
    model = network_of("test_resnet")
    stream = adapt_online(model, name, domain="colour_cast", lr=0.05, **GIVEN.get(name, {}))
    for batch in [*batches(3, 1), torch.ones(4, 3, 64, 64, dtype=torch.float64)]:
        assert bool(stream(batch).isfinite().all())
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("classes", [2, 4, 10, 1000])
def test_a_sure_model_does_not_go_back_at_each_batch(classes):
    model = network_of("test_resnet", classes)
    with torch.no_grad():
        head_of(model).weight.mul_(100)
    stream = adapt_online(model, "sar", domain="colour_cast", lr=1e-3)
    returns = []
    stream.method.go_back = lambda: returns.append(1)
    for batch in batches():
        stream(batch)
    assert stream.method.average < 0.2  # below the paper's floor
    assert not returns


@every_name
def test_only_rows_of_the_target_move(name):
    done = fit(name, source_model(), ONE, batch_size=4, lr=0.05, **GIVEN.get(name, {}))
    assert done.method.trained_domains == ("colour_cast",)
    names = {key for key in changed(done.before, done.model) if "modulation" in key}
    if names:  # some keep no image of these
        assert rows_changed(done.before, done.model, names) == {TARGET}
    assert {key.rsplit(".", 2)[1] for key in changed(done.before, done.model)} <= {
        "modulation",
        "statistics",
    }


@pytest.mark.parametrize("name", ["sar", "deyo"])
def test_late_norms_stay(name):
    method = METHODS.load(name)
    model = source_model()
    norms = list(model.norms())
    stream = adapt_online(model, name, domain="colour_cast", depth=0.5)
    assert isinstance(stream.method, method)
    held = {id(p) for p in stream.method.adapted}
    moving = [any(id(p) in held for p in norm.modulation.parameters()) for norm in norms]
    half = round(len(norms) / 2)
    assert moving == [True] * half + [False] * (len(norms) - half)


def test_running_moments_follow_the_images_alone():
    """The further looks of a step, at changed or the same images, move none."""
    before = None
    for name in ("tent_online", "sar", "deyo", "roid"):
        torch.manual_seed(0)
        options = {"lr": 0.0}
        stream = adapt_online(source_model(), name, domain="colour_cast", **options)
        for batch in images("colour_cast")[:8].split(4):
            stream(batch)
        found = {k: v for k, v in stream.method.model.state_dict().items() if "running" in k}
        before = found if before is None else before
        assert_close(found, before)


def test_a_model_without_scales_is_refused():
    model = create_model("test_resnet", 3, "dsbn", ["a"])
    for norm in model.norms():
        norm.modulation = MODULATIONS.load("none")(norm.num_features, 1)
    with pytest.raises(ConversionError, match="no conditional norm"):
        adapt_online(model, "sar")


def test_roid_of_one_image_has_the_published_prior():
    model = network_of("test_resnet")
    image = batches(1, 1)[0]
    network, _ = plain(model)
    told = network(image).detach().softmax(1)
    stream = adapt_online(copy.deepcopy(model), "roid", domain="colour_cast")
    smooth = 1 / float(told.max())
    prior = (told[0] + smooth) / (1 + smooth * 10)
    assert_close(stream(image).exp(), told * prior)
    assert math.isfinite(float(stream.method.mean.sum()))
