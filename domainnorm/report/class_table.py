"""Tables of single classes on each target, and in a sentence which of them is told worst."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from domainnorm.errors import counted
from domainnorm.evaluation import ClassScores, readable
from domainnorm.report.data_tables import markdown_head, markdown_line
from domainnorm.report.results import Result, label_mark, method_order
from domainnorm.report.sentences import best_method

_MEANING = {
    "recall": "recall: share of the test images of a class that are called it",
    "iou": "IoU: pixels that are the class in truth and prediction, over those that are in either",
    "auroc": "AUROC: how well images with a finding rank above those without; 0.5 is chance",
}
_MOST_NAMED = 3  # classes that are equally bad

Found = tuple[Result, ClassScores]


def classes_markdown(found: Sequence[Found], class_names: Sequence[str], metric: str) -> str:
    """A table for each target as Markdown: a row per class, a column per method, means over seeds.

    Args:
        found: Results on targets, each with what was told of the classes there.
        class_names: Names of the K classes.
        metric: By which a method is the best one, whose worst class is named.
    """
    groups: dict[tuple[str, str], list[Found]] = {}
    for one, scores in found:
        groups.setdefault((one.transfer, one.domain), []).append((one, scores))
    several = len({transfer for transfer, _ in groups}) > 1
    lines = []
    for (transfer, domain), own in groups.items():
        where = f"{domain} ({transfer})" if several else domain
        lines += _table(own, class_names, metric, where)
    return "\n".join([*lines, *_notes([one for one, _ in found], found[-1][1])]) if found else ""


def _table(own: Sequence[Found], class_names: Sequence[str], metric: str, where: str) -> list[str]:
    results, scores = [one for one, _ in own], own[0][1]
    values = {method: _means(own, method) for method in method_order(results)}
    marked = {name: label_mark([one for one in results if one.method == name]) for name in values}
    what = "finding" if scores.metric == "auroc" else "class"
    head = [what, "images", *(f"{name}{mark}" for name, mark in marked.items())]
    lines = [f"**{where}** · {readable(scores.metric)} of each {what}", "", *markdown_head(head)]
    for place, name in enumerate(class_names):
        cells = [_number(of[place]) for of in values.values()]
        lines.append(markdown_line([name, str(int(scores.images[place])), *cells]))
    best = best_method(results, results[0].domain, metric) or next(iter(values))
    worst = _worst(best, values, class_names, scores)
    said = [f"On `{results[0].domain}`, {worst}", ""] if worst else []
    return [*said, *lines, ""]


def _notes(results: Sequence[Result], scores: ClassScores) -> list[str]:
    seeds = len({one.seed for one in results})
    over = f"; values are means over {seeds} seeds" if seeds > 1 else ""
    return [f"{_MEANING[scores.metric]}  ", f"images: test images that have it{over}  ", ""]


def _means(own: Sequence[Found], method: str) -> list[float]:
    """Of each class over the seeds of a method that have a value."""
    lines = [scores.values.tolist() for one, scores in own if one.method == method]
    columns = [[value for value in of if not math.isnan(value)] for of in zip(*lines, strict=True)]
    return [fmean(of) if of else math.nan for of in columns]


def _worst(
    method: str, values: dict[str, list[float]], class_names: Sequence[str], scores: ClassScores
) -> str:
    """Which class a method tells worst; nothing where there is no other one."""
    own = {place: value for place, value in enumerate(values[method]) if not math.isnan(value)}
    if len(set(own.values())) < 2:
        return ""
    least = min(own.values())
    places = [place for place, value in own.items() if value == least]
    named = ", ".join(f"`{class_names[place]}`" for place in places[:_MOST_NAMED])
    if (more := len(places) - _MOST_NAMED) > 0:
        named += f" and {more} more"
    text = f"`{method}` is worst on {named}: {readable(scores.metric)} {least:.2f}"
    if len(places) == 1:
        text += f" ({counted(int(scores.images[places[0]]), 'test image')})"
        if method != "source_only" and (base := values.get("source_only")):
            text += f"; `source_only` has {_number(base[places[0]])} there"
    return f"{text}."


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
