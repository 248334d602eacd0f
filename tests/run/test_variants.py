"""A method with variants: all are fitted, and the best by its own word is kept."""

import pytest
import torch
from safetensors.torch import load_file

from domainnorm.report import load_results
from domainnorm.run.stage import predict, run_stage, score, set_up
from domainnorm.run.training import fit
from tests.combinations import few
from tests.run.test_resume import VIEWS, Cut, PowerCutError, stages_of
from tests.run.tiny import call, run

TWO = "data.source=[clean,textured]"


def prepared(tmp_path, *words):
    """The stage of `default` after that of its source model."""
    default = "{name: default, guard: 1.0, epochs: 2}"
    parts, folder, stages = stages_of(tmp_path, default, VIEWS, *words)
    for stage in stages[:-1]:
        run_stage(parts, stage, folder)
    return parts, stages[-1], folder


def prefer(monkeypatch, variant):
    """Everything is fitted as it is, and this variant has the higher merit afterwards."""
    rows = {"one_row": "one", "own_rows": "own"}[variant]

    def fitted(trainer, method, *given):
        fit(trainer, method, *given)
        method.merit = 0.5 + 0.1 * (getattr(method, "rows", "") == rows)

    monkeypatch.setattr("domainnorm.run.stage.fit", fitted)


