"""Two processes of which each lacks a domain; unused parameters are not searched for.

Compared are gradients that do not depend on how a batch is divided: those under instance
statistics, under the moments of domains over both ranks, and under running moments.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from tests.backbones.two_ranks import CASES, LABELS, gradients, prepare


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.backbones.two_ranks", str(folder)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    subprocess.run(command, env=environment, check=True, timeout=300)
    return torch.load(folder / "gradients.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_those_of_one_process_on_the_joined_batch(found, case):
    model, image = prepare(case)
    wanted = gradients(model, model, image, LABELS[0] + LABELS[1])
    assert found[case].keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[case][name], gradient, rtol=1e-8, atol=1e-10, msg=name)
