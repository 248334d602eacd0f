from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from domainnorm.evaluation import EvaluationError
from domainnorm.report import Result, results_markdown, results_table
from tests.report.conftest import result


def markdown_row(
    results: list[Result], method: str, metric: str = "balanced_accuracy"
) -> list[str]:
    for line in results_markdown(results, metric).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0].split(" ")[0] == method:
            return cells
    raise AssertionError(method)


def printed(results: list[Result], width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(results_table(results))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_source_only_comes_first_and_oracle_last(results: list[Result]) -> None:
    rows = [line for line in results_markdown(results).splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].split()[0] for row in rows[2:]] == [
        "source_only",
        "tent",
        "adabn",
        "oracle",
    ]


def test_cell_is_mean_and_standard_deviation_over_seeds(results: list[Result]) -> None:
    assert markdown_row(results, "adabn")[2] == "0.410 ± 0.014"


def test_one_seed_shows_its_bootstrap_interval() -> None:
    one = [result("tent", 0.7, intervals={"balanced_accuracy": (0.612, 0.788)})]
    cell = markdown_row(one, "tent")[1].replace("\N{NO-BREAK SPACE}", " ")
    assert cell == "0.700 [0.61, 0.79]"


@pytest.mark.parametrize(("low", "bold"), [(0.61, True), (0.59, False)])
def test_best_is_bold_where_its_interval_overlaps_no_other(low: float, bold: bool) -> None:
    metric = "balanced_accuracy"
    both = [
        result("adabn", 0.5, intervals={metric: (0.4, 0.6)}),
        result("tent", 0.7, intervals={metric: (low, 0.8)}),
    ]
    assert ["**" in markdown_row(both, name)[1] for name in ("adabn", "tent")] == [False, bold]


def test_notes_say_what_methods_are_and_where_few_images_were_tested(
    results: list[Result],
) -> None:
    text = results_markdown([replace(one, metrics=one.metrics | {"n": 28.0}) for one in results])
    assert "adabn: Re-estimate the target's running moments" in text
    assert f"few test images to score ({results[0].domain} 28" in text
    assert "few test images" not in results_markdown(results)


def test_missing_value_is_a_dash(results: list[Result]) -> None:
    extra = result("mixstyle", math.nan)
    assert markdown_row([*results, extra], "mixstyle")[1:4] == ["–", "–", "–"]


def test_best_method_without_target_labels_is_bold(results: list[Result]) -> None:
    bold = {
        m: "**" in markdown_row(results, m)[2] for m in ("source_only", "adabn", "tent", "oracle")
    }
    assert bold == {"source_only": False, "adabn": False, "tent": True, "oracle": False}


def test_best_calibration_error_is_the_lowest(results: list[Result]) -> None:
    assert markdown_row(results, "tent", "ece")[2] == "**0.290 ± 0.014**"


def test_supervised_method_is_marked(results: list[Result]) -> None:
    assert markdown_row(results, "oracle")[0] == "oracle †"
    assert "† saw target labels" in results_markdown(results)


def test_no_dagger_without_supervised_methods() -> None:
    assert "†" not in results_markdown([result("tent", 0.7)])


@pytest.mark.parametrize(("method", "gain"), [("adabn", "-0.100"), ("tent", "+0.200")])
def test_gain_over_source_only_keeps_its_sign(
    results: list[Result], method: str, gain: str
) -> None:
    assert markdown_row(results, method)[3] == gain


def test_gain_compares_the_same_seeds() -> None:
    runs = [result("source_only", 0.5, 0), result("source_only", 0.9, 1), result("tent", 0.6, 0)]
    assert markdown_row(runs, "tent")[2] == "+0.100"


def test_gain_is_a_mean_over_targets() -> None:
    values = {("source_only", "b"): 0.5, ("source_only", "c"): 0.5}
    values |= {("tent", "b"): 0.7, ("tent", "c"): 0.4}
    runs = [result(method, value, domain=name) for (method, name), value in values.items()]
    assert markdown_row(runs, "tent")[3] == "+0.050"


def test_gain_without_source_only_is_a_dash() -> None:
    assert markdown_row([result("tent", 0.6)], "tent")[2] == "–"


