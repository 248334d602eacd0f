from __future__ import annotations

import base64
import json
from html.parser import HTMLParser

import pytest

from domainnorm.errors import CheckpointError
from domainnorm.report import run_page
from domainnorm.run import write_page

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
RESULTS = """**a → b** · accuracy

| method | b (target) |
| --- | ---: |
| tent | **0.7** |

![some + figure](figures/some%20%2B%20figure.png)

![lost](figures/lost.png)
"""


class Tags(HTMLParser):
    """Attributes of every tag, by name."""

    def __init__(self, page):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


class Unclosed(Tags):
    """Tags that nothing has closed, and ends of tags that were not open."""

    void = ("meta", "img", "br", "hr")

    def __init__(self, page):
        self.open, self.wrong = [], []
        super().__init__(page)

    def handle_startendtag(self, tag, attributes):
        super().handle_starttag(tag, attributes)

    def handle_starttag(self, tag, attributes):
        super().handle_starttag(tag, attributes)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "some + figure.png").write_bytes(PIXEL)
    (tmp_path / "results.md").write_text(RESULTS)
    (tmp_path / "recipe.yaml").write_text("norm: cin\n")
    (tmp_path / "run.json").write_text(json.dumps({"purpose": "run", "recipe": "medical/wbc"}))
    made = {"date": "2026-11-24T10:00:00", "command": ["run", "x", "a=[b, c]"], "packages": {}}
    (tmp_path / "environment.json").write_text(json.dumps(made))
    return tmp_path


def test_figures_are_within_the_page_under_their_names(folder):
    page = Tags(run_page(folder, "medical/wbc"))
    first, lost = page.all("img")
    kind, _, content = first["src"].partition(",")
    assert (kind, base64.b64decode(content)) == ("data:image/png;base64", PIXEL)
    assert len(page.all("figure")) == len(page.all("figcaption")) == 2
    assert lost["src"] == "figures/lost.png"


def test_tables_recipe_and_command_are_on_the_page(folder):
    page = Tags(run_page(folder, "medical/wbc"))
    assert len(page.all("table")) == 1
    assert {"style": "text-align:right"} in page.all("td")
    for text in ("medical/wbc", "norm: cin", "domainnorm run x 'a=[b, c]'", "2026-11-24"):
        assert text in page.text


def test_names_of_a_recipe_are_text_and_nothing_is_loaded(folder):
    evil = "<script>alert(1)</script><img src=https://a.example/b.png>"
    link = "![x](https://a.example/b.png) [y](javascript:alert(1))"
    (folder / "results.md").write_text(RESULTS.replace("tent", evil) + link)
    (folder / "recipe.yaml").write_text(evil)
    page = Tags(run_page(folder, evil))
    assert not page.all("script")
    assert not [one for one in page.all("a") if "javascript" in one["href"]]
    assert page.all("meta")[1]["content"].startswith("default-src 'none'; img-src data:")
    assert page.text.count(evil) >= 3


def test_figures_outside_of_the_folder_are_not_read(folder):
    (folder.parent / "secret.png").write_bytes(PIXEL)
    (folder / "results.md").write_text("![a](../secret.png)\n")
    assert Tags(run_page(folder, "r")).all("img")[0]["src"] == "../secret.png"


def test_page_is_written_into_the_folder_or_where_it_is_wanted(folder, tmp_path):
    assert write_page(folder) == folder / "report.html"
    other = tmp_path / "other"
    assert write_page(folder, other / "page.html").read_text() == write_page(folder).read_text()
    assert write_page(folder, other) == other / "report.html"
    assert {file.name for file in other.iterdir()} == {"page.html", "report.html"}


def test_folder_that_no_run_has_made_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no run\.json in it; expected a folder that"):
        write_page(tmp_path)


def test_matrix_without_results_is_told_its_own_way_out(folder):
    (folder / "run.json").write_text(json.dumps({"purpose": "both", "recipe": "r"}))
    (folder / "results.md").unlink()
    with pytest.raises(CheckpointError, match=f"domainnorm matrix --resume {folder}"):
        write_page(folder)


@pytest.mark.parametrize("name", ["results.md", "recipe.yaml", "environment.json"])
def test_run_without_results_is_refused_with_the_way_out(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}.*run --resume {folder}"):
        write_page(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.md", b"\xff"),
        ("recipe.yaml", b"\xff"),
        ("environment.json", b"{"),
        ("environment.json", b"[]"),
        ("environment.json", b'{"command": 3}'),
    ],
)
def test_damaged_file_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read \(.*put back what it was"):
        write_page(folder)


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (
            "{source: [a], target: [b, c], transfers: []}",
            "Does a model of a work on b and c, and does adaptation help?",
        ),
        ("{source: [a, b], target: [], transfers: []}", "How good is one model for a and b?"),
        (
            "{source: [], target: [], transfers: [{source: [a], target: [b]}, "
            "{source: [b], target: [a]}]}",
            "Do models work across a, b, and does adaptation help?",
        ),
    ],
)
def test_page_begins_with_the_question_of_the_run(folder, data, asked):
    (folder / "recipe.yaml").write_text(f"data: {data}\n")
    assert f"<h1>{asked}</h1>" in run_page(folder, "medical/wbc")


SHOWN = """`b`: said first.

**a → b** · miou

| method | b |
| --- | ---: |
| tent | 0.7 |

miou: a note

tent: what it is

**b** · IoU of each class

| class | tent |
| --- | ---: |
{}

![Mean IoU](figures/miou.png)

![Images](figures/domains.png)
"""


def shown(folder, rows):
    for name in ("miou", "domains"):
        (folder / "figures" / f"{name}.png").write_bytes(PIXEL)
    lines = "\n".join(f"| {number} | 0.5 |" for number in range(rows))
    (folder / "results.md").write_text(SHOWN.format(lines))
    return run_page(folder, "r")


def test_every_tag_is_closed_and_every_image_has_a_text(folder):
    for page in (shown(folder, 3), shown(folder, 40)):
        tags = Unclosed(page)
        assert (tags.open, tags.wrong) == ([], [])
        assert [one["alt"] for one in tags.all("img")] == ["Mean IoU", "Images"]
        assert all(one["src"].startswith("data:") for one in tags.all("img"))
        assert not tags.all("link")


def test_numbers_of_a_chart_fold_away_below_it(folder):
    page = shown(folder, 3)
    order = ["said first", 'alt="Mean IoU"', "<details><summary><strong>a → b", "a note", "what it"]
    order += ["<details open><summary><strong>b", 'alt="Images"']
    places = [page.index(one) for one in order]
    assert places == sorted(places)
    notes = page.index("a note")
    assert notes < page.index("</details>") < page.index("what it is"), "notes are of the table"


@pytest.mark.parametrize(("rows", "is_open"), [(15, True), (16, False)])
def test_long_tables_are_folded(folder, rows, is_open):
    assert ("<details open>" in shown(folder, rows)) == is_open
