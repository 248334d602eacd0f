from __future__ import annotations

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data import survey_dataset
from domainnorm.data.dataset import attributes_of, check_attributes
from domainnorm.data.datasets import Dicom
from domainnorm.data.volumes.dicom_files import read_pixels
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write


@pytest.fixture
def edited(tmp_path):
    """A sample whose first file is changed by a function; returns how that file is shown."""
    write("dicom", tmp_path)
    file = tmp_path / "patient_01/series_1/3.dcm"  # of the GE scanner, MONOCHROME2

    def edit(change, **keys):
        header = pydicom.dcmread(file)
        change(header)
        header.save_as(file)
        dataset = Dicom(root=str(tmp_path), **keys)
        name = "patient_01/series_1/3.dcm"
        return dataset.image(where(dataset, file=name)[0])

    return edit


def set_values(header, values):
    plane = np.zeros((header.Rows, header.Columns), np.uint16)
    plane[0, : len(values)] = values
    header.PixelData = plane.tobytes()


def test_scanner_is_the_domain(tmp_path):
    dataset = read("dicom", tmp_path)
    assert dataset.domain_names == ["ge_medical_systems_signa_hdxt", "siemens_skyra"]


def test_manufacturer_alone_can_be_the_domain(tmp_path):
    dataset = read("dicom", tmp_path, domain_by="manufacturer")
    assert dataset.domain_names == ["ge_medical_systems", "siemens"]


def test_header_without_the_institution_is_unknown(tmp_path):
    assert read("dicom", tmp_path, domain_by="institution").domain_names == ["unknown"]


def test_attributes_come_from_the_header(tmp_path):
    write("dicom", tmp_path)
    file = tmp_path / "patient_01/series_1/3.dcm"
    header = pydicom.dcmread(file)
    header.MagneticFieldStrength = 1.5
    header.save_as(file)
    dataset = Dicom(root=str(tmp_path))
    names = ["model", "field_strength", "kvp"]
    check_attributes(names, dataset)
    record = dataset.records[where(dataset, file="patient_01/series_1/3.dcm")[0]]
    wanted = {"model": ["SIGNA HDxt"], "field_strength": ["1.5"], "kvp": [""]}
    assert attributes_of([record], names) == wanted


def test_slices_of_a_patient_share_class_and_split(tmp_path):
    dataset = read("dicom", tmp_path)
    found = {(record.group, record.split, record.target) for record in dataset.records}
    assert len(found) == 20


def test_low_values_are_dark_whatever_the_photometric_interpretation(tmp_path):
    dataset = read("dicom", tmp_path)
    for domain in dataset.domain_names:  # one of the two is MONOCHROME1
        assert dataset.image(where(dataset, domain=domain)[0])[0, 0, 0] < 60


def test_window_of_the_header_applies_after_slope_and_intercept(edited):
    def change(header):
        set_values(header, [0, 1000, 1100, 1200])
        header.RescaleSlope, header.RescaleIntercept = 2, -2000
        header.WindowCenter, header.WindowWidth = 200, 400

    # 2 · v − 2000 gives −2000, 0, 200, 400; the window shows 0 to 400.
    assert edited(change)[0, :4, 0].tolist() == [0, 0, 128, 255]


def test_window_of_the_recipe_comes_first(edited):
    def change(header):
        set_values(header, [0, 1000, 1100, 1200])
        header.WindowCenter, header.WindowWidth = 5, 10

    assert edited(change, window=[1100, 200])[0, :4, 0].tolist() == [0, 0, 128, 255]


def test_first_of_several_windows_counts(edited):
    def change(header):
        set_values(header, [0, 50, 100])
        header.WindowCenter, header.WindowWidth = [50, 1000], [100, 2000]

    assert edited(change)[0, :3, 0].tolist() == [0, 128, 255]


def group(name, **values):
    """An item of functional groups that has one, with these elements."""
    item, groups = pydicom.Dataset(), pydicom.Dataset()
    for tag, value in values.items():
        setattr(item, tag, value)
    setattr(groups, name, [item])
    return groups


def joined(*groups):
    for other in groups[1:]:
        groups[0].update(other)
    return groups[0]


def framed(header, *planes):
    """Several frames, each of these values in its first row."""
    shape = header.Rows, header.Columns
    stacked = np.zeros((len(planes), *shape), np.uint16)
    for plane, values in zip(stacked, planes, strict=True):
        plane[0, : len(values)] = values
    header.NumberOfFrames, header.PixelData = len(planes), stacked.tobytes()