def test_trained_parameters_and_time_are_readable(results: list[Result]) -> None:
    assert markdown_row(results, "tent")[4:] == ["1.2 k, 4.8 kB", "1.5 min"]


def test_role_of_each_domain_is_marked(results: list[Result]) -> None:
    assert "| a (source) | b (target) |" in results_markdown(results)


def test_every_transfer_has_a_block(results: list[Result]) -> None:
    text = results_markdown([*results, result("tent", 0.3, transfer="b → c", domain="c")])
    assert text.count("| method |") == 2


def test_pipe_in_a_name_does_not_break_the_table() -> None:
    assert "x\\|y (target)" in results_markdown([result("tent", 0.3, domain="x|y")])


def test_terminal_table_shows_methods_and_footnotes(results: list[Result]) -> None:
    text = printed(results)
    assert "oracle †" in text
    assert "± standard deviation over 2 seeds" in text


def test_brackets_in_names_are_no_markup() -> None:
    assert "[red]x" in printed([result("tent", 0.3, domain="[red]x")])


@pytest.mark.parametrize("width", [80, 100])
def test_table_fits_the_terminal(results: list[Result], width: int) -> None:
    assert max(map(len, printed(results, width).splitlines())) <= width


def test_no_results_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="none came, expected at least one"):
        results_table([])


def test_unknown_metric_answers_with_the_nearest(results: list[Result]) -> None:
    with pytest.raises(EvaluationError, match="did you mean 'balanced_accuracy'"):
        results_table(results, "balanced_acc")


def test_repeated_result_is_an_error(results: list[Result]) -> None:
    with pytest.raises(EvaluationError, match="came twice"):
        results_table([*results, results[0]])


def test_what_an_encoder_made_of_the_domains_stands_below_the_table(results: list[Result]) -> None:
    assert "told right" not in results_markdown(results) + printed(results)
    domains = sorted({one.domain for one in results})
    for one in results:
        seen = one.method != "tent" or one.domain == domains[0]
        one.metrics["domain_accuracy"] = 0.75 if seen else math.nan
    for text in (results_markdown(results), " ".join(printed(results).split())):
        assert f"domain told right, tent: {domains[0]} 0.750; not seen by its encoder: " in text
        assert f"{domains[1]} 0.750" in text


def unscored(method: str, **changes: object) -> Result:
    return result(method, 0.0, domain="c", metrics={"n": 0.0}, **changes)


def test_domain_without_labels_is_a_column_of_dashes_with_a_note() -> None:
    shown = [result("source_only", 0.5), result("tent", 0.7), unscored("source_only")]
    text = results_markdown([*shown, unscored("tent")])
    assert "–: no test image of c has a label; nothing is measured" in text
    assert markdown_row([*shown, unscored("tent")], "tent")[1:4] == ["**0.700**", "–", "+0.200"]


def test_results_without_any_label_are_all_dashes() -> None:
    rows = [unscored("source_only"), unscored("tent")]
    assert markdown_row(rows, "tent")[1:3] == ["–", "–"]
    assert "no test image of c has a label" in printed(rows)


def test_what_a_guard_has_done_is_told_with_the_words_it_needs() -> None:
    facts = {"balanced_accuracy": 0.5, "adapted": 1.0, "agreement_before": 0.4}
    facts |= {"agreement_after": 0.6, "merit_one_row": 0.55, "merit_own_rows": 0.6}
    text = results_markdown([result("default", 0.5, metrics=facts)])
    assert "default, seed 0 (κ one_row 0.55, own_rows 0.60): kept: own_rows" in text
    assert "rows: what each norm has for a domain" in text
    assert "κ: how far predictions" in text
    assert "moments: " not in text
    unsure = {"balanced_accuracy": 0.5, "adapted": 0.0, "moments": 1.0, "merit_one_row": -1.0}
    both = [result("default", 0.5, seed, metrics=unsure) for seed in (0, 1)]
    text = results_markdown(both)
    assert "default, seed 0, seed 1: too unsure of these images" in text
    assert "moments: the means and variances" in text
    assert "κ" not in text
