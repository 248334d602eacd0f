import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domainnorm.errors import CheckpointError
from domainnorm.storage import make_folders, replace_text, whole_file
from tests.run.tiny import WORDS, call


def test_error_leaves_the_former_file_and_nothing_else(tmp_path):
    replace_text(tmp_path / "a.txt", "former")
    with pytest.raises(ValueError, match="stop"), whole_file(tmp_path / "a.txt") as partial:  # noqa: PT012
        partial.write_text("half")
        raise ValueError("stop")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "former"


def test_file_is_there_only_when_it_is_whole(tmp_path):
    path = tmp_path / "made/a.nii.gz"
    with whole_file(path) as partial:
        partial.write_text("half")
        assert not path.exists()
        assert partial.parent == path.parent
        assert partial.name.endswith(".nii.gz")  # writers choose the format by it
    assert [file.name for file in path.parent.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "é" * 125 + ".txt"])
def test_name_may_be_as_long_as_the_disk_takes(tmp_path, name):
    replace_text(tmp_path / name, "text")
    assert (tmp_path / name).read_text(encoding="utf-8") == "text"


def test_file_has_the_permissions_that_the_umask_leaves(tmp_path):
    former = os.umask(0o027)
    try:
        replace_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(former)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_writers_at_once_leave_one_whole_file(tmp_path):
    def write(number):
        replace_text(tmp_path / "a.txt", str(number) * 100_000)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(8)))
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert len(set((tmp_path / "a.txt").read_text())) == 1


def test_place_where_nothing_can_be_made_is_named():
    with pytest.raises(CheckpointError, match=r"^/proc/none/run: cannot be written .*; choose a"):
        make_folders(Path("/proc/none/run"))


def test_new_folder_does_not_exist_yet(tmp_path):
    make_folders(tmp_path / "a/b", new=True)
    make_folders(tmp_path / "a/b")
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "a/b", new=True)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "quickstart", *WORDS, "--output", "/proc/none"),
        ("matrix", "quickstart", *WORDS, "--output", "/proc/none"),
        ("run", "pacs/leave_one_out", "--sample", "--output", "/proc/none"),
        ("data", "sample", "folder", "/proc/none"),
    ],
    ids=["run", "matrix", "run sample", "data sample"],
)
def test_command_says_where_it_cannot_write(words, capsys):
    assert call(*words) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"domainnorm {words[0]}: /proc/none")
    assert "cannot be written (No such file or directory); choose another folder" in said
