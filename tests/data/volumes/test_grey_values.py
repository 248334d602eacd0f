from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from domainnorm.data.volumes.grey_values import (
    check_window,
    import_medical,
    percentile_range,
    resample,
    to_grey,
    window_range,
)
from domainnorm.data.volumes.nifti_slices import VolumeCache
from domainnorm.errors import DataError


def volume(value: int) -> np.ndarray:
    return np.full((1024, 1024), value, np.uint8)  # 1 MB


def test_window_is_centre_and_width():
    assert window_range([40, 400]) == (-160, 240)


def test_range_maps_to_0_to_255_and_clips():
    values = np.array([-500, -160, 40, 240, 3000], np.int16)
    assert to_grey(values, -160, 240).tolist() == [0, 0, 128, 255, 255]


def test_values_that_are_no_number_are_black():
    values = np.array([np.nan, 1.0])
    assert to_grey(values, 0, 1).tolist() == [0, 255]


def test_constant_volume_is_black():
    assert not to_grey(np.full((3, 3), 7.0), 7.0, 7.0).any()


def test_percentiles_ignore_outliers_and_what_is_no_number():
    values = np.concatenate([np.linspace(0, 100, 1001), [1e9, np.nan, np.inf]])
    low, high = percentile_range(values)
    assert low == pytest.approx(0.5, abs=0.2)
    assert high == pytest.approx(99.5, abs=0.6)


def test_resampling_gives_the_wanted_spacing():
    plane = np.zeros((40, 30), np.uint8)
    assert resample(plane, (0.5, 1.0), 1.0, classes=False).shape == (20, 30)


def test_resampling_invents_no_class():
    plane = np.zeros((31, 31), np.uint8)
    plane[10:20, 10:20] = 7
    assert set(np.unique(resample(plane, (0.6, 0.6), 0.25, classes=True))) == {0, 7}


@pytest.mark.parametrize("target", [0.2, 0.3, 0.7, 1.3, 1.7, 3.0])
def test_classes_lie_where_the_image_shows_them(target):
    apart = []
    for start in range(20, 32):
        plane = np.zeros((60, 60), np.uint8)
        plane[start : start + 11, start + 3 : start + 14] = 200
        resampled = (resample(plane, (1.0, 1.0), target, classes=way) for way in (False, True))
        grey, classes = (np.average(np.indices(p.shape), (1, 2), [p, p]) for p in resampled)
        apart.append(classes - grey)
    np.testing.assert_allclose(np.mean(apart, 0), 0, atol=0.06)  # pixels


def test_shrinking_averages():
    stripes = np.tile(np.array([0, 200], np.uint8), (8, 8))
    assert (resample(stripes, (1.0, 1.0), 2.0, classes=False) == 100).all()


@pytest.mark.parametrize("window", [[40], [40, 0], [1, 2, 3]])
def test_window_that_is_none_names_the_key(window):
    with pytest.raises(DataError, match=r"data\.window: .*expected \[centre, width\]"):
        check_window("data.window", window)


def test_missing_package_says_how_to_install_it():
    with pytest.raises(DataError, match=r"pip install 'domainnorm\[medical\]'"):
        import_medical("package_that_is_not_there")


def test_cached_volume_is_loaded_once():
    cache, loads = VolumeCache(8), []
    for _ in range(3):
        cache.get("a", lambda: loads.append("a") or volume(1))
    assert loads == ["a"]


def test_cache_drops_what_was_used_longest_ago():
    cache = VolumeCache(2)
    for key in "ab":
        cache.get(key, lambda: volume(0))
    cache.get("a", lambda: volume(9))  # used again: b is now the oldest
    cache.get("c", lambda: volume(0))
    assert cache.get("a", lambda: volume(9))[0, 0] == 0
    assert cache.get("b", lambda: volume(9))[0, 0] == 9


def test_volume_above_the_limit_is_kept_alone():
    cache = VolumeCache(0)
    cache.get("a", lambda: volume(0))
    cache.get("b", lambda: volume(0))
    assert len(cache) == 1


def test_copy_for_another_process_starts_empty():
    cache = VolumeCache(8)
    cache.get("a", lambda: volume(0))
    copy = pickle.loads(pickle.dumps(cache))
    assert (len(copy), copy.limit) == (0, cache.limit)


@pytest.mark.slow
def test_cache_is_shared_by_threads():
    """Others drop a volume between two steps of one, or add one while sizes are summed."""
    cache, size = VolumeCache(1), np.zeros(2**19, np.uint8)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda key: cache.get(key % 13, lambda: size), range(8000))
            assert all(volume is size for volume in found)
    finally:
        sys.setswitchinterval(interval)
    assert len(cache) == 2
