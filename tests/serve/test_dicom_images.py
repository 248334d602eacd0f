"""DICOM files that are predicted: frames, scanners and attributes of their headers."""

import numpy as np
import pydicom
import pytest

from domainnorm.data.datasets import Dicom
from domainnorm.errors import DataError
from domainnorm.serve.image_sources import DicomImages

SKYRA, SIGNA = "siemens_skyra", "ge_medical_systems_signa_hdxt"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    root = tmp_path_factory.mktemp("dicom")
    Dicom.write_sample(root)
    return root


def images_of(place, tmp_path, known=(), attributes=(), **options):
    return DicomImages(place, tmp_path / "out", options, known, attributes)


def copied(sample, tmp_path, number="00", name="one.dcm", **tags):
    header = pydicom.dcmread(sample / f"patient_{number}/series_1/3.dcm")
    for tag, value in tags.items():
        setattr(header, tag, value)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    header.save_as(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("options", [{}, {"window": [300.0, 200.0]}, {"spacing": 1.0}])
def test_pixels_are_those_that_the_dataset_trains_on(options, sample, tmp_path):
    dataset = Dicom(root=str(sample), **options)
    images = images_of(sample, tmp_path, **options)
    positions = {record.file: number for number, record in enumerate(dataset.records)}
    assert {str(name) for name, _ in images.listed.files} == set(positions)
    for number, (name, _) in enumerate(images.listed.files):
        assert np.array_equal(images.pixels(number), dataset.image(positions[str(name)]))


def test_headers_tell_the_domain_where_the_model_knows_the_scanner(sample, tmp_path):
    listed = images_of(sample, tmp_path, known=[SKYRA, "elsewhere"]).listed
    of_scanner = dict(zip((str(name) for name, _ in listed.files), listed.domains, strict=True))
    assert of_scanner["patient_00/series_1/3.dcm"] == SKYRA
    assert of_scanner["patient_01/series_1/3.dcm"] == ""
    by_maker = images_of(sample, tmp_path, known=["siemens"], domain_by="manufacturer").listed
    assert by_maker.domains == ["siemens" if name == SKYRA else "" for name in listed.domains]


def test_headers_tell_attributes_and_a_table_comes_first(sample, tmp_path):
    for number, name in (("00", "one.dcm"), ("01", "two.dcm")):
        copied(sample, tmp_path, number, name)
    names = ("model", "kvp")
    listed = images_of(tmp_path, tmp_path, attributes=names).listed
    assert listed.columns == {"model": ["Skyra", "SIGNA HDxt"], "kvp": ["", ""]}
    table = tmp_path / "list.csv"
    table.write_text(f"image,domain,model,age\ntwo.dcm,,Other,50\none.dcm,{SIGNA},,60\n")
    listed = images_of(table, tmp_path, known=[SKYRA, SIGNA], attributes=names).listed
    assert listed.domains == [SIGNA, SIGNA]
    assert listed.columns == {"model": ["Other", ""], "kvp": ["", ""], "age": ["50", "60"]}


def test_every_frame_is_an_image(sample, tmp_path):
    plane = pydicom.dcmread(sample / "patient_00/series_1/3.dcm").pixel_array
    both = np.stack([plane, plane[::-1]])
    file = copied(sample, tmp_path, name="in/few#1.dcm", NumberOfFrames=2, PixelData=both.tobytes())
    for place in (tmp_path / "in", file):
        images = images_of(place, tmp_path)
        assert [str(name) for name, _ in images.listed.files] == ["few#1.dcm#0", "few#1.dcm#1"]
        assert np.array_equal(images.pixels(0), images.pixels(1)[::-1])


def test_other_files_are_passed_over_and_damaged_ones_are_told(sample, tmp_path):
    copied(sample, tmp_path, name="0007")  # of a scanner that writes no suffix
    for name in ("readme", "notes.txt", "broken.dcm"):
        (tmp_path / name).write_text("no image")
    images = images_of(tmp_path, tmp_path)
    assert [str(name) for name, _ in images.listed.files] == ["0007", "broken.dcm"]
    assert list(images.problems) == [1]
    assert "broken.dcm: not a readable DICOM file" in images.problems[1]


def test_listed_files_that_are_not_there_are_told(tmp_path, sample):
    copied(sample, tmp_path)
    (tmp_path / "list.txt").write_text("one.dcm\nmissing\nother.dcm\n")
    images = images_of(tmp_path / "list.txt", tmp_path)
    assert list(images.problems) == [1, 2]
    assert "missing, or no image of DICOM" in images.problems[1]
    assert "other.dcm" in images.problems[2]


def test_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(DataError, match="no DICOM images in it, as the run was trained on"):
        images_of(tmp_path, tmp_path)
