import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.backbones import create_model
from domainnorm.methods.cotta import CoTTA, varied
from domainnorm.tasks.classification import Classification
from tests.methods.bench import ONE, Trainer, changed, fit, rows_changed, source_model
from tests.reference import adaptation

TARGET = ONE.all.index("colour_cast")


def network(model):
    """Logits under the target's rows and statistics of the batch, and the parameters."""
    model = copy.deepcopy(model).eval()
    for norm in model.norms():
        norm.statistics.train()
    return lambda image: model(image, "colour_cast"), list(model.parameters())


@pytest.mark.parametrize(("name", "norm"), [("test_resnet", "dsbn"), ("test_convnext", None)])
def test_stream_equals_the_published_rule(name, norm):
    torch.manual_seed(0)
    model = create_model(name, 10, norm, ONE.all).double()
    options = {"lr": 1e-4, "decay": 0.9, "restore": 0.1}
    task = Classification(list("abcdefghij"))
    method = CoTTA(model, task, ONE, threshold=1.0, augmentations=2, **options)
    method.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    student, teacher, source = network(model), network(model), network(model)
    batches = [torch.rand(4, 3, 64, 64, dtype=torch.float64) for _ in range(10)]
    method.begin_stream(("colour_cast",))
    torch.manual_seed(1)
    domain = torch.full((4,), TARGET)
    found = [method.adapt({"image": image, "domain": domain}) for image in batches]
    torch.manual_seed(1)
    expected = adaptation.cotta(
        student, teacher, source, batches, views=2, varied=varied, **options
    )
    # Ten steps of Adam on a network of random weights make much of the last digits.
    close = {"rtol": 1e-6, "atol": 1e-8}
    assert_close(found, expected, **close)
    assert_close(list(method.model.parameters()), student[1], **close)
    assert_close(list(method.deployed.parameters()), teacher[1], **close)


def test_where_the_source_is_sure_the_teacher_looks_once():
    method = CoTTA(source_model(), Classification(list("abcdefghij")), ONE, threshold=0.0)
    method.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    method.begin_stream(("colour_cast",))
    calls = []
    method.deployed.register_forward_hook(lambda *_: calls.append(1))
    method.adapt({"image": torch.rand(4, 3, 32, 32), "domain": torch.full((4,), TARGET)})
    assert len(calls) == 1


def test_rows_of_the_source_stay():
    done = fit("cotta", source_model(), ONE, batch_size=4, augmentations=2)
    tables = {n for n in changed(done.before, done.model) if "modulation" in n or "statistics" in n}
    assert rows_changed(done.before, done.model, tables) == {TARGET}


def test_restored_with_certainty_is_the_source():
    done = fit("cotta", source_model(), ONE, batch_size=4, augmentations=2, restore=1.0)
    names = {name for name, _ in done.model.named_parameters()}
    assert not names & changed(done.before, done.model)


def test_views_differ_a_little():
    image = torch.rand(3, 3, 32, 32)
    first, second = varied(image), varied(image)
    assert first.shape == image.shape
    assert 0 < float((first - second).abs().mean()) < 0.3


def test_views_are_the_same_under_autocast():
    image = torch.rand(2, 3, 96, 96)
    torch.manual_seed(0)
    wanted = varied(image)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(varied(image), wanted)
