"""Pages about the house name what is there."""

import re
from pathlib import Path

import pytest

from domainnorm.registry import METHODS

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
# Files of other projects, those that a dataset's authors ship, and those that are to be written.
OTHERS = {
    *("anue_labels.py", "createLabels.py", "save_and_load.py", "methods/NAME.py"),
    *("my_plugins.py", "my_samplers.py"),
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8"))) - OTHERS
    roots = (ROOT, ROOT / "domainnorm", ROOT / "docs")
    missing = {
        name
        for name in named
        if not any((root / name).is_file() for root in roots)
        and not ("/" not in name and list((ROOT / "domainnorm").rglob(name)))
    }
    assert missing == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = {link for link in links if link and "://" not in link}
    assert {link for link in local if not (page.parent / link).exists()} == set()


def test_folders_of_the_picture_are_those_of_the_package():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    picture = text.split("```")[1]
    shown = {word.rstrip("/") for word in re.findall(r"^  ([\w/ ]+?)/? {2,}", picture, re.M)}
    named = {name.rstrip("/") for line in shown for name in line.split()}
    folders = {
        path.name for path in (ROOT / "domainnorm").iterdir() if (path / "__init__.py").is_file()
    }
    assert folders <= named


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
def test_every_method_is_listed(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in METHODS.names() if f"`{name}`" not in text] == []
