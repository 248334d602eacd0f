"""Both matrices of the tiny recipe through the command line."""

import csv
import json
import statistics

import pytest

from domainnorm.errors import CheckpointError, RecipeError
from domainnorm.run import run_matrix
from domainnorm.run import test_run as evaluate_again
from tests.run.tiny import figures, recipe, run

DOMAINS = ("clean", "colour_cast")
WORDS = ("seed=[0, 1]", "trainer.max_epochs=1", "method=tent", "compare=[]")


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    with figures(drawn=True):
        return run(tmp_path_factory.mktemp("matrix"), *WORDS, command="matrix")


def rows(folder, kind):
    with (folder / f"matrix_{kind}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["models", "norms"])
def test_table_has_every_row_column_and_seed_of_every_metric(matrix, kind):
    keys = [(r["metric"], r["row"], r["column"], r["seed"]) for r in rows(matrix, kind)]
    cells = {key[1:] for key in keys}
    assert cells == {(r, c, s) for r in DOMAINS for c in DOMAINS for s in "01"}
    assert len(keys) == len(set(keys)) == len({key[0] for key in keys}) * len(cells)


def test_results_and_page_show_both_tables_and_all_figures(matrix):
    results, page = (matrix / "results.md").read_text(), (matrix / "report.html").read_text()
    means = {}
    for kind in ("models", "norms"):
        assert f"**{kind}** · balanced_accuracy" in results
        own = [r for r in rows(matrix, kind) if r["metric"] == "balanced_accuracy"]
        means[kind] = [float(r["value"]) for r in own if r["row"] == r["column"] == "clean"]
        first = (
            f"| clean | **{statistics.mean(means[kind]):.3f} ± {statistics.stdev(means[kind]):.3f}"
        )
        assert first in results
    pictures = list((matrix / "figures").rglob("*.png"))
    assert page.count("data:image/png;base64,") == len(pictures) > 2
    assert page.count("<table>") == 2


@pytest.mark.parametrize("kind", ["models", "norms"])
def test_heatmaps_are_pictures(matrix, kind):
    pictures = list((matrix / "figures" / f"matrix_{kind}").glob("*.png"))
    assert pictures
    assert all(file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for file in pictures)


def cell(folder, kind, row, column, seed):
    (found,) = [
        float(r["value"])
        for r in rows(folder, kind)
        if (r["metric"], r["row"], r["column"], r["seed"]) == ("accuracy", row, column, str(seed))
    ]
    return found


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("row", "other"), [DOMAINS, DOMAINS[::-1]])
def test_models_are_those_of_the_stages(matrix, row, other, seed):
    place = matrix / f"stages/{row}-to-{other}/seed{seed}/source_only/results.json"
    for result in json.loads(place.read_text()):
        expected = result["metrics"]["accuracy"]
        assert cell(matrix, "models", row, result["domain"], seed) == pytest.approx(expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_diagonal_of_norms_is_each_domain_under_its_own(matrix, seed):
    place = matrix / f"stages/{'+'.join(DOMAINS)}/seed{seed}/joint/results.json"
    for result in json.loads(place.read_text()):
        found = cell(matrix, "norms", result["domain"], result["domain"], seed)
        assert found == pytest.approx(result["metrics"]["accuracy"])


def test_matrix_of_one_domain_is_refused_before_a_folder_is_made(tmp_path):
    one = recipe("method=source_only", "compare=[]", "data.target=[]")
    with pytest.raises(RecipeError, match="1 domain, a matrix needs two or more"):
        run_matrix(one, tmp_path, "both")
    assert not list(tmp_path.iterdir())


def test_folder_of_a_matrix_cannot_be_tested_as_a_run(matrix):
    with pytest.raises(CheckpointError, match="holds a matrix, expected a run"):
        evaluate_again(matrix)
