"""What was found in a pile of images, as tables for the terminal and a sheet of typical images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from os import PathLike

from rich.markup import escape
from rich.table import Table

from domainnorm.data import Discovery
from domainnorm.data.discovery import reduced_to
from domainnorm.errors import counted
from domainnorm.report.contact_sheet import save_contact_sheet
from domainnorm.report.survey import SPLITS, listing

_TYPICAL, _SIDE = 8, 256  # images of a domain; pixels of the shorter side


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


def save_found_domains(discovery: Discovery, path: str | PathLike[str]) -> None:
    """Draw the most typical training images of each domain in a row of its own."""
    sizes = discovery.found.size.tolist()
    rows = {
        f"{name} ({sizes[label]})": [
            reduced_to(image, _SIDE) for image in discovery.typical(label, _TYPICAL)
        ]
        for label, name in enumerate(discovery.domain_names)
    }
    save_contact_sheet(rows, path, "Typical images of the domains found")


def _domains(discovery: Discovery) -> Table:
    found = discovery.found
    table = listing("domains found (images)", "domain", *SPLITS, "stability", "silhouette")
    counts = Counter(zip(discovery.domains, discovery.splits, strict=True))
    for label, name in enumerate(discovery.domain_names):
        judged = ("–", "–")  # one domain is no split
        if found.num_domains > 1:
            judged = (f"{found.stability[label]:.2f}", f"{found.silhouette[label]:.2f}")
        table.add_row(name, *(str(counts[name, split]) for split in SPLITS), *judged)
    return table


def _contingency(discovery: Discovery) -> Table:
    given, names = discovery.column("domain"), discovery.domain_names
    table = listing("domains given (rows) and found", "domain", *names)
    counts = Counter(zip(given, discovery.domains, strict=True))
    for domain in sorted(set(given)):
        table.add_row(escape(domain or "(empty)"), *(str(counts[domain, name]) for name in names))
    return table
