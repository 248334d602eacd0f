"""Pairs of a worse image and the clean one: found, sized, augmented alike, refused by name."""

import cv2
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torch.testing import assert_close

from domainnorm.data import DomainDataModule, Loading, Preprocessing, survey_dataset
from domainnorm.data.cached import CachedDataset
from domainnorm.data.datasets import Join, Pairs
from domainnorm.data.sampler import Draw
from domainnorm.errors import DataError
from domainnorm.recipe import load_recipe
from domainnorm.registry import DATASETS

STEPS = [
    {"name": "HorizontalFlip", "p": 0.5},
    {"name": "RandomRotate90", "p": 0.5},
    {"name": "ColorJitter", "p": 1.0},
]
SIZE = (12, 16)
WHOLE = Preprocessing(32, 32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), fit="stretch")


@pytest.fixture
def root(tmp_path):
    """Two domains of ten pairs; targets are inputs that are brighter by 20."""
    for domain in ("a", "b"):
        for number in range(10):
            pixels = drawn(number)
            write(tmp_path / domain / f"input/{number}.png", pixels)
            write(tmp_path / domain / f"target/{number}.png", pixels + 20)
    return tmp_path


def drawn(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 200, (*size, 3)).astype(np.uint8)


def write(file, pixels):
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), pixels)


def module(dataset, preprocessing=WHOLE, unlabelled=(), **loading):
    return DomainDataModule(
        dataset,
        domain_names=["a", "b"],
        labelled=[name for name in ("a", "b") if name not in unlabelled],
        unlabelled=list(unlabelled),
        preprocessing=preprocessing,
        augment={"default": STEPS},
        loading=Loading(batch_size=4, **loading),
    )


def shares(image):
    mean, std = (torch.tensor(one)[:, None, None] for one in (WHOLE.mean, WHOLE.std))
    return image * std + mean


def test_image_and_target_are_found_by_name(root):
    write(root / "a/input/deep/x.jpg", drawn(0))
    write(root / "a/target/deep/x.png", drawn(0))
    dataset = Pairs(root=str(root))
    assert dataset.domain_names == ["a", "b"]
    assert dataset.class_names == []
    found = {record.file: record.clean for record in dataset.records}
    assert len(found) == 21
    assert found["a/input/3.png"] == "a/target/3.png"
    assert found["a/input/deep/x.jpg"] == "a/target/deep/x.png"
    assert_array_equal(dataset.clean(0), dataset.image(0) + 20)
    assert {record.split for record in dataset.records} == {"train", "val", "test"}


def test_table_lists_inputs_and_keeps_groups(root):
    lines = [f"{d}/input/{n}.png,{d},p{n // 2},{'test' if n > 5 else 'train'}" for d in "ab"
             for n in range(8)]  # fmt: skip
    (root / "splits.csv").write_text("\n".join(["file,domain,group,split", *lines]) + "\n")
    dataset = Pairs(root=str(root))
    assert len(dataset.records) == 16
    assert {record.split for record in dataset.records if record.group in ("p3",)} == {"test"}
    assert "images" in next(iter(dataset.left_out)) or "image" in next(iter(dataset.left_out))
    assert all(record.clean for record in dataset.records)


def test_both_images_of_a_pair_are_augmented_by_one_draw(root):
    view = module(Pairs(root=str(root))).train_dataloader().dataset
    seen = set()
    for seed in range(12):
        sample = view[Draw(0, seed)]
        # The same steps and colours of two images that differ by a constant.
        alone = view.pipelines[0](view.dataset.image(view.positions[0]), seed)
        assert_close(sample["image"], alone)
        clean = view.pipelines[0](view.dataset.clean(view.positions[0]), seed)
        assert_close(sample["target"], shares(clean).clamp(0, 1))
        seen.add(round(float(sample["image"][0, 0, 0]), 3))
    assert len(seen) > 5


def test_crops_of_a_pair_are_of_one_place(root):
    cropped = Preprocessing(32, 32, WHOLE.mean, WHOLE.std, fit="stretch", crop=(16, 16))
    data = DomainDataModule(
        Pairs(root=str(root)),
        domain_names=["a", "b"],
        labelled=["a", "b"],
        unlabelled=[],
        preprocessing=cropped,
        loading=Loading(batch_size=4),
    )
    view = data.train_dataloader().dataset
    for seed in range(4):
        sample = view[Draw(1, seed)]
        assert sample["image"].shape == sample["target"].shape == (3, 16, 16)
        difference = sample["target"] - shares(sample["image"])
        assert_close(difference, torch.full_like(difference, 20 / 255), rtol=0, atol=0.006)
    whole = next(iter(data.test_dataloader()[0]))
    assert whole["image"].shape[-2:] == whole["target"].shape[-2:] == (32, 32)