def test_slope_and_window_of_a_frame_come_before_those_of_all_and_of_the_file(tmp_path):
    write("dicom", tmp_path)
    file = tmp_path / "patient_01/series_1/3.dcm"
    header = pydicom.dcmread(file)
    framed(header, [0, 50, 100], [0, 50, 100])
    header.RescaleSlope, header.RescaleIntercept = 1000, 0
    header.WindowCenter, header.WindowWidth = 5000, 1
    shared = group("FrameVOILUTSequence", WindowCenter=200, WindowWidth=400)
    pixels = "PixelValueTransformationSequence"
    header.SharedFunctionalGroupsSequence = [
        joined(shared, group(pixels, RescaleSlope=1, RescaleIntercept=0, RescaleType="US"))
    ]
    four = group(pixels, RescaleSlope=4, RescaleIntercept=0, RescaleType="US")
    header.PerFrameFunctionalGroupsSequence = [pydicom.Dataset(), four]
    header.save_as(file)
    first, second = (read_pixels(file, frame, None)[0, :3, 0].tolist() for frame in (0, 1))
    assert first == [0, 32, 64]  # 0, 50, 100 of 400
    assert second == [0, 128, 255]  # 0, 200, 400 of 400


def test_spacing_of_a_frame_comes_first(tmp_path):
    write("dicom", tmp_path)
    file = tmp_path / "patient_01/series_1/3.dcm"
    header = pydicom.dcmread(file)
    framed(header, [1], [1])
    header.SharedFunctionalGroupsSequence = [group("PixelMeasuresSequence", PixelSpacing=[2, 2])]
    own = group("PixelMeasuresSequence", PixelSpacing=[1, 1])
    header.PerFrameFunctionalGroupsSequence = [pydicom.Dataset(), own]
    header.save_as(file)
    assert read_pixels(file, 0, None, 1.0).shape[0] == 2 * read_pixels(file, 1, None, 1.0).shape[0]


def test_palettes_are_looked_up(edited):
    def change(header):
        set_values(header, [0, 3])
        header.PhotometricInterpretation = "PALETTE COLOR"
        for colour, value in (("Red", 248), ("Green", 0), ("Blue", 128)):
            table = np.zeros(4, np.uint16)
            table[3] = value << 8
            name = f"{colour}PaletteColorLookupTableDescriptor"
            header.add_new(name, "US", [4, 0, 16])
            setattr(header, f"{colour}PaletteColorLookupTableData", table.tobytes())

    assert edited(change)[0, :2].tolist() == [[0, 0, 0], [248, 0, 128]]


def test_palettes_of_eight_bits_in_words_of_sixteen(edited):
    def change(header):
        set_values(header, [0, 3])
        header.PhotometricInterpretation = "PALETTE COLOR"
        for colour, value in (("Red", 248), ("Green", 0), ("Blue", 128)):
            table = np.array([0, 0, 0, value], np.uint16)
            header.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [4, 0, 16])
            setattr(header, f"{colour}PaletteColorLookupTableData", table.tobytes())

    assert edited(change)[0, :2].tolist() == [[0, 0, 0], [248, 0, 128]]


