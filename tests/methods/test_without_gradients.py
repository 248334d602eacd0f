import copy
import math
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from domainnorm import adapt_online, create_segmentation_model
from domainnorm.backbones import create_model
from domainnorm.errors import ConversionError
from domainnorm.evaluation.certainty import Certainty
from domainnorm.methods.heads import head_of
from domainnorm.methods.lame import affinities, assignments
from domainnorm.methods.online import Followed
from domainnorm.methods.reestimation import between
from domainnorm.methods.without_gradients import WithoutGradients
from domainnorm.registry import METHODS
from domainnorm.streams import Runs
from domainnorm.tasks.classification import Classification
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import ONE, fit, make_model, source_model
from tests.reference import online
from tests.reference.losses import probabilities

TARGET = ONE.all.index("colour_cast")
NETWORKS = {"test_resnet": "dsbn", "test_vit": None, "test_convnext": None}
NAMES = [n for n in METHODS.names() if issubclass(METHODS.load(n), WithoutGradients)]
every_network = pytest.mark.parametrize("network", NETWORKS)


def started(name, network="test_resnet", classes=10, **options):
    """A method on a network of random weights in float64, at the start of the target's stream."""
    torch.manual_seed(0)
    model = create_model(network, classes, NETWORKS[network], ONE.all).double()
    with torch.no_grad():
        head_of(model).weight.mul_(20)
        head_of(model).bias.normal_()
    task = Classification([str(number) for number in range(classes)])
    method = METHODS.load(name)(model, task, ONE, **options)
    method.begin_stream(("colour_cast",))
    return method


def stream(size=3, batches=10, **shape):
    torch.manual_seed(1)
    for _ in range(batches):
        image = torch.rand(size, 3, 64, 64, dtype=torch.float64)
        yield {"image": image, "domain": torch.full((size,), TARGET)}


def told(method):
    """Weight and bias of the classifier, and features and logits of each batch of the stream."""
    model = copy.deepcopy(method.model).eval()
    head, seen, logits = head_of(model), [], []
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1).tolist()))
    with torch.no_grad():
        for batch in stream():
            logits.append(model(batch["image"], batch["domain"]).tolist())
    return head.weight.flatten(1).tolist(), head.bias.tolist(), seen, logits


@every_network
def test_neo_centres_features_by_all_that_was_seen(network):
    method = started("neo", network)
    weight, bias, features, _ = told(method)
    expected = online.neo(weight, bias, features)
    for batch, wanted in zip(stream(), expected, strict=True):
        assert_close(method.adapt(batch).tolist(), wanted)


def test_neo_with_a_memory_weighs_new_images_more():
    method = started("neo", memory=6)
    _, _, features, _ = told(method)
    mean = None
    for batch, found in zip(stream(), features, strict=True):
        method.adapt(batch)
        new = torch.tensor(found).double().mean(0)
        mean = new if mean is None else (mean + new) / 2  # 3 of 6 images
        assert_close(method.means[TARGET][0], mean)


@every_network
@pytest.mark.parametrize("most", [1, 4, None])
def test_t3a_equals_the_published_rule(network, most):
    method = started("t3a", network, supports=most)
    weight, bias, features, _ = told(method)
    expected = online.t3a(weight, bias, features, most)
    for batch, wanted in zip(stream(), expected, strict=True):
        assert_close(method.adapt(batch).tolist(), wanted)


@pytest.mark.parametrize("classes", [2, 4, 7, 1000])
@pytest.mark.parametrize("most", [1, None])
def test_t3a_keeps_a_support_of_each_class(classes, most):
    method = started("t3a", classes=classes, supports=most)
    for batch in stream(1, 3):
        logits = method.adapt(batch)
        assert logits.shape == (1, classes)
        assert bool(logits.isfinite().all())
    kept = torch.bincount(method.kept[TARGET][2], minlength=classes)
    assert int(kept.sum()) == (classes + 3 if most is None else int((kept > 0).sum()))


