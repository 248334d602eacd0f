"""Compiled models: labels are inputs, not constants of the program."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from domainnorm.backbones import convert_norms
from tests.backbones.networks import DOMAINS, converted, plain

pytestmark = pytest.mark.slow

CASES = [
    ("test_resnet", "dsbn"),
    ("test_resnet", {"all": "cin"}),
    *(
        pytest.param(name, norm, marks=pytest.mark.slow)
        for name, norm in (
            ("test_efficientnet", "cbn"),
            ("resnet10t", "cin"),
            ("test_resnet", "bin"),
            ("test_resnet", "sn"),
            ("test_resnet", "domain*lowrank"),
            ("test_resnet", {"statistics": "group", "modulation": "table", "num_groups": 4}),
        )
    ),
]
LABELS = torch.tensor([0, 2, 1, 0])


@pytest.fixture(autouse=True)
def _no_compiled_code_left():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def prepared(name, norm):
    """A converted network whose domains differ, whatever their rows are called."""
    example = torch.rand(1, 3, 64, 64)
    model = convert_norms(plain(name, torch.float32), norm, DOMAINS, example=example)
    with torch.no_grad():
        for layer in model.norms():
            for rows in layer.modulation.rows():
                rows.add_(torch.randn_like(rows) * 0.1)
    return model


def images(number):
    return torch.randn(number, 3, 64, 64)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize(("name", "norm"), CASES, ids=str)
def test_new_labels_compile_nothing_and_new_batch_sizes_once(name, norm, training):
    counter = CompileCounter()
    model = prepared(name, norm).train(training)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for labels in ([0, 1, 2, 0], [2, 2, 2, 2], [1, 0, 0, 1]):
        compiled(images(4), torch.tensor(labels))
    assert counter.frame_count == 1
    for number in (6, 5, 9):
        compiled(images(number), torch.arange(number) % 3)
    assert counter.frame_count <= 2


@pytest.mark.parametrize(("name", "norm"), CASES, ids=str)
def test_compiled_outputs_are_those_of_eager_mode(name, norm):
    model = prepared(name, norm).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for number in (4, 5):
        image, labels = images(number), torch.arange(number) % 3
        found, wanted = compiled(image, labels), model(image, labels)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_compiled_gradients_are_those_of_eager_mode():
    model = converted(dtype=torch.float64)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    image, parameters = images(4).double(), list(model.parameters())
    found, wanted = (
        torch.autograd.grad(call(image, LABELS).square().sum(), parameters)
        for call in (compiled, model)
    )
    torch.testing.assert_close(found, wanted)


def test_compiled_backbone_inside_an_eager_model_reads_new_labels():
    model = converted().eval()
    image = images(4)
    wanted = [model(image, labels) for labels in (LABELS, LABELS.flip(0))]
    counter = CompileCounter()
    model.backbone.compile(backend=counter, fullgraph=True)
    found = [model(image, labels) for labels in (LABELS, LABELS.flip(0))]
    torch.testing.assert_close(found, wanted)
    assert counter.frame_count == 1


def test_threads_of_a_compiled_model_get_their_own_outputs():
    model = converted().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    image = images(2)
    with torch.no_grad():
        wanted = {name: model(image, name) for name in DOMAINS}
        rows = {name: torch.full((2,), row) for row, name in enumerate(DOMAINS)}
        compiled(image, rows["a"])
    gate = threading.Barrier(6, timeout=30)

    def serve(i):
        name, call = DOMAINS[i % 3], (compiled, model)[i % 2]
        gate.wait()
        with torch.no_grad():
            return all(
                torch.allclose(call(image, rows[name]), wanted[name], rtol=1e-4, atol=1e-5)
                for _ in range(20)
            )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(serve, range(6)))


@pytest.mark.parametrize(("name", "norm"), CASES[:2], ids=str)
def test_inductor_gives_the_outputs_of_eager_mode(name, norm):
    model = prepared(name, norm).eval()
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        for number in (4, 5):
            image, labels = images(number), torch.arange(number) % 3
            found, wanted = compiled(image, labels), model(image, labels)
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
