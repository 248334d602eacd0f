import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domainnorm.errors import CheckpointError
from domainnorm.storage import (
    damage_of,
    folder_beside,
    locked,
    make_folders,
    remove_partial,
    replace_text,
    whole_file,
)
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


def test_folder_beside_is_gone_afterwards_and_names_what_was_asked_for(tmp_path):
    with folder_beside(tmp_path / "a" / ("x" * 250)) as made:  # a name near the longest
        assert list((tmp_path / "a").iterdir()) == [made]
        (made / "half").touch()
    assert list((tmp_path / "a").iterdir()) == []
    with (
        pytest.raises(CheckpointError, match=r"^/proc/none: cannot be written .*; choose another"),
        folder_beside(Path("/proc/none")),
    ):
        pass


def test_folder_beside_the_present_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with folder_beside(Path()) as made:
        assert made.parent == tmp_path.parent
    with pytest.raises(CheckpointError, match=r"^/: cannot be replaced"), folder_beside(Path("/")):
        pass


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


def test_an_error_of_the_disk_names_the_file_that_was_asked_for(tmp_path):
    def full(partial):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as raised:  # noqa: SIM117
        with whole_file(tmp_path / "a") as partial:
            full(partial)
    assert raised.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_what_a_kill_has_left_is_removed(tmp_path):
    (tmp_path / "stage").mkdir()
    for name in (".partial.1234.a.ckpt", "stage/.partial.5678.b.json", "kept.json"):
        (tmp_path / name).touch()
    remove_partial(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept.json", "stage"]


def test_what_a_kill_has_left_is_removed_by_who_works_in_the_folder_next(tmp_path):
    (tmp_path / ".partial.1234.a.json").touch()
    with locked(tmp_path):
        assert [file.name for file in tmp_path.iterdir()] == [".running"]


def test_a_folder_is_one_process_s_at_a_time(tmp_path):
    text = f"the process {os.getpid()} is working in it; wait until it ends"
    with locked(tmp_path):
        program = "import sys; from pathlib import Path; from domainnorm.storage import locked\n"
        program += "with locked(Path(sys.argv[1])): pass"
        words = [sys.executable, "-c", program, str(tmp_path)]
        other = subprocess.run(words, check=False, capture_output=True, text=True)
        assert other.returncode != 0
        assert text.removeprefix("the ") in other.stderr
    assert subprocess.run(words, check=False).returncode == 0


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04", b"\x1f\x8b", b"\x89PNG\r\n\x1a\n"])
def test_damage_of_anything_is_told(data):
    assert bool(damage_of(data)) == (len(data) > 1)
