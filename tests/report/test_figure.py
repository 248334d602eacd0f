from __future__ import annotations

from pathlib import Path

import pytest

from domainnorm.report.figure import (
    assign_colours,
    create_figure,
    literal,
    panel_grid,
    save_figure,
)


def test_methods_of_a_run_have_distinct_colours() -> None:
    names = ["source_only", *(f"method {i}" for i in range(8)), "oracle"]
    assert len(set(assign_colours(names).values())) == 10


def test_reference_methods_keep_their_colour() -> None:
    few, many = assign_colours(["oracle", "tent"]), assign_colours(["adabn", "tent", "oracle"])
    assert few["oracle"] == many["oracle"]


def test_saving_leaves_only_the_figure(tmp_path: Path) -> None:
    save_figure(create_figure(2, 2)[0], tmp_path / "new" / "figure.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["figure.png"]


@pytest.mark.parametrize(
    ("count", "most", "grid"), [(1, 3, (1, 1)), (4, 3, (2, 2)), (5, 3, (2, 3)), (9, 4, (3, 3))]
)
def test_panels_fill_their_grid_evenly(count: int, most: int, grid: tuple[int, int]) -> None:
    assert panel_grid(count, most) == grid


def test_dollar_signs_are_no_formulas() -> None:
    assert literal("a$b$") == r"a\$b\$"