@every_network
@pytest.mark.parametrize(
    ("ordered", "in_runs", "assigned"),
    [(True, 0.0, True), (None, 4.1, True), (None, 3.9, False), (False, 4.1, False)],
)
def test_online_is_the_mean_of_the_source_and_its_supports(
    monkeypatch, network, ordered, in_runs, assigned
):
    monkeypatch.setattr(Runs, "value", in_runs)
    method = started("online", network, ordered=ordered, prior=1e15)  # keeps its moments
    weight, bias, features, logits = told(method)
    by_supports = online.t3a(weight, bias, features, 20)
    for batch, rows, others, z in zip(stream(), logits, by_supports, features, strict=True):
        wanted = [
            [(p + q) / 2 for p, q in zip(probabilities(row), probabilities(other), strict=True)]
            for row, other in zip(rows, others, strict=True)
        ]
        if assigned:
            wanted = online.lame([[math.log(p) for p in row] for row in wanted], z, "knn", 5)
        assert_close(method.adapt(batch).exp().tolist(), wanted)


def taken_in(labels):
    runs = Runs()
    runs.update(labels)
    return runs


IN_RUNS, IN_TURNS = torch.arange(96) // 24, torch.arange(96) % 4


def test_online_assigns_images_of_the_row_whose_classes_come_in_runs():
    method, other = (started("online", classes=4, prior=1e15) for _ in range(2))
    clean = method.model.domain_names.index("clean")
    torch.manual_seed(0)
    images = torch.rand(16, 3, 64, 64, dtype=torch.float64)
    batch = {"image": images, "domain": torch.tensor([TARGET, clean]).repeat(8)}
    for row, labels in ((TARGET, IN_RUNS), (clean, IN_TURNS)):
        method.followed[row] = Followed(whole=False)
        method.followed[row].runs = taken_in(labels)
    features, _ = method.features(batch)
    found, plain = method.adapt(batch), other.adapt(batch)
    assert_close(found[1::2], plain[1::2])
    wanted = assignments(plain[::2], affinities(F.normalize(features[::2], dim=1), "knn", 5), 100)
    assert_close(found[::2], wanted.detach())
    assert float((found - plain)[::2].abs().max()) > 0.01


def test_online_keeps_the_type_of_images_where_one_row_of_several_is_assigned():
    model = create_model("test_vit", 4, "cln", ONE.all).bfloat16()
    method = adapt_online(model, "online", domain="colour_cast").method
    method.followed[TARGET] = Followed(whole=False)
    method.followed[TARGET].runs.update(IN_RUNS)
    clean = model.domain_names.index("clean")
    domain = torch.tensor([TARGET, clean] * 4)
    found = method.adapt({"image": torch.rand(8, 3, 64, 64).bfloat16(), "domain": domain})
    assert found.dtype == torch.bfloat16
    assert bool(found.isfinite().all())


def test_online_has_the_moments_of_layers_that_are_unlike():
    method, other = (
        started("online"),
        started("alpha_bn", memory="stream", share="layers", prior=32.0),
    )
    for batch in stream(4):
        method.adapt(batch)
        other.adapt(batch)
    found, wanted = (
        {k: v for k, v in m.model.state_dict().items() if "running" in k} for m in (method, other)
    )
    assert_close(found, wanted)
    assert any(not torch.equal(v[0], v[TARGET]) for k, v in found.items() if "mean" in k)


def followed(stream):
    """What is known of the stream of the target's row, from its start."""
    method = stream.method
    return method.followed.setdefault(TARGET, Followed(whole=method.trusted))


class Said(Certainty):
    """Says what it is told to."""

    values: ClassVar[dict] = {}

    @property
    def value(self):
        return self.values[id(self)]


