"""Tables of results, for the terminal and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from domainnorm.evaluation import LOWER_IS_BETTER, CrossDomainMatrix, seed_spread
from domainnorm.registry import METHODS
from domainnorm.report.data_tables import markdown_head, markdown_line
from domainnorm.report.results import (
    Cell,
    Result,
    by_transfer,
    check_results,
    collect_cell,
    label_mark,
    label_notes,
    method_order,
    stream_notes,
)
from domainnorm.report.sentences import MERIT, sentences, settled

_TOLD = "domain_accuracy"
_FEW = 100  # test images
_INPUT = "(input as it is)"  # what is to be restored, beside what methods make of it
# Of an image of a stream, and of one that is only predicted.
COSTS = {"ms": ("ms_per_image", "ms_plain"), "MB": ("mb_per_image", "mb_plain")}
QUARTER = "quarter_"  # before its number, among the metrics of a stream


@dataclass(frozen=True)
class _Block:
    transfer: str
    head: list[str]
    rows: list[list[tuple[str, bool]]]  # text of each cell, and whether it is bold
    told: list[str]  # a line per method: what its encoder made of domains, how its stream went


def results_table(results: Sequence[Result], metric: str = "balanced_accuracy") -> Table:
    """The results for the terminal: a block per transfer, a row per method, a column per domain.

    Cells are mean ± standard deviation over seeds, or the value and its bootstrap interval when
    there is one seed. The best value on a target among methods that saw no target labels is bold,
    where its range overlaps that of no other one; methods that saw them carry a dagger. Δ compares
    with ``source_only`` on the mean of the targets that have labels, over the seeds that both have.
    Cells without a value are dashes.

    Raises:
        EvaluationError: No results, an unknown metric, or a result that came twice.
    """
    outer = Table.grid(padding=(0, 0, 1, 0))
    for block in _blocks(results, metric):
        inner = Table(title=Text(f"{block.transfer} · {metric}"), title_justify="left")
        inner.add_column("method", no_wrap=True)
        for name in block.head:
            heading = escape(name).replace(" (", "\n(")
            inner.add_column(heading, justify="right", overflow="fold")
        for row in block.rows:
            inner.add_row(*(Text(text, style="bold" if best else "") for text, best in row))
        outer.add_row(inner)
        if block.told:
            outer.add_row(Text("\n".join(block.told)))
    notes = [*_footnotes(results, metric), *_about(results)]
    outer.add_row(Text("\n".join(notes), style="dim"))
    for said in sentences(results, metric):
        outer.add_row(Text(said.replace("`", "")))
    return outer


def results_markdown(results: Sequence[Result], metric: str = "balanced_accuracy") -> str:
    """The table of `results_table` as Markdown.

    Raises:
        EvaluationError: No results, an unknown metric, or a result that came twice.
    """
    blocks = _blocks(results, metric)
    lines = [line for said in sentences(results, metric) for line in (said, "")]
    for block in blocks:
        lines += [f"**{block.transfer}** · {metric}", "", *markdown_head(["method", *block.head])]
        for row in block.rows:
            lines.append(markdown_line([f"**{text}**" if best else text for text, best in row]))
        lines.append("")
    several = len(blocks) > 1
    told = [f"{one.transfer}: {line}" if several else line for one in blocks for line in one.told]
    for notes in (_footnotes(results, metric), [*told, *_about(results)]):
        lines += [*(f"{note}  " for note in notes), ""]
    return "\n".join(lines)


def _blocks(results: Sequence[Result], metric: str) -> list[_Block]:
    check_results(results, metric)
    return [_block(name, group, metric) for name, group in by_transfer(results).items()]


def _block(transfer: str, results: Sequence[Result], metric: str) -> _Block:
    roles = {result.domain: result.role for result in results}
    scored = {result.domain for result in results if result.is_scored}
    domains = sorted(roles, key=lambda domain: roles[domain] == "target")
    targets = [domain for domain in domains if roles[domain] == "target"]
    methods = method_order(results)
    supervised = {result.method for result in results if result.supervised}
    cells = {
        method: {domain: collect_cell(results, metric, method, domain) for domain in domains}
        for method in methods
    }
    rivals = {method: cells[method] for method in methods if method not in supervised}
    best = {
        name: _best({method: line[name] for method, line in rivals.items()}, metric)
        for name in targets
    }
    base = cells.get("source_only", {})
    rows = []
    for method, line in cells.items():
        own = [result for result in results if result.method == method]
        shown = [(cell_text(cell), best.get(domain) == method) for domain, cell in line.items()]
        pairs = [(line[domain], base.get(domain)) for domain in targets if domain in scored]
        gain = "–" if method == "source_only" else _gain(pairs)
        time = duration(seed_spread([result.seconds for result in own]).mean)
        facts = [(text, False) for text in (gain, _trained(own), time)]
        rows.append([(f"{method}{label_mark(own)}", False), *shown, *facts])
    given = [collect_cell(results, f"{metric}_input", methods[0], domain) for domain in domains]
    if any(cell.spread.n for cell in given):
        texts = [_INPUT, *map(cell_text, given), "–", "–", "–"]
        rows.insert(0, [(text, False) for text in texts])
    head = [*(f"{domain} ({roles[domain]})" for domain in domains), "Δ target", "trained", "time"]
    encoding = {result.method for result in results if _TOLD in result.metrics}
    told = [_told(results, method, domains) for method in methods if method in encoding]
    quarters = [_quarters(results, method, targets) for method in methods]
    told += [said for said in quarters if said]
    told += [said for method in methods for said in _settled(results, method, targets)]
    told += [said for method in methods for said in _translated(results, method, domains)]
    told += [said for method in methods for said in _generated(results, method, domains)]
    return _Block(transfer, head, rows, told)


def _told(results: Sequence[Result], method: str, domains: Sequence[str]) -> str:
    """How often the encoder of a method's model is right about each domain."""
    means = [collect_cell(results, _TOLD, method, domain).spread for domain in domains]
    shares = [f"{name} {one.mean:.3f}" for name, one in zip(domains, means, strict=True) if one.n]
    unseen = [name for name, one in zip(domains, means, strict=True) if not one.n]
    text = f"domain told right, {method}: {', '.join(shares) or 'none seen'}"
    return f"{text}; not seen by its encoder: {', '.join(unseen)}" if unseen else text


