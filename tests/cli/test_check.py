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


def test_method_without_anything_to_change_is_named(domainnorm):
    done = domainnorm("check", "quickstart", "norm=in")
    assert (done.returncode, done.stdout) == (2, "")
    assert "compare[1]: adabn: this model has no running moments to re-estimate" in done.stderr


def test_run_says_the_same_before_it_starts(domainnorm, tmp_path):
    done = domainnorm("run", "quickstart", "norm=in")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(domainnorm("check", "quickstart", "norm=in").stderr)
    assert not (tmp_path / "outputs").exists()


def test_what_layers_refuse_is_shown_by_building(domainnorm):
    words = ("quickstart", "norm=in", "compare=[oracle]", "data.per_domain=40")
    assert domainnorm("check", *words).stdout == "ok  quickstart\n"
    done = domainnorm("check", "--build", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("quickstart: 1 problem\n  - layer4.0.bn1: instance statistics of")
    assert domainnorm("check", "--build", "quickstart", "data.per_domain=40").stdout == (
        "ok  quickstart\n"
    )