@pytest.mark.parametrize(("gain", "whole"), [(0.2, True), (0.1, False), (-0.3, False)])
def test_online_takes_the_moments_whole_where_they_make_it_much_surer(monkeypatch, gain, whole):
    monkeypatch.setattr("domainnorm.methods.online.Certainty", Said)
    monkeypatch.setattr(Runs, "value", 0.0)
    stream = adapt_online(source_model(), "online", domain="colour_cast")
    share = {} if whole else {"share": "layers", "prior": 32.0}
    other = adapt_online(source_model(), "alpha_bn", domain="colour_cast", memory="stream", **share)
    Said.values = dict(zip(map(id, followed(stream).sure), (0.4, 0.4 + gain), strict=True))
    torch.manual_seed(0)
    for number, batch in enumerate(torch.rand(96, 3, 32, 32).split(8)):
        assert followed(stream).whole == (whole and number > 3)  # 32 images decide
        supports = sum(len(one[0]) for one in stream.method.kept.values())
        stream(batch)
        other(batch)
        if whole and number == 3:  # the former ones are of other features
            assert len(stream.method.kept[TARGET][0]) <= 10 + 8 < supports
    found, wanted = (
        {k: v for k, v in one.method.model.state_dict().items() if "running" in k}
        for one in (stream, other)
    )
    assert_close(found, wanted)
    Said.values = dict.fromkeys(map(id, followed(stream).sure), 0.4)
    stream(batch)
    assert not followed(stream).whole
    # The rows have the moments that are taken from now on.
    before = {k: v.clone() for k, v in stream.method.model.state_dict().items() if "running" in k}
    stream.method.moments[0].write(TARGET)
    assert_close(stream.method.model.state_dict(), {**stream.method.model.state_dict(), **before})


@pytest.mark.parametrize(
    ("ordered", "passes", "network"),
    [
        (None, 3, "test_efficientnet"),
        (False, 3, "test_efficientnet"),
        (True, 1, "test_efficientnet"),
        (None, 1, "test_vit"),
    ],
)
def test_online_looks_at_all_moments_at_first_and_now_and_then(ordered, passes, network):
    norm = "dsbn" if network == "test_efficientnet" else "cln"
    model = create_model(network, 10, norm, ONE.all)
    stream = adapt_online(model, "online", domain="colour_cast", ordered=ordered)
    at = []
    stream.method.model.register_forward_hook(lambda *_: at.append(followed(stream).batches))
    torch.manual_seed(0)
    for batch in torch.rand(320, 3, 64, 64).split(16):
        stream(batch)
    counts = [at.count(number) for number in range(1, 21)]
    assert counts == [passes] * 16 + [passes if (n - 1) % 4 == 0 else 1 for n in range(17, 21)]
    assert (followed(stream).runs.pairs > 0) == (not ordered)


def test_online_leaves_the_moments_of_a_stream_whose_classes_come_in_runs(monkeypatch):
    stream = adapt_online(source_model(), "online", domain="colour_cast")
    monkeypatch.setattr("domainnorm.methods.online._SURER", -1.0)
    monkeypatch.setattr("domainnorm.methods.online._AS_SURE", -1.0)
    torch.manual_seed(0)
    shuffled = torch.rand(4, 3, 32, 32)[torch.randint(0, 4, (64,))]
    stream(shuffled[:32])
    assert followed(stream).whole
    monkeypatch.setattr(Runs, "value", 2.6)
    stream(shuffled[32:])
    assert not followed(stream).whole
    monkeypatch.setattr(Runs, "value", 2.4)
    stream(shuffled[32:])
    assert followed(stream).whole


@every_network
def test_online_judges_order_by_what_the_source_model_predicts(network):
    method, source = started("online", network), started("online", network)
    torch.manual_seed(0)
    wanted = Runs()
    for number, batch in enumerate(torch.rand(352, 3, 64, 64, dtype=torch.float64).split(16)):
        told = {"image": batch, "domain": torch.full((16,), TARGET)}
        if number < 16 or number % 4 == 0:
            wanted.update(source.outputs(told).argmax(1))
        method.adapt(told)
    assert method.followed[TARGET].runs.stored[:3] == wanted.stored[:3]
    assert wanted.pairs > 100


