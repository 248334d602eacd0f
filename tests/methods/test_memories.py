"""Methods of streams that learn from a memory of images: RoTTA and NOTE."""

import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm import adapt_online
from domainnorm.backbones import create_model
from domainnorm.data import Stream
from domainnorm.methods.cotta import varied
from domainnorm.methods.heads import head_of
from domainnorm.methods.note import BalancedMemory
from domainnorm.methods.rotta import TimelyMemory, blended_moments
from domainnorm.norms.statistics.running import RunningMoments
from tests.combinations import few
from tests.methods.bench import ONE, fit, source_model
from tests.reference import online

NETWORKS = {"test_resnet": "dsbn", "test_vit": None, "test_convnext": None}
TARGET = ONE.all.index("colour_cast")
every_network = pytest.mark.parametrize("network", few(1, NETWORKS))


@torch.no_grad()
def network_of(name, classes=4, kind=None):
    """A network in float64 whose predictions are of several classes."""
    torch.manual_seed(0)
    model = create_model(name, classes, kind or NETWORKS[name], ONE.all).double()
    for norm in model.norms():
        for table in norm.modulation.parameters():
            table.add_(0.1 * torch.randn_like(table))
    head_of(model).weight.mul_(20)
    model.eval()
    logits = torch.cat([model(batch, "colour_cast") for batch in batches(8)])
    head_of(model).bias.sub_(logits.mean(0))  # so that no class has them all
    return model


def batches(count=12, size=5):
    torch.manual_seed(1)
    return [torch.rand(size, 3, 64, 64, dtype=torch.float64) for _ in range(count)]


def parameters_of(model):
    return [p for norm in model.norms() for p in norm.modulation.parameters()]


def robust(model, share):
    """A network with the layers of the paper, its scales and shifts, and those layers."""
    network, layers = copy.deepcopy(model).eval(), []
    for norm in network.norms():
        if isinstance(norm.statistics, RunningMoments):
            found = norm.statistics
            row = TARGET if len(found.running_mean) > 1 else 0
            moments = found.running_mean[row], found.running_var[row]
            layers.append(online.Robust(*moments, found.eps, share))
            norm.statistics = layers[-1]
    return lambda image: network(image, "colour_cast"), parameters_of(network), layers


@every_network
def test_rotta_equals_the_published_rule(network):
    model = network_of(network)
    student, teacher = robust(model, 0.1), robust(model, 0.1)

    def learning(moving):
        for layer in (*student[2], *teacher[2]):
            layer.learning = moving

    options = {"size": 8, "decay": 0.9}
    descent = online.Descent(student[1], 0.01, adam=True)
    torch.manual_seed(2)
    wanted, contents = online.rotta(
        student,
        teacher,
        learning,
        batches(),
        descent,
        classes=4,
        weights=(1.0, 1.0),
        varied=varied,
        **options,
    )
    assert len(contents) == 7
    assert len({label for content in contents for label, _ in content}) > 2
    assert max(age for content in contents for _, age in content) > 8
    given = {"lr": 0.01, "share": 0.1, "memory": 8, "decay": 0.9}
    stream = adapt_online(model, "rotta", domain="colour_cast", **given)
    found, kept = [], []
    learn = stream.method._learn
    stream.method._learn = lambda: (kept.append(list(stream.method.kept.entries)), learn())
    torch.manual_seed(2)
    found = [stream(batch) for batch in batches()]
    close = {"rtol": 1e-6, "atol": 1e-8}
    assert_close(found, wanted, **close)
    assert [sorted((one.label, one.age) for one in entries) for entries in kept] == contents
    assert_close(stream.method.adapted, student[1], **close)
    assert_close(parameters_of(stream.method.deployed), teacher[1], **close)
    for one, layers in ((stream.method.model, student[2]), (stream.method.deployed, teacher[2])):
        moved = [n.statistics for n in one.norms() if isinstance(n.statistics, RunningMoments)]
        assert_close([own.running_mean[TARGET] for own in moved], [r.mean for r in layers], **close)
        assert_close([own.running_var[TARGET] for own in moved], [r.var for r in layers], **close)


