from pathlib import Path

import pytest

from domainnorm.errors import ConditionError, DataError
from domainnorm.serve.images.image_list import list_images

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
        ("imgae,domain\na.png,day\n", "unknown column 'image': did you mean 'imgae'?"),
        ("a.png\nb.png\n", "a list of files without a header ends with .txt"),
        ("image\na.png\n./a.png\n", "row 2: 'a.png' is listed in row 1 already"),
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
    message = "unknown column 'hour': did you mean 'huor'.*empty cells where nothing is known; or"
    with pytest.raises(ConditionError, match=message):
        listed.attributes(["hour"], "; or --domain")


def test_attributes_of_a_folder_are_asked_for(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ConditionError, match="give a CSV with the columns image, hour, empty cel"):
        list_images(tmp_path, NOWHERE).attributes(["hour"], "")
