import numpy as np
import pytest

from domainnorm.data import Stream
from domainnorm.data.datasets import Scans
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def scans():
    return Scans(per_domain=120)


def classes(scans, order, **options):
    images = [n for n, one in enumerate(scans.records) if one.domain == "clean"]
    found = Stream(order, **options).positions(scans, ["clean"], images, 0)
    assert sorted(found) == list(range(len(images)))
    return [scans.records[images[number]].target for number in found]


def runs(labels):
    """Length and class of each stretch of equal classes."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    return [(len(part), part[0]) for part in np.split(np.asarray(labels), changes)]


def test_one_class_after_the_other(scans):
    assert classes(scans, "by_class") == sorted(classes(scans, "stored"))


def test_classes_in_runs_come_again(scans):
    found = runs(classes(scans, "by_class", run=3))
    assert len(found) > 20
    assert len({label for _, label in found}) == 10
    whole = [length for length, _ in found if length % 3 == 0]
    assert len(whole) >= len(found) - 10  # a class ends with what is left


def test_shuffled_images_are_of_no_order(scans):
    assert max(length for length, _ in runs(classes(scans, "shuffled"))) < 6
    assert classes(scans, "shuffled") == classes(scans, "shuffled")


def test_runs_of_one_image_are_shuffled(scans):
    assert max(length for length, _ in runs(classes(scans, "by_class", run=1))) < 6


def test_a_batch_of_none_is_refused():
    with pytest.raises(DataError, match=r"stream.batch_size: 0"):
        Stream(batch_size=0)
