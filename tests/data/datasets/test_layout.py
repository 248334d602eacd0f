import shutil

import pytest

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.layout import Layout, LayoutDataset, found
from domainnorm.errors import DataError
from domainnorm.registry import DATASETS

CITY = Layout(
    "images/{split:train,val}/{city}/{city}_{frame}.png",
    mask="masks/{city}/{frame}_{stem}.png",
    domain="{light}",
    group="{city}",
    splits={"val": "test"},
    metadata=("city", "light"),
    derived=lambda parts: {"light": "day" if int(parts["frame"]) < 5 else "night"},
)
NUMBERS = Layout(
    r"{number:\d+}.jpg", domain="all", group="{number}", strangers="expected names such as 1.jpg"
)


class Pairs(LayoutDataset):
    files = (Layout("{name}.jpg", mask="{name}.png", domain="day", group="{name}"),)
    layout = "<name>.jpg, <name>.png"

    def __init__(self, root):
        self.root = root
        self.records = self.scan()

    image = mask = None


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_parts_of_a_path_fill_the_templates():
    record = CITY.record("images/val/bonn/bonn_7.png")
    expected = Record(
        "images/val/bonn/bonn_7.png", "night", -1, "bonn", "test", "masks/bonn/7_bonn_7.png"
    )
    assert record == expected
    assert record.metadata == {"city": "bonn", "light": "night"}


@pytest.mark.parametrize("file", ["images/test/bonn/bonn_7.png", "images/val/bonn/ulm_7.png"])
def test_other_path_is_of_another_layout(file):
    assert CITY.record(file) is None


def test_every_choice_has_to_be_there(tmp_path):
    touch(tmp_path, "images/train/bonn/bonn_1.png")
    with pytest.raises(DataError, match=r"no file images/val/\*/\*_\*\.png; read the docs"):
        list(CITY.scan(tmp_path, "read the docs"))


def test_images_are_in_the_order_of_choices_and_names(tmp_path):
    names = [f"images/{split}/bonn/bonn_{n}.png" for split in ("train", "val") for n in (1, 2)]
    touch(tmp_path, *reversed(names))
    assert [record.file for record in CITY.scan(tmp_path, "")] == names


def test_suffix_may_be_in_upper_case(tmp_path):
    touch(tmp_path, "1.JPG", "2.jpg", "3.png")
    assert [record.file for record in NUMBERS.scan(tmp_path, "")] == ["1.JPG", "2.jpg"]


def test_names_are_in_the_case_of_the_layout(tmp_path):
    layout = Layout("{kind:a|b}_{number}.jpg", domain="{kind}", group="{number}", strangers="no")
    touch(tmp_path, "a_1.JPG", "B_2.jpg")
    with pytest.raises(DataError, match=r"B_2\.jpg: no"):
        list(layout.scan(tmp_path, ""))


def test_masks_without_an_image_are_told(tmp_path):
    touch(tmp_path, "1.jpg", "1.png", "2.png", "._3.png")
    assert list(Pairs(tmp_path).left_out) == [
        "left out: 1 file (mask without an image), such as 2.png"
    ]


def test_file_of_another_name_is_refused(tmp_path):
    touch(tmp_path, "1.jpg", "overview.jpg")
    with pytest.raises(DataError, match=r"overview\.jpg: expected names such as 1\.jpg"):
        list(NUMBERS.scan(tmp_path, ""))


def test_any_folders_may_lie_between(tmp_path):
    layout = Layout("a/**/{name}.png", domain="x", group="{name}")
    touch(tmp_path, "a/b/c/1.png", "a/2.png")
    assert [r.group for r in layout.scan(tmp_path, "")] == ["2", "1"]


def test_files_are_sorted_and_relative(tmp_path):
    touch(tmp_path, "b.png", "a.png", "c.txt")
    assert found(tmp_path, "*.png", "") == ["a.png", "b.png"]


def test_nothing_found_names_the_pattern_and_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"no file images/\*\.png; docs/data_driving\.md"):
        found(tmp_path, "images/*.png", "docs/data_driving.md")


def test_remains_of_archives_are_no_files(tmp_path):
    touch(tmp_path, "a.png", "._a.png")
    assert found(tmp_path, "*.png", "") == ["a.png"]


def test_missing_mask_is_named_with_its_image(tmp_path):
    touch(tmp_path, "there.jpg", "there.png", "b.jpg")
    with pytest.raises(DataError, match=r"b\.png: missing, but b\.jpg is there; unpack"):
        Pairs(tmp_path)


def test_number_of_missing_masks_is_told_where_the_dataset_says_so(tmp_path, monkeypatch):
    touch(tmp_path, "there.jpg", "there.png", "b.jpg")
    told = "missing, the mask of {image} ({count} of {total} images lack theirs)"
    monkeypatch.setattr(Pairs, "lacking", told)
    with pytest.raises(DataError, match=r"b\.png: missing, the mask of b\.jpg \(1 of 2 images"):
        Pairs(tmp_path)


@pytest.mark.parametrize(
    "name",
    [name for name in DATASETS.names() if issubclass(DATASETS.load(name), LayoutDataset)],
)
def test_images_of_other_names_are_told_or_refused(tmp_path, name):
    DATASETS.load(name).write_sample(tmp_path, seed=0)
    before = DATASETS.create(name, root=str(tmp_path))
    assert list(before.left_out) == []
    first = tmp_path / before.records[0].file
    stranger = first.with_name(f"a photo{first.suffix}")
    shutil.copy(first, stranger)
    try:
        after = DATASETS.create(name, root=str(tmp_path))
        said = list(after.left_out)
        assert len(after.records) == len(before.records)
    except DataError as error:
        said = [str(error)]
    assert [stranger.stem in line for line in said] == [True]
