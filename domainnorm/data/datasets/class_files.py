"""Datasets of image files that have one class each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from domainnorm.data.dataset import DOMAIN_KEYS, UNLABELLED, FileDataset, Record, select_domains
from domainnorm.data.folders import images_in, list_folders, list_images, tell_loose
from domainnorm.data.images import SUFFIXES
from domainnorm.data.refusals import LeftOut, refuse
from domainnorm.data.table import Row

_UNLABELLED = ("unlabelled", "unlabeled")  # folders beside those of classes
ALLOW_HINT = ", or let domains lack classes with data.allow_missing_classes=true"


class ClassFiles(FileDataset):
    """Image files with one class each."""

    def _fill(
        self,
        rows: Sequence[Row],
        domains: Sequence[str] | None,
        known: Iterable[str],
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Set domains, classes and records.

        Args:
            rows: Images of all domains, with their splits.
            domains: What the user asked for.
            known: The domains there are.
            class_names: In the order of their numbers; those of the chosen domains when None.

        Raises:
            DataError: An unknown domain, or one without images.
        """
        self.domain_names = select_domains(DOMAIN_KEYS, domains, list(known))
        used = [row for row in rows if row.domain in self.domain_names]
        found = {row.domain for row in used}
        for domain in self.domain_names:
            if domain not in found:
                refuse(
                    f"{self.root / domain}: no images; expected {self.layout} with one of the "
                    f"suffixes {' '.join(sorted(SUFFIXES))}"
                )
        self.class_names = list(class_names or sorted({row.label for row in used if row.label}))
        self.records = class_records(used, self.class_names)

    def _check_classes(self, allow_missing: bool = False, hint: str = "") -> None:
        """Refuse a labelled domain whose training split lacks a class of another domain.

        Args:
            allow_missing: Refuse only classes that no domain has a training image of.
            hint: Another way out, for the message.
        """
        if allow_missing:
            self._check_domain("no domain has a", self.records, "add some")
            return
        for domain in self.domain_names:
            own = [record for record in self.records if record.domain == domain]
            way_out = f"add images, or choose other domains with data.domains{hint}"
            self._check_domain(f"domain '{domain}' has no", own, way_out)

    def _check_domain(self, whose: str, records: Sequence[Record], way_out: str) -> None:
        trained = {record.target for record in records if record.split == "train"}
        for target, name in enumerate(self.class_names):
            if target not in trained and any(record.is_labelled for record in records):
                elsewhere = sum(record.target == target for record in records)
                refuse(
                    f"{self.root}: {whose} training image of class '{name}' "
                    f"({elsewhere} in other splits); {way_out}"
                )


def class_records(rows: Iterable[Row], class_names: Sequence[str]) -> list[Record]:
    """A record for each row, whose target is the position of its label."""
    number = {name: target for target, name in enumerate(class_names)}
    return [
        Record(
            row.file,
            row.domain,
            number.get(row.label, UNLABELLED),
            row.group,
            row.split,
            metadata=row.metadata,
        )
        for row in rows
    ]


def scan_classes(
    root: Path,
    domains: Iterable[str],
    left_out: LeftOut | None = None,
    *,
    unlabelled: bool = False,
) -> list[Row]:
    """Every image below ``<domain>/<class>/``, sorted by file, all in the training split.

    Files that are none, and images beside folders of classes or domains, are told to ``left_out``.
    With ``unlabelled`` those right in the folder of a domain are images without a label, as are
    those in a folder of that name.
    """
    domains = list(domains)
    found = [
        (f"{domain}/{label}/{name}", domain, label if not unlabelled else _class_of(label))
        for domain in domains
        for label in list_folders(root / domain)
        for name in list_images(root / domain / label, left_out, root)
    ]
    if unlabelled:
        found += [
            (f"{domain}/{name}", domain, "")
            for domain in domains
            for name in images_in(root / domain)
        ]
    if left_out is not None:
        for domain in () if unlabelled else domains:
            tell_loose(root / domain, left_out, root, "a folder of a class")
        tell_loose(root, left_out, root, "a folder of a domain")
        for other in sorted({*list_folders(root)}.difference(domains)):
            for name in list_images(root / other):
                left_out.add("image outside of a folder of a domain", f"{other}/{name}")
    return [Row(file, domain, label, file, "train") for file, domain, label in sorted(found)]


def _class_of(folder: str) -> str:
    return "" if folder.lower() in _UNLABELLED else folder