def started_on_masks():
    torch.manual_seed(0)
    model = create_segmentation_model("test_resnet", 3, "dsbn", ONE.all, width=16).double()
    method = METHODS.load("online")(model, Segmentation(["x", "y", "z"]), ONE)
    method.begin_stream(("colour_cast",))
    return method


@pytest.mark.parametrize("make", [lambda: started("online", classes=4), started_on_masks])
def test_online_follows_each_row_as_if_it_came_alone(make):
    mixed, *alone = (make() for _ in range(3))
    clean = mixed.model.domain_names.index("clean")
    torch.manual_seed(0)
    for images in torch.rand(6, 16, 3, 32, 32, dtype=torch.float64):
        domain = torch.tensor([TARGET, clean])[torch.randint(0, 2, (16,))]
        found = mixed.adapt({"image": images, "domain": domain})
        for method, row in zip(alone, (TARGET, clean), strict=True):
            own = domain == row
            assert_close(found[own], method.adapt({"image": images[own], "domain": domain[own]}))
    for method, row in zip(alone, (TARGET, clean), strict=True):
        assert_close(mixed.followed[row].stored, method.followed[row].stored)


@pytest.mark.parametrize(
    ("norm", "ordered", "trusted"),
    [
        ("cin", False, True),
        ("cin", None, False),
        ("cin", True, False),
        ("dsbn", False, False),
    ],
)
def test_online_takes_the_moments_of_a_shuffled_stream_beside_those_of_images(
    monkeypatch, norm, ordered, trusted
):
    monkeypatch.setattr("domainnorm.methods.online.Certainty", Said)
    torch.manual_seed(0)
    model = create_model("test_resnet", 10, norm, ONE.all)
    stream = adapt_online(model, "online", domain="colour_cast", ordered=ordered)
    Said.values = dict(zip(map(id, followed(stream).sure), (0.4, 0.36), strict=True))
    for batch in torch.rand(48, 3, 32, 32).split(16):
        assert followed(stream).whole == trusted
        stream(batch)
    Said.values[id(followed(stream).sure[1])] = 0.34
    stream(batch)
    assert not followed(stream).whole
    stream.reset()
    assert followed(stream).whole == trusted


def test_a_layer_moves_by_the_square_of_the_median_of_its_channels():
    torch.manual_seed(0)
    old, new = ((torch.randn(5).double(), torch.rand(5).double() + 0.1) for _ in range(2))
    divergence = [
        (v / w + w / v - 2 + (m - n) ** 2 * (1 / v + 1 / w)) / 2
        for m, v, n, w in zip(*(one.tolist() for one in (*old, *new)), strict=True)
    ]
    median = sorted(divergence)[2]
    mean, var = between(old, new, "layers", 0.0)
    share = median**2 / (1 + median**2)
    assert_close(mean, old[0] + share * (new[0] - old[0]))
    assert_close(var, old[1] + share * (new[1] - old[1]))


@every_network
@pytest.mark.parametrize("affinity", ["rbf", "knn", "linear"])
def test_lame_equals_the_published_rule(network, affinity):
    method = started("lame", network, affinity=affinity, neighbours=2)
    _, _, features, logits = told(method)
    for batch, rows, z in zip(stream(), logits, features, strict=True):
        wanted = online.lame(rows, z, affinity, 2)
        assert_close(method.adapt(batch).exp().tolist(), wanted)


@pytest.mark.parametrize("affinity", ["rbf", "knn", "linear"])
def test_lame_ends_where_its_objective_has_no_slope(affinity):
    """The gradient of Σ KL(Z ‖ p) - ½ Σ W Z·Z is the same for all classes of an image there."""
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(12, 4, generator=generator).double(), dim=1)
    logits = torch.randn(12, 3, generator=generator).double()
    weights = affinities(features, affinity, 3)
    once, often = (assignments(logits, weights, count) for count in (1, 1000))
    assert float((once - often).abs().max()) > 0.01
    slope = often - logits.log_softmax(1) - weights @ often.exp()
    assert float(((slope - slope.mean(1, keepdim=True)) * often.exp()).abs().max()) < 1e-3


