"""Threads that share one model, each with another domain."""

import copy
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from domainnorm.backbones import convert_norms
from domainnorm.condition import Condition
from domainnorm.errors import ConditionError
from domainnorm.slot import ConditionSlot
from tests.backbones.networks import DOMAINS, converted, randomize_rows

THREADS, ROUNDS = 4, 25
IMAGE = torch.rand(2, 3, 64, 64)


def together(work, number=THREADS):
    """Run ``work(i)`` in threads that start at the same moment; their results."""
    gate = threading.Barrier(number, timeout=30)

    def begin(i):
        gate.wait()
        return work(i)

    with ThreadPoolExecutor(number) as pool:
        return [future.result() for future in [pool.submit(begin, i) for i in range(number)]]


def pausing(model, path):
    """Events that tell that a thread is inside the layer at ``path``, and let it go on.

    Only the first pass stops there.
    """
    inside, go_on = threading.Event(), threading.Event()

    def pause(*_):
        if not inside.is_set():
            inside.set()
            assert go_on.wait(30)

    model.backbone.get_submodule(path).register_forward_pre_hook(pause)
    return inside, go_on


@pytest.mark.parametrize("norm", ["dsbn", "cin"])
def test_threads_with_other_domains_get_their_own_outputs(norm):
    model = converted(norm=norm).eval()
    with torch.no_grad():
        wanted = {name: model(IMAGE, name) for name in DOMAINS}

    def serve(i):
        with torch.no_grad():
            names = [DOMAINS[(i + n) % len(DOMAINS)] for n in range(ROUNDS)]
            return all(torch.equal(model(IMAGE, name), wanted[name]) for name in names)

    assert all(together(serve))


def test_forward_pass_waits_for_the_one_in_flight():
    model = converted().eval()
    with torch.no_grad():
        wanted = [model(IMAGE, name) for name in ("a", "b")]
    inside, go_on = pausing(model, "layer2.0.bn1")
    found = {}

    def serve(name):
        with torch.no_grad():
            found[name] = model(IMAGE, name)

    first = threading.Thread(target=serve, args=("a",))
    first.start()
    assert inside.wait(30)
    second = threading.Thread(target=serve, args=("b",))
    second.start()
    second.join(0.2)
    assert second.is_alive()
    go_on.set()
    for thread in (first, second):
        thread.join(30)
    torch.testing.assert_close([found["a"], found["b"]], wanted, rtol=0, atol=0)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_training_threads_get_their_own_gradients(checkpointed):
    model = converted("test_resnet", {"all": "cin"}, dtype=torch.float64)
    model.set_grad_checkpointing(checkpointed)
    image, parameters = IMAGE.double(), list(model.parameters())

    def gradients(name):
        return torch.autograd.grad(model(image, name).square().sum(), parameters)

    wanted = {name: gradients(name) for name in DOMAINS}

    def train(i):
        names = [DOMAINS[(i + n) % len(DOMAINS)] for n in range(3)]
        for name in names:
            torch.testing.assert_close(gradients(name), wanted[name])
        return True

    assert all(together(train, 3))


def test_backward_pass_does_not_change_the_condition_of_a_forward_pass_in_flight():
    model = converted().eval()
    with torch.no_grad():
        wanted = model(IMAGE, "b")
    loss = model(IMAGE, "a").sum()
    inside, go_on = pausing(model, "layer2.0.bn1")
    found = []

    def serve():
        with torch.no_grad():
            found.append(model(IMAGE, "b"))

    thread = threading.Thread(target=serve)
    thread.start()
    assert inside.wait(30)

    def serve_on(_):  # the forward pass ends while the backward pass is at the first layer
        go_on.set()
        thread.join(30)

    model.backbone.conv1[0].weight.register_hook(serve_on)
    loss.backward()
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=0)


