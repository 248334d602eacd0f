"""Image files in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainnorm.data.class_files import ALLOW_HINT, ClassFiles, scan_classes
from domainnorm.data.dataset import checked_white, resolved_root
from domainnorm.data.drawings.folders import styles_of, write_objects
from domainnorm.data.folders import (
    DEFAULT_TABLE,
    Cuts,
    check_listed,
    find_table,
    list_folders,
)
from domainnorm.data.table import Row, write_table
from domainnorm.errors import DataError
from domainnorm.registry import register


@register
class Folder(ClassFiles):
    """Image files laid out as <domain>/<class>/<image>, with an optional table of splits.

    With a table, its splits are used; where it has no ``val`` row at all, a validation split is
    cut out of its training rows. Without one, test and validation splits are drawn from all
    images. Drawn splits are stratified by domain and class, keep groups whole, and depend on the
    names of the files and on ``split_seed`` alone, not on the chosen ``domains``.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        splits: Name of the table inside ``root``: CSV with columns file, domain, class, group,
            split. An empty group means the file itself, an empty class an image without a label.
            The default one may be absent; an empty name ignores any table.
        domains: Domains to use, in this order; all of them when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no table, in (0, 1).
        split_seed: Seed of drawn splits.
        allow_missing_classes: Whether a domain may lack training images of a class that another
            one has: for rare classes, and domains that were found. A misspelled class would not be
            noticed.
        white: Value of 16-bit files that is shown as white; 4095 where they hold 12 bits.

    Raises:
        DataError: The root, a domain, a file or a class is missing, or the table is wrong; the
            message names the key, folder or file.
    """

    layout = "<domain>/<class>/<image>, splits.csv or none"

    def __init__(
        self,
        *,
        root: str,
        splits: str = "splits.csv",
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        allow_missing_classes: bool = False,
        white: int = 65535,
    ) -> None:
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.root = resolved_root(root)
        self.white = checked_white(white)
        table = find_table(self.root, splits)
        rows = cuts.tabled(table) if table else cuts.drawn(_scanned(self.root))
        known = {row.domain for row in rows} | set(() if table else list_folders(self.root))
        self._fill(rows, domains, sorted(known))
        self._check_classes(allow_missing_classes, ALLOW_HINT)
        if not self.class_names:
            raise DataError(f"{table}: no image of {', '.join(self.domain_names)} has a class")
        check_listed(self.root, [record.file for record in self.records], table)

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("photo", "painting")
    ) -> None:
        """Four kinds of objects, each domain in another style, with a table of splits."""
        rows = []
        for domain, style in styles_of(domains).items():
            rows += write_objects(root, domain, style, ["car", "dog", "house", "person"], seed)
        write_table(root / DEFAULT_TABLE, rows)


def _scanned(root: Path) -> list[Row]:
    """Every image of ``<domain>/<class>/``, sorted by file, all in the training split."""
    rows = scan_classes(root, list_folders(root))
    if not rows:
        raise DataError(
            f"data.root: no images below {root}; expected <domain>/<class>/<image> (docs/data.md)"
        )
    return rows
