"""The cells of a cross-domain matrix as a table."""

from __future__ import annotations

import math

from domainnorm.evaluation import CrossDomainMatrix
from domainnorm.report.tables import markdown_line


def matrix_markdown(matrix: CrossDomainMatrix, metric: str, row_label: str = "model") -> str:
    """One metric of a matrix as Markdown: mean ± standard deviation over seeds, own domains bold.

    Raises:
        EvaluationError: The metric is unknown.
    """
    matrix.values(metric)  # refuses an unknown one
    summary = matrix.summary()[metric]
    lines = [
        markdown_line([f"{row_label} ↓, test domain →", *matrix.columns]),
        markdown_line(["---", *["---:"] * len(matrix.columns)]),
    ]
    for row, name in enumerate(matrix.rows):
        cells = [
            _cell(float(summary.mean[row, column]), float(summary.std[row, column]), name == domain)
            for column, domain in enumerate(matrix.columns)
        ]
        lines.append(markdown_line([name, *cells]))
    notes = [f"own domain {_number(summary.diagonal)}, others {_number(summary.off_diagonal)}"]
    if len(matrix.seeds) > 1:
        notes.append(f"± standard deviation over {len(matrix.seeds)} seeds")
    return "\n".join([*lines, "", *(f"{note}  " for note in notes)]) + "\n"


def _cell(mean: float, std: float, own: bool) -> str:
    text = _number(mean) if math.isnan(std) else f"{mean:.3f} ± {std:.3f}"
    return f"**{text}**" if own else text


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
