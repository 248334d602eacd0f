"""The command `start`: what it sees, what it writes, and that this runs."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from domainnorm.data.inspection.look import look_at, recognized
from domainnorm.recipe import load_recipe
from domainnorm.registry import DATASETS


@pytest.fixture
def sites(tmp_path, domainnorm):
    """A folder of two domains with classes, which was drawn."""
    domainnorm("data", "sample", "folder", "sites")
    (tmp_path / "sites/splits.csv").unlink()
    return tmp_path / "sites"


def without_labels(domain):
    for file in list(domain.rglob("*.*")):
        file.rename(domain / f"{file.parent.name}-{file.name}")
    for folder in [entry for entry in domain.iterdir() if entry.is_dir()]:
        shutil.rmtree(folder)


def started(domainnorm, *words):
    done = domainnorm("start", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_a_target_without_labels_gets_the_default_and_runs(domainnorm, sites):
    without_labels(sites / "painting")
    text = started(domainnorm, "sites")
    recipe = load_recipe("sites.yaml")
    assert (recipe.data.source, recipe.data.target) == (["photo"], ["painting"])
    assert (recipe.method.name, [m.name for m in recipe.compare]) == (
        "default",
        ["source_only", "adabn"],
    )
    assert "painting (36 images, 0 with labels)" in text
    assert "domainnorm run sites.yaml" in text
    assert len(Path("sites.yaml").read_text().splitlines()) <= 20
    assert domainnorm("check", "sites.yaml", "--build").stdout == "ok  sites.yaml\n"
    keys = ["backbone={name: test_resnet}", "trainer.max_epochs=1", "trainer.min_steps=0"]
    done = domainnorm("run", "sites.yaml", *keys, "data.image_size=32")
    assert done.returncode == 0, done.stderr
    assert "nothing is measured" in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("report: ")
    assert last.endswith("report.html")


def test_a_few_labels_become_shots(domainnorm, sites):
    for folder in (sites / "painting").iterdir():
        for file in sorted(folder.iterdir())[3:]:
            file.rename(sites / "painting" / f"{folder.name}-{file.name}")
    text = started(domainnorm, "sites")
    recipe = load_recipe("sites.yaml")
    training = look_at(*recognized(str(sites))).class_counts(["painting"])
    assert recipe.data.shots == min(training.values()) > 0
    assert recipe.method.name == "default"
    assert f"default with {recipe.data.shots} shot" in text
    assert domainnorm("check", "sites.yaml", "--build").returncode == 0


def test_labels_of_both_are_learned(domainnorm, sites):
    text = started(domainnorm, "sites")
    recipe = load_recipe("sites.yaml")
    assert recipe.method.name == "joint"
    assert "few test images with labels" in text
    assert "and one model learns from both" in text


def test_an_existing_recipe_is_kept(domainnorm, sites):
    started(domainnorm, "sites")
    done = domainnorm("start", "sites")
    assert (done.returncode, done.stdout) == (1, "")
    assert "sites.yaml exists; use --force" in done.stderr
    started(domainnorm, "sites", "--force")
    started(domainnorm, "sites", "--output", "recipes/mine.yaml")


def test_what_was_there_stays_where_the_new_recipe_is_refused(domainnorm, sites):
    Path("mine.yaml").write_text("precious: 1\n")
    (sites / "photo").rename(sites / "${x}")
    done = domainnorm("start", "sites", "--output", "mine.yaml", "--force")
    assert done.returncode == 2
    assert Path("mine.yaml").read_text() == "precious: 1\n"
    assert (
        "expected a name that ends with .yaml"
        in domainnorm("start", "sites", "--output", "o.txt").stderr
    )
    assert not Path("o.txt").exists()


def test_names_that_look_like_numbers_are_names(domainnorm, sites):
    (sites / "photo").rename(sites / "1e3")
    (sites / "painting").rename(sites / "a b")
    text = started(domainnorm, "sites")
    recipe = load_recipe("sites.yaml")
    assert sorted([*recipe.data.source, *recipe.data.target]) == ["1e3", "a b"]
    assert domainnorm("check", "sites.yaml", "--build").returncode == 0
    assert "--domain 1e3" in text or "--domain 'a b'" in text


def test_a_domain_without_labels_beside_one_with_few_is_told(domainnorm, sites):
    shutil.copytree(sites / "painting", sites / "third")
    without_labels(sites / "third")
    for folder in (sites / "painting").iterdir():
        for file in sorted(folder.iterdir())[3:]:
            file.rename(sites / "painting" / f"{folder.name}-{file.name}")
    text = started(domainnorm, "sites")
    assert "third: no labels to learn from, so not in the recipe" in text


def test_few_labels_that_are_all_for_tests_are_not_learned(domainnorm, sites):
    rows = [
        f"{file.relative_to(sites)},{domain},{label if domain == 'photo' or number < 3 else ''},"
        f"{'test' if number % 3 == 0 or (domain == 'painting' and number < 3) else 'train'}"
        for domain in ("photo", "painting")
        for number, file in enumerate(sorted((sites / domain).rglob("*.jpg")))
        for label in [file.parent.name]
    ]
    (sites / "splits.csv").write_text("\n".join(["file,domain,class,split", *rows]))
    started(domainnorm, "sites")
    assert load_recipe("sites.yaml").data.shots is None


def test_findings_that_nobody_knows_are_no_labels(domainnorm, tmp_path):
    domainnorm("data", "sample", "manifest_findings", "clinic")
    table = tmp_path / "clinic/manifest.csv"
    head, *lines = table.read_text().splitlines()
    emptied = [
        ",".join([*line.split(",")[:5], "", ""]) if ",site_b," in line else line for line in lines
    ]
    table.write_text("\n".join([head, *emptied]))
    text = started(domainnorm, "clinic")
    assert "site_b (36 images, 0 with labels)" in text
    recipe = load_recipe("clinic.yaml")
    assert (recipe.data.target, recipe.method.name) == (["site_b"], "adabn")


@pytest.mark.slow
def test_few_findings_are_learned_by_what_is_for_findings(domainnorm, tmp_path):
    domainnorm("data", "sample", "manifest_findings", "clinic")
    table = tmp_path / "clinic/manifest.csv"
    head, *lines = table.read_text().splitlines()
    train = [line for line in lines if ",site_b,train," in line]
    known = [line for line in lines if ",site_b," not in line] + train[:4]
    emptied = [
        line if line in known else ",".join([*line.split(",")[:5], "", ""]) for line in lines
    ]
    table.write_text("\n".join([head, *emptied]))
    text = started(domainnorm, "clinic")
    recipe = load_recipe("clinic.yaml")
    assert (recipe.method.name, recipe.data.shots) == ("finetune", 4)
    assert "finetune with 4 shots: the target has a few labels" in text
    assert domainnorm("check", "clinic.yaml", "--build").returncode == 0


def test_a_table_with_other_names_is_read_as_it_is(domainnorm, sites):
    rows = [
        f"{file.relative_to(sites)},{file.parts[-3]},{file.parts[-2]},{number % 9}"
        for number, file in enumerate(sorted(sites.rglob("*.jpg")))
    ]
    (sites / "images.csv").write_text("\n".join(["file,scanner,label,patient", *rows]))
    started(domainnorm, "sites/images.csv")
    options = load_recipe("images.yaml").dataset.options
    names = {"path": "file", "domain": "scanner", "target": "label", "group": "patient"}
    assert options["columns"] == names
    assert domainnorm("check", "images.yaml", "--build").returncode == 0


def samples():
    """Datasets of one's own files, and some that are read as published."""
    own = ["folder", "folder_masks", "manifest", "manifest_masks", "manifest_findings"]
    return [*own, "pairs", "dicom", "nifti", "camvid", "acdc", "pacs", "office_home"]