def test_forward_pass_does_not_change_the_condition_of_a_recompute_in_flight():
    model = converted("test_resnet", {"all": "cin"}, dtype=torch.float64)
    image, parameters = IMAGE.double(), list(model.backbone.layer1.parameters())
    wanted = torch.autograd.grad(model(image, "a").sum(), parameters)
    model.set_grad_checkpointing()
    output = model(image, "a").sum()
    recomputing, recompute_on = pausing(model, "layer1.0.bn1")  # reached by the recompute first
    found = []

    def train():
        found.extend(torch.autograd.grad(output, parameters))

    threads = [threading.Thread(target=train)]
    threads[0].start()
    assert recomputing.wait(30)
    serving, serve_on = pausing(model, "layer2.0.bn1")
    threads.append(threading.Thread(target=model, args=(image, "b")))
    threads[1].start()
    assert serving.wait(30)
    recompute_on.set()
    threads[0].join(30)
    serve_on.set()
    threads[1].join(30)
    torch.testing.assert_close(tuple(found), wanted)


class CheckpointsInEachOther(nn.Module):
    def __init__(self):
        super().__init__()
        self.bn, self.nested = nn.BatchNorm2d(3), True

    def forward(self, x):
        return checkpoint(self._outer, x, use_reentrant=True) if self.nested else self.bn(x)

    def _outer(self, x):
        return checkpoint(self.bn, x, use_reentrant=True)


def test_reentrant_checkpoints_in_each_other_see_the_condition_of_their_pass():
    model = randomize_rows(convert_norms(CheckpointsInEachOther(), {"all": "cin"}, DOMAINS))
    image = IMAGE.clone().requires_grad_()
    gradients = []
    for nested in (True, False):
        model.backbone.nested, image.grad = nested, None
        loss = model(image, "a").pow(3).sum()
        model(image, "b")
        loss.backward()
        gradients.append(image.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_recompute_that_could_belong_to_several_passes_is_refused():
    slot = ConditionSlot()
    one, other = (Condition(domain=torch.tensor([d])) for d in (0, 1))
    leaf = torch.ones(1, requires_grad=True)
    seen = []

    def recompute(_):
        seen.append(slot.read("bn", 1))

    inner = leaf * 1
    armed = inner * 1
    slot.arm_backward(armed, one)
    unannounced = leaf * 1
    unannounced.register_hook(recompute)
    other_loss = unannounced.sum()
    # The first backward pass runs the other one inside it, whose output nobody has armed.
    inner.register_hook(lambda _: other_loss.backward())
    with (
        slot.holding(other),
        pytest.raises(ConditionError, match="use a copy of the model in each"),
    ):
        armed.sum().backward()
    assert seen == []


def test_copies_do_not_wait_for_each_other():
    model = converted().eval()
    copied = copy.deepcopy(model)
    inside, go_on = pausing(model, "layer2.0.bn1")
    thread = threading.Thread(target=model, args=(IMAGE, "a"))
    thread.start()
    assert inside.wait(30)
    assert copied(IMAGE, "b").shape == (2, 5)  # while the other one is in its forward pass
    go_on.set()
    thread.join(30)


def test_moments_recorded_in_one_thread_are_those_of_its_image():
    model = converted().eval()
    wanted = model.record_moments(IMAGE, "a")

    def work(i):
        if i % 2:
            with torch.no_grad():
                return [model(IMAGE * 0.5, "b") for _ in range(ROUNDS)] != []
        for _ in range(ROUNDS):
            torch.testing.assert_close(model.record_moments(IMAGE, "a"), wanted)
        return True

    assert all(together(work))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_process_forked_during_a_forward_pass_of_another_thread_can_call_the_model():
    model = converted().eval()
    inside, go_on = pausing(model, "layer2.0.bn1")
    thread = threading.Thread(target=model, args=(IMAGE, "a"))
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if child == 0:
        threading.Timer(20, os._exit, (1,)).start()  # a child that waits forever is a failure
        os._exit(0 if model(IMAGE, "b").shape == (2, 5) else 1)
    _, status = os.waitpid(child, 0)
    go_on.set()
    thread.join(30)
    assert os.waitstatus_to_exitcode(status) == 0
