"""One method twice in a recipe, under two names."""

import pytest
import torch

from tests.run.tiny import TRANSFER, assert_tested_again, metrics, run, weights

WORDS = (
    "method={name: tent, as: tent_high, lr: 1e-2}",
    "compare=[source_only, {name: tent, lr: 1e-4}]",
)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    return run(tmp_path_factory.mktemp("labels"), *WORDS)


@pytest.mark.slow
def test_each_is_trained_and_stored_under_its_label(twice):
    stored = weights(twice)
    folders = [f"{TRANSFER}/seed0/{name}" for name in ("source_only", "tent", "tent_high")]
    assert sorted(stored) == folders
    low, high = (stored[folder] for folder in folders[1:])
    assert any(not torch.equal(tensor, high[name]) for name, tensor in low.items())


def test_results_and_pages_name_the_labels(twice):
    assert {method for method, _ in metrics(twice)} == {"source_only", "tent", "tent_high"}
    page = (twice / "report.html").read_text()
    assert "tent_high" in page


def test_stored_run_is_read_under_its_labels(twice, capsys):
    assert_tested_again(twice, capsys)
    assert "tent_high" in (twice / "recipe.yaml").read_text()
