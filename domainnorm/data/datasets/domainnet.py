"""DomainNet: 345 kinds of objects in six styles."""

from __future__ import annotations

from pathlib import Path

from domainnorm.data.class_files import ClassFiles, check_unpacked, read_image_list
from domainnorm.data.dataset import resolved_root
from domainnorm.data.drawings.folders import write_objects
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError, unknown
from domainnorm.registry import register

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")


@register
class DomainNet(ClassFiles):
    """DomainNet: 345 kinds of objects as clipart, infographic, painting, quickdraw, photo, sketch.

    The official lists ``<domain>_train.txt`` and ``<domain>_test.txt`` give training and test
    images; validation images are drawn from the training list by class. The lists of ``clipart``
    and ``painting`` belong to their cleaned version.

    Args:
        root: Folder with one folder and two lists for each domain.
        domains: Domains to use, in this order; those whose lists are there when None.
        classes: Classes to use, such as those of a smaller benchmark; all when None.
        val_fraction: Share of each training list to validate on, in (0, 1).
        split_seed: Seed of that draw.

    Raises:
        DataError: The root, a list, an image or a class is missing; the message names it.

    Reference:
        Peng, Bai, Xia, Huang, Saenko, Wang, "Moment matching for multi-source domain adaptation",
        ICCV 2019, arXiv 1812.01754.
    """

    homepage = "https://ai.bu.edu/M3SDA/"
    licence = "non-commercial research"
    layout = "<domain>/<class>/<image> and <domain>_{train,test}.txt"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        classes: list[str] | None = None,
        val_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        check_fraction("data.val_fraction", val_fraction)
        self.root = resolved_root(root)
        known = [name for name in DOMAINS if (self.root / f"{name}_train.txt").is_file()]
        known = known or list(DOMAINS)
        read = [domain for domain in known if domains is None or domain in domains]
        rows = cut(
            [row for domain in read for row in _listed(self.root, domain)],
            "val",
            val_fraction,
            split_seed,
        )
        names = sorted({row.label for row in rows})
        for name in classes or ():
            if name not in names:
                raise DataError(f"data.classes: {unknown('class', name, names)}")
        chosen = classes or names
        self._fill([row for row in rows if row.label in set(chosen)], domains, known, chosen)
        check_unpacked(self.root, [record.file for record in self.records], "<domain>_*.txt")

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Six of the kinds in each style, with both lists."""
        classes = ["airplane", "bicycle", "bus", "cup", "dog", "elephant"]
        styles = ("cartoon", "cartoon", "painting", "sketch", "photo", "sketch")
        for domain, style in zip(DOMAINS, styles, strict=True):
            rows = write_objects(root, domain, style, classes, seed)
            for name in ("train", "test"):
                lines = [
                    f"{row.file} {classes.index(row.label)}\n"
                    for row in rows
                    if (row.split == "test") == (name == "test")
                ]
                (root / f"{domain}_{name}.txt").write_text("".join(lines))


def _listed(root: Path, domain: str) -> list[Row]:
    # The folder of a file is the name of its class; numbers are alphabetical.
    return [
        Row(path, domain, path.split("/")[-2], path, "train" if name == "train" else "test")
        for name in ("train", "test")
        for path, _ in read_image_list(root / f"{domain}_{name}.txt")
    ]
