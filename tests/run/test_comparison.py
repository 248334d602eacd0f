"""Comparisons of the tiny quickstart; runs are carried out in this process unless marked slow."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from domainnorm.errors import CheckpointError, DomainNormError
from domainnorm.evaluation import ensv, load_evaluated
from domainnorm.recipe import read_grid
from domainnorm.report import load_results
from domainnorm.run import (
    create_engine,
    resume_comparison,
    resume_run,
    run_comparison,
    sample_cells,
)
from domainnorm.run.comparison import plan_units
from domainnorm.run.engines import LOCK, LOG, ProcessEngine
from domainnorm.run.machine import peak_memory
from tests.run.tiny import WORDS, assert_same_weights, call, figures, mtimes

SHORT = ("trainer.max_epochs=1", "trainer.limit_batches=1", "compare=[source_only]")
GRID = ("method=[adabn,tent]", "seed=[0,1]")


class Ended:
    def __init__(self, code):
        self.code = code

    def poll(self):
        return self.code


class InThisProcess:
    """An engine without processes, which fails where it is told to."""

    jobs = 1

    def __init__(self, failing=""):
        self.failing, self.started = failing, []

    def __call__(self, recipes, folder):
        return self

    def start(self, folder, taken):
        self.started.append(folder.name)
        if self.failing and self.failing in folder.name:
            (folder / LOG).write_text("Traceback ...\nValueError: out of luck\n\n")
            return Ended(1)
        resume_run(folder)
        return Ended(0)

    def stop(self, jobs):
        pass


def grid(*words):
    return read_grid("quickstart", [*WORDS, *SHORT, *words])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished comparison, and the folders that were carried out in turn."""
    engine = InThisProcess()
    with figures(drawn=False):
        folder = run_comparison(grid(*GRID), tmp_path_factory.mktemp("made"), engine)
    return folder, engine.started


def cells_of(folder):
    return sorted((folder / "cells").iterdir())


@pytest.mark.slow
def test_stages_of_several_cells_are_carried_out_once_and_before_the_cells(made):
    _, started = made
    assert started == [
        *("01_source_only_seed_0", "02_source_only_seed_1"),
        *("01_adabn_seed_0", "02_adabn_seed_1", "03_tent_seed_0", "04_tent_seed_1"),
    ]


def test_cells_share_the_files_of_their_source_model(made):
    files = (made[0] / "cells").glob("*/stages/*/seed0/source_only/model.safetensors")
    assert len({file.stat().st_ino for file in files}) == 1


@pytest.mark.slow
def test_cell_is_the_run_of_its_recipe_weights_included(made, tmp_path):
    cell = cells_of(made[0])[2]
    assert call("run", str(cell / "recipe.yaml"), "--output", str(tmp_path)) == 0
    assert_same_weights(cell, next(tmp_path.glob("*/*")))


def test_table_holds_each_method_once_with_all_seeds(made):
    stored = json.loads((made[0] / "comparison.json").read_text())
    assert [one["method"] for one in stored["arms"]] == ["source_only", "adabn", "tent"]
    results = [one for cell in cells_of(made[0]) for one in load_results(cell / "metrics.json")]
    for arm in stored["arms"]:
        (shift,) = arm["shifts"]
        for seed in (0, 1):
            key = (arm["method"], seed, "colour_cast")
            found = {
                r.metrics["balanced_accuracy"]
                for r in results
                if (r.method, r.seed, r.domain) == key
            }
            assert found == {shift["by_seed"][str(seed)]}
        assert arm["resident_bytes"] > 100e6
    assert {one["state"] for one in stored["cells"]} == {"finished"}


def test_models_of_all_cells_are_candidates_of_each_other(made):
    stored = json.loads((made[0] / "comparison.json").read_text())
    places = {
        (method, seed): next((made[0] / "cells").glob(f"*/stages/*/seed{seed}/{method}"))
        for method in ("source_only", "adabn", "tent")
        for seed in (0, 1)
    }
    said = [
        load_evaluated(place / "unlabelled-colour_cast.safetensors") for place in places.values()
    ]
    expected = dict(zip(places, ensv(said), strict=True))
    for arm in stored["arms"]:
        own = [expected[arm["method"], seed] for seed in (0, 1)]
        assert arm["scores"]["ensv"] == pytest.approx(sum(own) / 2)


def test_page_holds_table_and_figure_and_can_be_written_again(made, capsys):
    page = made[0] / "report.html"
    text = page.read_text()
    assert "balanced_accuracy" in text
    assert "data:image/png" in text
    page.unlink()
    assert call("report", str(made[0])) == 0
    assert page.read_text() == text


@pytest.mark.parametrize("command", ["report", "test"])
def test_commands_take_a_cell_as_the_run_that_it_is(made, command, capsys):
    assert call(command, str(cells_of(made[0])[0])) == 0


