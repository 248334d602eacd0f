"""Image files in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from domainnorm.data.dataset import DOMAIN_KEYS, UNLABELLED, Record, select_domains
from domainnorm.data.decode import SUFFIXES
from domainnorm.data.files import FileDataset, resolved_root
from domainnorm.data.folders import Cuts, check_listed, find_table, list_folders, list_images
from domainnorm.data.table import Row
from domainnorm.errors import DataError
from domainnorm.registry import register


@register
class Folder(FileDataset):
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

    Raises:
        DataError: The root, a domain, a file or a class is missing, or the table is wrong; the
            message names the key, folder or file.
    """

    def __init__(
        self,
        *,
        root: str,
        splits: str = "splits.csv",
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
    ) -> None:
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.root = resolved_root(root)
        table = find_table(self.root, splits)
        rows = cuts.tabled(table) if table else cuts.drawn(_scanned(self.root))
        known = {row.domain for row in rows} | set(() if table else list_folders(self.root))
        self.domain_names = select_domains(DOMAIN_KEYS, domains, sorted(known))
        used = [row for row in rows if row.domain in self.domain_names]
        self.class_names = sorted({row.label for row in used if row.label})
        number = {name: target for target, name in enumerate(self.class_names)}
        self.records = [
            Record(row.file, row.domain, number.get(row.label, UNLABELLED), row.group, row.split)
            for row in used
        ]
        self._check_domains()
        if not self.class_names:
            raise DataError(f"{table}: no image of {', '.join(self.domain_names)} has a class")
        if table:
            check_listed(self.root, [record.file for record in self.records], table)

    def _check_domains(self) -> None:
        for domain in self.domain_names:
            own = [record for record in self.records if record.domain == domain]
            if not own:
                raise DataError(
                    f"{self.root / domain}: no images; expected <domain>/<class>/<image> with "
                    f"one of the suffixes {' '.join(sorted(SUFFIXES))}"
                )
            if any(record.target != UNLABELLED for record in own):
                self._check_classes(domain, own)

    def _check_classes(self, domain: str, records: Sequence[Record]) -> None:
        trained = {record.target for record in records if record.split == "train"}
        for target, name in enumerate(self.class_names):
            if target not in trained:
                elsewhere = sum(record.target == target for record in records)
                raise DataError(
                    f"{self.root}: domain '{domain}' has no training image of class '{name}' "
                    f"({elsewhere} in its other splits); add images, or choose other domains with "
                    "data.domains"
                )


def _scanned(root: Path) -> list[Row]:
    """Every image of ``<domain>/<class>/``, sorted by file, all in the training split."""
    files = [
        f"{domain}/{label}/{name}"
        for domain in list_folders(root)
        for label in list_folders(root / domain)
        for name in list_images(root / domain / label)
    ]
    if not files:
        raise DataError(
            f"data.root: no images below {root}; expected <domain>/<class>/<image> (docs/data.md)"
        )
    parts = ((file, *file.split("/")[:2]) for file in sorted(files))
    return [Row(file, domain, label, file, "train") for file, domain, label in parts]
