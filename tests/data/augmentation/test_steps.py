from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import albumentations
import pytest
import yaml

from domainnorm.data.augmentation.steps import (
    check_augmentation,
    check_steps,
    list_arguments,
    list_transforms,
    own_transforms,
)

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "augment").glob("*.yaml"))


@pytest.mark.parametrize("name", sorted(set(list_transforms()) - set(own_transforms())))
def test_arguments_read_from_source_are_those_of_the_class(name):
    signature = inspect.signature(getattr(albumentations, name).__init__)
    assert list_arguments(name) == [key for key in signature.parameters if key != "self"]


def test_right_steps_have_no_problems():
    assert check_steps(["HorizontalFlip", {"name": "Rotate", "limit": 10, "p": 1.0}], "a") == []


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        ("HorizontalFlp", "a[0]: no transform 'HorizontalFlp' can be used here; "
                          "did you mean 'HorizontalFlip'?"),
        ({"name": "Rotate", "limits": 3}, "a[0].limits: Rotate has no argument 'limits'; "
                                          "did you mean 'limit'? it has limit, "),
        ({"name": "VerticalFlip", "q": 1}, "a[0].q: VerticalFlip has no argument 'q'; it has p"),
        ({"limit": 3}, "a[0]: {'limit': 3}, expected the name of an albumentations transform"),
        (7, "a[0]: 7, expected the name of an albumentations transform"),
    ],
)  # fmt: skip
def test_wrong_step_names_the_key(step, problem):
    (found,) = check_steps([step], "a")
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "name",
    [
        "BasicTransform",
        "ImageOnlyTransform",
        "DualTransform",
        "BaseDropout",
        "MaxSizeTransform",
        "Normalize",
        "Lambda",
        "TemplateTransform",
        "os.system",
        "albumentations.HorizontalFlip",
    ],
)
def test_name_that_is_no_usable_transform_is_refused(name):
    assert check_steps([name], "a")[0].startswith(f"a[0]: no transform '{name}'")


@pytest.mark.parametrize("steps", ["HorizontalFlip", {"name": "Rotate"}, None])
def test_anything_but_a_list_is_refused(steps):
    assert "expected a list of steps" in check_steps(steps, "augment.default")[0]


def test_all_problems_are_collected():
    assert len(check_steps(["Rotat", {"name": "Rotate", "limits": 1, "q": 1}], "a")) == 3


def test_checking_imports_nothing_heavy():
    code = (
        "import sys; from domainnorm.data import check_steps;"
        "found = check_steps([{'name': 'Rotate', 'limits': 3}, 'Rotat'], 'a');"
        "heavy = {'albumentations', 'torch', 'numpy', 'cv2', 'lightning'} & set(sys.modules);"
        "print(len(found), sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "2 []"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_pipelines_have_no_problems(file):
    augment = yaml.safe_load(file.read_text())["augment"]
    problems = [p for key, steps in augment.items() for p in check_augmentation(steps, key)]
    assert problems == []


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_pipelines_say_what_they_are(file):
    assert file.read_text().startswith("# ")