def fitted_alone(parts, stage, folder, variant):
    options = set_up(parts, stage, folder).method.variants[variant]
    (alone,) = stage.variants({"alone": options})
    run_stage(parts, alone, folder)
    return load_file(folder / alone.key / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("better", few(1, ["one_row", "own_rows"]))
def test_the_variant_of_the_higher_merit_is_kept(tmp_path, monkeypatch, better):
    parts, stage, folder = prepared(tmp_path)
    prefer(monkeypatch, better)
    results = run_stage(parts, stage, folder)
    monkeypatch.undo()
    target = next(one for one in results if one.role == "target").metrics
    assert target[f"merit_{better}"] == 0.6
    assert min(target["merit_one_row"], target["merit_own_rows"]) == 0.5
    place = folder / stage.key
    kept, alone = load_file(place / "model.safetensors"), fitted_alone(parts, stage, folder, better)
    assert all(torch.equal(kept[name], tensor) for name, tensor in alone.items())
    assert (place / "log.csv").read_bytes() == (place / better / "log.csv").read_bytes()
    assert not list(place.glob("**/*.ckpt"))


@pytest.mark.slow
def test_merit_is_the_agreement_of_what_a_variant_ends_with(tmp_path):
    parts, stage, folder = prepared(
        tmp_path, "method.guard=0.0", "method.certainty=0.0", "method.lr=1.0"
    )
    results = run_stage(parts, stage, folder)
    facts = next(one for one in results if one.role == "target").metrics
    best = max(facts["merit_one_row"], facts["merit_own_rows"])
    assert best == (facts["agreement_after"] if facts["adapted"] else -1)


@pytest.mark.parametrize("selection", few(1, ["last", "validation", "infomax"]))
def test_no_variant_is_trained_from_a_source_model_that_is_unsure(tmp_path, selection):
    words = ("method.guard=0.0", "method.certainty=1.0", f"evaluation.selection={selection}")
    words = (*words, "method.fallback=source")
    parts, stage, folder = prepared(tmp_path, *words)
    (target,) = [one for one in run_stage(parts, stage, folder) if one.role == "target"]
    assert target.metrics["adapted"] == 0
    assert target.metrics["merit_one_row"] == -1
    assert "merit_own_rows" not in target.metrics
    assert target.trained_parameters == target.trained_bytes == 0
    kept = load_file(folder / stage.key / "model.safetensors")
    source = load_file(folder / stage.source_key / "model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in source.items())
    assert not (folder / stage.key / "log.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "number"),
    [
        ("{name: default, guard: 1.0, rows: own}", 1),
        ("{name: default, certainty: 1.0, fallback: source}", 0),
    ],
)
def test_how_layers_differ_is_not_drawn_where_a_source_model_was_kept(
    tmp_path, capsys, method, number
):
    folder = run(tmp_path, VIEWS, f"method={method}", "compare=[]")
    assert len(list((folder / "figures").glob("layers_*.png"))) == number
    capsys.readouterr()
    assert call("test", str(folder)) == 0
    assert ("too unsure of these images" in capsys.readouterr().out) == (number == 0)


@pytest.mark.slow
def test_a_lost_log_loses_nothing_else(tmp_path, monkeypatch):
    parts, stage, folder = prepared(tmp_path)

    def lost(trainer, method, *given):
        fit(trainer, method, *given)
        (folder / stage.key / "one_row/log.csv").unlink(missing_ok=True)
        method.merit = float(getattr(method, "rows", "") == "one")

    monkeypatch.setattr("domainnorm.run.stage.fit", lost)
    assert run_stage(parts, stage, folder)
    assert not (folder / stage.key / "log.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("variant", few(1, ["one_row", "own_rows"]))
def test_cut_in_either_variant_ends_with_the_same_weights(tmp_path, monkeypatch, variant):
    """Of two sources, whose rows differ, that variant being kept."""
    prefer(monkeypatch, variant)
    found = []
    for cut in (False, True):
        parts, stage, folder = prepared(tmp_path / str(cut), TWO)
        if cut:
            made = stage.variants(set_up(parts, stage, folder).method.variants)
            names = [one.variant for one in made]
            for one in made[: names.index(variant) + 1]:
                bench = set_up(parts, one, folder)
                if one.variant == variant:
                    bench.trainer.callbacks.insert(0, Cut("on_train_epoch_start", 1))
                    with pytest.raises(PowerCutError):
                        fit(bench.trainer, bench.method, bench.data, parts.recipe)
                else:
                    fit(bench.trainer, bench.method, bench.data, parts.recipe)
        run_stage(parts, stage, folder)
        found.append(load_file(folder / stage.key / "model.safetensors"))
    assert all(torch.equal(found[1][name], tensor) for name, tensor in found[0].items())


@pytest.mark.slow
def test_a_resumed_fit_remembers_how_certain_the_source_model_was(tmp_path):
    found = []
    for cut in (False, True):
        words = ("method.guard=0.9", "method.certainty=0.0", "method.rows=one")
        parts, stage, folder = prepared(tmp_path / str(cut), *words)
        if cut:
            bench = set_up(parts, stage, folder)
            bench.trainer.callbacks.insert(0, Cut("on_train_epoch_start", 1))
            with pytest.raises(PowerCutError):
                fit(bench.trainer, bench.method, bench.data, parts.recipe)
        (target,) = [one for one in run_stage(parts, stage, folder) if one.role == "target"]
        found.append(target.metrics)
    assert 0 < found[0]["certainty"] < 1
    assert found[1] == found[0]


@pytest.mark.parametrize("words", few(1, [("data.rows=one",), ("norm=bn",), ("method.rows=own",)]))
def test_one_fit_where_nothing_is_to_choose(tmp_path, words):
    parts, stage, folder = prepared(tmp_path, *words)
    assert set_up(parts, stage, folder).method.variants == {}


@pytest.mark.slow
@pytest.mark.parametrize("guard", few(1, [0.0, 1.0]))
def test_a_finished_model_of_two_sources_is_tested_as_it_was(tmp_path, monkeypatch, guard):
    """A source model that is kept has a row for each source, an adapted one equal rows."""
    monkeypatch.setattr("domainnorm.methods.default.forgotten", lambda *_: 1.0)
    words = (f"method.guard={guard}", "method.certainty=0.0")
    parts, stage, folder = prepared(tmp_path, TWO, *words)
    expected = run_stage(parts, stage, folder)
    assert expected == load_results(folder / stage.key / "results.json")
    assert all(one.metrics.get("adapted", guard) == guard for one in expected)
    bench = set_up(parts, stage, folder, finished=True)
    again = {one.domain: one.metrics for one in score(bench, predict(bench), 0.0)}
    for one in expected:
        assert {key: one.metrics[key] for key in again[one.domain]} == again[one.domain]