def _settled(results: Sequence[Result], method: str, targets: Sequence[str]) -> list[str]:
    """What a method that judges itself has done, a line for what is the same in several seeds."""
    found: dict[str, list[str]] = {}
    for one in results:
        is_first = (one.method, one.domain) == (method, next(iter(targets), ""))
        if is_first and (text := settled(one.metrics)):
            found.setdefault(text, []).append(f"seed {one.seed}{_kappas(one.metrics)}")
    return [f"{method}, {', '.join(seeds)}: {text}" for text, seeds in found.items()]


def _kappas(facts: Mapping[str, float]) -> str:
    """How far predictions of two views agree, of each variant, or before and after."""
    merits = {key.removeprefix(MERIT): of for key, of in facts.items() if key.startswith(MERIT)}
    if not merits and "agreement_after" in facts:
        merits = {when: facts[f"agreement_{when}"] for when in ("before", "after")}
    known = [f"{name} {value:.2f}" for name, value in merits.items() if value > -1]
    return f" (κ {', '.join(known)})" if known else ""


def _quarters(results: Sequence[Result], method: str, targets: Sequence[str]) -> str:
    """The metric of a method that follows a stream, in each quarter of it."""
    found = []
    for domain in targets:
        cells = [collect_cell(results, f"{QUARTER}{n}", method, domain) for n in range(1, 5)]
        if all(cell.spread.n for cell in cells):
            found.append(f"{domain} {' '.join(f'{cell.spread.mean:.3f}' for cell in cells)}")
    if not found:
        return ""
    text = f"by quarter of the stream, {method}: {', '.join(found)}"
    for unit, names in COSTS.items():
        own, plain = (collect_cell(results, one, method, targets[0]).spread for one in names)
        if own.n and plain.n:
            text += f"; {own.mean:.1f} {unit} an image (predicting alone: {plain.mean:.1f} {unit})"
    return text


