import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm import adapt_online, create_model
from domainnorm.data import Stream
from domainnorm.methods import Roles
from domainnorm.methods.online_method import Collapse, LivingTensors, OnlineMethod
from domainnorm.registry import METHODS
from domainnorm.tasks.classification import Classification
from tests.methods.bench import ONE, SMALL, fit, images, make_data, make_model, scans, source_model

TASK = Classification([str(digit) for digit in range(10)])
TARGETS = Roles(("clean",), ("textured", "colour_cast"))  # not in the order of the dataset
GIVEN = {**SMALL, "eata": {"fisher_images": 16}}
NAMES = [name for name in METHODS.names() if METHODS.load(name).protocol == "online"]
JOINT = ["continual", "returning", "gradual", "mixed"]
every_stream = pytest.mark.parametrize("name", NAMES)


class Watching(OnlineMethod):
    """Keeps what a stream shows; moves one parameter by one with each batch."""

    def __init__(self, model, task, roles, **options):
        super().__init__(model, task, roles, **options)
        self.seen, self.started, self.told, self.domains = [], [], [], []
        self.at = []

    @property
    def moving(self):
        return next(iter(self.model.parameters()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=1.0)

    def start_stream(self, domains):
        self.started.append(domains)

    def adapt(self, batch):
        self.seen.append(sorted(batch))
        self.at.append(float(self.moving.detach().flatten()[0]))
        self.domains += [self.model.domain_names[label] for label in batch["domain"].tolist()]
        logits = self.outputs(batch)
        self.told.append(logits.detach().clone())
        self.descend(-self.moving.sum())
        return logits


def steps(method):
    """How many steps had been made from the source model before each batch."""
    return [round(value - method.at[0]) for value in method.at]


def test_stream_is_shown_without_labels():
    seen = fit(Watching, make_model(), ONE, batch_size=4).method.seen
    assert seen
    assert all(names == ["domain", "image", "index"] for names in seen)


def test_predictions_of_a_stream_are_those_made_before_each_step():
    done = fit(Watching, make_model(), ONE, batch_size=4)
    told = torch.cat(done.method.told).softmax(1)
    found = done.method.predictions()["colour_cast"]
    order = torch.cat([b["index"] for b in done.data.test_dataloader()[0]]).argsort()
    assert_close(found.probabilities, told[order].to(found.probabilities.dtype))


def test_each_target_is_a_stream_of_its_own_from_the_source_model():
    done = fit(Watching, make_model(roles=TARGETS), TARGETS, batch_size=4)
    assert done.method.started == [("textured",), ("colour_cast",)]
    assert set(done.method.predictions()) == {"clean", "colour_cast", "textured"}
    first, second = (len(loader) for loader in done.data.test_dataloader()[:2])
    assert steps(done.method) == [*range(first), *range(second)]


def test_rows_of_an_earlier_stream_stay():
    lone = Roles(("clean", "colour_cast"), ("textured",))
    both = fit("tent_online", source_model(roles=TARGETS), TARGETS, batch_size=4, lr=0.1)
    state = source_model(roles=TARGETS).state_dict()
    model = make_model(roles=lone)
    order = [TARGETS.all.index(name) for name in lone.all]
    rows = {owned.key for owned in model.domain_rows()}
    model.load_state_dict({k: v[order] if k in rows else v for k, v in state.items()})
    alone = fit("tent_online", model, lone, batch_size=4, lr=0.1)
    now, wanted = both.model.state_dict(), alone.model.state_dict()
    moved = 0
    for key in rows:
        assert_close(now[key][TARGETS.all.index("textured")], wanted[key][2])
        moved += not torch.equal(now[key][1], state[key][1])
    assert moved > 3


@pytest.mark.parametrize(
    ("name", "options"),
    [("tent_online", {}), ("rotta", {"memory": 4, "decay": 0.5}), ("cotta", {"augmentations": 2})],
)
@pytest.mark.parametrize("reset", ["never", 2])
@pytest.mark.parametrize("rows", ["domain", "role"])
def test_rows_of_all_streams_stay_and_each_starts_from_the_source(rows, reset, name, options):
    roles = Roles(("clean",), ("textured", "colour_cast", "clean_twin"), rows)
    model = create_model("test_resnet", 10, "dsbn", roles.all)
    method = METHODS.load(name)(model, TASK, roles, lr=0.1, reset=reset, **options)
    rows_of = {owned.key: owned.tensor for owned in method.deployed.domain_rows()}  # of a teacher
    key = next(key for key in rows_of if key.endswith("scale"))
    source, left = rows_of[key].detach().clone(), []
    for target in roles.target:
        method.begin_stream((target,))
        own = 1 if rows == "role" else roles.all.index(target)
        assert torch.equal(rows_of[key][own], source[own])
        for batch in torch.rand(3, 4, 3, 32, 32):
            label = torch.full((4,), roles.all.index(target))
            method.follow_stream({"image": batch, "domain": label})
        left.append(rows_of[key][own].detach().clone())
        assert not torch.equal(left[-1], source[own])
    if rows == "domain":
        assert_close(rows_of[key].detach()[1:], torch.stack(left), rtol=0, atol=0)
    else:
        assert torch.equal(rows_of[key][1], left[-1])


def test_classes_follow_each_other_in_a_stream_by_class():
    data = make_data(Watching, make_model(), ONE, 4, stream=Stream("by_class", 4))
    targets = torch.cat([batch["target"] for batch in data.test_dataloader()[0]]).tolist()
    assert targets == sorted(targets)
    assert len(set(targets)) > 1


def arriving(order, run=None):
    """Names of the domains of the images of a stream of two targets, and their indices."""
    stream = {"stream": Stream(order, 3, run)}
    done = fit(Watching, make_model(roles=TARGETS), TARGETS, loading=stream)
    assert done.method.started == [TARGETS.target]
    assert set(done.method.predictions()) == set(TARGETS.all)
    index = torch.cat([batch["index"] for batch in done.data.test_dataloader()[0]]).tolist()
    assert sorted(index) == sorted(
        one for name in TARGETS.target for one in scans().positions([name], "test")
    )
    assert len(done.data.test_dataloader()) == 2
    for name in TARGETS.target:
        own = [one for one in index if scans().records[one].domain == name]
        assert done.data.arrivals(name) == own != sorted(own)
        assert sorted(done.method.predictions()[name].index.tolist()) == sorted(own)
    return done.method.domains


def test_a_continual_stream_has_one_target_after_the_other():
    found = arriving("continual")
    assert found == sorted(found, key=TARGETS.target.index)


def test_a_returning_stream_has_them_in_turn():
    found = arriving("returning")
    turns = [name for n, name in enumerate(found) if n == 0 or name != found[n - 1]]
    assert turns == ["textured", "colour_cast"] * 3
    found = arriving("returning", run=2)
    assert found[:6] == ["textured"] * 2 + ["colour_cast"] * 2 + ["textured"] * 2


def test_a_gradual_stream_goes_from_one_to_the_other():
    found = arriving("gradual")
    first = [name == "textured" for name in found]
    third = len(first) // 3
    assert first[0] > first[-1]
    shares = [sum(part) / third for part in (first[:third], first[third:-third], first[-third:])]
    assert shares[0] > shares[1] > shares[2]
    assert 0.2 < shares[1] < 0.8


def test_a_mixed_stream_has_both_from_the_start():
    found = arriving("mixed")
    assert len(set(found[: len(found) // 3])) == len(set(found[-len(found) // 3 :])) == 2


@every_stream
@pytest.mark.parametrize("order", ["mixed", "returning"])
def test_every_method_follows_a_stream_of_several_targets(name, order):
    stream = {"stream": Stream(order, 4)}
    model = source_model(roles=TARGETS)
    before = copy.deepcopy(model.state_dict())
    done = fit(name, model, TARGETS, loading=stream, **GIVEN.get(name, {}))
    found = done.method.predictions()
    assert set(found) == set(TARGETS.all)
    for one in found.values():
        assert bool(one.probabilities.isfinite().all())
    for key, value in done.model.state_dict().items():
        if "modulation" in key or "running" in key:
            assert torch.equal(value[0], before[key][0]), key  # rows of the source


def test_images_of_several_targets_count_in_rows_of_their_own():
    stream = {"stream": Stream("mixed", 4)}
    model = source_model(roles=TARGETS).double()
    done = fit("alpha_bn", model, TARGETS, loading=stream, memory="stream", precision="64-true")
    layer = done.method.moments.layers[0]
    seen = {name: [] for name in TARGETS.target}
    first = {name: (layer.running_mean[row], row) for row, name in enumerate(TARGETS.all)}
    inputs = []
    layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    for batch in done.data.test_dataloader()[0]:
        done.model.eval()(batch["image"].double(), batch["domain"])
        for label, one in zip(batch["domain"].tolist(), inputs.pop(), strict=True):
            seen[TARGETS.all[label]].append(one)
    start = source_model(roles=TARGETS).state_dict()
    key = next(key for key in start if key.endswith("running_mean"))
    for name, found in seen.items():
        mean, row = first[name]
        share = len(found) / (len(found) + 16)
        own = torch.stack(found).mean((0, 2, 3))
        assert_close(mean, torch.lerp(start[key][row].double(), own, share))


@pytest.mark.parametrize("name", ["neo", "t3a", "alpha_bn"])
def test_images_of_each_target_are_predicted_as_in_a_stream_of_their_own(name):
    options = {"memory": "stream"} if name == "alpha_bn" else {}
    method = METHODS.load(name)(source_model(roles=TARGETS), TASK, TARGETS, **options)
    method.begin_stream(TARGETS.target)
    alone = [
        adapt_online(source_model(roles=TARGETS), name, domain=one, **options)
        for one in TARGETS.target
    ]
    torch.manual_seed(0)
    for batch in torch.rand(4, 6, 3, 32, 32):
        domain = torch.tensor([1, 2, 2, 1, 2, 1])
        found = method.follow_stream({"image": batch, "domain": domain})
        for label, one in zip((1, 2), alone, strict=True):
            wanted = one(batch[domain == label])
            assert_close(found[domain == label], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("every", [1, 3])
def test_a_model_goes_back_after_some_batches(every):
    method = fit(Watching, make_model(), ONE, batch_size=4, reset=every).method
    assert steps(method) == [number % every for number in range(len(method.at))]


def test_a_model_goes_back_where_the_domain_changes():
    stream = {"stream": Stream("returning", 2, run=4)}
    method = fit(
        Watching, make_model(roles=TARGETS), TARGETS, loading=stream, reset="domain"
    ).method
    starts = [n for n, count in enumerate(steps(method)) if count == 0]
    firsts = method.domains[::2]
    changes = [n for n, name in enumerate(firsts) if n == 0 or name != firsts[n - 1]]
    assert starts == changes
    assert len(starts) > 3


@every_stream
def test_a_model_that_always_goes_back_predicts_each_batch_as_the_first(name):
    options = {"fisher_weight": 0.0} if name == "eata" else GIVEN.get(name, {})
    batch = images("colour_cast")[:8]
    stream = adapt_online(source_model(), name, domain="colour_cast", reset=1, **options)
    other = images("colour_cast")[8:16]
    torch.manual_seed(0)
    first = stream(batch)
    stream(other)
    torch.manual_seed(0)
    assert_close(stream(batch), first, rtol=0, atol=0)


def sure(labels, classes=10):
    return 20.0 * torch.nn.functional.one_hot(torch.tensor(labels), classes).float()


def test_predictions_of_one_class_are_a_collapse():
    watch = Collapse()
    assert not any(watch.update(sure([n % 10 for n in range(16)])) for _ in range(20))
    told = [watch.update(sure([3] * 16)) for _ in range(40)]
    at = told.index(True)
    # The mean remembers 256 images: by then about 1 − 0.94^at of them are of one class.
    assert 8 <= at <= 24
    assert not any(told[:at])


def test_few_images_are_no_collapse():
    watch = Collapse()
    assert not any(watch.update(sure([n])) for n in (1, 1, 2, 2, 2, 2))
    assert not any(watch.update(sure([2])) for _ in range(56))


def test_one_class_from_the_start_is_no_collapse():
    watch = Collapse()
    assert not any(watch.update(sure([4] * 64)) for _ in range(20))


def test_a_collapsed_model_goes_back():
    class Collapsing(Watching):
        def adapt(self, batch):
            super().adapt(batch)
            collapsed = len(self.at) > 20
            labels = torch.arange(len(batch["image"])) if not collapsed else [0] * 8
            return sure(list(labels))

    method = Collapsing(make_model(), TASK, ONE, reset="collapse")
    method.begin_stream(("colour_cast",))
    for _ in range(80):
        method.follow_stream({"image": torch.rand(8, 3, 32, 32), "domain": torch.ones(8).long()})
    found = steps(method)
    back = [n for n in range(1, len(found)) if found[n] == 0]
    assert min(back) > 25
    assert found[: back[0]] == list(range(back[0]))


def test_what_is_no_number_is_a_collapse():
    watch = Collapse()
    assert not watch.update(sure([n % 10 for n in range(128)]))
    assert watch.update(torch.full((4, 10), torch.nan))
    assert not watch.update(sure([n % 10 for n in range(64)]))
    stream = adapt_online(
        source_model(), "tent_online", domain="colour_cast", reset="collapse", lr=0.1
    )
    stream(torch.rand(16, 3, 32, 32))
    stream(torch.full((2, 3, 32, 32), 3e38))
    assert bool(stream(torch.rand(16, 3, 32, 32)).isfinite().all())


def test_living_tensors_are_those_that_an_operation_has_made():
    x, weight = torch.ones(1000), torch.ones(1000, requires_grad=True)
    with LivingTensors() as living:
        y = x + 1  # 4,000 bytes
        assert living.peak == 4000
        y.mul_(2)
        view = y[:10].view(2, 5)
        assert living.peak == 4000
        del y
        z = x + 1  # the view keeps the first
        assert living.peak == 8000
        del view, z
        (weight * x).sum().backward()
    assert living.peak == 8000
    assert weight.grad.numel() == 1000
