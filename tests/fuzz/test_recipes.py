import warnings

import pytest

from tests.fuzz.recipes import KINDS, fuzz


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_changed_recipes_are_checked_or_refused(kind, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, faults = fuzz(kind, seed=1, count=8, place=tmp_path)
    assert faults == []
    assert found["refused"]
