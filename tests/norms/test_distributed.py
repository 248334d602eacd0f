"""Statistics of several samples over two ranks equal one process on the joined batch."""

import os
import subprocess
import sys

import pytest
import torch

from tests.norms.two_ranks import CASES, COMPILED, LABELS, train

pytestmark = pytest.mark.slow
every_case = pytest.mark.parametrize(
    "case",
    [*CASES, *(f"{case} alone" for case in CASES), *(f"{case} compiled" for case in COMPILED)],
)
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}  # float64 around 100; sums are taken in another order


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.norms.two_ranks", str(folder)]
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    subprocess.run(command, env=environment, check=True, timeout=300)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def joined(case):
    labels, name = LABELS[0] + LABELS[1], case.removesuffix(" compiled").removesuffix(" alone")
    return train(name, labels, slice(None), lambda gradient: None)


@every_case
def test_outputs_and_input_gradients_of_three_steps_equal_those_of_one_process(ranks, case):
    wanted, _ = joined(case)
    found = [torch.cat(pair) for pair in zip(ranks[0][case][0], ranks[1][case][0], strict=True)]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@every_case
@pytest.mark.parametrize("rank", [0, 1])
def test_parameters_and_buffers_after_three_steps_equal_those_of_one_process(ranks, case, rank):
    _, wanted = joined(case)
    found = ranks[rank][case][1]
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, **TOLERANCE, msg=name)


@every_case
def test_buffers_of_both_ranks_are_identical(ranks, case):
    one, other = ranks[0][case][1], ranks[1][case][1]
    assert all(torch.equal(one[name], other[name]) for name in one if "statistics" in name)