@pytest.mark.parametrize(
    ("network", "kind"),
    [("test_resnet", "dsbn"), ("test_resnet", "iabn"), ("test_vit", None), ("test_convnext", None)],
)
def test_note_equals_the_published_rule(network, kind):
    model = network_of(network, kind=kind)
    plain = copy.deepcopy(model).eval()

    def learning(moving):
        for norm in plain.norms():
            norm.statistics.train(moving)
            if isinstance(norm.statistics, RunningMoments):
                norm.statistics.momentum = 0.05

    descent = online.Descent(parameters_of(plain), 0.01, adam=True)
    torch.manual_seed(2)
    wanted, contents = online.note(
        lambda image: plain(image, "colour_cast"), learning, batches(), descent, size=8
    )
    assert len(contents) == 7
    assert len({label for content in contents for label in content}) > 2
    given = {"lr": 0.01, "memory": 8, "momentum": 0.05}
    stream = adapt_online(model, "note", domain="colour_cast", **given)
    torch.manual_seed(2)
    found = [stream(batch) for batch in batches()]
    close = {"rtol": 1e-6, "atol": 1e-8}
    assert_close(found, wanted, **close)
    assert_close(stream.method.adapted, parameters_of(plain), **close)
    state, expected = model.state_dict(), plain.state_dict()
    for key in (key for key in state if "running" in key):
        assert_close(state[key], expected[key], **close)


@pytest.mark.parametrize("network", ["test_resnet", "test_efficientnet"])
def test_blended_moments_normalize_the_very_batch(network):
    model = create_model(network, 4, "dsbn", ONE.all).double().eval()
    first = next(model.norms()).statistics
    seen = []
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.rand(6, 3, 64, 64, dtype=torch.float64)
    domain = torch.tensor([0, 1, 1, 0, 1, 1])
    before = first.running_mean.clone(), first.running_var.clone()
    with blended_moments(model, domain, 0.3):
        model(image, domain)
    for row in (0, 1):
        values = seen[0][domain == row].transpose(0, 1).flatten(1)
        assert_close(first.running_mean[row], 0.7 * before[0][row] + 0.3 * values.mean(1))
        var = values.var(1, correction=0)
        assert_close(first.running_var[row], 0.7 * before[1][row] + 0.3 * var)


@pytest.mark.parametrize("classes", [2, 4, 7, 1000])
def test_a_timely_memory_has_room_for_every_class(classes):
    memory = TimelyMemory(64, classes, 1.0, 1.0)
    torch.manual_seed(0)
    for number in range(300):
        label = 0 if number < 200 else int(torch.randint(classes, ()))
        memory.add({"image": torch.zeros(1)}, label, float(torch.rand(())))
        assert len(memory.entries) <= 64
    counts = [sum(one.label == k for one in memory.entries) for k in range(classes)]
    assert max(counts) <= -(-64 // classes)
    assert sum(count > 0 for count in counts) > min(classes, 40) - 5


def test_a_balanced_memory_has_as_many_of_each_class():
    memory = BalancedMemory(60)
    torch.manual_seed(0)
    for label in [*[0] * 200, *[1] * 40, *[2] * 100]:
        memory.add({"image": torch.zeros(1)}, label)
    counts = [sum(one == k for _, one in memory.entries) for k in range(3)]
    assert counts == [20, 20, 20]


def test_a_balanced_memory_keeps_a_class_whatever_came_first():
    """Of 200 images of a class every one is kept as often as another, as a reservoir has it."""
    torch.manual_seed(0)
    kept = torch.zeros(200)
    for _ in range(300):
        memory = BalancedMemory(20)
        for number in range(200):
            memory.add({"image": torch.tensor([number])}, 0)
        kept[[int(batch["image"]) for batch, _ in memory.entries]] += 1
    expected = 300 * 20 / 200
    assert abs(float(kept[:100].mean()) - expected) < 3
    assert abs(float(kept[100:].mean()) - expected) < 3


@pytest.mark.parametrize("name", ["rotta", "note"])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_streams_of_any_batches(name, size):
    model = source_model()
    stream = adapt_online(model, name, domain="colour_cast", memory=8, lr=0.05)
    torch.manual_seed(0)
    for batch in torch.rand(70, 3, 32, 32).split(size):
        assert bool(stream(batch).isfinite().all())
    assert stream.method.count == 70
    pairs = zip(stream.method.adapted, stream.method.start, strict=True)
    assert any(not torch.equal(one, former) for one, former in pairs)
    assert not any(module.training for module in stream.method.model.modules())


def test_an_image_keeps_its_domain_in_the_memory():
    from tests.methods.test_online_method import TARGETS  # noqa: PLC0415

    model = source_model(roles=TARGETS)
    stream = {"stream": Stream("mixed", 4)}
    before = copy.deepcopy(model.state_dict())
    done = fit("rotta", model, TARGETS, loading=stream, memory=6, share=0.5)
    assert {int(one.batch["domain"]) for one in done.method.kept.entries} == {1, 2}
    layer = next(norm.statistics for norm in done.model.norms())
    key = next(key for key in before if key.endswith("running_mean"))
    moved = (layer.running_mean != before[key]).any(1).tolist()
    assert moved == [False, True, True]
