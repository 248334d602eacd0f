"""A run with a few labels of its target."""

import json

import pytest

from tests.run.tiny import TRANSFER, call, run

METHODS = ("source_only", "adabn", "finetune", "mcc", "oracle")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    compare = "compare=[source_only, adabn, {name: finetune, epochs: 1}, oracle]"
    return run(tmp_path_factory.mktemp("run"), "method=mcc", compare, "data.shots=1")


@pytest.mark.slow
def test_methods_that_saw_them_are_marked(folder):
    saw = {}
    for name in METHODS:
        results = json.loads((folder / TRANSFER / f"seed0/{name}/results.json").read_text())
        saw[name] = {(result["supervised"], result["shots"]) for result in results}
    assert saw == {
        "source_only": {(False, None)},
        "adabn": {(False, None)},
        "finetune": {(True, 1)},
        "mcc": {(True, 1)},
        "oracle": {(True, None)},
    }


def test_tables_say_how_many(folder):
    page = (folder / "results.md").read_text()
    heads = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")}
    wanted = {"source_only", "adabn", "finetune † 1 shot", "mcc † 1 shot", "oracle †"}
    assert wanted <= heads
    assert "shots: saw those of so many images of each class" in page


def test_more_than_there_are_is_refused_before_anything_is_trained(tmp_path, capsys):
    words = ("quickstart", "data.per_domain=40", "data.shots=30", "--output", str(tmp_path))
    assert call("run", *words) == 1
    assert "data.shots: 30, but domain 'colour_cast' has" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
