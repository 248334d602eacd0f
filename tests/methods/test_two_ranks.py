import os
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from tests.methods.two_ranks import CASES

EQUAL = {"rtol": 1e-7, "atol": 1e-9}
# Losses are float32, and their last digits move the weights of domains.
CLOSE = {"groupdro": {"rtol": 1e-5, "atol": 1e-5}}


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    found = []
    for devices in (1, 2):
        path = folder / f"{devices}.pt"
        command = [sys.executable, "-m", "tests.methods.two_ranks", path, str(devices)]
        subprocess.run(command, env=environment, check=True, timeout=300)
        found.append(torch.load(path, weights_only=True))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one_process(states, case):
    one, two = (state[case] for state in states)
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert_close(two[name], tensor, **CLOSE.get(case, EQUAL), msg=name)
