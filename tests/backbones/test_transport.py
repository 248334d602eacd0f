"""Copies, pickles, worker processes and exported programs each see their own condition."""

import io

import pytest
import torch
from torch.export import Dim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from domainnorm.backbones import convert_norms
from tests.backbones.networks import DOMAINS, converted, plain

IMAGES = torch.randn(6, 3, 64, 64)
LABELS = torch.tensor([2, 0, 1, 0, 2, 1])
METHODS = ["fork", pytest.param("spawn", marks=pytest.mark.slow)]  # spawn imports torch anew


class Features(Dataset):
    """A dataset that sends its images through the model, where the loader's workers are."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return len(IMAGES)

    @torch.no_grad()
    def __getitem__(self, index):
        # Random images of this process would be others in a spawned one.
        image = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64) * (index + 1)
        return self.model(image, DOMAINS[LABELS[index]])[0]


class Labelled(Dataset):
    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        image = torch.linspace(-1, 1, 3 * 64 * 64).view(3, 64, 64) * (index + 1)
        return image, LABELS[index]


@pytest.mark.parametrize("method", METHODS)
def test_model_in_the_dataset_serves_the_workers(method):
    data = Features(converted().eval())
    wanted = torch.stack([data[index] for index in range(len(data))])
    loader = DataLoader(data, 2, num_workers=2, multiprocessing_context=method)
    torch.testing.assert_close(torch.cat(list(loader)), wanted)


def test_workers_forked_inside_a_block_have_their_own_condition():
    model = converted().eval()
    data = Features(model)
    wanted = torch.stack([data[index] for index in range(len(data))])
    loader = DataLoader(data, 2, num_workers=2, multiprocessing_context="fork")
    with model.condition(IMAGES, LABELS):
        found = torch.cat(list(loader))
        assert model.slot.current.domain is not None
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("method", METHODS)
def test_training_on_batches_of_workers_is_training_on_batches(method):
    def losses(**options):
        torch.manual_seed(0)
        model = converted(dtype=torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        found = []
        for image, domain in DataLoader(Labelled(), 3, **options):
            loss = model(image.double(), domain).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found.append(loss.item())
        return found

    found = losses(num_workers=2, multiprocessing_context=method)
    assert found == losses()
    assert len(found) == 2


def test_averaged_teacher_reads_its_own_condition():
    student = converted(dtype=torch.float64)
    teacher = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    image = IMAGES.double()
    seen = []
    norm = teacher.module.backbone.bn1
    norm.register_forward_pre_hook(lambda *_: seen.append(teacher.module.slot.current.domain))
    with student.condition(image, "a"):
        target = teacher(image, LABELS)
    assert teacher.module.slot.current is None
    torch.testing.assert_close(seen, [LABELS])
    loss = (student(image, LABELS) - target.detach()).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    before = teacher.module.backbone.bn1.modulation.scale.clone()
    teacher.update_parameters(student)  # the first update copies
    torch.testing.assert_close(teacher.module.backbone.bn1.modulation.scale, before + 1.0)


def test_stored_module_and_stored_state_give_the_same_outputs():
    model = converted().eval()
    with torch.no_grad():
        wanted = model(IMAGES, LABELS)
        module, state = io.BytesIO(), io.BytesIO()
        torch.save(model, module)
        torch.save(model.state_dict(), state)
        module.seek(0), state.seek(0)
        loaded = torch.load(module, weights_only=False)
        other = converted().eval()
        other.load_state_dict(torch.load(state, weights_only=True))
        torch.testing.assert_close(loaded(IMAGES, LABELS), wanted, rtol=0, atol=0)
        torch.testing.assert_close(other(IMAGES, LABELS), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("strict", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("test_resnet", "dsbn"),
        pytest.param("test_efficientnet", "cbn", marks=pytest.mark.slow),
        ("test_resnet", {"all": "cin"}),
        pytest.param("test_resnet", "sn", marks=pytest.mark.slow),
        pytest.param("test_resnet", "domain*lowrank", marks=pytest.mark.slow),
        ("test_resnet", {"statistics": "group", "modulation": "table", "num_groups": 4}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:While compiling, we found certain side effects:UserWarning")
def test_exported_program_serves_other_batches_and_labels(name, norm, strict):
    example = torch.rand(1, 3, 64, 64)
    model = convert_norms(plain(name, torch.float32), norm, DOMAINS, example=example).eval()
    with torch.no_grad():
        for layer in model.norms():
            for rows in layer.modulation.rows():
                rows.add_(torch.randn_like(rows) * 0.1)
    sizes = {0: Dim.DYNAMIC}
    inputs = IMAGES[:4], LABELS[:4]
    program = torch.export.export(model, inputs, dynamic_shapes=(sizes, sizes), strict=strict)
    for number in (1, 2, 6):
        inputs = IMAGES[:number], LABELS[-number:]
        found = program.module()(*inputs)
        torch.testing.assert_close(found, model(*inputs), rtol=1e-4, atol=1e-5)
