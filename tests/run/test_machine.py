"""A run of several processes: one folder, one voice, every image once, and no process left over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from safetensors.torch import load_file

from domainnorm.cli import main
from domainnorm.data.datasets import Scans
from domainnorm.errors import DomainNormError
from domainnorm.evaluation import load_evaluated
from domainnorm.run.machine import readable_refusals
from tests.run.tiny import WORDS, assert_same_weights, metrics, start, wait_for

TWO = (*WORDS, "trainer.devices=2", "data.per_domain=45", "data.batch_size=8")
JOINT = ("norm=dsbn", "encoder.name=style", "method=joint", "compare=[]", "trainer.max_epochs=12")


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = process.communicate(timeout=300)
    return process.returncode, out, said


def test_refused_devices_say_how_to_go_on():
    said = "trainer: no such GPU; without a GPU set"
    with pytest.raises(DomainNormError, match=said), readable_refusals():
        raise MisconfigurationException("no such GPU\nmore")


@pytest.mark.slow
def test_strategies_that_divide_a_model_are_refused(capsys):
    assert main(["check", "quickstart", "trainer.strategy=fsdp"]) == 2
    assert "trainer.strategy: got 'fsdp', expected 'auto' or 'ddp'" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_carry_out_one_run(tmp_path, capsys):
    code, out, said = finish(start(tmp_path, "quickstart", *TWO))
    assert (code, said) == (0, "")
    assert Counter(out.split())["[1/4]"] == 1
    assert out.count("run folder:") == 1
    (folder,) = tmp_path.glob("quickstart/*")
    assert {method for method, _ in metrics(folder)} == {"source_only", "adabn", "tent", "oracle"}
    records = Scans(per_domain=45).records
    for file in folder.glob("stages/*/*/*/predictions-*.safetensors"):
        domain = file.stem.removeprefix("predictions-")
        expected = [n for n, r in enumerate(records) if (r.domain, r.split) == (domain, "test")]
        assert sorted(load_evaluated(file).index.tolist()) == expected
    alone = ("trainer.devices=1", "trainer.accelerator=cpu", "trainer.precision=32-true")
    assert main(["test", str(folder), *alone]) == 0
    shown = capsys.readouterr().out
    for values in metrics(folder).values():
        assert f"{values['balanced_accuracy']:.3f}" in shown


@pytest.mark.slow
def test_two_processes_find_the_moments_that_one_finds(tmp_path):
    # Batches that the images do not fill: some come again, on the other rank too.
    words = ("method=adabn", "compare=[source_only]", "data.batch_size=2", "trainer.max_epochs=1")
    assert finish(start(tmp_path / "two", "quickstart", *TWO, *words))[0] == 0
    (two,) = tmp_path.glob("two/quickstart/*/stages/*/*/adabn")
    given = (f"checkpoint={two.parent / 'source_only'}", "trainer.devices=1")
    assert finish(start(tmp_path / "one", "quickstart", *TWO, *words, *given))[0] == 0
    (one,) = tmp_path.glob("one/quickstart/*/stages/*/*/adabn")
    # Of the first layer; further ones see what batches have normalized.
    found = [
        load_file(stage / "model.safetensors")["backbone.conv1.1.statistics.running_mean"]
        for stage in (one, two)
    ]
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_two_processes_measure_all_pairs_of_domains(tmp_path):
    words = [sys.executable, "-m", "domainnorm", "matrix", "quickstart", *TWO, "--output", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.count("models: balanced_accuracy own domain") == 1
    (folder,) = tmp_path.glob("quickstart/*")
    cells = (folder / "matrix_norms.csv").read_text().splitlines()[1:]
    assert {tuple(cell.split(",")[1:3]) for cell in cells} == {
        (row, column) for row in ("clean", "colour_cast") for column in ("clean", "colour_cast")
    }


@pytest.mark.slow
def test_interrupted_processes_go_on_as_if_they_had_not_been(tmp_path):
    assert finish(start(tmp_path / "whole", "quickstart", *TWO, *JOINT))[0] == 0
    process = start(tmp_path / "cut", "quickstart", *TWO, *JOINT, before=["setsid"])
    wait_for(process, "quickstart/*/stages/*/*/*/training.ckpt", tmp_path / "cut")
    os.killpg(os.getpgid(process.pid), signal.SIGINT)  # as a terminal does
    code, _, said = finish(process)
    assert code == 130
    assert said.count("interrupted; go on with: domainnorm run --resume") == 1
    assert_group_ended(process.pid)
    (folder,) = (tmp_path / "cut").glob("quickstart/*")
    assert not list(folder.glob("stages/*/*/*/results.json"))
    words = [sys.executable, "-m", "domainnorm", "run", "--resume", folder]
    subprocess.run(words, check=True, timeout=300, capture_output=True)
    (whole,) = (tmp_path / "whole").glob("quickstart/*")
    assert_same_weights(whole, folder)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(tmp_path):
    assert main(["data", "sample", "pacs", str(tmp_path / "pacs")]) == 0
    for image in (tmp_path / "pacs").rglob("*.jpg"):
        if image.parent.parent.name == "sketch" and image.stem == "00001":
            image.write_bytes(b"no image")
    words = (
        *("data.name=pacs", f"data.root={tmp_path / 'pacs'}", "data.source=[sketch]"),
        *("data.target=[photo]", "data.image_size=32", "data.batch_size=4", "compare=[]"),
        *("backbone={name: test_resnet}", "trainer.devices=2", "method=source_only"),
    )
    process = start(tmp_path / "out", "pacs/photo_to_rest", *words, before=["setsid"])
    code, _, said = finish(process)
    assert code == 1
    assert "00001.jpg: not a readable image" in said
    assert "Traceback" not in said
    assert_group_ended(process.pid)


def assert_group_ended(leader: int) -> None:
    """No process of a session is left; those that wait to be buried do not count."""
    left = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended since
            state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
            left += [file] if state != "Z" and int(session) == leader else []
    assert not left