def test_small_inputs_are_enlarged_as_pillow_does(root):
    for number in range(10):  # not near black and white, where Pillow clips twice
        write(root / f"a/input/{number}.png", 60 + drawn(number) // 3)
        write(root / f"a/target/{number}.png", drawn(number, (24, 32)))
    dataset = Pairs(root=str(root), scale=2, domains=["a"])
    small = Image.open(root / dataset.records[0].file)
    expected = np.asarray(small.resize((32, 24), Image.Resampling.BICUBIC)).astype(int)
    assert dataset.image(0).shape == dataset.clean(0).shape == (24, 32, 3)
    assert np.abs(dataset.image(0) - expected).max() <= 1


def test_targets_of_unlabelled_domains_are_hidden(root):
    data = module(Pairs(root=str(root)), unlabelled=("b",))
    for batch in data.train_dataloader():
        hidden = batch["domain"] == 1
        assert bool((batch["target"][hidden] == -1).all())
        assert bool((batch["target"][~hidden] >= 0).all())
    assert bool((next(iter(data.evaluation_dataloader("b")))["target"] >= 0).all())


def test_domain_without_targets_has_inputs_alone(root):
    for file in (root / "b/target").iterdir():
        file.unlink()
    (root / "b/target").rmdir()
    dataset = Pairs(root=str(root))
    assert {record.domain for record in dataset.records if record.is_labelled} == {"a"}
    sample = next(iter(module(dataset, unlabelled=("b",)).evaluation_dataloader("b")))
    assert bool((sample["target"] == -1).all())
    with pytest.raises(DataError, match="no label, but domain 'b' trains with labels"):
        module(dataset)


def test_cached_and_joined_pairs_are_the_same(root, tmp_path_factory):
    dataset = Pairs(root=str(root))
    cached = CachedDataset(dataset, tmp_path_factory.mktemp("cache"), WHOLE)
    joined = Join(parts=[{"name": "pairs", "root": str(root)}])
    for _ in range(2):
        for other in (cached, joined):
            assert_close(module(other).val_dataloader()[0].dataset[0]["target"],
                         module(dataset).val_dataloader()[0].dataset[0]["target"])  # fmt: skip
    for other in (cached, joined):
        with pytest.raises(DataError, match="no clean image of it is known"):
            other.without_labels(["a"]).clean(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "a/target/3.png").unlink(), r"a/input/3\.png: no target; expected"),
        (
            lambda root: write(root / "a/input/3.jpg", drawn(0)),
            r"a/target/3\.png: the target of a/input/3\.jpg and of a/input/3\.png",
        ),
    ],
)
def test_wrong_pairs_are_refused_by_name(change, message, root):
    change(root)
    with pytest.raises(DataError, match=message):
        Pairs(root=str(root))


@pytest.mark.parametrize(
    ("size", "way"),
    [((24, 32), r"set data\.scale: 2"), ((12, 17), "give both the same view")],
)
def test_targets_of_another_size_are_refused_by_name(size, way, root):
    write(root / "a/target/0.png", drawn(0, size))
    dataset = Pairs(root=str(root))
    with pytest.raises(DataError, match=way) as error:
        dataset.clean(0)
    assert "a/target/0.png" in str(error.value)
    assert "a/input/0.png has 16 × 12" in str(error.value)


@pytest.mark.parametrize("scale", [0, 65, 2.0, True])
def test_scale_is_a_whole_number(scale, root):
    with pytest.raises(DataError, match=r"data\.scale: .* expected a whole number from 1 to 64"):
        Pairs(root=str(root), scale=scale)


def test_folders_without_any_target_are_refused(root):
    for domain in "ab":
        (root / domain / "target").rename(root / domain / "clean")
    with pytest.raises(DataError, match="no image has a target"):
        Pairs(root=str(root))


def test_survey_counts_pairs_and_finds_all_wrong_ones(root):
    write(root / "a/target/more.png", drawn(0))
    write(root / "a/target/0.png", drawn(0, (5, 5)))
    (root / "b/target/1.png").write_bytes(b"no image")
    survey = survey_dataset(lambda: Pairs(root=str(root)))
    assert {problem.file for problem in survey.problems} == {"a/target/0.png", "b/target/1.png"}
    notes = " ".join(survey.notes)
    assert "domain 'a': 10 pairs of an input and its target" in notes
    assert "target without an input" in notes


@pytest.mark.parametrize("scale", [1, 3])
def test_sample_has_pairs_of_the_scale(scale, tmp_path):
    DATASETS.load("pairs").write_sample(tmp_path, scale=scale, domains=("x", "y"))
    dataset = Pairs(root=str(tmp_path), scale=scale)
    assert dataset.domain_names == ["x", "y"]
    assert dataset.clean(0).shape == dataset.image(0).shape


WORDS = ("data={name: pairs, root: x, source: [a], target: [b]}", "backbone=test_resnet")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.degrade={scale: 2}"], "data.degrade: is given, and images of dataset 'pairs'"),
        (["task=classification"], "dataset 'pairs' has labels for restoration"),
    ],
)
def test_pairs_are_for_restoration_without_a_degradation(words, message):
    own = ("task={name: restoration, norms: false}", *WORDS, "norm=null", "method=joint")
    with pytest.raises(Exception, match=message):
        load_recipe("quickstart", [*own, "compare=[]", *words])
