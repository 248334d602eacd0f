import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_killed_runs_end_as_others_do(tmp_path):
    (tmp_path / "tmp").mkdir()  # others leave something in the usual one meanwhile
    places = ("--folder", str(tmp_path), "--tmp", str(tmp_path / "tmp"))
    words = ("--seed", "1", "--count", "4", *places)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kills", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # no threads, which a fork would lack
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
