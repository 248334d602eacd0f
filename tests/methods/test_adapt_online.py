import copy
import io

import pytest
import torch
from torch.testing import assert_close

from domainnorm import adapt_online, create_model, create_segmentation_model
from domainnorm.errors import ConditionError, DataError, DomainNormError
from domainnorm.methods.without_gradients import WithoutGradients
from domainnorm.registry import METHODS
from domainnorm.tasks.segmentation import Segmentation
from tests.methods.bench import ONE, SMALL, fit, images, source_model

GIVEN = {**SMALL, "eata": {"fisher_weight": 0.0}}
DRAWING = {"cotta", "deyo", "roid"}
NAMES = [name for name in METHODS.names() if METHODS.load(name).protocol == "online"]
every_stream = pytest.mark.parametrize("name", NAMES)


@every_stream
def test_a_program_gets_what_a_run_gets(name):
    torch.manual_seed(0)
    done = fit(name, source_model(), ONE, batch_size=4, **GIVEN.get(name, {}))
    stored = done.method.predictions()["colour_cast"]
    torch.manual_seed(0)
    batches = list(done.data.test_dataloader()[0])
    stream = adapt_online(source_model(), name, domain="colour_cast", **GIVEN.get(name, {}))
    torch.manual_seed(0)
    found = torch.cat([stream(batch["image"]) for batch in batches]).softmax(1)
    order = torch.cat([batch["index"] for batch in batches]).argsort()
    if name not in DRAWING:  # a run draws before, too
        assert_close(found[order], stored.probabilities, rtol=1e-4, atol=1e-5)
    assert found.shape == stored.probabilities.shape


@every_stream
def test_a_reset_stream_starts_anew(name):
    stream = adapt_online(source_model(), name, domain="colour_cast", **GIVEN.get(name, {}))
    batches = images("colour_cast")[:12].split(4)
    torch.manual_seed(0)
    first = [stream(batch) for batch in batches]
    stream.reset()
    torch.manual_seed(0)
    assert_close([stream(batch) for batch in batches], first, rtol=0, atol=0)


@every_stream
def test_rows_of_other_domains_stay(name):
    model = source_model()
    before = copy.deepcopy(model.state_dict())
    stream = adapt_online(model, name, domain="colour_cast", **GIVEN.get(name, {}))
    for batch in images("colour_cast")[:8].split(4):
        assert not stream(batch).requires_grad
    for key, value in model.state_dict().items():
        if "modulation" in key or "running" in key:
            assert torch.equal(value[0], before[key][0]), key


@every_stream
def test_a_state_is_a_copy_of_tensors_and_numbers(name):
    batches = torch.rand(24, 3, 32, 32).split(4)
    stream = adapt_online(source_model(), name, domain="colour_cast", **GIVEN.get(name, {}))
    for batch in batches[:3]:
        stream(batch)
    file = io.BytesIO()
    torch.save(stream.state_dict(), file)
    state = stream.state_dict()
    wanted = [stream(batch) for batch in batches[3:]]
    stream.load_state_dict(state)
    assert_close([stream(batch) for batch in batches[3:]], wanted, rtol=0, atol=0)
    other = adapt_online(source_model(), name, domain="colour_cast", **GIVEN.get(name, {}))
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_close([other(batch) for batch in batches[3:]], wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reset": "colapse"}, "neo: reset: unknown value 'colapse': did you mean 'collapse'"),
        ({"reset": 0}, "neo: reset: got 0, expected 1 or more"),
        ({"memory": 2.5}, "neo: memory: got 2.5, expected a whole number"),
        ({"run_length": "1e4"}, "neo: run_length: got '1e4', expected a number"),
        ({"memry": 2}, "unknown option 'memry': did you mean 'memory'"),
    ],
)
def test_options_are_those_of_recipes(options, problem):
    with pytest.raises(DomainNormError, match=problem):
        adapt_online(source_model(), "neo", domain="clean", **options)


