import warnings

import pytest

from tests.fuzz.data import fuzz, names


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_broken_folders_are_refused_or_told(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, faults = fuzz(name, seed=1, count=8, place=tmp_path)
    assert faults == []
    assert found["refused"]
