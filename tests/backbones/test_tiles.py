import pytest
import torch
from torch import nn

from domainnorm.backbones import convert_norms, tiled_inference
from domainnorm.errors import ConditionError, DomainNormError

SIZES = [(37, 50), (16, 16), (9, 40)]


class Pointwise(nn.Module):
    """1×1 convolutions and norms: an output pixel sees one pixel, and the moments."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6)
        self.second, self.other = nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5)
        self.last = nn.Conv2d(5, 2, 1)

    def forward(self, image):
        hidden = torch.relu(self.norm(self.first(image)))
        return self.last(torch.relu(self.other(self.second(hidden))))


def pointwise(norm="tin", where="all"):
    model = convert_norms(Pointwise(), norm, ["a", "b"], where=where)
    for layer in model.norms():
        nn.init.uniform_(layer.modulation.scale, 0.5, 1.5)
        nn.init.normal_(layer.modulation.shift)
    return model


def gradient(*size):
    """Images whose moments differ from place to place."""
    return torch.randn(size) + torch.linspace(-3, 3, size[-1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 5, 15])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_thumbnail_moments_make_tiles_equal_the_whole_image(size, overlap, batch_size):
    model, image = pointwise(), gradient(2, 3, *size)
    options = {"tile": 16, "overlap": overlap, "batch_size": batch_size, "thumbnail_size": 64}
    found = tiled_inference(model, image, domain=["a", "b"], **options)
    model.eval()
    with torch.no_grad():
        recorded = model.record_moments(image, ["a", "b"])
        whole = model(image, ["a", "b"], thumbnail=recorded)
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)


def test_a_smaller_thumbnail_gives_all_tiles_its_own_moments():
    model, image = pointwise(), gradient(1, 3, 48, 48)
    found = tiled_inference(model, image, tile=16, overlap=4, thumbnail_size=24, domain="b")
    model.eval()
    small = nn.functional.interpolate(image, (24, 24), mode="bilinear", antialias=True)
    with torch.no_grad():
        whole = model(image, "b", thumbnail=model.record_moments(small, "b"))
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)


def test_instance_statistics_leave_seams_that_thumbnails_do_not():
    torch.manual_seed(1)
    image = gradient(1, 3, 16, 64)
    jumps = []
    for norm in ("tin", "cin"):
        model = pointwise({"all": norm})
        flat = torch.linspace(-3, 3, 64).expand_as(image).contiguous()
        output = tiled_inference(model, flat, tile=16, overlap=0, domain="a")
        step = output.diff(dim=-1).abs().amax((0, 1, 2))
        jumps.append(float(step[15::16].max() / step.median().clamp(min=1e-6)))
    assert jumps[0] < 10 < jumps[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 1, 8, 15])
def test_windows_of_all_tiles_sum_to_one(size, overlap):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, image):
            return self.norm(image) * 0 + 1

    model = convert_norms(Constant(), "bn", ["a"])
    output = tiled_inference(model, torch.randn(1, 3, *size), tile=16, overlap=overlap)
    torch.testing.assert_close(output, torch.ones(1, 3, *size), rtol=0, atol=1e-6)


def test_overlap_hides_the_padding_of_tiles():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    model = convert_norms(network, "bn", ["a"])
    image = torch.randn(1, 3, 16, 60)
    apart, blended = (
        tiled_inference(model, image, tile=16, overlap=overlap) for overlap in (0, 14)
    )
    with torch.no_grad():
        whole = model.eval()(image)
    assert (blended - whole).abs().amax() < 0.1 * (apart - whole).abs().amax()


def test_labels_are_those_of_each_image():
    model, image = pointwise("cbn"), gradient(3, 3, 20, 20)
    domain = torch.tensor([1, 0, 1])
    found = tiled_inference(model, image, tile=12, overlap=4, domain=domain)
    with torch.no_grad():
        torch.testing.assert_close(found, model.eval()(image, domain), rtol=1e-4, atol=1e-5)


def test_training_mode_and_running_moments_are_left_as_they_were():
    model = pointwise("dsbn").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tiled_inference(model, torch.randn(1, 3, 20, 20), tile=12, overlap=4, domain="a")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 8, "overlap": 8}, "tile=8, overlap=8; expected 0 <= overlap < tile"),
        ({"tile": 8, "overlap": 0, "batch_size": 0}, "batch_size=0, expected 1 or more"),
        ({"tile": 8, "overlap": 0, "thumbnail_size": 0}, "thumbnail_size=0, expected 1 or more"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(DomainNormError, match=message):
        tiled_inference(pointwise(), torch.randn(1, 3, 16, 16), domain="a", **options)


@pytest.mark.parametrize(
    "given",
    [["a"], ["a", "b", "b"], torch.tensor([0]), torch.tensor([0, 1, 1]), torch.tensor(0)],
    ids=str,
)
@pytest.mark.parametrize("norm", ["dsbn", "tin"])
def test_rows_for_another_number_of_images_are_refused(given, norm):
    with pytest.raises(ConditionError, match=r"domain: got \d rows for 2 images"):
        tiled_inference(pointwise(norm), gradient(2, 3, 20, 20), tile=8, overlap=0, domain=given)


def test_embeddings_for_another_number_of_images_are_refused():
    given = {"domain": ["a", "b"], "embedding": torch.zeros(3, 16)}
    with pytest.raises(ConditionError, match="embedding: got 3 rows for 2 images"):
        tiled_inference(pointwise(), gradient(2, 3, 20, 20), tile=8, overlap=0, domain=given)


@pytest.mark.parametrize("norm", ["dsbn", "tin"])
def test_tiles_of_a_narrow_model(norm):
    model, image = pointwise(norm).bfloat16(), gradient(1, 3, 40, 40).bfloat16()
    found = tiled_inference(model, image, tile=16, overlap=4, domain="a")
    assert found.dtype == torch.bfloat16
    assert found.isfinite().all()


def test_a_classifier_is_refused():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = convert_norms(network, "bn", ["a"])
    with pytest.raises(DomainNormError, match=r"gives .*\[1, 3\].* for tiles .*\[1, 3, 8, 8\]"):
        tiled_inference(model, torch.randn(1, 3, 8, 8), tile=8, overlap=0)


def test_missing_domain_is_refused():
    with pytest.raises(ConditionError, match="domain: missing"):
        tiled_inference(pointwise(), torch.randn(1, 3, 8, 8), tile=8, overlap=0)


def test_no_progress_bar_where_there_is_no_terminal(capfd):
    tiled_inference(pointwise(), torch.randn(1, 3, 8, 8), tile=8, overlap=0, domain="a")
    assert capfd.readouterr() == ("", "")
