from pathlib import Path

import pytest

from domainnorm.errors import DataError
from domainnorm.run.stream_files import check_masks, mask_file, stream_files


@pytest.fixture
def listed(tmp_path):
    """A list of files with this text."""

    def write(text):
        (tmp_path / "list.txt").write_text(text, encoding="utf-8")
        return tmp_path / "list.txt"

    return write


def test_names_of_a_list_are_relative_to_its_folder(listed, tmp_path):
    files = stream_files(listed("b.png\n\n /far/a.png \n"))
    assert [str(name) for name, _ in files] == ["b.png", "/far/a.png"]
    assert [str(file) for _, file in files] == [f"{tmp_path}/b.png", "/far/a.png"]


def test_file_that_is_listed_twice_is_refused(listed):
    with pytest.raises(DataError, match=r"list\.txt, line 4: 'a\.png' is listed in line 1 already"):
        stream_files(listed("a.png\n\nb.png\n./a.png\n"))


def test_mark_of_byte_order_is_no_part_of_the_first_name(listed):
    assert [str(name) for name, _ in stream_files(listed("\ufeffa.png\nb.png\n"))] == [
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
