"""Office-Home: 65 kinds of everyday objects in four styles."""

from __future__ import annotations

from pathlib import Path

from domainnorm.data.class_files import ClassFiles, scan_classes
from domainnorm.data.dataset import resolved_root
from domainnorm.data.drawings.folders import write_objects
from domainnorm.data.folders import Cuts, check_listed
from domainnorm.registry import register

DOMAINS = ("Art", "Clipart", "Product", "Real World")


@register
class OfficeHome(ClassFiles):
    """Office-Home: 65 kinds of everyday objects as art, clipart, product and real-world images.

    There are no official splits: most papers adapt to and test on the same, whole target domain.
    Here test and validation images are drawn by class, so that no image that was adapted to is
    tested on, and numbers are not quite comparable.

    Args:
        root: The folder ``OfficeHomeDataset_10072016``, which holds one folder for each domain.
        domains: Domains to use, in this order; Art, Clipart, Product, Real World when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on, in (0, 1).
        split_seed: Seed of the splits.

    Raises:
        DataError: The root, or a domain, is missing; the message names it.

    Reference:
        Venkateswara, Eusebio, Chakraborty, Panchanathan, "Deep hashing network for unsupervised
        domain adaptation", CVPR 2017, arXiv 1706.07522.
    """

    homepage = "https://www.hemanthdv.org/officeHomeDataset.html"
    licence = "non-commercial research"
    layout = "<domain>/<class>/<image> with the domains Art, Clipart, Product, Real World"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.root = resolved_root(root)
        self._fill(cuts.drawn(scan_classes(self.root, DOMAINS)), domains, DOMAINS)
        self._check_classes()
        check_listed(self.root, [record.file for record in self.records], None)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Six of the kinds in each style."""
        classes = ["Bed", "Bike", "Bottle", "Knives", "Mug", "Toys"]
        styles = ("painting", "cartoon", "render", "photo")
        for domain, style in zip(DOMAINS, styles, strict=True):
            write_objects(root, domain, style, classes, seed)
