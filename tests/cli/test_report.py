import json

from tests.cli.test_program import PROBE


def test_page_is_made_without_anything_heavy(process, tmp_path):
    (tmp_path / "results.md").write_text("| method |\n| --- |\n| tent |\n")
    (tmp_path / "recipe.yaml").write_text("norm: cin\n")
    (tmp_path / "run.json").write_text(json.dumps({"purpose": "run", "recipe": "medical/wbc"}))
    (tmp_path / "environment.json").write_text("{}")
    done = process("-c", PROBE, "report", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "loaded: []\n")
    assert done.stdout == f"{tmp_path / 'report.html'}\n"
    assert "<td>tent</td>" in (tmp_path / "report.html").read_text()


def test_folder_without_a_run_is_refused(domainnorm, tmp_path):
    done = domainnorm("report", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith(f"domainnorm report: {tmp_path}: no run.json in it")