@pytest.mark.parametrize("place", ["empty table", "empty window of a frame"])
def test_what_is_there_and_empty_says_nothing(edited, place):
    def change(header):
        set_values(header, [0, 50, 100])
        header.WindowCenter, header.WindowWidth = 50, 100
        if place == "empty table":
            header.VOILUTSequence = [pydicom.Dataset()]
        else:
            groups = [group("FrameVOILUTSequence", WindowCenter=None, WindowWidth=None)]
            header.SharedFunctionalGroupsSequence = groups

    assert edited(change)[0, :3, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_in_no_percentile(edited, kind):
    def change(header):
        plane = np.full((header.Rows, header.Columns), 2000, np.uint16)
        half = header.Rows // 2
        plane[:half] = np.linspace(1000, 1100, half * header.Columns).reshape(half, -1)
        header.PixelData = plane.tobytes()
        header.PhotometricInterpretation = kind
        header.add_new("PixelPaddingValue", "US", 1999)
        header.add_new("PixelPaddingRangeLimit", "US", 2001)
        for tag in ("WindowCenter", "WindowWidth", "PresentationLUTShape"):
            if tag in header:
                delattr(header, tag)

    shown = edited(change)[..., 0]
    half = len(shown) // 2
    assert (shown[half:] == 0).all()
    dark, bright = (half - 1, 0) if kind == "MONOCHROME1" else (0, half - 1)
    assert shown[dark].mean() < 5
    assert shown[bright].mean() > 250
    assert 120 < shown[:half].mean() < 135


def test_padding_that_is_written_without_its_sign_is_found(edited):
    def change(header):
        plane = np.full((header.Rows, header.Columns), -2000, np.int16)
        plane[0, :3] = [0, 50, 100]
        header.PixelRepresentation, header.PixelData = 1, plane.tobytes()
        header.WindowCenter, header.WindowWidth = -1000, 4000
        header.add_new("PixelPaddingValue", "US", 65536 - 2000)

    shown = edited(change)[..., 0]
    assert shown[1:].max() == 0
    assert shown[0, :3].min() > 100


def test_sigmoid_windows_are_sigmoids(edited):
    def change(header):
        set_values(header, [0, 100, 200])
        header.WindowCenter, header.WindowWidth = 100, 100
        header.VOILUTFunction = "SIGMOID"

    found = edited(change)[0, :3, 0].tolist()
    assert found == [round(255 / (1 + np.exp(-x))) for x in (-4, 0, 4)]


@pytest.mark.parametrize(
    ("tag", "value", "problem"),
    [
        ("PhotometricInterpretation", "HSV", "PhotometricInterpretation 'HSV' is not known here"),
        ("PresentationLUTShape", "INVERSE", "'INVERSE' contradicts MONOCHROME2"),
        ("VOILUTFunction", "CUBIC", "VOILUTFunction 'CUBIC' is not known here"),
    ],
)
def test_what_changes_grey_values_in_an_unknown_way_is_refused(edited, tag, value, problem):
    def change(header):
        header.WindowCenter, header.WindowWidth = 5, 10
        setattr(header, tag, value)

    with pytest.raises(DataError, match=problem):
        edited(change)


def test_tables_of_grey_values_show_what_they_say_whatever_is_in_the_image(edited):
    def change(header):
        set_values(header, [0, 1, 2])
        table = pydicom.Dataset()
        table.add_new("LUTDescriptor", "US", [4, 0, 12])
        table.LUTData = np.array([0, 1000, 2000, 4000], np.uint16).tobytes()
        header.VOILUTSequence = [table]

    assert edited(change)[0, :3, 0].tolist() == [0, 64, 128]


def test_spacing_resamples_rows_and_columns_of_the_header(edited):
    def change(header):
        header.PixelSpacing = [3, 0.75]  # between rows, between columns

    assert edited(change, spacing=1.5).shape == (128, 32, 3)


@pytest.mark.parametrize("tag", ["ImagerPixelSpacing", "NominalScannedPixelSpacing"])
def test_spacing_at_the_detector_counts_where_there_is_no_other(edited, tag):
    def change(header):
        del header.PixelSpacing
        setattr(header, tag, [0.5, 0.5])

    assert edited(change, spacing=1.0).shape == (32, 32, 3)


def test_spacing_of_multi_frame_objects_is_in_their_shared_groups(edited):
    def change(header):
        del header.PixelSpacing
        measures, shared = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing = [2, 2]
        shared.PixelMeasuresSequence = [measures]
        header.SharedFunctionalGroupsSequence = [shared]

    assert edited(change, spacing=1.0).shape == (128, 128, 3)


def test_spacing_without_one_in_the_header_names_the_file(edited):
    def change(header):
        del header.PixelSpacing

    with pytest.raises(DataError, match=r"3\.dcm: the header has none of PixelSpacing, Imager"):
        edited(change, spacing=1.0)


def test_spacing_that_is_not_positive_is_refused(edited):
    with pytest.raises(DataError, match=r"data\.spacing: 0, expected millimetres above 0"):
        edited(lambda header: None, spacing=0)


def test_without_a_window_percentiles_apply(edited):
    def change(header):
        header.PixelData = np.arange(64 * 64, dtype=np.uint16).tobytes()
        del header.WindowCenter, header.WindowWidth

    grey = edited(change)[..., 0]
    assert (grey.min(), grey.max()) == (0, 255)
    assert grey[32, 0] == pytest.approx(128, abs=2)


def test_frames_of_a_file_are_images(tmp_path):
    write("dicom", tmp_path)
    file = tmp_path / "patient_01/series_1/3.dcm"
    header = pydicom.dcmread(file)
    header.NumberOfFrames = 2
    frames = np.zeros((2, 64, 64), np.uint16)
    frames[1] = 60_000
    header.PixelData = frames.tobytes()
    header.save_as(file)
    dataset = Dicom(root=str(tmp_path))
    first, second = (
        dataset.image(where(dataset, file=f"patient_01/series_1/3.dcm#{frame}")[0])
        for frame in (0, 1)
    )
    assert (first.max(), second.min()) == (0, 255)


def test_table_may_be_about_files_and_give_splits(tmp_path):
    write("dicom", tmp_path)
    rows = ["file,class,split"]
    for number in range(20):
        split = ("train", "val", "test")[number // 2 % 3]
        rows += [f"patient_{number:02d}/series_1/{k}.dcm,healthy,{split}" for k in (3, 4)]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    dataset = Dicom(root=str(tmp_path))
    tested = {dataset.records[i].group for i in where(dataset, split="test")}
    assert tested == {f"patient_{number:02d}" for number in (4, 5, 10, 11, 16, 17)}


def of_files(root, *rows):
    """The sample with a table about these files of patient_01, and patient_03 as training data."""
    write("dicom", root)
    lines = [f"patient_01/series_1/{row}" for row in rows]
    lines.append("patient_03/series_1/3.dcm,healthy,train")
    (root / "labels.csv").write_text("\n".join(["file,class,split", *lines]))
    return root


def test_splits_that_tear_a_patient_apart_are_refused(tmp_path):
    root = of_files(tmp_path, "3.dcm,healthy,train", "4.dcm,healthy,test")
    with pytest.raises(DataError, match=r"labels\.csv: group 'patient_01' is in split train"):
        Dicom(root=str(root))


def test_patient_whose_images_are_of_two_scanners_is_not_torn_apart_either(tmp_path):
    root = of_files(tmp_path, "3.dcm,healthy,train", "4.dcm,healthy,test")
    file = root / "patient_01/series_1/4.dcm"
    header = pydicom.dcmread(file)
    header.Manufacturer, header.ManufacturerModelName = "SIEMENS", "Skyra"
    header.save_as(file)
    with pytest.raises(DataError, match="group 'patient_01'"):
        Dicom(root=str(root))


@pytest.mark.parametrize("rows", [["3.dcm,healthy,test"], ["3.dcm,,", "4.dcm,healthy,test"]])
def test_image_without_a_split_is_in_that_of_its_patient(tmp_path, rows):
    dataset = Dicom(root=str(of_files(tmp_path, *rows)))
    splits = [dataset.records[i].split for i in where(dataset, group="patient_01")]
    assert splits == ["test", "test"]


def test_patient_without_a_row_has_no_label(tmp_path):
    write("dicom", tmp_path)
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    dataset = Dicom(root=str(tmp_path))
    unlabelled = {dataset.records[i].group for i in where(dataset, target=-1)}
    assert unlabelled == {"patient_19"}


@pytest.mark.parametrize(
    ("header", "row"),
    [("PatientID", "patient_1,lesion"), ("file", "patient_01/series_1/5.dcm,lesion")],
)
def test_row_about_nothing_is_a_problem(tmp_path, header, row):
    write("dicom", tmp_path)
    there = {"PatientID": "patient_01", "file": "patient_01/series_1/3.dcm"}[header]
    (tmp_path / "labels.csv").write_text(f"{header},class\n{there},healthy\n{row}\n")
    name = row.partition(",")[0]
    with pytest.raises(DataError, match=rf"labels\.csv: {header} '{name}' is listed but no DICOM"):
        Dicom(root=str(tmp_path))
    (problem,) = survey_dataset(lambda: Dicom(root=str(tmp_path))).problems
    assert name in problem.text


def test_row_about_a_domain_that_is_not_used_is_no_problem(tmp_path):
    assert read("dicom", tmp_path, domains=["siemens_skyra"]).domain_names == ["siemens_skyra"]


def test_spelling_of_a_path_decides_nothing(tmp_path):
    write("dicom", tmp_path)
    (tmp_path / "labels.csv").write_text("file,class\n./patient_01//series_1/3.dcm,healthy\n")
    dataset = Dicom(root=str(tmp_path))
    assert len(where(dataset, target=0)) == 1


def test_file_that_only_claims_to_be_dicom_is_named(tmp_path):
    write("dicom", tmp_path)
    (tmp_path / "notes.dcm").write_text("no image")
    with pytest.raises(DataError, match=r"notes\.dcm: not a readable DICOM file"):
        Dicom(root=str(tmp_path))


def test_link_to_a_file_that_is_missing_is_named(tmp_path):
    write("dicom", tmp_path)
    (tmp_path / "patient_01/series_1/5.dcm").symlink_to("gone")
    with pytest.raises(DataError, match=r"5\.dcm: not a readable DICOM file \(No such file"):
        Dicom(root=str(tmp_path))


def test_files_of_other_kinds_are_passed_over(tmp_path):
    write("dicom", tmp_path)
    (tmp_path / "README").write_text("no image")
    assert len(Dicom(root=str(tmp_path)).records) == 40


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PatientID,kind\n", "expected exactly one of file, SOPInstanceUID"),
        ("PatientID,file,class\n", "expected exactly one of file, SOPInstanceUID"),
        ("PatientID,class\na,b\na,c\n", "a PatientID is listed more than once"),
        ("PatientID,class\na,b\n", "no PatientID in it belongs to an image"),
        ("PatientID,class,split\npatient_01,b,tests\n", "unknown split 'tests': did you mean"),
    ],
)
def test_wrong_table_says_what_is_wrong(tmp_path, text, message):
    write("dicom", tmp_path)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        Dicom(root=str(tmp_path))