@pytest.mark.slow
@pytest.mark.parametrize("name", samples())
def test_every_layout_is_recognized(domainnorm, tmp_path, name):
    DATASETS.load(name).write_sample(tmp_path / "data", seed=0)
    keys = ["groups=sequences"] if name == "folder_masks" else []
    started(domainnorm, "data", *keys)
    assert load_recipe("data.yaml").dataset.name == name
    assert domainnorm("check", "data.yaml", "--build").returncode == 0


def binary(root):
    """Masks of 0 and 255, which classes are not numbered by."""
    DATASETS.load("folder_masks").write_sample(root, seed=0, domains=("a", "b"))
    for file in root.glob("*/masks/*.png"):
        mask = np.zeros((96, 128), np.uint8)
        mask[:20] = 255
        cv2.imwrite(str(file), mask)
    (root / "classes.txt").write_text("background\nlesion\n")
    (root / "splits.csv").unlink()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "no images; expected a folder for each domain"),
        (shutil.rmtree, "does not exist"),
        (lambda root: put(root, "1.png"), "images without folders of domains"),
        (lambda root: put(root, "a/1.png"), "one domain, a"),
        (lambda root: put(root, "a/1.png", "b/1.png"), "no domain has labels for at least half"),
        (lambda root: put(root, "a/x/1.png", "a/y/1.png"), "one domain, a"),
        (
            lambda root: put(root, "images/1.png", "masks/1.png"),
            "images and masks belong to one domain",
        ),
        (lambda root: put(root, "train/x/1.png", "test/x/1.png"), "seem to be splits"),
        (
            lambda root: put(root, "a/images/1.png", "a/labels/1.png"),
            "'labels' seems to hold the masks of 'images'; rename the two folders",
        ),
        (
            lambda root: put(root, "a/LR/1.png", "a/HR/1.png"),
            "'HR' seems to hold the clean images of 'LR'; rename the two folders to target and",
        ),
        (
            lambda root: put(root, "input/1.png", "target/1.png"),
            "input and target belong to one domain",
        ),
        (binary, "hold only 0 and 255"),
        (
            lambda root: put(root, "a/images/1.png", "a/masks/1.png"),
            "classes.txt: missing; write one class name per line into it",
        ),
    ],
)
def test_what_cannot_be_started_says_what_to_do(domainnorm, tmp_path, make, said):
    (tmp_path / "data").mkdir()
    make(tmp_path / "data")
    done = domainnorm("start", "data")
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert not (tmp_path / "data.yaml").exists()


