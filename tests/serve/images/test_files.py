import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from domainnorm.errors import DataError
from domainnorm.serve.images.image_list import check_masks, image_files, mask_file, name_of


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
    assert [str(name) for name, _ in image_files(tmp_path)] == ["a/images/1.png"]
    assert [str(name) for name, _ in image_files(tmp_path / "a/masks")] == ["1.png"]


def test_names_of_a_list_are_relative_to_its_folder(listed, tmp_path):
    files = image_files(listed("b.png\n\n /far/a.png \n"))
    assert [str(name) for name, _ in files] == ["b.png", "/far/a.png"]
    assert [str(file) for _, file in files] == [f"{tmp_path}/b.png", "/far/a.png"]


def test_file_that_is_listed_twice_is_refused(listed):
    with pytest.raises(DataError, match=r"list\.txt, line 4: 'a\.png' is listed in line 1 already"):
        image_files(listed("a.png\n\nb.png\n./a.png\n"))


def test_mark_of_byte_order_is_no_part_of_the_first_name(listed):
    assert [str(name) for name, _ in image_files(listed("\ufeffa.png\nb.png\n"))] == [
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
    files = image_files(tmp_path, tmp_path / "out" / ".." / "out" / "masks")
    assert [str(name) for name, _ in files] == ["frame.png", "out/frame.png"]


def test_name_that_is_not_utf8_is_refused(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"^caf\\xe9\.png: not a name in UTF-8, which tables"):
        image_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("frame.PNG", b"\x89PNG"), ("film.mp4", b"\0\0\0 ftypisom"), ("list.txt", b"caf\xe9.png\n")],
)
def test_files_that_are_no_list_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: not a text list of files in UTF-8; give the fol"):
        image_files(tmp_path / name)