def test_missing_table_says_what_to_write(tmp_path):
    write("dicom", tmp_path)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"labels\.csv: missing; write a CSV table"):
        Dicom(root=str(tmp_path))


def left_in(tmp_path, change, name="patient_01/series_1/3.dcm", **saving):
    """A sample of which one file is changed by a function; what of it is left out, and is read."""
    write("dicom", tmp_path)
    header = pydicom.dcmread(tmp_path / name)
    change(header)
    header.save_as(tmp_path / name, **saving)
    dataset = Dicom(root=str(tmp_path))
    return list(dataset.left_out), len(dataset.records)


SAMPLE = 40  # images


@pytest.mark.parametrize(
    ("tag", "value", "kind"),
    [
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4", "Segmentation"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.2", "RT Dose"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.11", "Basic Text SR"),
        ("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"], "localizer"),
        ("ImageType", ["DERIVED", "SECONDARY", "SCREEN SAVE"], "screen save"),
    ],
)
def test_what_shows_no_picture_is_left_out_and_named(tmp_path, tag, value, kind):
    found = left_in(tmp_path, lambda header: setattr(header, tag, value))
    said = f"left out: 1 file ({kind}), such as patient_01/series_1/3.dcm"
    assert found == ([said], SAMPLE - 1)


def test_secondary_captures_are_images(tmp_path):
    def change(header):
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"

    assert left_in(tmp_path, change) == ([], SAMPLE)


