"""What the page about one's own code shows works as it stands there."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer

from tests.foreign import call, install, said, write

PAGE = (Path(__file__).parents[1] / "docs/extending.md").read_text(encoding="utf-8")
PACKAGE, LOOP = PAGE.split("## In your own loop")
SMALL = ("data.per_domain=40", "data.batch_size=16", "trainer.max_epochs=1", "trainer.threads=1")
SMALLER = ("backbone.name=test_resnet", "evaluation.resamples=20")


def block(language, text, number=0):
    """A block of code of the page."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)[number]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the package is installed, and the recipe."""
    made = tmp_path_factory.mktemp("extending")
    files = {
        "pyproject.toml": block("toml", PACKAGE),
        "my_plugins.py": block("python", PACKAGE),
    }
    install(write(made / "project", files), made / "site")
    return write(made, {"mine.yaml": block("yaml", PACKAGE)})


@pytest.mark.slow
def test_package_of_the_page_is_listed_and_checked(folder):
    assert "diverse" in said(folder / "site", "list", "methods")
    shown = yaml.safe_load(said(folder / "site", "show", folder / "mine.yaml"))
    assert shown["method"]["entropy_weight"] == 0.2
    assert shown["method"]["weight_decay"] == 0.01
    words = ("check", folder / "mine.yaml", "method.entropy_weigt=1", "norm.stride=0")
    done = call(folder / "site", "-m", "domainnorm", *words)
    assert "method.entropy_weigt: unknown key 'entropy_weigt'" in done.stderr
    assert "norm.stride: got 0" in done.stderr


@pytest.mark.slow
def test_package_of_the_page_runs(folder):
    said(folder / "site", "run", folder / "mine.yaml", *SMALL, *SMALLER, "--output", folder / "out")
    (made,) = (folder / "out").glob("*/*")
    assert "diverse" in (made / "metrics.csv").read_text()


SAMPLER = """\
[project]
name = "my-samplers"
version = "0.1"

[project.entry-points.domainnorm]
"sampler.by_patient" = "my_samplers:ByPatient"

[tool.setuptools]
py-modules = ["my_samplers"]
"""


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A folder in which the sampler of the page is installed, one that is wrong beside it."""
    made = tmp_path_factory.mktemp("sampled")
    code = block("python", PACKAGE, 1)
    wrong = (
        "\n\nclass Wrong:\n    def draw(self, records, length, generator):\n        return [0]\n"
    )
    points = SAMPLER.replace("[tool", '"sampler.wrong" = "my_samplers:Wrong"\n\n[tool')
    files = {"pyproject.toml": points, "my_samplers.py": code + wrong}
    install(write(made / "project", files), made / "site")
    return made


@pytest.mark.slow
def test_sampler_of_the_page_is_a_name_with_keys(sampled):
    shown = yaml.safe_load(said(sampled / "site", "show", "quickstart", "data.sampling=by_patient"))
    assert shown["data"]["sampling"] == {"name": "by_patient", "most": 1000}
    words = ("check", "quickstart", "data.sampling={name: by_patient, mst: 2}")
    done = call(sampled / "site", "-m", "domainnorm", *words)
    assert "data.sampling.mst: unknown key 'mst': did you mean 'most'?" in done.stderr
    words = ("check", "medical/wbc_seg", "data.sampling=by_patient")
    done = call(sampled / "site", "-m", "domainnorm", *words)
    assert "data.sampling: 'by_patient' is for one class per image or several" in done.stderr


@pytest.mark.slow
def test_sampler_of_the_page_draws_the_images_of_a_run(sampled):
    words = ("run", "quickstart", "method=source_only", "compare=[]", *SMALL, *SMALLER)
    output = ("--output", sampled / "out")
    said(sampled / "site", *words, "data.sampling={name: by_patient, most: 2}", *output)
    (recipe,) = (sampled / "out").glob("*/*/recipe.yaml")
    assert yaml.safe_load(recipe.read_text())["data"]["sampling"]["most"] == 2
    done = call(sampled / "site", "-m", "domainnorm", *words, "data.sampling=wrong", *output)
    assert done.returncode == 1
    assert "data.sampling: Wrong.draw gave int64 of shape (1,), expected " in done.stderr


def samples(domain, target=None):
    """Eight images of a domain, as a dataset of one's own gives them."""
    return [
        {"image": torch.rand(3, 32, 32), "domain": domain, "target": target or n % 2}
        for n in range(8)
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's, on loaders and loggers of a first script
def test_loop_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "training": [*samples("site_a"), *samples("site_b", -1)],
        "validation": samples("site_a"),
        "testing": [*samples("site_a"), *samples("site_b")],
        "images": torch.rand(2, 3, 32, 32),
    }
    exec(block("python", LOOP), names)
    assert {"test/site_a/accuracy", "test/site_b/accuracy"} <= {*names["trainer"].callback_metrics}
    assert names["found"].metrics()["n"] == 8
    assert names["logits"].shape == (2, 2)


@pytest.mark.filterwarnings("ignore")
def test_data_module_of_the_page_can_be_fitted(tmp_path, monkeypatch):
    from domainnorm.data.datasets import Scans  # noqa: PLC0415
    from domainnorm.methods import Roles  # noqa: PLC0415
    from tests.methods.bench import make, make_model  # noqa: PLC0415

    monkeypatch.chdir(tmp_path)
    roles = Roles(["clean"], ["colour_cast"])
    model = make_model(roles=roles)
    names = {
        "dataset": Scans(per_domain=40),
        "model": model,
        "method": make("dann", model, roles),
        "trainer": Trainer(max_epochs=1, logger=False, enable_checkpointing=False),
    }
    code = block("python", LOOP, 1).replace("site_a", "clean").replace("site_b", "colour_cast")
    exec(code, names)
    assert "val/clean/accuracy" in names["trainer"].callback_metrics
