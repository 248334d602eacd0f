from __future__ import annotations

import math
from pathlib import Path

import pytest

from domainnorm.evaluation import EvaluationError
from domainnorm.report.figure import create_figure
from tests.benchmarks.convergence import draw, epochs_to, save_convergence, table_of
from tests.report.conftest import is_png


@pytest.mark.parametrize(
    ("series", "epochs"),
    [
        ([0.1, 0.5, 0.89, 0.9, 1.0], 4),
        ([0.95, 0.2, 1.0], 1),
        ([1.0], 1),
        ([math.nan, 0.95, 1.0], 2),
        ([0.5, math.nan], None),
        ([0.5, 0.0], None),
    ],
)
def test_epochs_are_counted_to_the_first_that_reaches_the_fraction(
    series: list[float], epochs: int | None
) -> None:
    assert epochs_to(0.9, series) == epochs


@pytest.mark.parametrize(("fraction", "series"), [(0.0, [1.0]), (1.1, [1.0]), (0.9, [])])
def test_epochs_to_refuses_what_means_nothing(fraction: float, series: list[float]) -> None:
    with pytest.raises(EvaluationError, match=r"epochs_to: .* expected a fraction in \(0, 1\]"):
        epochs_to(fraction, series)


def test_convergence_is_drawn(tmp_path: Path) -> None:
    curves = {"cin": [[0.2, 0.8], [0.4, 0.8]], "bn": [[0.1, 0.5, 0.6]], "none $": [[0.0, 0.0]]}
    save_convergence(curves, tmp_path / "convergence.png", metric="miou", title="wbc_seg")
    assert is_png(tmp_path / "convergence.png")


def test_dot_is_on_the_mean_curve_at_the_mean_number_of_epochs() -> None:
    _, ((axes,),) = create_figure(3, 2)
    table = table_of("cin", [[0.2, 0.8, 0.8], [0.4, 0.6, 0.8]])
    draw(axes, "cin", table, 0.9, "black")
    line, dot = axes.lines
    assert line.get_ydata().tolist() == pytest.approx([0.3, 0.7, 0.8])
    assert (*dot.get_xdata(), *dot.get_ydata()) == pytest.approx((2.5, 0.75))
    assert line.get_label() == "cin: 2.5 ± 0.7"


def test_series_of_one_run_must_be_equally_long(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"series of 'cin' have \[1, 2\] values"):
        save_convergence({"cin": [[0.1], [0.1, 0.2]]}, tmp_path / "c.png", metric="miou")


def test_convergence_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no run came"):
        save_convergence({}, tmp_path / "c.png", metric="miou")
