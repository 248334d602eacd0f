from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

from domainnorm.cli.parser import Parser
from domainnorm.cli.run_commands import add_training, carry_out


def _read(*words: str) -> Namespace:
    parser = Parser("run", "Run.")
    add_training(parser)
    return parser.read(words)


def test_options_may_stand_between_the_recipe_and_its_overrides():
    read = _read("quickstart", "--output", "x", "seed=1", "norm=cin")
    assert read.words == ["quickstart", "seed=1", "norm=cin"]
    assert read.output == Path("x")


def test_recipe_with_overrides_reaches_the_run(capsys):
    def start(recipe, output):
        return output / recipe.name / str(recipe.seeds[0])

    assert carry_out("run", _read("quickstart", "--output", "x", "seed=7"), start) == 0
    assert capsys.readouterr().out == f"run folder: {Path('x/quickstart/7')}\n"


def test_interrupted_run_says_how_to_resume(tmp_path, capsys):
    folder = tmp_path / "quickstart" / "now"

    def start(recipe, output):
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(recipe.to_yaml())
        raise KeyboardInterrupt

    assert carry_out("matrix", _read("quickstart", "--output", str(tmp_path)), start) == 130
    expected = f"interrupted; go on with: domainnorm matrix --resume {folder}\n"
    assert capsys.readouterr().err == expected


def test_interrupt_that_lightning_turned_into_an_exit_is_an_interrupt(tmp_path, capsys):
    def start(recipe, output):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    assert carry_out("run", _read("quickstart", "--output", str(tmp_path)), start) == 130
    assert capsys.readouterr().err == "interrupted before anything was stored\n"


def test_other_exits_pass_through(tmp_path):
    def start(recipe, output):
        sys.exit(5)

    with pytest.raises(SystemExit, match="5"):
        carry_out("run", _read("quickstart", "--output", str(tmp_path)), start)


def test_unexpected_errors_pass_through(tmp_path):
    def start(recipe, output):
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        carry_out("run", _read("quickstart", "--output", str(tmp_path)), start)
