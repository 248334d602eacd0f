"""A run followed in each tool, with its own package and without network."""

import csv
import json
import shutil
import sys

import pytest
import yaml
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from domainnorm.errors import DomainNormError, RecipeError
from domainnorm.loggers import check_loggers, create_loggers, recording
from domainnorm.recipe import load_recipe
from domainnorm.registry import LOGGERS
from tests.run.tiny import TRANSFER, call, figures, recipe, run

STAGE = "clean-to-colour_cast/seed0/source_only"
TEST = "test/colour_cast/balanced_accuracy"


@pytest.fixture(scope="module")
def followed(tmp_path_factory):
    """Folder of a run of one stage that all tools have followed."""
    words = ("method=source_only", "compare=[]", "trainer.logger=[tensorboard,wandb,mlflow]")
    with figures(drawn=True):
        return run(tmp_path_factory.mktemp("followed"), *words)


@pytest.fixture
def measured(followed):
    """The metric of the target in the test, and that of the source in each epoch."""
    results = json.loads((followed / "metrics.json").read_text())
    (found,) = (one["metrics"] for one in results if one["domain"] == "colour_cast")
    log = (followed / "stages" / STAGE / "log.csv").read_text().splitlines()
    epochs = [float(row["val/clean/balanced_accuracy"]) for row in csv.DictReader(log)]
    return found["balanced_accuracy"], epochs


def experiment(folder):
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (found,) = (one for one in client.search_experiments() if one.name != "Default")
    return client, {one.info.run_name: one for one in client.search_runs([found.experiment_id])}


@pytest.mark.slow
def test_tensorboard_has_epochs_tests_options_and_figures(followed, measured):
    events = EventAccumulator(str(followed / "tensorboard" / STAGE)).Reload()
    shown = [one.value for one in events.Scalars("val/clean/balanced_accuracy")]
    assert shown == pytest.approx(measured[1])
    assert [one.value for one in events.Scalars(TEST)] == pytest.approx([measured[0]])
    written = (followed / "tensorboard" / STAGE / "hparams.yaml").read_text()
    assert yaml.safe_load(written)["trainer.max_epochs"] == 2
    images = EventAccumulator(str(followed / "tensorboard/figures")).Reload().Tags()["images"]
    assert "domains" in images


def test_mlflow_has_epochs_tests_options_and_figures(followed, measured):
    client, runs = experiment(followed)
    assert runs.keys() == {STAGE, "figures"}
    one = runs[STAGE]
    history = client.get_metric_history(one.info.run_id, "val/clean/balanced_accuracy")
    assert [each.value for each in history] == pytest.approx(measured[1])
    assert one.data.metrics[TEST] == pytest.approx(measured[0])
    assert one.data.params["method.name"] == "source_only"
    assert one.info.status == "FINISHED"
    stored = [file.path for file in client.list_artifacts(runs["figures"].info.run_id, "figures")]
    assert "figures/domains.png" in stored
    assert (followed / "mlflow").is_dir()


def test_wandb_has_epochs_tests_options_and_figures(followed):
    files = list(followed.glob("wandb/offline-run-*/*.wandb"))
    stage = b"".join(file.read_bytes() for file in files if STAGE.encode() in file.read_bytes())
    for text in (TEST, "val/clean/balanced_accuracy", "trainer.max_epochs", followed.name):
        assert text.encode() in stage
    assert list(followed.glob("wandb/offline-run-*/files/media/images/domains_*.png"))


@pytest.mark.slow
def test_run_goes_on_in_the_same_log_and_may_get_one_later(finished, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    described = yaml.safe_load((folder / "recipe.yaml").read_text())
    described["trainer"]["logger"] = ["mlflow"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(described))
    for _ in range(2):
        (folder / TRANSFER / "seed0/adabn/results.json").unlink()
        assert call("run", "--resume", str(folder)) == 0
    runs = experiment(folder)[1]
    assert runs.keys() == {"clean-to-colour_cast/seed0/adabn", "figures"}


@pytest.mark.parametrize("package", ["tensorboard", "wandb", "mlflow"])
def test_missing_package_is_told_before_a_folder_is_made(package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    asked = recipe(f"trainer.logger={package}")
    with pytest.raises(RecipeError, match=rf"needs {package}.*pip install 'domainnorm\[{package}"):
        check_loggers(asked.trainer.logger)
    words = ("quickstart", f"trainer.logger={package}")
    assert call("run", *words, "--output", str(tmp_path)) == 2
    assert call("check", "--build", *words) == 2
    assert capsys.readouterr().err.count(f"pip install 'domainnorm[{package}]'") == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("null", []),
        ("wandb", ["wandb"]),
        ("[tensorboard, {name: wandb, project: mine}]", ["tensorboard", "wandb"]),
    ],
)
def test_loggers_are_a_name_a_mapping_or_a_list(given, names, tmp_path):
    asked = recipe(f"trainer.logger={given}")
    assert [one["name"] for one in asked.trainer.logger] == names
    (tmp_path / "again.yaml").write_text(asked.to_yaml())
    assert load_recipe(str(tmp_path / "again.yaml")) == asked


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("wandbb", "trainer.logger: unknown logger 'wandbb': did you mean 'wandb'"),
        ("[wandb, wandb]", "trainer.logger: names 'wandb' 2 times"),
        ("{name: wandb, projekt: a}", "trainer.logger.projekt: unknown key.*'project'"),
        ("[tensorboard, 3]", r"trainer.logger\[1\]: got 3, expected a logger name"),
    ],
)
def test_wrong_logger_is_a_problem_of_the_recipe(given, message):
    with pytest.raises(RecipeError, match=message):
        recipe(f"trainer.logger={given}")


@pytest.mark.parametrize("name", LOGGERS.names())
def test_nothing_is_written_before_the_first_value(name, tmp_path):
    create_loggers([{"name": name}], tmp_path, "a/b")
    assert not [file for file in tmp_path.rglob("*") if file.suffix != ".db"]


def test_tool_that_refuses_its_options_is_named(tmp_path):
    named = [{"name": "mlflow", "tracking_uri": "nowhere://at.all"}]
    with pytest.raises(DomainNormError, match=r"trainer.logger: mlflow: .*nowhere"):
        create_loggers(named, tmp_path, "a")


def test_tool_that_cannot_begin_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    loggers = create_loggers([{"name": "wandb", "mode": "online"}], tmp_path, "a")
    refused = pytest.raises(DomainNormError, match=r"trainer.logger: wandb: .*API key")
    with refused, recording(loggers, {"a": 1}):
        pass


@pytest.mark.slow
def test_run_that_fails_is_marked(tmp_path):
    loggers = create_loggers([{"name": "mlflow"}], tmp_path, "a")
    with pytest.raises(KeyboardInterrupt), recording(loggers, {"a": 1}):
        raise KeyboardInterrupt
    assert experiment(tmp_path)[1]["a"].info.status == "FAILED"
