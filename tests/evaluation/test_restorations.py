import pytest
import torch

from domainnorm.evaluation import (
    EvaluationError,
    Restorations,
    RestorationStore,
    image_measures,
    load_evaluated,
)
from domainnorm.evaluation.restorations import MEASURES
from tests.reference import paired


def pair(number=3, size=16):
    clean = torch.rand(number, 3, size, size)
    worse = (clean + 0.2 * torch.randn_like(clean)).clamp(0, 1)
    better = (clean + 0.1 * torch.randn_like(clean)).clamp(0, 1)
    return clean, better, worse


def collected(clean, better, worse):
    store = RestorationStore()
    store.update(torch.stack([better, worse], 1), clean, torch.arange(len(clean)))
    return store.compute()


def measure(name):
    return MEASURES.index(name)


def test_psnr_and_l1_of_each_image_are_those_of_the_loop():
    clean, better, _ = pair()
    values = image_measures(better, clean)
    for number in range(3):
        expected = paired.psnr(better[number].tolist(), clean[number].tolist())
        assert float(values[number, measure("psnr")]) == pytest.approx(expected, rel=1e-4)
        apart = float((better[number] - clean[number]).abs().mean())
        assert float(values[number, measure("l1")]) == pytest.approx(apart, rel=1e-5)


def test_equal_images_have_a_finite_best():
    clean, _, _ = pair()
    values = image_measures(clean, clean)
    assert values[:, measure("psnr")].tolist() == [100.0] * 3
    assert values[:, measure("ssim")].tolist() == pytest.approx([1.0] * 3)


def test_an_image_alone_is_measured_as_in_a_batch():
    clean, better, _ = pair()
    torch.testing.assert_close(
        image_measures(better[:1], clean[:1]), image_measures(better, clean)[:1], equal_nan=True
    )


def test_metrics_are_means_with_the_input_beside():
    clean, better, worse = pair(5)
    values = collected(clean, better, worse).metrics()
    mean = float(image_measures(better, clean)[:, measure("psnr")].mean())
    given = float(image_measures(worse, clean)[:, measure("psnr")].mean())
    assert values["psnr"] == pytest.approx(mean, rel=1e-5)
    assert values["psnr_input"] == pytest.approx(given, rel=1e-5)
    assert values["psnr_gain"] == pytest.approx(mean - given, rel=1e-4)
    assert values["ssim"] > values["ssim_input"]
    assert values["l1"] < values["l1_input"]
    assert values["n"] == 5


def test_gain_has_an_interval_of_pairs():
    found = collected(*pair(20)).intervals(resamples=100)
    low, high = found["psnr_gain"]
    assert 0 < low < high
    assert found.keys() == collected(*pair(2)).metrics().keys() - {"n"}


@pytest.mark.parametrize(("size", "there"), [(32, False), (176, True)])
def test_scales_are_measured_where_they_fit(size, there):
    values = collected(*pair(1, size)).metrics()
    assert ("ms_ssim" in values, "ms_ssim_input" in values) == (there, there)
    if there:
        assert 0 < values["ms_ssim_input"] < values["ms_ssim"] < 1


def test_images_whose_clean_one_is_hidden_do_not_count():
    clean, better, worse = pair()
    alone = collected(clean[:2], better[:2], worse[:2]).metrics()
    clean[2] = -1
    one = collected(clean, better, worse)
    assert one.has_label.tolist() == [True, True, False]
    assert one.metrics() == alone


def test_stored_measures_come_back(tmp_path):
    one = collected(*pair())
    one.save(tmp_path / "one.safetensors")
    back = load_evaluated(tmp_path / "one.safetensors")
    assert isinstance(back, Restorations)
    assert back.metrics() == one.metrics()


def test_wrong_shapes_and_values_are_refused():
    clean, better, worse = pair()
    with pytest.raises(EvaluationError, match="expected \\(N, 2, C, H, W\\)"):
        RestorationStore().update(better, clean, torch.arange(3))
    better[0, 0, 0, 0] = torch.nan
    with pytest.raises(EvaluationError, match="diverged"):
        collected(clean, better, worse)
