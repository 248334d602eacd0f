import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from domainnorm.errors import ConditionError, DataError
from domainnorm.serve.image_list import check_masks, list_images, mask_file, name_of

NOWHERE = Path("/nowhere")


@pytest.fixture
def tabled(tmp_path):
    """The images of a table with this text."""

    def read(text, name="images.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return list_images(tmp_path / name, NOWHERE)

    return read


def test_rows_of_a_table_are_images_with_their_domains(tabled, tmp_path):
    listed = tabled("domain,image,hour\nday,b.png,9\n,/far/a.png,\n")
    assert [str(file) for _, file in listed.files] == [f"{tmp_path}/b.png", "/far/a.png"]
    assert listed.domains == ["day", ""]
    assert listed.columns == {"hour": ["9", ""]}


@pytest.mark.parametrize("name", ["image", "path", "file"])
def test_tables_of_datasets_are_read_without_their_labels(tabled, name):
    listed = tabled(f"{name},target,domain,split,group\na.png,cat,day,test,1\n")
    assert [str(name) for name, _ in listed.files] == ["a.png"]
    assert listed.columns == {}


def test_image_is_a_list_of_one(tmp_path):
    (tmp_path / "a.PNG").write_bytes(b"")
    assert list_images(tmp_path / "a.PNG", NOWHERE).files == [(Path("a.PNG"), tmp_path / "a.PNG")]


def test_images_of_a_folder_tell_no_domain(tmp_path):
    for name in ("b.png", "a.png", "out/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listed = list_images(tmp_path, tmp_path / "out")
    assert [str(name) for name, _ in listed.files] == ["a.png", "b.png"]
    assert listed.domains == ["", ""]
    assert listed.columns is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imgae,domain\na.png,day\n", "names its images; call 'imgae' 'image' if it does"),
        ("a.png\nb.png\n", "a list of files without a header ends with .txt"),
        ("image\na.png\n./a.png\n", "row 2: 'a.png' is already listed in row 1"),
        ("image,domain\na.png,day\n,day\n", "row 2: no image; name its file"),
    ],
)
def test_wrong_tables_are_refused(tabled, text, message):
    with pytest.raises(DataError) as raised:
        tabled(text)
    assert message in str(raised.value)


def test_unknown_domain_of_a_row_is_answered_with_the_nearest(tabled):
    listed = tabled("image,domain\na.png,\nb.png,dya\n")
    with pytest.raises(ConditionError, match="row 2: unknown domain 'dya': did you mean 'day'"):
        listed.check_domains(["day", "night"])


def test_missing_column_of_attributes_is_answered_with_the_nearest(tabled):
    listed = tabled("image,huor\na.png,9\n")
    message = "unknown column 'hour': did you mean 'huor'.*empty cells for unknown values; or"
    with pytest.raises(ConditionError, match=message):
        listed.attributes(["hour"], "; or --domain")


def test_attributes_of_a_folder_are_asked_for(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ConditionError, match="give a CSV with the columns image, hour, and em"):
        list_images(tmp_path, NOWHERE).attributes(["hour"], "")


@pytest.fixture
def listed(tmp_path):
    """A list of files with this text."""

    def write(text):
        (tmp_path / "list.txt").write_text(text, encoding="utf-8")
        return tmp_path / "list.txt"

    return write


def test_masks_beside_images_are_no_images(tmp_path):
    for folder in ("a/images", "a/masks", "b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.png").touch()
    assert [str(name) for name, _ in list_images(tmp_path).files] == ["a/images/1.png"]
    assert [str(name) for name, _ in list_images(tmp_path / "a/masks").files] == ["1.png"]


def test_names_of_a_list_are_relative_to_its_folder(listed, tmp_path):
    files = list_images(listed("b.png\n\n /far/a.png \n")).files
    assert [str(name) for name, _ in files] == ["b.png", "/far/a.png"]
    assert [str(file) for _, file in files] == [f"{tmp_path}/b.png", "/far/a.png"]


def test_file_that_is_listed_twice_is_refused(listed):
    with pytest.raises(DataError, match=r"list\.txt, line 4: 'a\.png' is already listed in line 1"):
        list_images(listed("a.png\n\nb.png\n./a.png\n"))


def test_mark_of_byte_order_is_no_part_of_the_first_name(listed):
    assert [str(name) for name, _ in list_images(listed("\ufeffa.png\nb.png\n")).files] == [
        "a.png",
        "b.png",
    ]


@pytest.mark.parametrize(
    ("first", "second"), [("a/1.jpg", "a/1.png"), ("/a/1.jpg", "a/1.jpg"), ("../1.png", "_/1.png")]
)
def test_images_with_one_mask_are_refused(first, second):
    with pytest.raises(DataError, match=f"^film: masks/.*1.png would be the mask of {first} and"):
        check_masks(Path("film"), [Path(first), Path("b/1.png"), Path(second)])


@pytest.mark.parametrize(
    ("name", "mask"),
    [("/far/x.y.jpg", "far/x.y.png"), ("../1.jpg", "_/1.png"), ("/", ".png"), (".", ".png")],
)
def test_masks_stay_below_their_folder(name, mask):
    assert str(mask_file(Path(name))) == mask


def test_folders_are_called_by_their_whole_name(tmp_path, monkeypatch):
    (tmp_path / "cam.2024" / "day").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cam.2024" / "day")
    assert name_of(Path("..")) == "cam.2024"
    assert name_of(Path()) == "day"


def test_lists_are_called_without_their_suffix(listed):
    assert name_of(listed("a.png\n")) == "list"


def test_masks_of_an_earlier_call_are_no_images(tmp_path):
    for name in ("frame.png", "out/masks/frame.png", "out/frame.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4), np.uint8))
    files = list_images(tmp_path, tmp_path / "out" / ".." / "out" / "masks").files
    assert [str(name) for name, _ in files] == ["frame.png", "out/frame.png"]


def test_name_that_is_not_utf8_is_refused(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"^caf\\xe9\.png: the name is not UTF-8, as tables"):
        list_images(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("frame", b"\x89PNG"), ("film.mp4", b"\0\0\0 ftypisom"), ("list.txt", b"caf\xe9.png\n")],
)
def test_files_that_are_no_list_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        DataError, match=f"{name}: not a text list of files in UTF-8, nor an image that"
    ):
        list_images(tmp_path / name)


def test_text_that_is_no_list_is_told_from_one(listed):
    with pytest.raises(DataError, match=r"the first lines are no files, such as '# A p"):
        list_images(listed("# A project\n\nWhat it is for, and how.\n"))
    assert len(list_images(listed("gone.png\nand one more\n"))) == 2  # for who reads it to name