def put(root, *names):
    DATASETS.load("folder").write_sample(root.parent / "drawn", seed=0)
    image = next((root.parent / "drawn").rglob("*.jpg"))
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        for number in range(6):
            shutil.copy(image, (root / name).with_stem(str(number)))


def test_colours_tell_unlike_domains_apart_and_no_others(sites):
    look = look_at(*recognized(str(sites)))
    assert look.told_apart(["photo"], ["painting"]) > 0.7
    styles = look.styles["photo"]
    look.styles["painting"] = styles.copy()
    assert look.told_apart(["photo"], ["painting"]) < 0.6


@pytest.mark.slow
def test_pairs_are_restored_by_a_network_without_norms(domainnorm, tmp_path):
    DATASETS.load("pairs").write_sample(tmp_path / "scans", seed=0, scale=2)
    text = started(domainnorm, "scans")
    assert "clean ones of the same view, 2 times as many pixels along both sides" in text
    recipe = load_recipe("scans.yaml")
    assert (recipe.dataset.options["scale"], recipe.data.image_size) == (2, [96, 128])
    assert (recipe.method.name, [m.name for m in recipe.compare]) == ("joint", ["source_only"])
    shutil.rmtree(tmp_path / "scans/site_b/target")
    text = started(domainnorm, "scans", "--force")
    assert "site_b (28 images, 0 with clean images)" in text
    assert "no method restores without them" in text
    assert load_recipe("scans.yaml").method.name == "source_only"
    assert domainnorm("check", "scans.yaml", "--build").stdout == "ok  scans.yaml\n"
    done = domainnorm("run", "scans.yaml", "trainer.max_epochs=1", "trainer.min_steps=0")
    assert done.returncode == 0, done.stderr
    name, images = text.split("domainnorm restore ")[1].split()[:2]
    assert images == str(tmp_path / "scans/site_b/input")
    stored = next(Path(name).parent.iterdir())
    assert domainnorm("restore", str(stored), images).returncode == 0


def test_pairs_of_other_sizes_and_domains_without_tests_are_told(domainnorm, tmp_path):
    DATASETS.load("pairs").write_sample(tmp_path / "scans", seed=0)
    (tmp_path / "scans/splits.csv").unlink()
    for file in (tmp_path / "scans").rglob("*.png"):
        if file.stem != "000":
            file.unlink()
    assert "site_b, site_a: no image is left for tests" in started(domainnorm, "scans")
    target = tmp_path / "scans/site_a/target/000.png"
    cv2.imwrite(str(target), cv2.imread(str(target))[:50, :50])
    done = domainnorm("start", "scans", "--force")
    assert (done.returncode, done.stdout) == (1, "")
    assert "000.png: 50 × 50 pixels, but its input" in done.stderr


def test_classes_called_as_folders_of_pairs_are_classes(domainnorm, tmp_path):
    put(tmp_path / "data", *(f"{site}/{name}/1.png" for site in "ab" for name in ("lr", "hr", "x")))
    started(domainnorm, "data")
    assert load_recipe("data.yaml").dataset.name == "folder"


def test_keys_are_those_of_the_dataset(domainnorm, sites):
    done = domainnorm("start", "sites", "val_fractoin=0.1", "split_seed=x")
    assert done.returncode == 2
    assert "data.val_fractoin: unknown key 'val_fractoin': did you mean" in done.stderr
    assert "data.split_seed: got 'x', expected a whole number" in done.stderr
    started(domainnorm, "sites", "val_fraction=0.1")
    assert yaml.safe_load(Path("sites.yaml").read_text())["data"]["val_fraction"] == 0.1