def _translated(results: Sequence[Result], method: str, domains: Sequence[str]) -> Iterator[str]:
    """What became of the images of each domain in the style of each other one."""

    def mean(metric: str, domain: str) -> str:
        return f"{collect_cell(results, metric, method, domain).spread.mean:.2f}"

    known = {name for result in results if result.method == method for name in result.metrics}
    for asked in domains:
        for domain in domains if f"round_trip_ssim/{asked}" in known else ():
            if asked == domain:
                continue
            style, look, distance, before, halves, left = (
                mean(f"{name}/{asked}", domain)
                for name in (
                    *("style_accuracy", "look_accuracy"),
                    *("distance", "distance_before", "distance_halves", "round_trip_ssim"),
                )
            )
            real = mean("style_accuracy_real", asked), mean("look_accuracy_real", asked)
            yield (
                f"{domain} as {asked}, {method}: taken for it by style {style} (real images "
                f"{real[0]}), by all they show {look} ({real[1]}); distance {distance} (before "
                f"{before}, halves of real images {halves}); back again, SSIM {left}"
            )


def _generated(results: Sequence[Result], method: str, domains: Sequence[str]) -> Iterator[str]:
    """What images made for each domain show, beside real ones."""

    def mean(metric: str, domain: str, digits: int = 2) -> str:
        spread = collect_cell(results, metric, method, domain).spread
        return f"{spread.mean:.{digits}f}" if spread.n else "–"

    known = {name for result in results if result.method == method for name in result.metrics}
    for domain in domains if "nearest_real" in known else ():
        yield (
            f"made for {domain}, {method}: taken for the class asked for "
            f"{mean('class_accuracy', domain)} (real images {mean('class_accuracy_real', domain)}),"
            f" for the domain {mean('look_accuracy', domain)} "
            f"({mean('look_accuracy_real', domain)}); distance {mean('distance', domain)} (halves "
            f"of real images {mean('distance_halves', domain)}); nearest training image "
            f"{mean('nearest', domain, 3)} ({mean('nearest_real', domain, 3)}); the judge of "
            "classes learned from labelled training images of every domain"
        )


def _trained(own: Sequence[Result]) -> str:
    """Parameters and their size, as ``11.7 k, 47 kB``."""
    count = max(result.trained_parameters for result in own)
    size = max(result.trained_bytes for result in own)
    return f"{abbreviated(count)}, {abbreviated(size)}B" if size else abbreviated(count)


def _best(cells: Mapping[str, Cell], metric: str) -> str | None:
    """The method that is best beyond doubt: its range overlaps that of no other one."""
    known = {method: cell for method, cell in cells.items() if cell.spread.n}
    pick = min if metric in LOWER_IS_BETTER else max
    if len(known) < 2:
        return None
    best = pick(known, key=lambda method: known[method].spread.mean)
    low, high = known[best].range
    ranges = [cell.range for method, cell in known.items() if method != best]
    return None if any(low <= other[1] and other[0] <= high for other in ranges) else best


def cell_text(cell: Cell) -> str:
    """Mean ± standard deviation over seeds; of one seed the value and its interval."""
    spread = cell.spread
    if spread.n == 0:
        return "–"
    if spread.n > 1:
        return f"{spread.mean:.3f} ± {spread.std:.3f}"
    if cell.interval is not None:
        # A narrow terminal breaks lines at plain spaces; the interval stays in one piece.
        low, high = cell.interval
        return f"{spread.mean:.3f} [{low:.2f},\N{NO-BREAK SPACE}{high:.2f}]"
    return f"{spread.mean:.3f}"


