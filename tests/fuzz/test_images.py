import warnings

import pytest

from tests.fuzz.images import fuzz, kinds


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.file)
def test_damaged_files_are_refused_or_harmless(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, faults = fuzz(kind, seed=1, count=60, place=tmp_path)
    assert faults == []
    assert found["refused"]
