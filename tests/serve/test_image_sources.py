"""Images are read as the dataset of the run reads its files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from domainnorm.data.datasets import Dicom
from domainnorm.errors import ConditionError, DataError
from domainnorm.recipe import Named
from domainnorm.serve.image_sources import DicomImages, find_source, write_mask
from tests.run.tiny import recipe


def joined(*parts):
    return replace(recipe(), dataset=Named("join", {"parts": list(parts)}))


def test_joined_data_that_is_read_in_one_way_tells_the_way(tmp_path):
    Dicom.write_sample(tmp_path / "in")
    parts = [{"name": "dicom", "root": root, "window": [300.0, 200.0]} for root in "ab"]
    source = find_source(joined(*parts), tmp_path / "in", tmp_path / "out")
    assert isinstance(source, DicomImages)


@pytest.mark.parametrize(
    "other",
    [{"name": "folder"}, {"name": "dicom", "window": [40.0, 400.0]}],
    ids=["kind", "window"],
)
def test_joined_data_that_is_read_in_several_ways_is_refused(other, tmp_path):
    with pytest.raises(DataError, match=r"data\.parts: the run was trained on files that are read"):
        find_source(joined({"name": "dicom"}, other), tmp_path, tmp_path / "out")


def test_white_is_for_image_files(tmp_path):
    with pytest.raises(ConditionError, match="white: it is for 16-bit image files"):
        find_source(joined({"name": "dicom"}), tmp_path, tmp_path / "out", white=4095)


def test_mask_that_cannot_be_written_is_named():
    with pytest.raises(DataError, match=r"a\.png: cannot be written; free some space"):
        write_mask(np.zeros((4, 4), np.uint8), Path("/proc/self/a.png"))
