"""The notebooks run as they stand, cell after cell, in an empty folder."""

import json
import shlex
from pathlib import Path

import pytest

from domainnorm.cli import main

FOLDER = Path(__file__).parents[1] / "docs/tutorials"


def cells(name):
    """Code of a notebook, each line of the shell as a call of the command."""
    book = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            lines = "".join(cell["source"]).splitlines()
            yield "\n".join(
                f"_call(f{line[1:]!r})" if line.startswith("!domainnorm ") else line
                for line in lines
            )


def called(line):
    """What the shell would do."""
    assert main(shlex.split(line)[1:]) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.ipynb")))
def test_notebook_runs(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    names = {"_call": called}
    for code in cells(name):
        exec(code, names)
