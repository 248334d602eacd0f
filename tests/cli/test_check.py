from __future__ import annotations

import pytest


def test_good_recipes_are_ok(domainnorm):
    done = domainnorm("check", "quickstart", "medical/wbc", "seed=3")
    assert (done.returncode, done.stdout) == (0, "ok  quickstart\nok  medical/wbc\n")


def test_patience_that_waits_for_nothing_is_told_with_the_methods(domainnorm):
    words = ("evaluation.selection=validation", "trainer.patience=3")
    done = domainnorm("check", "quickstart", *words)
    assert (done.returncode, done.stdout) == (0, "ok  quickstart\n")
    assert done.stderr == (
        "    trainer.patience: has no effect on adabn: no labelled validation images under "
        "evaluation.selection 'validation'\n"
    )


def test_one_bad_recipe_fails_the_check_but_not_the_others(domainnorm, tmp_path):
    (tmp_path / "bad.yaml").write_text("tsk: classification\n")
    done = domainnorm("check", "bad.yaml", "quickstart")
    assert done.returncode == 2
    assert done.stdout == "ok  quickstart\n"
    assert "tsk: unknown key 'tsk': did you mean 'task'?" in done.stderr


def test_all_problems_of_a_recipe_are_printed(domainnorm, tmp_path):
    (tmp_path / "bad.yaml").write_text("seed: x\nnorm: y\n")
    stderr = domainnorm("check", "bad.yaml").stderr
    assert stderr.startswith("bad.yaml: 5 problems\n")
    assert [line[4:].partition(":")[0] for line in stderr.splitlines()[1:]] == [
        "backbone.name",
        "data",
        "task",
        "norm",
        "seed",
    ]


SMALL = "data.per_domain=40"


def test_method_without_anything_to_change_is_named(domainnorm):
    done = domainnorm("check", "quickstart", "norm=ln", SMALL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("quickstart: 1 problem\n  - adabn: this model has no running mom")
    assert "norm 'dsbn' or 'cbn'" in done.stderr


@pytest.mark.slow
def test_run_says_the_same_before_it_starts(domainnorm, tmp_path):
    done = domainnorm("run", "quickstart", "norm=ln", SMALL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == domainnorm("check", "quickstart", "norm=ln", SMALL).stderr
    assert not (tmp_path / "outputs").exists()


def test_layer_that_refuses_its_norm_is_named(domainnorm, tmp_path):
    (tmp_path / "mine.yaml").write_text(domainnorm("show", "quickstart", "norm=in", SMALL).stdout)
    done = domainnorm("check", "mine.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    first, layer, method = done.stderr.splitlines()
    assert first == "mine.yaml: 2 problems"
    assert layer.startswith("  - layer4.0.bn1: instance statistics of a map with one element")
    assert method.startswith("  - adabn: this model has no running moments")


def test_norms_are_not_tried_without_data(domainnorm):
    done = domainnorm("check", "medical/wbc", "norm=in", "data.root=nowhere")
    assert (done.returncode, done.stdout) == (0, "ok  medical/wbc\n")
    assert done.stderr.startswith("medical/wbc: the norms were not checked: ")
    asked = domainnorm("check", "--build", "medical/wbc", "norm=in", "data.root=nowhere")
    assert asked.returncode == 2


def test_folder_that_cannot_be_asked_is_a_problem(domainnorm):
    done = domainnorm("check", "medical/wbc", "norm=in", f"data.root={'x' * 300}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "File name too long: '" in done.stderr
    assert "xxx" in done.stderr


@pytest.mark.parametrize(
    "word", ["data.target[0]=textured", "seed =3", "configs+=[trainer/cpu]", "=3", "=" * 300]
)
def test_word_that_is_nearly_an_override_is_not_taken_for_a_recipe(domainnorm, word):
    done = domainnorm("check", "quickstart", word)
    assert (done.returncode, done.stdout) == (2, "")
    text = f"override '{word}': expected key=value, such as method.lr=1e-3"
    assert done.stderr == f"quickstart: 1 problem\n  - {text}\n"
