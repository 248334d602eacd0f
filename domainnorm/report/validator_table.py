"""Table of validators: how well scores without labels rank what labels measure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from domainnorm.evaluation import LOWER_IS_BETTER
from domainnorm.report.data_tables import markdown_head, markdown_line
from domainnorm.report.results import Result, by_transfer

_FEWEST = 3  # candidates: two have a rank correlation of 1 or -1
Candidate = tuple[str, int]  # method, seed


@dataclass(frozen=True)
class Judged:
    """One validator over the candidates of a transfer.

    Args:
        correlation: Spearman's ρ of score and metric, -1 to 1; nan where one of them is constant.
        regret: What the metric of its pick lacks to that of the best candidate, 0 or more.
        pick: The candidate of the best score, of equal ones the first.
        number: Candidates that have a score.
    """

    correlation: float
    regret: float
    pick: Candidate
    number: int


def judge(results: Sequence[Result], metric: str) -> dict[str, Judged]:
    """How each validator ranks the candidates of one transfer, by name.

    Candidates are methods and seeds that saw no target labels. Scores and metric are means over
    the targets that have labels. A validator with fewer than three candidates is left out.

    Args:
        results: Of one transfer.
        metric: What is to be ranked.
    """
    targets = [one for one in results if one.role == "target" and not one.supervised]
    measured: dict[Candidate, list[float]] = defaultdict(list)
    scored: dict[str, dict[Candidate, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in targets:
        if math.isnan(value := one.metrics.get(metric, math.nan)):
            continue
        candidate = one.method, one.seed
        measured[candidate].append(-value if metric in LOWER_IS_BETTER else value)
        for name, score in one.scores.items():
            scored[name][candidate].append(score)
    truth = {candidate: float(np.mean(values)) for candidate, values in measured.items()}
    found = {
        name: {candidate: float(np.mean(values)) for candidate, values in scores.items()}
        for name, scores in sorted(scored.items())
    }
    return {name: _judged(own, truth) for name, own in found.items() if len(own) >= _FEWEST}


def _judged(score: Mapping[Candidate, float], truth: Mapping[Candidate, float]) -> Judged:
    candidates = list(score)
    pick = max(candidates, key=lambda one: score[one])
    best = max(truth[one] for one in candidates)
    ranks = rankdata([score[one] for one in candidates]), rankdata([truth[one] for one in score])
    varied = all(len(set(one.tolist())) > 1 for one in ranks)
    correlation = float(np.corrcoef(*ranks)[0, 1]) if varied else math.nan
    return Judged(correlation, best - truth[pick], pick, len(candidates))


def validators_markdown(results: Sequence[Result], metric: str) -> str:
    """The table of all validators and transfers as Markdown; empty where none can be judged.

    A row per validator; for each transfer rank correlation, regret and pick, the best mean
    correlation first.
    """
    found = {transfer: judge(own, metric) for transfer, own in by_transfer(results).items()}
    found = {transfer: judged for transfer, judged in found.items() if judged}
    names = list(dict.fromkeys(name for judged in found.values() for name in judged))
    if not names:
        return ""
    number = max(one.number for judged in found.values() for one in judged.values())
    head = ["validator"]
    for transfer in found:
        head += [f"{transfer}: ρ", "regret", "pick"]
    rows = []
    for name in sorted(names, key=lambda one: -_mean_correlation(found, one)):
        row = [name]
        for judged in found.values():
            row += _cells(judged[name]) if name in judged else ["–"] * 3
        rows.append(row)
    lines = [f"**Scores without target labels** · {metric}", "", *markdown_head(head)]
    notes = [
        f"Up to {number} candidates (rows without target labels × seeds); ρ: Spearman's "
        f"rank correlation of score and {metric} on the targets' test images",
        "regret: what the pick, the candidate of the best score, lacks to the best candidate",
    ]
    lines += [*map(markdown_line, rows), "", *(f"{note}  " for note in notes)]
    return "\n".join(lines) + "\n"


def _cells(one: Judged) -> list[str]:
    correlation = "–" if math.isnan(one.correlation) else f"{one.correlation:+.2f}"
    method, seed = one.pick
    return [correlation, f"{one.regret:.3f}", f"{method}, seed {seed}"]


def _mean_correlation(found: Mapping[str, Mapping[str, Judged]], name: str) -> float:
    known = [judged[name].correlation for judged in found.values() if name in judged]
    finite = [one for one in known if not math.isnan(one)]
    return sum(finite) / len(finite) if finite else -math.inf
