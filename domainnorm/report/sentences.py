"""What came out of a run, in sentences for someone who does not read tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from domainnorm.errors import counted
from domainnorm.evaluation import LOWER_IS_BETTER, readable
from domainnorm.report.results import Cell, Result, by_transfer, collect_cell, method_order

MERIT = "merit_"  # before the name of a variant, among the metrics of target domains
# Metrics that are shares of images, and how one is said.
_OF_100 = {
    "accuracy": "is right for {} of 100 images",
    "balanced_accuracy": "is right for {} of 100 images, if each class counts the same",
}


def sentences(results: Sequence[Result], metric: str) -> list[str]:
    """For each target of each transfer what was reached, and whether that is more than chance."""
    found = [
        _sentence(group, name, metric)
        for group in by_transfer(results).values()
        for name in dict.fromkeys(one.domain for one in group if one.role == "target")
    ]
    return [text for text in found if text]


def _sentence(results: Sequence[Result], target: str, metric: str) -> str:
    own = [result for result in results if result.domain == target]
    name = f"`{target}`"
    if not any(result.is_scored for result in own):
        return (
            f"{name}: no test image has a label, so nothing is measured. What the models say of "
            "its images: `domainnorm predict`. Scores that need no labels are in `metrics.csv`."
        )
    saw = {result.method: _saw(result) for result in own if result.supervised}
    cells = _known(own, target, metric)
    rivals = [method for method in cells if method not in saw and method != "source_only"]
    best = best_method(own, target, metric)
    if best is None:
        return ""
    number = next((int(one.metrics["n"]) for one in own if one.metrics.get("n")), 0)
    images = f" ({counted(number, 'test image')})" if number else ""
    whose = f"the best of {len(rivals)} methods without its labels" if len(rivals) > 1 else ""
    told = {best: saw.get(best, whose), "source_only": "without adaptation", **saw}
    told = {method: what for method, what in told.items() if method in cells}
    reached = "; ".join(_reached(told, cells, metric))
    verdict = f" {_verdict(cells, best, metric)}" if "source_only" in cells else ""
    return f"{name}{images}: {reached}.{verdict}"


def best_method(results: Sequence[Result], target: str, metric: str) -> str | None:
    """The best on a target of the methods that adapt without its labels, or of those with them.

    None where there is neither.
    """
    cells = _known(results, target, metric)
    saw = {result.method for result in results if result.supervised}
    rivals = [method for method in cells if method not in saw and method != "source_only"]
    pick = min if metric in LOWER_IS_BETTER else max
    candidates = rivals or [method for method in cells if method in saw]
    return pick(candidates, key=lambda method: cells[method].spread.mean, default=None)


def _known(results: Sequence[Result], target: str, metric: str) -> dict[str, Cell]:
    """What each method has reached on a target, where that is known."""
    cells = {name: collect_cell(results, metric, name, target) for name in method_order(results)}
    return {method: cell for method, cell in cells.items() if cell.spread.n}


def _saw(result: Result) -> str:
    """Which labels of the target a method has seen."""
    if result.shots is None:
        return "which saw its labels"
    return f"which saw {counted(result.shots, 'label')} of each class, or so many masks"


def _reached(told: dict[str, str], cells: dict[str, Cell], metric: str) -> Iterator[str]:
    form = _OF_100.get(metric)
    for number, (method, what) in enumerate(told.items()):
        value = cells[method].spread.mean
        name = f"`{method}`{f' ({what})' if what else ''}"
        if form is None:
            yield f"{name}: {readable(metric)} {value:.3f}"
        elif number == 0:
            yield f"{name} {form.format(round(100 * value))}"
        else:
            yield f"{name} for {round(100 * value)}"


def _verdict(cells: dict[str, Cell], best: str, metric: str) -> str:
    own, base = cells[best], cells["source_only"]
    if own.by_seed == base.by_seed:
        return f"`{best}` and `source_only` are the same here."
    if any(cell.spread.n == 1 and cell.images is None for cell in (own, base)):
        return "A seed without an interval does not tell whether that is chance."
    if own.range[0] <= base.range[1] and base.range[0] <= own.range[1]:
        return f"The ranges of `{best}` and `source_only` overlap: this may be chance."
    helps = (own.spread.mean < base.spread.mean) == (metric in LOWER_IS_BETTER)
    return f"`{best}` helps here." if helps else f"`{best}` harms here."


def settled(facts: Mapping[str, float]) -> str:
    """What a method that judges itself has done with what it learned; nothing of others."""
    merits = {key: value for key, value in facts.items() if key.startswith(MERIT)}
    if facts.get("adapted") == 0:
        kept = "its moments alone are adapted" if "moments" in facts else "the source model is kept"
        return f"{_reason(facts)}: {kept}"
    if merits:
        return f"kept: {max(merits, key=lambda key: merits[key]).removeprefix(MERIT)}"
    return ""


def _reason(facts: Mapping[str, float]) -> str:
    """Why the default has kept its source model."""
    if "agreement_after" not in facts:
        return "too unsure of these images to learn from its own labels"
    if facts["forgotten"]:
        return "a class is forgotten after adaptation"
    fell = facts["agreement_after"] < facts["agreement_before"]
    return f"views agree {'less' if fell else 'hardly more'} after adaptation"
