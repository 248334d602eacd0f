"""The quickstart in a size that takes seconds, through the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file

from domainnorm.cli import main
from domainnorm.recipe import Recipe, load_recipe

WORDS = (
    "configs=[data/scans,trainer/cpu]",  # without augmentation
    "task=classification",
    "method=tent",
    "backbone.name=test_resnet",
    "data.per_domain=40",
    "data.batch_size=16",
    "data.target=[colour_cast]",
    "trainer.max_epochs=2",
    "trainer.threads=1",
    "evaluation.resamples=20",
)
TRANSFER = "stages/clean-to-colour_cast"
METHODS = ("source_only", "adabn", "tent", "oracle")
PATIENCE = 60.0  # seconds a process may take to reach a state
_DRAW = Figure.draw


def recipe(*words: str) -> Recipe:
    return load_recipe("quickstart", [*WORDS, *words])


@contextmanager
def figures(*, drawn: bool) -> Iterator[None]:
    """Figures are drawn here, or written blank: drawing takes more than half of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "draw", _DRAW if drawn else lambda figure, renderer: None)
        yield


def call(*words: str) -> int:
    """The console command in this process; its exit code."""
    return main(words)


def run(output: Path, *words: str, command: str = "run") -> Path:
    """A new run folder of the tiny recipe."""
    assert call(command, "quickstart", *WORDS, *words, "--output", str(output)) == 0
    return newest(output)


def newest(output: Path) -> Path:
    return max(output.glob("quickstart/*"), key=lambda folder: folder.stat().st_mtime_ns)


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Weights of every stage of a run folder."""
    files = sorted(folder.glob("stages/*/*/*/model.safetensors"))
    return {str(file.parent.relative_to(folder)): load_file(file) for file in files}


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one
    assert one.keys() == other.keys()
    for stage, tensors in one.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, other[stage][name]), f"{stage}: {name}"


def start(output: Path, *words: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """The console command in a process of its own."""
    # A small default limit of threads: what this process was started with holds for the child.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Shells start what runs in their background deaf to interrupts, and children inherit that.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*before, sys.executable, "-m", "domainnorm", "run", *words, "--output", str(output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    finally:
        signal.signal(signal.SIGINT, former)


def wait_for(process: subprocess.Popen[str], pattern: str, output: Path) -> Path:
    """Wait until the process has made a file; fail with what it said when it ends before."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        found = list(output.glob(pattern))
        if found:
            return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.005)
    process.kill()
    raise AssertionError(f"no {pattern}: {process.communicate()}")


def metrics(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """What a run has measured, by method and domain."""
    found = json.loads((folder / "metrics.json").read_text())
    return {(one["method"], one["domain"]): one["metrics"] for one in found}


def assert_tested_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command ``test`` on a run shows the numbers that the run has stored."""
    assert call("test", str(folder)) == 0
    shown = capsys.readouterr().out
    for values in metrics(folder).values():
        assert f"{values['balanced_accuracy']:.3f}" in shown


def mtimes(folder: Path, names: Sequence[str]) -> dict[str, int]:
    return {name: (folder / TRANSFER / "seed0" / name).stat().st_mtime_ns for name in names}