@pytest.mark.parametrize("neighbours", [1, 5, 100])
@pytest.mark.parametrize("affinity", ["rbf", "knn", "linear"])
def test_lame_of_equal_and_of_single_images(affinity, neighbours):
    method = started("lame", affinity=affinity, neighbours=neighbours)
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    for size in (1, 2, 4):
        domain = torch.full((size,), TARGET)
        found = method.adapt({"image": image.expand(size, -1, -1, -1), "domain": domain})
        assert bool(found.isfinite().all())
        assert_close(found.exp().sum(1), torch.ones(size).double())
        if size == 1:
            plain = method.outputs({"image": image, "domain": domain})
            assert_close(found, plain.log_softmax(1).detach())


@pytest.mark.parametrize("memory", ["batch", "stream"])
@pytest.mark.parametrize("norm", ["dsbn", "bn", "cin", "ibn_a"])
def test_moments_are_between_those_of_the_source_and_of_the_stream(norm, memory):
    model = make_model({"early": norm, "late": "dsbn"} if norm == "ibn_a" else norm).double()
    task = Classification([str(number) for number in range(10)])
    method = METHODS.load("alpha_bn")(model, task, ONE, prior=5.0, memory=memory)
    method.begin_stream(("colour_cast",))
    layer = next(iter(method.moments.layers))
    row = TARGET if len(layer.running_mean) > 1 else 0
    source = float(layer.running_mean[row, 0]), float(layer.running_var[row, 0])
    seen = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0].flatten(1)))
    for number, batch in enumerate(stream(4), 1):
        method.adapt(batch)
        images = torch.cat(seen if memory == "stream" else seen[-1:]).tolist()
        assert len(images) == (4 * number if memory == "stream" else 4)
        wanted = online.mixed_moments(source, images, 5.0)
        found = float(layer.running_mean[row, 0]), float(layer.running_var[row, 0])
        assert found == pytest.approx(wanted, rel=1e-9)


def test_moments_normalize_the_very_batch():
    model = source_model().double()
    task = Classification([str(number) for number in range(10)])
    method = METHODS.load("alpha_bn")(copy.deepcopy(model), task, ONE, prior=0.0)
    method.begin_stream(("colour_cast",))
    for norm in model.eval().norms():
        norm.statistics.train()
    for batch in stream(4, 3):
        assert_close(method.adapt(batch), model(batch["image"], batch["domain"]).detach())


def test_no_prior_images_and_no_share_are_the_source():
    model = source_model().double()
    task = Classification([str(number) for number in range(10)])
    method = METHODS.load("alpha_bn")(copy.deepcopy(model), task, ONE, share=0.0)
    method.begin_stream(("colour_cast",))
    for batch in stream(4, 3):
        found = method.adapt(batch)
        assert_close(found, model.eval()(batch["image"], batch["domain"]).detach())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 16])
def test_nothing_is_trained_and_the_source_stays(name, size):
    done = fit(name, source_model(), ONE, batch_size=size)
    assert done.method.trained_parameters == 0
    moved = {k for k, v in done.model.state_dict().items() if not torch.equal(v, done.before[k])}
    assert all("running" in key for key in moved)
    for key in moved:
        assert torch.equal(done.model.state_dict()[key][0], done.before[key][0])
    assert all(
        bool(one.probabilities.isfinite().all()) for one in done.method.predictions().values()
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_starts_anew(name):
    method = started(name)
    first = [method.adapt(batch) for batch in stream(4, 3)]
    method.restart()
    again = [method.adapt(batch) for batch in stream(4, 3)]
    assert_close(first, again, rtol=0, atol=0)


def test_a_network_without_moments_is_told_what_needs_none():
    with pytest.raises(ConversionError, match=r"no running moments.*neo"):
        started("alpha_bn", "test_vit")


def test_the_first_image_of_neo_is_the_bias_alone():
    method = started("neo")
    batch = next(stream(1))
    assert_close(method.adapt(batch)[0], head_of(method.model).bias)
    assert math.isfinite(float(method.adapt(batch).sum()))
