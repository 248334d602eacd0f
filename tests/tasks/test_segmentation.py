import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from domainnorm.errors import DataError, DomainNormError
from domainnorm.losses import dice_loss, focal_loss
from domainnorm.tasks import Segmentation
from tests.reference.losses import cross_entropy

TARGET = torch.tensor([[[0, 1, 2, -1], [2, 2, 0, 0]]])


def logits(**options):
    return torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(0), **options)


def make(**options):
    return Segmentation(["road", "car", "sky"], **options)


def small(decoder="unet", norm="dsbn", **options):
    task = make(decoder=decoder, width=32, **options)
    return task, task.create_model("test_resnet", norm, ["day", "dusk"]).eval()


def test_loss_is_the_weighted_sum_of_its_parts():
    task = make(ce_weight=0.5, dice_weight=2.0, focal_weight=3.0)
    expected = (
        0.5 * F.cross_entropy(logits(), TARGET, ignore_index=-1)
        + 2 * dice_loss(logits(), TARGET)
        + 3 * focal_loss(logits(), TARGET)
    )
    assert_close(task.loss(logits(), TARGET), expected)


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 0.0]])
def test_smoothed_cross_entropy_is_that_of_torch(weight):
    task = make(label_smoothing=0.1)
    task.class_weight = None if weight is None else torch.tensor(weight)
    expected = F.cross_entropy(
        logits(), TARGET, task.class_weight, ignore_index=-1, label_smoothing=0.1
    )
    assert_close(task.loss(logits(), TARGET), expected)
    rows = logits().movedim(1, -1).reshape(-1, 3).tolist()
    slowly = cross_entropy(rows, TARGET.flatten().tolist(), weight, smoothing=0.1)
    assert float(expected) == pytest.approx(slowly, rel=1e-5)


@pytest.mark.parametrize("weights", [{}, {"ce_weight": 0.0, "dice_weight": 1.0}])
def test_void_pixels_have_no_gradient(weights):
    given = logits(requires_grad=True)
    make(**weights).loss(given, TARGET).backward()
    assert given.grad[0, :, 0, 3].abs().sum() == 0
    assert given.grad[0, :, 0, 2].abs().sum() > 0


def test_batch_without_labels_has_zero_loss_and_zero_gradient():
    given = logits(requires_grad=True)
    loss = make(dice_weight=1.0, focal_weight=1.0).loss(given, torch.full_like(TARGET, -1))
    loss.backward()
    assert loss.item() == 0
    assert_close(given.grad, torch.zeros_like(given))


def test_narrow_logits_are_scored_in_float32():
    assert make().loss(logits().bfloat16(), TARGET).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ce_weight": 0.0}, "task: ce_weight 0.0, dice_weight 0.0, focal_weight 0.0; expected"),
        ({"dice_weight": -1.0}, "expected none below 0"),
        ({"focal_gamma": -0.5}, "task.focal_gamma: -0.5, expected 0 or more"),
        ({"flips": True}, "task.flips: unknown value 'True': known: none, horizontal, vertical"),
        ({"label_smoothing": 1.0}, r"task.label_smoothing: 1.0, expected a share in \[0, 1\)"),
        ({"overlap": 1.0}, r"task.overlap: 1.0, expected a share in \[0, 1\)"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(DomainNormError, match=message):
        make(**options)


def test_whole_image_is_predicted_at_once_when_it_fits_the_window():
    task, model = small()
    task.set_window((32, 32))
    image, domain = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with torch.no_grad():
        assert_close(task.predict(model, image, domain), model(image, domain))


def test_larger_image_is_predicted_window_by_window():
    task, model = small(overlap=0.0)
    task.set_window((32, 16))
    image, domain = torch.randn(2, 3, 64, 32), torch.tensor([0, 1])
    with torch.no_grad():
        expected = torch.cat(
            [
                torch.cat([model(image[:, :, a : a + 32, b : b + 16], domain) for b in (0, 16)], 3)
                for a in (0, 32)
            ],
            2,
        )
    assert_close(task.predict(model, image, domain), expected)


@pytest.mark.parametrize(
    ("flips", "views"),
    [
        ("horizontal", [(), (3,)]),
        ("vertical", [(), (2,)]),
        ("both", [(), (3,), (2,), (2, 3)]),
    ],
)
def test_flips_average_the_probabilities_of_all_views(flips, views):
    task, model = small(flips=flips)
    image, domain = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    with torch.no_grad():
        found = [model(image.flip(axes), domain).softmax(1).flip(axes) for axes in views]
    expected = sum(found) / len(views)
    assert_close(task.predict(model, image, domain).softmax(1), expected)


def test_windows_see_the_norms_of_their_domain():
    task, model = small()
    task.set_window((32, 32))
    for norm in model.norms():
        norm.statistics.running_mean[1] += 1
    image = torch.randn(1, 3, 64, 64)
    day, dusk = (task.predict(model, image, torch.tensor([label])) for label in (0, 1))
    assert not torch.allclose(day, dusk)


def test_size_that_the_decoder_cannot_take_is_refused():
    task, model = small("fpn")
    task.check_input(model, (64, 96))
    with pytest.raises(DataError, match=r"60 × 96 pixels.*multiples of 32, such as \[64, 96\]"):
        task.check_input(model, (60, 96))


def test_a_unet_takes_any_size():
    task, model = small("unet")
    task.check_input(model, (45, 61))
    assert model(torch.randn(1, 3, 45, 61), "day").shape == (1, 3, 45, 61)


def test_store_gives_back_what_it_was_given():
    task = make()
    store = task.store()
    store.update(F.one_hot(TARGET.clamp(min=0), 3).movedim(-1, 1) * 9.0, TARGET, torch.arange(1))
    values = store.compute().metrics(**task.metric_options())
    assert values[task.metric] == 1
    assert values["iou/car"] == 1


def test_masks_that_do_not_fit_are_named():
    with pytest.raises(DomainNormError, match=r"loss: target has label 255, expected 0 to 2 for 3"):
        make().loss(torch.randn(1, 3, 2, 2), torch.full((1, 2, 2), 255))
