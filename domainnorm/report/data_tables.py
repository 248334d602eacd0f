"""Tables of data: what a dataset holds, what was found in a pile of images; rows in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from domainnorm.data import DomainDataset, Survey
from domainnorm.data.masks import VOID
from domainnorm.errors import counted

if TYPE_CHECKING:
    from domainnorm.data import Discovery  # needs torch and scikit-learn

_MADE = "generated, training alone"
_SPLITS = ("train", "val", "test")
_NAMED = 3  # files of one problem


def survey_tables(survey: Survey) -> Iterator[Table]:
    """Counts, sizes and balance of what could be read, then notes and problems.

    A dataset that could not even be listed has problems only.
    """
    if survey.dataset is not None:
        yield _images(survey, survey.dataset)
        if survey.labels and survey.dataset.task != "segmentation":
            yield _labels(survey, survey.dataset)
        if survey.pixels:
            yield _pixels(survey, survey.dataset)
    if survey.notes:
        notes = listing("notes", "")
        for note in survey.notes:
            notes.add_row(escape(note))
        yield notes
    if survey.problems:
        number = len(survey.problems)
        problems = listing(counted(number, "problem"), "file", "problem")
        alike: dict[str, list[str]] = {}
        for problem in survey.problems:
            alike.setdefault(problem.text, []).append(problem.file)
        for text, files in alike.items():
            more = f"\n… and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
            problems.add_row(escape("\n".join(files[:_NAMED])) + more, escape(text))
        yield problems


def images_markdown(dataset: DomainDataset, domains: Sequence[str], name: str) -> str:
    """How many images there are of each domain and split, as Markdown.

    Args:
        dataset: Whose images.
        domains: Those that a run is about.
        name: Of the dataset, in recipes.
    """
    records = [
        (one.domain, _MADE if one.generated else str(one.split), one.is_labelled)
        for one in dataset.records
    ]
    splits = [*_SPLITS, *([_MADE] if any(kind == _MADE for _, kind, _ in records) else [])]
    every = Counter((domain, split) for domain, split, _ in records)
    labelled = Counter((domain, split) for domain, split, known in records if known)
    root = getattr(dataset, "root", None)  # nothing is read from a disk where images are drawn
    where = f" in `{root}`" if root else ""
    lines = [f"**Images of `{name}`**{where}", "", *markdown_head(["domain", *splits])]
    for domain in domains:
        places = [(domain, split) for split in splits]
        cells = [
            f"{every[place]} ({labelled[place]} with a label)"
            if labelled[place] < every[place]
            else str(every[place])
            for place in places
        ]
        lines.append(markdown_line([domain, *cells]))
    return "\n".join([*lines, ""])


def _images(survey: Survey, dataset: DomainDataset) -> Table:
    table = listing(
        "images (groups)", "domain", *_SPLITS, "with label", "without", "width × height"
    )
    for domain in dataset.domain_names:
        cells = []
        for split in _SPLITS:
            count, groups = survey.images[domain, split], survey.groups[domain, split]
            cells.append(str(count) if count == groups else f"{count} ({groups})")
        images = sum(survey.images[domain, split] for split in _SPLITS)
        unlabelled = sum(survey.unlabelled[domain, split] for split in _SPLITS)
        sizes = _sizes(survey.sizes.get(domain, Counter()))
        table.add_row(escape(domain), *cells, str(images - unlabelled), str(unlabelled), sizes)
    return table


def _labels(survey: Survey, dataset: DomainDataset) -> Table:
    findings = dataset.task == "multilabel"
    title = "training images with (without) a finding" if findings else "training images by class"
    table = listing(title, "class", *map(escape, dataset.domain_names))
    for number, name in enumerate(dataset.class_names):
        places = [(domain, number) for domain in dataset.domain_names]
        cells = [
            f"{survey.labels[place]} ({survey.absent[place]})"
            if findings
            else str(survey.labels[place])
            for place in places
        ]
        table.add_row(escape(name), *cells)
    return table


def _pixels(survey: Survey, dataset: DomainDataset) -> Table:
    table = listing("share of labelled pixels", "class", *map(escape, dataset.domain_names))
    numbers = dict(enumerate(dataset.class_names))
    labelled = {
        domain: sum(survey.pixels[domain, number] for number in numbers)
        for domain in dataset.domain_names
    }
    for number, name in numbers.items():
        shares = (
            _share(survey.pixels[domain, number], labelled[domain])
            for domain in dataset.domain_names
        )
        table.add_row(escape(name), *shares)
    voids = (
        _share(survey.pixels[domain, VOID], labelled[domain] + survey.pixels[domain, VOID])
        for domain in dataset.domain_names
    )
    table.add_row("without class, of all", *voids)
    return table


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "–"


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    if not sizes:
        return "–"
    (height, width), _ = sizes.most_common(1)[0]
    if len(sizes) == 1:
        return f"{width} × {height}"
    heights, widths = zip(*sizes, strict=True)
    least, most = f"{min(widths)} × {min(heights)}", f"{max(widths)} × {max(heights)}"
    return f"{least} to {most}, mostly {width} × {height}"


def listing(title: str, *columns: str) -> Table:
    """An empty table for the terminal, without a header where no column has a name."""
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for position, name in enumerate(columns):
        table.add_column(name, overflow="fold", justify="left" if position == 0 else "right")
    if columns[-1] in ("problem", "width × height"):
        table.columns[-1].justify = "left"
    return table


def found_tables(discovery: Discovery) -> Iterator[Table]:
    """The domains, how they share the images of a column ``domain``, and files left out."""
    yield _domains(discovery)
    if any(discovery.column("domain")):
        yield _contingency(discovery)
    if discovery.problems:
        table = listing(f"{counted(len(discovery.problems), 'image')} left out", "")
        for problem in discovery.problems:
            table.add_row(escape(problem))
        yield table


def _domains(discovery: Discovery) -> Table:
    found = discovery.found
    table = listing("domains found (images)", "domain", *_SPLITS, "stability", "silhouette")
    counts = Counter(zip(discovery.domains, discovery.splits, strict=True))
    for label, name in enumerate(discovery.domain_names):
        judged = ("–", "–")  # one domain is no split
        if found.num_domains > 1:
            judged = (f"{found.stability[label]:.2f}", f"{found.silhouette[label]:.2f}")
        table.add_row(name, *(str(counts[name, split]) for split in _SPLITS), *judged)
    return table


def _contingency(discovery: Discovery) -> Table:
    given, names = discovery.column("domain"), discovery.domain_names
    table = listing("domains given (rows) and found", "domain", *names)
    counts = Counter(zip(given, discovery.domains, strict=True))
    for domain in sorted(set(given)):
        table.add_row(escape(domain or "(empty)"), *(str(counts[domain, name]) for name in names))
    return table


def markdown_head(names: Sequence[str]) -> list[str]:
    """The head of a table in Markdown, whose first column is names and the others numbers."""
    return [markdown_line(names), markdown_line(["---", *["---:"] * (len(names) - 1)])]


def markdown_line(cells: Sequence[str]) -> str:
    """One row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
