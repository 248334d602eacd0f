"""Images that a generator has made are in training batches, and nowhere else."""

import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
import torch

from domainnorm.data import CachedDataset, DomainDataModule, Loading, Shots, draw_shots
from domainnorm.data.augmentation.generated import WithGenerated
from domainnorm.errors import DataError, RecipeError
from domainnorm.recipe import load_recipe
from domainnorm.report.data_tables import images_markdown
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.stage import made_of
from tests.run import tiny

DOMAINS = ["clean", "colour_cast"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Seven images of class 3 and one of class 8 in each domain, each of a colour of its own."""
    folder = tmp_path_factory.mktemp("generated")
    for place, domain in enumerate(DOMAINS):
        for label, count in (("3", 7), ("8", 1)):
            (folder / domain / label).mkdir(parents=True)
            for number in range(count):
                pixels = np.full((32, 32, 3), 100 * place + number + 10 * int(label), np.uint8)
                cv2.imwrite(str(folder / domain / label / f"{number}.png"), pixels)
    return folder


@pytest.fixture
def dataset(scans, root):
    return WithGenerated(scans, root, DOMAINS)


def module(dataset, preprocessing, weight=1.0, **changes):
    options = {
        "domain_names": DOMAINS,
        "labelled": ["clean"],
        "unlabelled": ["colour_cast"],
        "loading": Loading(batch_size=12, generated=weight, balance=changes.pop("balance", "role")),
    }
    return DomainDataModule(dataset, preprocessing=preprocessing, **{**options, **changes})


def drawn(data):
    """Domain, class, whether labelled and whether generated of each image of each batch."""
    made = set(data.dataset.generated(DOMAINS))
    return [
        [
            (DOMAINS[domain], target, known, index in made)
            for domain, target, known, index in zip(
                *(batch[key].tolist() for key in ("domain", "target", "labelled", "index")),
                strict=True,
            )
        ]
        for batch in data.train_dataloader()
    ]


def test_records_have_the_class_and_domain_of_their_folder(dataset, scans):
    made = [dataset.records[index] for index in dataset.generated(DOMAINS)]
    assert Counter((one.domain, one.target) for one in made) == {
        (domain, label): count for domain in DOMAINS for label, count in ((3, 7), (8, 1))
    }
    assert len({record.file for record in dataset.records}) == len(dataset.records)
    assert np.array_equal(dataset.image(5), scans.image(5))
    index = next(i for i in dataset.generated(["colour_cast"]) if dataset.records[i].target == 8)
    assert (dataset.image(index) == 180).all()


def test_no_split_has_them(dataset, scans):
    for split in ("train", "val", "test"):
        assert dataset.positions(DOMAINS, split) == scans.positions(DOMAINS, split)
    assert draw_shots(dataset, "clean", 2, 0) == draw_shots(scans, "clean", 2, 0)


@pytest.mark.parametrize(("weight", "share"), [(1.0, 1 / 2), (0.5, 1 / 3), (0.1, 1 / 11)])
def test_so_many_stand_beside_each_real_image(dataset, preprocessing, weight, share):
    images = [one for batch in drawn(module(dataset, preprocessing, weight)) for one in batch]
    for domain in DOMAINS:
        made = [one[3] for one in images if one[0] == domain]
        assert np.mean(made) == pytest.approx(share, abs=1 / len(made))


@pytest.mark.parametrize("weight", [0.2, 2.0, 1e9])
def test_an_epoch_has_as_many_batches_as_without(dataset, scans, preprocessing, weight):
    without = len(module(scans, preprocessing).train_dataloader())
    assert len(module(dataset, preprocessing, weight).train_dataloader()) == without


@pytest.mark.parametrize(("batch_size", "weight"), [(2, 1.0), (12, 0.001)])
def test_weight_or_batch_without_a_place_for_them_is_refused(
    dataset, preprocessing, batch_size, weight
):
    loading = Loading(batch_size=batch_size, generated=weight, balance="role")
    told = rf"data\.generated: batches of {batch_size} and weight .* leave no place"
    with pytest.raises(DataError, match=told):
        module(dataset, preprocessing, loading=loading).train_dataloader()


@pytest.mark.parametrize("balance", ["role", "domain"])
def test_domains_keep_their_shares_of_a_batch_and_a_real_image(dataset, preprocessing, balance):
    for batch in drawn(module(dataset, preprocessing, weight=100.0, balance=balance)):
        assert Counter(one[0] for one in batch) == {"clean": 6, "colour_cast": 6}
        assert Counter(one[0] for one in batch if not one[3]) == {"clean": 1, "colour_cast": 1}


def test_their_labels_are_seen_and_no_others_of_the_target(dataset, preprocessing):
    for batch in drawn(module(dataset, preprocessing)):
        for domain, target, known, made in batch:
            assert known == (made or domain == "clean")
            assert (target >= 0) == known
            assert not made or target in (3, 8)


def test_shots_are_a_group_of_their_own_beside_them(dataset, preprocessing):
    shots = Shots({"colour_cast": draw_shots(dataset, "colour_cast", 1, 0)})
    data = module(dataset, preprocessing, shots=shots, balance="domain")
    kinds = Counter(
        (domain, known, made) for batch in drawn(data) for domain, _, known, made in batch
    )
    assert set(kinds) == {
        ("clean", True, False),
        ("clean", True, True),
        ("colour_cast", False, False),
        ("colour_cast", True, False),
        ("colour_cast", True, True),
    }


def test_domain_that_may_not_be_seen_is_not_seen(dataset, preprocessing):
    images = [
        one for batch in drawn(module(dataset, preprocessing, unlabelled=[])) for one in batch
    ]
    assert {one[0] for one in images} == {"clean"}
    assert any(one[3] for one in images)


def test_moments_scores_and_counts_know_nothing_of_them(dataset, scans, preprocessing):
    data, plain = module(dataset, preprocessing), module(scans, preprocessing)
    for of in (data, plain):
        loaders = [of.domain_dataloader("train"), of.scoring_dataloader("colour_cast")]
        assert all(
            int(one) < len(scans.records)
            for loader in loaders
            for b in loader
            for one in b["index"]
        )
    assert torch.equal(data.class_frequency(), plain.class_frequency())
    assert data._references("clean").positions == plain._references("clean").positions


def test_classes_are_drawn_equally_often_where_this_is_asked_for(dataset, preprocessing):
    loading = Loading(batch_size=12, sampling="balanced", balance="role")
    made = [
        one for batch in drawn(module(dataset, preprocessing, loading=loading)) for one in batch
    ]
    counts = Counter(one[1] for one in made if one[3])
    assert abs(counts[3] - counts[8]) <= 2


def test_cache_does_not_keep_them(dataset, scans, preprocessing, tmp_path):
    cached = dataset.over(CachedDataset(scans, tmp_path, preprocessing))
    first, kept = cached.image(0), len(list(tmp_path.iterdir()))
    assert kept == 1
    assert (cached.image(dataset.generated(["clean"])[-1]) == 80).all()
    assert first.shape == (32, 32, 3)
    assert len(list(tmp_path.iterdir())) == kept


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{root: x, wieght: 1}", "data.generated: unknown key 'wieght': did you mean 'weight'?"),
        ("{weight: 1}", "data.generated.root: got null, expected a folder that `domainnorm"),
        ("{root: x, weight: 0}", "data.generated.weight: got 0, expected a number above 0"),
        ("{root: x, weight: much}", "data.generated.weight: got 'much'"),
    ],
)
def test_wrong_key_is_told(given, told):
    with pytest.raises(RecipeError) as error:
        load_recipe("quickstart", [f"data.generated={given}"])
    assert told in str(error.value)


def test_task_without_classes_is_told():
    with pytest.raises(RecipeError, match=r"data\.generated: .* task 'segmentation'"):
        load_recipe("medical/wbc_seg", ["data.generated={root: x}"])


def parts_of(folder, *words):
    return Parts(tiny.recipe(f"data.generated={{root: {folder}}}", *words))


def test_wrong_folder_is_told(root, tmp_path):
    with pytest.raises(DataError, match=r"data\.generated\.root: .*nowhere is not a folder"):
        parts_of(tmp_path / "nowhere")
    with pytest.raises(
        DataError, match=r"has no images in <domain>/<class>/ of clean, colour_cast"
    ):
        parts_of(tmp_path)
    (tmp_path / "clean" / "seven").mkdir(parents=True)
    with pytest.raises(DataError, match="unknown class 'seven'"):
        parts_of(tmp_path)


def test_folder_of_no_domain_is_told_and_one_of_another_domain_is_left(scans, root, tmp_path):
    shutil.copytree(root, tmp_path / "made")
    assert len(WithGenerated(scans, tmp_path / "made", ["clean"]).records) == len(scans.records) + 8
    (tmp_path / "made" / ".thumbnails").mkdir()
    WithGenerated(scans, tmp_path / "made", ["clean"])
    (tmp_path / "made" / "colour_cast").rename(tmp_path / "made" / "color_cast")
    with pytest.raises(
        DataError, match=r"color_cast: unknown domain .* did you mean 'colour_cast'"
    ):
        WithGenerated(scans, tmp_path / "made", ["clean"])


def test_run_has_them_under_the_steps_of_labelled_images(root):
    parts = parts_of(
        root, "method=mcc", "compare=[source_only]", "augment={source: [HorizontalFlip]}"
    )
    stage = next(one for one in plan_stages(parts.recipe) if one.label == "mcc")
    data = parts.data(stage, parts.model(stage))
    assert any(one[3] for batch in drawn(data) for one in batch)
    assert data.shots.augment["colour_cast"] == ["HorizontalFlip"]


def test_batch_without_a_place_for_them_is_told_before_anything_trains(root):
    parts = parts_of(root, "method=mcc", "compare=[]", "data.batch_size=3")
    with pytest.raises(DataError, match=r"batches of 3 for 2 training domains .* at least 4"):
        parts.check_images(plan_stages(parts.recipe))


def test_check_of_data_looks_at_them(root, tmp_path, capsys):
    words = ("data", "check", "quickstart", "data.per_domain=60")
    assert tiny.call(*words, f"data.generated={{root: {root}}}") == 0
    broken = tmp_path / "clean" / "3"
    broken.mkdir(parents=True)
    for name in ("0.png", "1.png"):
        (broken / name).write_bytes(b"no image")
    assert tiny.call(*words, f"data.generated={{root: {tmp_path}}}") == 1
    told = capsys.readouterr().err
    assert "0.png: not a readable image" in told
    assert "2 problems  scans" in told
    (tmp_path / "clean" / "seven").mkdir()
    assert tiny.call(*words, f"data.generated={{root: {tmp_path}}}") == 1
    assert "unknown class 'seven'" in capsys.readouterr().err


def test_table_of_images_counts_them_apart(dataset, scans):
    lines = images_markdown(dataset, DOMAINS, "scans").splitlines()
    assert "| domain | train | val | test | generated, training alone |" in lines
    assert lines[-1].endswith("| 8 |")
    assert lines[-1].startswith(images_markdown(scans, DOMAINS, "scans").splitlines()[-1])


@pytest.mark.slow
def test_finished_run_is_tested_without_them(root, tmp_path, capsys):
    made = tmp_path / "made"
    shutil.copytree(root, made)
    words = ("method=source_only", "compare=[]", "trainer.max_epochs=1")
    folder = tiny.run(tmp_path / "run", f"data.generated={{root: {made}}}", *words)
    assert "generated, training alone" in (folder / "results.md").read_text()
    shutil.rmtree(made)
    assert tiny.call("test", str(folder)) == 0


def test_names_of_domains_are_no_patterns(scans, tmp_path):
    named = scans.without_labels([])
    named.domain_names = ["a[1]"]
    (tmp_path / "a[1]" / "3").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "a[1]" / "3" / "0.png"), np.zeros((8, 8, 3), np.uint8))
    assert len(WithGenerated(named, tmp_path, ["a[1]"]).generated(["a[1]"])) == 1


def test_other_images_are_another_run(root, tmp_path):
    def told():
        parts = parts_of(tmp_path)
        return made_of(parts, plan_stages(parts.recipe)[0])

    (tmp_path / "clean" / "3").mkdir(parents=True)
    file = tmp_path / "clean" / "3" / "0.png"
    file.write_bytes((root / "clean" / "3" / "0.png").read_bytes())
    before = told()
    assert before == told()
    file.write_bytes((root / "clean" / "3" / "1.png").read_bytes())
    assert before != told()


def test_no_weight_is_refused():
    with pytest.raises(DataError, match="generated: 0, expected a positive number"):
        Loading(generated=0)