@pytest.mark.parametrize("words", [("run", "--resume"), ("test",), ("predict",)])
def test_comparison_is_no_run(made, words, tmp_path, capsys):
    extra = [str(tmp_path)] if words == ("predict",) else []
    assert call(*words, str(made[0]), *extra) == 1
    assert "holds a comparison, expected a run; its runs are in" in capsys.readouterr().err


def test_finished_comparison_carries_out_nothing_again(made):
    engine, before = InThisProcess(), (made[0] / "comparison.json").read_bytes()
    resume_comparison(made[0], engine)
    assert engine.started == []
    assert (made[0] / "comparison.json").read_bytes() == before


@pytest.mark.slow
def test_failed_cell_is_named_others_go_on_and_it_is_tried_again(tmp_path, capsys):
    asked = grid("method=[adabn,tent]")
    with pytest.raises(DomainNormError, match=r"1 of 2 cells failed; .*--resume(.|\n)*adabn: Val"):
        run_comparison(asked, tmp_path, InThisProcess(failing="01_adabn"))
    (folder,) = tmp_path.glob("*/compare-*")
    assert "failed: ValueError: out of luck" in (folder / "results.md").read_text()
    assert "[3/3] tent" in capsys.readouterr().out
    engine = InThisProcess()
    kept = ("source_only/model.safetensors", "tent/model.safetensors")
    before = mtimes(folder / "cells/02_tent", kept)
    resume_comparison(folder, engine)
    assert engine.started == ["01_adabn"]
    assert mtimes(folder / "cells/02_tent", kept) == before


def test_cells_without_their_source_model_fail_with_its_error(tmp_path):
    asked = grid("method=[adabn,tent]")
    with pytest.raises(DomainNormError, match=r"2 of 2 cells(.|\n)*tent: source_only: ValueError"):
        run_comparison(asked, tmp_path, InThisProcess(failing="source_only"))


