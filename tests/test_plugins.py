"""Methods, datasets, norms and steps of packages that inherit from ours, and from each other."""

import pytest
import yaml

from domainnorm.registry import METHODS
from tests.foreign import call, install, said, write

# A laboratory's bases, which are no plug-ins, and a package of plug-ins on them.
BASES = {
    "pyproject.toml": """
        [project]
        name = "lab-bases"
        version = "1.0"
        [tool.setuptools]
        packages = ["lab_bases"]
        """,
    "lab_bases/__init__.py": """
        import torch  # light commands must not come by

        from .entropy import SharpTENT
        """,
    "lab_bases/entropy.py": """
        from domainnorm.methods import tent
        from domainnorm.losses import entropy_loss


        class SharpTENT(tent.TENT):
            tasks = ("classification",)

            def __init__(self, model, task, roles, *, sharpness: float = 1.0, **options):
                super().__init__(model, task, roles, **options)
                self.sharpness = sharpness

            def losses(self, batch):
                return {"entropy": entropy_loss(self.sharpness * self.outputs(batch))}
        """,
}
PLUGINS = {
    "pyproject.toml": """
        [project]
        name = "lab-plugins"
        version = "2.0"
        [project.entry-points.domainnorm]
        "method.mytent" = "lab_plugins:MyTent"
        "dataset.my_scans" = "lab_plugins.data:Scans"
        "statistics.my_domain" = "lab_plugins.norms:MyMoments"
        "transform.my_jitter" = "lab_plugins.steps:PaleJitter"
        "transform.my_crop" = "lab_plugins.steps:MyCrop"
        [tool.setuptools]
        packages = ["lab_plugins"]
        """,
    "lab_plugins/__init__.py": """
        import lightning  # light commands must not come by

        from lab_plugins.method import MyTent
        """,
    "lab_plugins/method.py": """
        import lab_bases as bases


        class MyTent(bases.SharpTENT):
            \"\"\"Tent, our way.\"\"\"

            balance = "role"
        """,
    "lab_plugins/data.py": """
        from domainnorm.data.datasets.scans import Scans


        class Scans(Scans):  # called like what it inherits from
            \"\"\"Fewer scans.\"\"\"

            licence = "ours"

            def __init__(self, *, every: int = 1, **options):
                super().__init__(**options)
                self.every = every
        """,
    "lab_plugins/norms.py": """
        import domainnorm.norms.statistics.running as running


        class MyMoments(running.DomainStatistics):
            \"\"\"Moments of each domain, slower.\"\"\"

            def __init__(self, num_features, num_domains, *, momentum: float = 0.05, **options):
                super().__init__(num_features, num_domains, momentum=momentum, **options)
        """,
    "lab_plugins/steps.py": """
        import albumentations as A

        from domainnorm.data.augmentation.transforms import HEDJitter


        class PaleJitter(HEDJitter):
            \"\"\"Stains, paler.\"\"\"


        class MyCrop(A.RandomCrop):
            \"\"\"A quarter.\"\"\"

            def __init__(self, *, p: float = 1.0):
                super().__init__(16, 16, p=p)
        """,
}
RECIPE = """
    configs: [trainer/cpu]
    task: classification
    backbone: {name: test_resnet}
    norm: {statistics: my_domain, modulation: table, momentum: 0.2, eps: 1.0e-4}
    data:
      {name: my_scans, per_domain: 40, source: [clean], target: [colour_cast], batch_size: 16,
      image_size: 32}
    augment: {default: [{name: PaleJitter, sigma: 0.1, p: 1.0}]}
    method: {name: mytent, lr: 0.01, epochs: 1, sharpness: 2.0}
    trainer: {max_epochs: 1, threads: 1}
    evaluation: {resamples: 20}
    seed: 0
    """


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder in which both packages and a recipe are."""
    folder = tmp_path_factory.mktemp("lab")
    for name, files in (("bases", BASES), ("plugins", PLUGINS)):
        install(write(folder / name, files), folder / "site")
    write(folder, {"mine.yaml": RECIPE})
    return folder


@pytest.mark.slow
def test_list_names_what_other_packages_add(lab):
    listed = said(lab / "site", "list")
    for line in ("mytent .*Tent, our way", "my_scans .*Fewer scans", "my_domain .*slower"):
        name, _, summary = line.partition(" .*")
        assert any(name in one and summary in one for one in listed.splitlines()), line


def test_keys_of_bases_in_other_packages_are_keys(lab):
    shown = yaml.safe_load(said(lab / "site", "show", lab / "mine.yaml"))
    stated = {"name": "mytent", "lr": 0.01, "epochs": 1, "sharpness": 2.0}
    assert stated.items() <= shown["method"].items()
    inherited = METHODS.entry("tent").parameters
    assert shown["method"].keys() == {"name", "sharpness", *inherited}
    assert shown["data"]["split_seed"] == 0
    assert shown["data"]["every"] == 1
    said(lab / "site", "check", lab / "mine.yaml", "norm.stride=2", "norm.share=unlike")


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("method.lrr=1", "unknown key 'lrr': did you mean 'lr'"),
        ("method.lr=-1", "got -1.0, expected 0 or more"),
        ("task=multilabel", "'mytent' is for one class per image"),
        ("norm.momentun=1", "did you mean 'momentum'"),
        ("data.every=often", "expected a whole number"),
        ("augment.default=[{name: PaleJitter, sigm: 1}]", "did you mean 'sigma'"),
        ("augment.target={weak: [], strong: [MyCrop]}", "MyCrop moves pixels"),
    ],
)
def test_rules_hold_for_what_is_inherited(lab, word, problem):
    done = call(lab / "site", "-m", "domainnorm", "check", lab / "mine.yaml", word)
    assert done.returncode == 2
    assert problem in done.stderr


def test_statistics_made_from_those_of_each_domain_have_moments_of_each(lab):
    norm = {"statistics": "my_domain", "modulation": "shared"}
    code = f"from domainnorm.recipe.norm import reads_domains; print(reads_domains({norm}))"
    assert call(lab / "site", "-c", code).stdout == "True\n"


def test_light_commands_import_no_package_on_the_way(lab):
    code = (
        "import sys; from domainnorm.cli import main; "
        f"main(['check', {str(lab / 'mine.yaml')!r}]); main(['list', 'methods']); "
        "sys.exit(' '.join({'torch', 'lightning', 'albumentations', 'lab_bases'} & {*sys.modules}))"
    )
    done = call(lab / "site", "-c", code)
    assert done.stderr == "\n"


@pytest.mark.slow
def test_run_uses_them(lab):
    said(lab / "site", "run", lab / "mine.yaml", "--output", lab / "outputs")
    (made,) = (lab / "outputs").glob("*/*")
    assert "mytent" in (made / "results.md").read_text()


def point(folder, name, version="1.0", kind="method.mine", module="mine"):
    """A distribution as pip leaves it, of one module and one entry point."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    points = f"[domainnorm]\n{kind} = {module}:Mine\n"
    text = 'class Mine:\n    """Mine."""\n'
    return write(
        folder,
        {f"{info}/METADATA": metadata, f"{info}/entry_points.txt": points, f"{module}.py": text},
    )