def test_images_that_would_spoil_what_a_stream_remembers_are_refused():
    stream = adapt_online(source_model(), "online", domain="colour_cast")
    batch = images("colour_cast")[:8]
    stream(batch[:4])
    before = copy.deepcopy(stream.state_dict())
    broken = batch[4:].clone()
    broken[1, 0, 0, 0], broken[3, 2, 5, 5] = float("nan"), float("inf")
    for wrong, told in (
        (broken, r"images: 1, 3 of the batch \(from 0\) have values that are not finite"),
        (batch[0], r"images: got float32 \(3, \d+, \d+\), expected .* \(N, C, H, W\)"),
        ((255 * batch).byte(), r"images: got uint8 \(8, 3, \d+, \d+\)"),
    ):
        with pytest.raises(DataError, match=told):
            stream(wrong)
    assert str(stream.state_dict()) == str(before)
    assert bool(stream(batch[4:]).isfinite().all())


def test_a_network_is_to_be_converted_before():
    with pytest.raises(DomainNormError, match=r"got a Linear, .*convert_norms\(network"):
        adapt_online(torch.nn.Linear(3, 3), "online")


def test_one_domain_needs_no_name():
    model = create_model("test_resnet", 3, "dsbn", ["here"])
    assert adapt_online(model, "neo")(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_a_domain_of_several_is_named():
    model = source_model()
    with pytest.raises(ConditionError, match="name the domain of the images: clean, colour_cast"):
        adapt_online(model, "neo")
    with pytest.raises(ConditionError, match="did you mean 'colour_cast'"):
        adapt_online(model, "neo", domain="color_cast")


def test_methods_that_train_before_are_refused():
    with pytest.raises(DomainNormError, match="known: alpha_bn, cotta, deyo, eata"):
        adapt_online(source_model(), "dann", domain="clean")
    with pytest.raises(DomainNormError, match="did you mean 'neo'"):
        adapt_online(source_model(), "Neo", domain="clean")
    with pytest.raises(DomainNormError, match="needs source images"):
        adapt_online(source_model(), "eata", domain="clean")


@pytest.mark.parametrize("name", ["eata", "alpha_bn", "online"])
def test_masks(name):
    model = create_segmentation_model("test_resnet", 3, "dsbn", ["a", "b"], width=16)
    task = Segmentation(["x", "y", "z"])
    stream = adapt_online(model, name, domain="b", task=task, **GIVEN.get(name, {}))
    assert stream(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("name", [n for n in NAMES if METHODS.load(n).tasks == ("classification",)])
def test_masks_are_refused_by_what_is_for_classes(name):
    model = create_segmentation_model("test_resnet", 3, "dsbn", ["a", "b"], width=16)
    with pytest.raises(DomainNormError, match="is for one class per image"):
        adapt_online(model, name, domain="b", task=Segmentation(["x", "y", "z"]))


def test_nothing_of_a_stream_without_gradients_asks_for_any():
    for name in NAMES:
        if issubclass(METHODS.load(name), WithoutGradients):
            stream = adapt_online(source_model(), name, domain="clean")
            assert not any(p.requires_grad for p in stream.method.parameters())


def test_online_gives_masks_the_moments_of_layers_that_are_unlike():
    model = create_segmentation_model("test_resnet", 3, "dsbn", ["a", "b"], width=16).double()
    task, moments = Segmentation(["x", "y", "z"]), {"share": "layers", "memory": "stream"}
    streams = [
        adapt_online(copy.deepcopy(model), name, domain="b", task=task, prior=5.0, **options)
        for name, options in (("online", {}), ("alpha_bn", moments))
    ]
    torch.manual_seed(0)
    for batch in torch.rand(8, 3, 32, 32, dtype=torch.float64).split(2):
        one, other = (stream(batch) for stream in streams)
        assert_close(one, other, rtol=0, atol=0)
    before = model(batch, "b") if model.eval() else None
    assert not torch.equal(one, before)