def test_what_a_run_would_refuse_is_told_of_every_cell_before_the_first_starts(tmp_path, capsys):
    words = ("quickstart", *WORDS, "data.batch_size=[1,16]", "method=[adabn,joint]", "compare=[]")
    assert call("compare", *words, "data.target=[colour_cast,nope]", f"--output={tmp_path}") == 2
    assert "unknown domain 'nope'" in capsys.readouterr().err
    assert call("compare", *words, f"--output={tmp_path}") == 2
    assert re.search(r"method 'joint'.*\(cell joint batch_size=1\)", capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_dry_run_prints_cells_and_what_they_take(tmp_path, capsys):
    words = ("quickstart", *WORDS, *GRID, "norm=[dsbn,cin]", "--dry-run", f"--output={tmp_path}")
    assert call("compare", *words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "8 cells, 8 stages of several cells trained once"
    assert "cell  tent cin seed 1  (takes source_only cin seed 1, oracle cin seed 1)" in said
    assert not list(tmp_path.iterdir())


def test_options_of_methods_do_not_part_source_models():
    units = plan_units(grid("method=tent", "method.lr=[1e-3,1e-4]").cells, Path())
    assert [unit.label for unit in units] == ["source_only", "lr=0.001", "lr=0.0001"]


def test_other_networks_share_nothing():
    units = plan_units(grid("norm=[dsbn,cin]", "method=tent").cells, Path())
    assert [unit.label for unit in units] == ["dsbn", "cin"]


def test_folder_of_no_comparison_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read as a comparison"):
        resume_comparison(tmp_path, InThisProcess())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cost.json", "{"),
        ("cost.json", "[]"),
        ("metrics.json", "[]"),
        ("grid.json", '{"cells": [1, 2, 3, 4]}'),
    ],
)
def test_damaged_file_of_a_comparison_is_refused(made, tmp_path, name, content):
    folder = shutil.copytree(made[0], tmp_path / "copy")
    for file in folder.rglob(name):
        file.write_text(content)
    message = "cannot be read as a comparison" if name == "grid.json" else f"{name}: cannot be read"
    with pytest.raises(CheckpointError, match=message):
        resume_comparison(folder, InThisProcess())


def test_run_that_another_process_carries_out_is_not_begun_again(tmp_path):
    engine = ProcessEngine([grid("seed=0").cells[0].recipe], 1)
    with (tmp_path / LOCK).open("w") as lock:
        code = "import fcntl, sys; fcntl.flock(0, fcntl.LOCK_EX); print(flush=True); input()"
        command = [sys.executable, "-c", code.replace("flock(0", f"flock({lock.fileno()}")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        other = subprocess.Popen(command, pass_fds=[lock.fileno()], **pipes)
        other.stdout.readline()
    assert engine.start(tmp_path, []) is None
    other.communicate(b"\n")


def test_jobs_go_by_threads_and_workers_of_a_cell(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    recipes = [cell.recipe for cell in grid("data.num_workers=[1,3]", "seed=[0,1,2,3]").cells]
    engine = ProcessEngine(recipes)
    assert (engine.jobs, engine.threads) == (4, 4)
    assert ProcessEngine(recipes, 2).threads == 8
    assert ProcessEngine(recipes[:1]).jobs == 1


def test_devices_are_dealt_out_in_groups_of_what_a_cell_asks_for(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7,8")
    words = ("trainer.accelerator=gpu", "trainer.devices=2", "seed=[0,1,2]")
    recipes = [cell.recipe for cell in grid(*words).cells]
    assert ProcessEngine(recipes).devices == ["4,5", "6,7"]
    assert ProcessEngine(recipes, 3).devices == ["4,5", "6,7", "4,5"]
    alone = [cell.recipe for cell in grid("trainer.accelerator=cpu").cells]
    assert ProcessEngine(alone).devices == []


def test_parameters_of_submitit_are_refused_for_processes(capsys):
    assert call("compare", "quickstart", "--submit", "timeout_min=5") == 2
    assert "got 'timeout_min', which is for --engine submitit" in capsys.readouterr().err


def test_peak_memory_is_at_least_what_is_there():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert peak_memory() >= pages * os.sysconf("SC_PAGE_SIZE") // 2


# With processes


def begin(output, *words):
    command = [sys.executable, "-m", "domainnorm", "compare", "quickstart", *WORDS, *words]
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*command, "--output", str(output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    finally:
        signal.signal(signal.SIGINT, former)


def wait_until(there, seconds=300.0):
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        time.sleep(0.05)


def at_work(folder):
    """Processes that carry out runs below a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in place.read_bytes() and b"--resume" in place.read_bytes():
                found.append(place.parent.name)
        except OSError:
            pass
    return found


LONG = ("method=source_only", "compare=[]", "trainer.max_epochs=40", "--jobs", "2", "seed=[0,1]")
TRAINED = "*/*/cells/*/stages/**/training.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_leaves_a_folder_to_go_on_with_and_no_processes(tmp_path, number, code):
    process = begin(tmp_path, *LONG)
    wait_until(lambda: list(tmp_path.glob(TRAINED)))
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    (folder,) = tmp_path.glob("*/compare-*")
    assert process.returncode == code
    assert f"interrupted; go on with: domainnorm compare --resume {folder}" in errors
    assert "Traceback" not in errors
    assert at_work(tmp_path) == []
    assert call("compare", "--resume", str(folder)) == 0
    assert all((cell / "report.html").exists() for cell in cells_of(folder))


@pytest.mark.slow
def test_killed_comparison_goes_on_beside_runs_that_it_has_left(tmp_path):
    process = begin(tmp_path, *LONG)
    wait_until(lambda: list(tmp_path.glob(TRAINED)))
    process.kill()
    process.communicate()
    assert at_work(tmp_path)
    (folder,) = tmp_path.glob("*/compare-*")
    assert call("compare", "--resume", str(folder)) == 0
    assert all((cell / "report.html").exists() for cell in cells_of(folder))


@pytest.mark.slow
def test_submitit_carries_out_the_same_cells(made, tmp_path):
    pytest.importorskip("submitit", reason="pip install 'domainnorm[cluster]'")
    asked = grid("method=[adabn,tent]")

    def engine(recipes, folder):
        return create_engine("submitit", recipes, folder, 2, {"cluster": "local"})

    folder = run_comparison(asked, tmp_path, engine)
    for cell, other in zip(cells_of(folder), cells_of(made[0])[::2], strict=True):
        assert_same_weights(cell, other)


@pytest.mark.slow
def test_example_of_the_page_runs_on_samples(tmp_path, capsys):
    page = Path(__file__).parents[2] / "docs/compare.md"
    block = re.search(r"```\n(domainnorm compare .*?)```", page.read_text(), re.DOTALL)
    words = shlex.split(block[1])[1:]
    assert call(*words, "--sample", "--dry-run", "--output", str(tmp_path)) == 0
    assert "12 cells, 12 stages" in capsys.readouterr().out
    asked = read_grid(words[1], words[2:])
    small = replace(asked, cells=sample_cells(asked.cells, tmp_path / "samples"))
    folder = run_comparison(small, tmp_path, InThisProcess())
    arms = json.loads((folder / "comparison.json").read_text())["arms"]
    names = ("source_only", "adabn", "tent", "oracle")
    expected = {(name, norm) for name in names for norm in ("dsbn", "cin")}
    assert {(one["method"], one["norm"]) for one in arms} == expected
    assert {shift["seeds"] for one in arms for shift in one["shifts"]} == {3}