def _gain(pairs: Sequence[tuple[Cell, Cell | None]]) -> str:
    """Mean over targets of the difference to source_only, over the seeds that both have."""
    differences = []
    for cell, base in pairs:
        common = sorted(cell.by_seed.keys() & base.by_seed.keys()) if base else []
        if base is None or not common:
            return "–"
        apart = [cell.by_seed[seed] - base.by_seed[seed] for seed in common]
        differences.append(seed_spread(apart).mean)
    return f"{sum(differences) / len(differences):+.3f}" if differences else "–"


def abbreviated(number: int) -> str:
    """A large number as ``11.7 k``."""
    for size, letter in ((1_000_000, " M"), (1_000, " k")):
        if number >= size:
            return f"{number / size:.1f}{letter}"
    return str(number)


def duration(seconds: float) -> str:
    """A time in its largest unit, as ``4.5 min``."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _footnotes(results: Sequence[Result], metric: str) -> list[str]:
    """What signs in the tables mean."""
    seeds = len({result.seed for result in results})
    notes = []
    if seeds > 1:
        notes.append(f"± standard deviation over {seeds} seeds")
    elif any(metric in result.intervals for result in results):
        notes.append("[ ] bootstrap interval over test data, one seed")
    side = "lower" if metric in LOWER_IS_BETTER else "higher"
    notes.append(
        f"bold: best on a target without its labels ({side} is better), by more than the ranges"
    )
    if any(result.method == "source_only" for result in results):
        notes.append("Δ target: mean over targets, minus source_only")
    notes += [*stream_notes(results), *label_notes(results)]
    unscored = dict.fromkeys(result.domain for result in results if not result.is_scored)
    if unscored:
        notes.append(f"–: no test image of {', '.join(unscored)} has a label; nothing is measured")
    return notes


def _about(results: Sequence[Result]) -> list[str]:
    """What the methods are, what their words mean, and where there are few images."""
    names = [name for name in method_order(results) if name in METHODS.names()]
    notes = [f"{name}: {METHODS.entry(name).summary}" for name in names]
    said = {key for result in results for key in result.metrics}
    if "moments" in said:
        notes.append(
            "moments: the means and variances that norms normalize features by; where they alone "
            "are adapted, all that is learned is still that of source_only"
        )
    if any(settled(result.metrics).startswith("kept") for result in results):
        notes.append(
            "rows: what each norm has for a domain, moments, scale and shift; one_row is one for "
            "all domains, own_rows one for each, and the one whose κ is higher is kept"
        )
    if "agreement_after" in said:
        notes.append(
            "κ: how far predictions on two views of an image agree beyond chance (Cohen's κ); 1 is "
            "always, 0 as by chance"
        )
    return [*notes, *_few(results)]


def _few(results: Sequence[Result]) -> list[str]:
    """A sentence where few test images are scored, so that small differences mean nothing."""
    numbers = {r.domain: int(r.metrics["n"]) for r in results if r.is_scored and "n" in r.metrics}
    few = [f"{domain} {number}" for domain, number in numbers.items() if number < _FEW]
    text = f"few test images to score ({', '.join(few)}): a small difference may be chance"
    return [text] if few else []


def matrix_markdown(matrix: CrossDomainMatrix, metric: str, row_label: str = "model") -> str:
    """One metric of a matrix as Markdown: mean ± standard deviation over seeds, own domains bold.

    Raises:
        EvaluationError: The metric is unknown.
    """
    matrix.values(metric)  # refuses an unknown one
    summary = matrix.summary()[metric]
    lines = markdown_head([f"{row_label} ↓, test domain →", *matrix.columns])
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
