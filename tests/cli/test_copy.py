from __future__ import annotations

import pytest

from domainnorm.recipe import find_recipe


def test_copy_keeps_comments(domainnorm, tmp_path):
    domainnorm("copy", "quickstart")
    assert (tmp_path / "quickstart.yaml").read_bytes() == find_recipe("quickstart").read_bytes()


@pytest.mark.parametrize(
    ("destination", "file"),
    [
        ("mine.yaml", "mine.yaml"),
        ("mine", "mine.yaml"),
        ("a/b/", "a/b/wbc.yaml"),
        (".", "wbc.yaml"),
    ],
)
def test_copy_goes_to_a_file_or_into_a_folder(domainnorm, tmp_path, destination, file):
    done = domainnorm("copy", "medical/wbc", destination)
    assert done.stdout == f"copied to {file}; edit it, then: domainnorm run {file}\n"
    assert (tmp_path / file).is_file()


def test_copy_passes_the_check(domainnorm):
    domainnorm("copy", "medical/wbc", "mine.yaml")
    assert domainnorm("check", "mine.yaml").stdout == "ok  mine.yaml\n"


def test_copy_refuses_to_overwrite(domainnorm, tmp_path):
    (tmp_path / "quickstart.yaml").write_text("mine")
    done = domainnorm("copy", "quickstart")
    expected = "domainnorm copy: quickstart.yaml exists; use --force to overwrite it\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert (tmp_path / "quickstart.yaml").read_text() == "mine"


def test_copy_with_force_overwrites(domainnorm, tmp_path):
    (tmp_path / "quickstart.yaml").write_text("mine")
    assert domainnorm("copy", "quickstart", "--force").returncode == 0
    assert (tmp_path / "quickstart.yaml").read_text() != "mine"


def test_copy_that_cannot_be_written_fails_with_its_path(domainnorm, tmp_path):
    (tmp_path / "a").write_text("a file")
    done = domainnorm("copy", "quickstart", "a/b.yaml")
    assert done.returncode == 1
    assert "a/b.yaml: cannot be written" in done.stderr
