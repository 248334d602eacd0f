"""Images with a class each, listed in a CSV or Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from domainnorm.data.class_files import ALLOW_HINT, ClassFiles
from domainnorm.data.dataset import checked_white, resolved_root
from domainnorm.data.drawings.folders import styles_of, write_objects
from domainnorm.data.folders import Cuts, check_listed
from domainnorm.data.manifest import Manifest as Table
from domainnorm.data.manifest import write_manifest
from domainnorm.errors import DataError
from domainnorm.registry import register


@register
class Manifest(ClassFiles):
    """Images with one class each, listed in any CSV, TSV or Parquet table.

    Columns are path, target (the class; empty for none), domain, split (train, val or test) and
    group; split and group may be absent. Further columns become metadata of the images. Where
    there is no split column, or no ``val`` row, splits are drawn as by the dataset ``folder``.

    Args:
        root: Folder of the data, which paths in the table are relative to.
        table: Name of the table inside ``root``; ``.csv``, ``.tsv`` or ``.parquet``.
        columns: Names of columns that are called otherwise: ``{target: diagnosis}``.
        domains: Domains to use, in this order; all of them when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no split column, in (0, 1).
        split_seed: Seed of drawn splits.
        allow_missing_classes: Whether a domain may lack training images of a class that another
            one has: for rare classes, and domains that were found. A misspelled class would not be
            noticed.
        white: Value of 16-bit files that is shown as white; 4095 where they hold 12 bits.

    Raises:
        DataError: The table, a column, a file or a class is missing, or a line is wrong; the
            message names it.
    """

    layout = "<table> with the columns path,target,domain,split,group, and the images it lists"

    def __init__(
        self,
        *,
        root: str,
        table: str = "manifest.csv",
        columns: dict[str, str] | None = None,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        allow_missing_classes: bool = False,
        white: int = 65535,
    ) -> None:
        self.root = resolved_root(root)
        self.white = checked_white(white)
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.table = file = self.root / table
        rows = Table(file, columns or {}, cuts).rows()
        self._fill(rows, domains, sorted({row.domain for row in rows}))
        if not self.class_names:
            raise DataError(f"{file}: no image of {', '.join(self.domain_names)} has a target")
        self._check_classes(allow_missing_classes, ALLOW_HINT)
        check_listed(self.root, [record.file for record in self.records], file)

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("shop_a", "shop_b")
    ) -> None:
        """Four kinds of objects from two shops, with the hour of each picture."""
        kinds, folder = ["bus", "car", "cup", "dog"], root / "images"
        rows = [
            replace(row, file=f"images/{row.file}", metadata={"hour": str(8 + number % 12)})
            for domain, style in styles_of(domains).items()
            for number, row in enumerate(write_objects(folder, domain, style, kinds, seed))
        ]
        write_manifest(root / "manifest.csv", rows)
