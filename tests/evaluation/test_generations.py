import math

import pytest
import torch

from domainnorm.evaluation import (
    ClassJudge,
    EvaluationError,
    Generations,
    GenerationStore,
    generation_distances,
    load_evaluated,
    nearest,
    small,
)


def generations(domain=1, **given):
    """Six images: four of six right by class, five by domain; of the real ones all but one."""
    torch.manual_seed(0)
    asked = torch.tensor([0, 0, 1, 1, 2, 2])
    judged = torch.stack(
        [
            torch.tensor([[0, 1], [1, 1], [1, 1], [1, 0], [2, 1], [0, 1]]),
            torch.tensor([[0, 1], [0, 1], [1, 1], [1, 1], [2, 1], [0, 1]]),
        ],
        1,
    )
    values = {
        "domain": torch.full((6,), domain),
        "asked": asked,
        "target": asked.clone(),
        "judged": judged,
        "nearest": torch.tensor([[0.2, 0.1]] * 6),
        "features": torch.rand(6, 2, 5),
        "index": torch.arange(6),
    }
    return Generations(**{**values, **given})


def metrics(one):
    return one.metrics(class_names=["x", "y", "z"])


def test_metrics_count_what_images_are_taken_for():
    values = metrics(generations())
    assert values["class_accuracy"] == pytest.approx(4 / 6)
    assert values["class_accuracy_real"] == pytest.approx(5 / 6)
    assert [values[f"class_accuracy/{name}"] for name in "xyz"] == [0.5, 1.0, 0.5]
    assert values["look_accuracy"] == pytest.approx(5 / 6)
    assert values["look_accuracy_real"] == 1
    assert values["nearest"] == pytest.approx(0.2)
    assert values["nearest_real"] == pytest.approx(0.1)


def test_real_images_without_a_label_do_not_count():
    values = metrics(generations(target=torch.tensor([0, 0, 1, 1, 2, -1])))
    assert values["class_accuracy_real"] == 1
    assert values["class_accuracy"] == pytest.approx(4 / 6)


def test_no_label_at_all_leaves_no_measure_of_real_images():
    values = metrics(generations(target=torch.full((6,), -1)))
    assert math.isnan(values["class_accuracy_real"])


def test_one_domain_has_no_judge_of_domains():
    judged = generations().judged.clone()
    judged[..., 1] = -1
    assert not [name for name in metrics(generations(judged=judged)) if "look" in name]


def test_intervals_hold_the_value():
    low, high = generations().intervals(resamples=50, class_names=list("xyz"))["class_accuracy"]
    assert low <= 4 / 6 <= high


def test_file_gives_the_same_back(tmp_path):
    one = generations()
    one.save(tmp_path / "one.safetensors")
    other = load_evaluated(tmp_path / "one.safetensors")
    assert isinstance(other, Generations)
    assert metrics(other) == metrics(one)


def test_wrong_shapes_are_refused():
    with pytest.raises(EvaluationError, match=r"Generations\.asked: shape"):
        generations(asked=torch.zeros(5, dtype=torch.long))


def test_store_gathers_batches_in_order():
    one, store = generations(), GenerationStore()
    said = torch.cat([one.judged, one.nearest[..., None], one.features], 2)
    told = torch.stack([one.domain, one.asked, one.target], 1)
    for part in (slice(3, 6), slice(0, 3)):
        store.update(said[part], told[part], one.index[part])
    found = store.compute()
    for name in ("domain", "asked", "target", "judged", "index"):
        assert getattr(found, name).equal(getattr(one, name))
    torch.testing.assert_close(found.features, one.features)


def test_store_refuses_other_shapes():
    with pytest.raises(EvaluationError, match=r"GenerationStore\.update"):
        GenerationStore().update(torch.rand(3, 4), torch.zeros(3, 3), torch.arange(3))


def test_distance_grows_as_images_leave_the_real_ones():
    real = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    long = {"domain": 0, "asked": 0, "target": 0, "index": 1}
    rows = {name: torch.arange(40) if of else torch.zeros(40).long() for name, of in long.items()}
    rows |= {"judged": torch.zeros(40, 2, 2).long(), "nearest": torch.zeros(40, 2)}
    near, away = (
        Generations(features=torch.stack([real + by, real], 1), **rows) for by in (0.1, 3.0)
    )
    found = generation_distances({"near": near, "away": away})
    assert found["near"]["distance"] < 0.2 < found["away"]["distance"]
    assert found["near"]["distance_halves"] == found["away"]["distance_halves"] > 0


def test_training_image_is_its_own_nearest():
    image = torch.rand(4, 3, 16, 16)
    found = nearest(image, small(image).flatten(1))
    torch.testing.assert_close(found, torch.zeros(4), atol=1e-3, rtol=0)


def test_nearest_is_the_root_of_the_mean_square():
    real = small(torch.zeros(1, 3, 32, 32)).flatten(1)
    torch.testing.assert_close(nearest(torch.full((1, 3, 32, 32), 0.5), real), torch.tensor([0.5]))


def bars(count):
    """Images of a bar, lying or standing, somewhere."""
    image, label = torch.zeros(count, 1, 32, 32), torch.arange(count) % 2
    places = torch.randint(4, 28, (count,), generator=torch.Generator().manual_seed(0))
    for number, place in enumerate(places.tolist()):
        if label[number]:
            image[number, :, place] = 1
        else:
            image[number, :, :, place] = 1
    return image, label


@pytest.mark.slow
def test_judge_tells_classes_and_leaves_the_generator_of_numbers_alone():
    image, label = bars(80)
    seen = label.clone()
    seen[40:] = -1
    torch.manual_seed(3)
    before = torch.get_rng_state()
    judge = ClassJudge(image, seen, 2)
    assert torch.get_rng_state().equal(before)
    assert (judge(image[40:]) == label[40:]).float().mean() > 0.9