def refused(folder):
    done = call(folder, "-m", "domainnorm", "list", "methods")
    assert done.returncode == 1
    return done.stderr


def test_name_of_ours_is_refused_with_both_origins(tmp_path):
    said = refused(point(tmp_path, "first", kind="method.tent"))
    assert "method 'tent' is registered twice, by domainnorm.methods.tent:TENT and" in said
    assert "mine:Mine (of first 1.0); rename or uninstall one" in said


def test_name_of_two_packages_is_refused_with_both_origins(tmp_path):
    point(tmp_path, "first")
    said = refused(point(tmp_path, "second", "2.1", module="other"))
    assert "mine:Mine (of first 1.0)" in said
    assert "other:Mine (of second 2.1)" in said


@pytest.mark.parametrize("kind", ["methods.mine", "norm.mine", "method"])
def test_entry_point_of_no_kind_is_refused(tmp_path, kind):
    said = refused(point(tmp_path, "first", kind=kind))
    assert f"entry point '{kind}' of mine:Mine (of first 1.0): expected <kind>.<name>" in said
    assert "known: encoder, method" in said


def test_entry_point_that_leads_nowhere_is_named(tmp_path):
    point(tmp_path, "first")
    (tmp_path / "mine.py").write_text("Mine = object()\n")
    assert "method 'mine' of mine:Mine (of first 1.0): mine: no class" in refused(tmp_path)


def test_transform_called_like_one_of_albumentations_is_refused(tmp_path):
    point(tmp_path, "first", kind="transform.blur")
    (tmp_path / "mine.py").write_text("class Blur: ...\n")
    (info,) = tmp_path.glob("*.dist-info/entry_points.txt")
    info.write_text("[domainnorm]\ntransform.blur = mine:Blur\n")
    done = call(tmp_path, "-m", "domainnorm", "check", "quickstart")
    assert "two transforms are called Blur, that of albumentations and mine:Blur" in done.stderr
