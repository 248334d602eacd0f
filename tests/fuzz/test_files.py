import warnings

import pytest

from tests.fuzz.files import fuzz, kinds, make_runs
from tests.run.conftest import _algorithms_as_before, _blank_figures  # noqa: F401


@pytest.mark.slow
def test_damaged_files_of_a_run_are_refused_or_harmless(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = make_runs(tmp_path)
        found = {kind: fuzz(kind, runs, seed=1, count=6) for kind in kinds(runs)}
    assert [fault for _, faults in found.values() for fault in faults] == []
    assert sum(counts["refused"] for counts, _ in found.values())
