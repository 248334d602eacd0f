import json
import webbrowser

import pytest

from tests.cli.test_program import PROBE


@pytest.fixture
def finished(tmp_path):
    """What a page is made of."""
    (tmp_path / "results.md").write_text("| method |\n| --- |\n| tent |\n")
    (tmp_path / "recipe.yaml").write_text("norm: cin\n")
    (tmp_path / "run.json").write_text(json.dumps({"purpose": "run", "recipe": "medical/wbc"}))
    (tmp_path / "environment.json").write_text("{}")
    return tmp_path


def test_page_is_made_without_anything_heavy(process, finished):
    done = process("-c", PROBE, "report", str(finished))
    assert (done.returncode, done.stderr) == (0, "loaded: []\n")
    assert done.stdout == f"{finished / 'report.html'}\n"
    assert "<td>tent</td>" in (finished / "report.html").read_text()


@pytest.mark.parametrize(("found", "code"), [(True, 0), (False, 1)])
def test_page_is_shown_in_a_browser(domainnorm, finished, monkeypatch, found, code):
    shown = []
    monkeypatch.setattr(webbrowser, "open", lambda page: shown.append(page) or found)
    done = domainnorm("report", str(finished), "--open")
    assert (done.returncode, shown) == (code, [(finished / "report.html").as_uri()])
    assert ("no browser was found" in done.stderr) == (not found)


def test_folder_without_a_run_is_refused(domainnorm, tmp_path):
    done = domainnorm("report", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"domainnorm report: {tmp_path}: no run.json in it")
