import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_disturbed_streams_go_on_or_are_refused():
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.streams", "--seed", "1", "--count", "15"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # no threads, which a fork would lack
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
