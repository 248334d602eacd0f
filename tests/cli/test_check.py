from __future__ import annotations


def test_good_recipes_are_ok(domainnorm):
    done = domainnorm("check", "quickstart", "medical/wbc", "seed=3")
    assert (done.returncode, done.stdout) == (0, "ok  quickstart\nok  medical/wbc\n")


def test_one_bad_recipe_fails_the_check_but_not_the_others(domainnorm, tmp_path):
    (tmp_path / "bad.yaml").write_text("tsk: classification\n")
    done = domainnorm("check", "bad.yaml", "quickstart")
    assert done.returncode == 2
    assert done.stdout == "ok  quickstart\n"
    assert "tsk: unknown key 'tsk': did you mean 'task'?" in done.stderr


def test_all_problems_of_a_recipe_are_printed(domainnorm, tmp_path):
    (tmp_path / "bad.yaml").write_text("seed: x\nnorm: y\n")
    stderr = domainnorm("check", "bad.yaml").stderr
    assert stderr.startswith("bad.yaml: 6 problems\n")
    assert [line[4:].partition(":")[0] for line in stderr.splitlines()[1:]] == [
        "backbone.name",
        "data",
        "method",
        "task",
        "norm",
        "seed",
    ]
