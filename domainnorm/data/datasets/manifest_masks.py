"""Images with a mask each, listed in a CSV or Parquet table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    UNLABELLED,
    MaskFiles,
    Record,
    checked_white,
    resolved_root,
    select_domains,
)
from domainnorm.data.drawings.folders import write_scenes
from domainnorm.data.drawings.subjects import subject_of
from domainnorm.data.folders import Cuts, check_listed
from domainnorm.data.manifest import Manifest, write_manifest
from domainnorm.data.masks import read_classes
from domainnorm.registry import register


@register
class ManifestMasks(MaskFiles):
    """Images with a mask of classes each, listed in any CSV, TSV or Parquet table.

    The column target holds the path of the mask (empty for none): a PNG with the number of the
    class of each pixel, 255 where there is none, or its colour. ``classes.txt`` beside the table
    names the classes, one per line, and their colours. Other columns are those of the dataset
    ``manifest``.

    Args:
        root: Folder of the data, which paths in the table are relative to.
        table: Name of the table inside ``root``; ``.csv``, ``.tsv`` or ``.parquet``.
        columns: Names of columns that are called otherwise: ``{target: label_file}``.
        domains: Domains to use, in this order; all of them when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no split column, in (0, 1).
        split_seed: Seed of drawn splits.
        white: Value of 16-bit files that is shown as white; 4095 where they hold 12 bits.

    Raises:
        DataError: The table, a column, a file or ``classes.txt`` is missing, or a line is wrong;
            the message names it.
    """

    task = "segmentation"
    layout = "<table> with the columns path,target,domain,split,group; classes.txt; the files"

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
        white: int = 65535,
    ) -> None:
        self.root = resolved_root(root)
        self.white = checked_white(white)
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self._classes = read_classes(self.root / "classes.txt")
        self.class_names = self._classes.names
        self.table = self.root / table
        rows = Manifest(self.table, columns or {}, cuts, classes=False).rows()
        self.domain_names = select_domains(DOMAIN_KEYS, domains, sorted({r.domain for r in rows}))
        self.records = [
            Record(
                row.file,
                row.domain,
                UNLABELLED,
                row.group,
                row.split,
                mask=row.label or None,
                metadata=row.metadata,
            )
            for row in rows
            if row.domain in self.domain_names
        ]
        files = [file for record in self.records for file in (record.file, record.mask) if file]
        check_listed(self.root, files, self.table)

    @classmethod
    def write_sample(
        cls,
        root: Path,
        *,
        seed: int = 0,
        domains: Sequence[str] = ("camera_a", "camera_b"),
        among: Sequence[str] = (),
    ) -> None:
        """Images with masks, see `subject_of`."""
        rows, subject = [], subject_of(domains, among)
        for domain, draw in subject.draw.items():
            rows += write_scenes(root, domain, draw, ("images", "masks"), seed)
        (root / "classes.txt").write_text(subject.classes)
        write_manifest(root / "manifest.csv", rows)
