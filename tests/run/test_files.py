from pathlib import Path

import pytest

from domainnorm.errors import CheckpointError
from domainnorm.run.files import make_folders
from tests.run.tiny import WORDS, call


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