@pytest.mark.parametrize("name", ["3.dcm", "3", "IM0003"])
def test_files_without_preamble_are_read(tmp_path, name):
    write("dicom", tmp_path)
    file = tmp_path / "patient_01/series_1/3.dcm"
    before = read_pixels(file, 0, None)
    content = file.read_bytes()[132:]
    file.unlink()
    file.with_name(name).write_bytes(content)
    dataset = Dicom(root=str(tmp_path))
    assert len(dataset.records) == SAMPLE
    assert_array_equal(dataset.image(where(dataset, file=f"patient_01/series_1/{name}")[0]), before)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("README", "no DICOM file by its first bytes"),
        ("a.png", "no DICOM file by its suffix, .png"),
    ],
)
def test_files_of_other_kinds_are_told(tmp_path, name, kind):
    write("dicom", tmp_path)
    (tmp_path / "patient_01" / name).write_bytes(b"to be read")
    dataset = Dicom(root=str(tmp_path))
    said = f"left out: 1 file ({kind}), such as patient_01/{name}"
    assert (list(dataset.left_out), len(dataset.records)) == ([said], SAMPLE)


@pytest.mark.parametrize(("kept", "suffix"), [(10, True), (200, True), (700, True), (400, False)])
def test_headers_that_end_early_are_named(tmp_path, kept, suffix):
    write("dicom", tmp_path)
    file = tmp_path / "patient_01/series_1/3.dcm"
    file.write_bytes(file.read_bytes()[:kept])
    if not suffix:
        file.rename(file.with_suffix(""))
    (problem,) = survey_dataset(lambda: Dicom(root=str(tmp_path))).problems
    assert "patient_01/series_1/3" in problem.file
    assert problem.text.startswith("not a readable DICOM file")
