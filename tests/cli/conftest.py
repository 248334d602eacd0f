from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from domainnorm.cli import main

Result = subprocess.CompletedProcess[str]


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Result]:
    """Run ``python`` with some words in a process of its own, in an empty folder."""

    def run(*words: str) -> Result:
        command = [sys.executable, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def domainnorm(tmp_path, monkeypatch, capsys) -> Callable[..., Result]:
    """Run the console command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        try:
            code = main(words)
        except SystemExit as error:
            code = error.code
        output = capsys.readouterr()
        return Result(words, code, output.out, output.err)

    return run
