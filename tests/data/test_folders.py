from pathlib import Path

import pytest

from domainnorm.data.folders import find_images
from domainnorm.report.figure import create_figure, save_figure


@pytest.fixture
def root(tmp_path):
    """Two images, and files that are none."""
    for name in ("root/a/1.png", "root/b.JPG", "root/.hidden/2.png", "root/a/.3.png", "root/4.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "root"


def found(root):
    return [str(file) for file in find_images(root)]


def test_images_are_found_in_all_folders_and_hidden_ones_are_none(root):
    assert found(root) == ["a/1.png", "b.JPG"]


def test_figures_of_the_program_are_no_images(root):
    save_figure(create_figure(2, 2)[0], root / "a" / "sheet.png")
    assert found(root) == ["a/1.png", "b.JPG"]


def test_linked_folders_are_searched(root, tmp_path):
    (tmp_path / "far/deep").mkdir(parents=True)
    (tmp_path / "far/deep/5.png").touch()
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert found(root) == ["a/1.png", "b.JPG", "link/deep/5.png"]


def test_a_root_that_is_a_link_is_searched(root, tmp_path):
    (tmp_path / "link").symlink_to(root, target_is_directory=True)
    assert found(tmp_path / "link") == ["a/1.png", "b.JPG"]


@pytest.mark.parametrize("target", [".", "..", "self"])
def test_links_in_a_circle_end(root, target):
    (root / "a/self").symlink_to(target, target_is_directory=True)
    assert found(root) == ["a/1.png", "b.JPG"]


def test_links_to_each_other_end(root, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/5.png").touch()
    (tmp_path / "far/back").symlink_to(root, target_is_directory=True)
    (root / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    assert found(root) == ["a/1.png", "b.JPG", "link/5.png"]


def test_names_of_a_relative_folder_are_relative_to_it(root, monkeypatch):
    monkeypatch.chdir(root)
    assert [str(file) for file in find_images(Path())] == ["a/1.png", "b.JPG"]
