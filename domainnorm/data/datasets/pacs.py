"""PACS: seven kinds of objects in four styles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from domainnorm.data.class_files import ClassFiles, check_unpacked, read_image_list
from domainnorm.data.dataset import Split, resolved_root
from domainnorm.data.drawings.folders import write_objects
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError
from domainnorm.registry import register

DOMAINS = ("photo", "art_painting", "cartoon", "sketch")
CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
# The folder of images, and that of the lists, in the archives the authors have shared so far.
_IMAGES = ("kfold", "pacs_data", "Raw images/kfold", ".")
_LISTS = ("Train val splits and h5py files pre-read", "pacs_label", "splits", ".")
_SPOILT = "sketch/dog/n02103406_4068-1.png"  # listed, but left out by the loaders in use


@register
class PACS(ClassFiles):
    """PACS: dog, elephant, giraffe, guitar, horse, house, person in four styles.

    The official lists ``<domain>_train_kfold.txt`` and ``<domain>_crossval_kfold.txt`` give the
    training and the validation images. The official ``<domain>_test_kfold.txt`` lists *all*
    images of a domain, those of the other two included, for models that have never seen the
    domain; here a domain may also be trained on or adapted to, so test images are drawn from its
    training list instead, by class. Published leave-one-out numbers are on all images.

    Args:
        root: Folder with the images (below ``kfold`` or ``pacs_data``, or right there) and the
            lists (in ``pacs_label``, ``splits``, their original folder, or right there).
        domains: Domains to use, in this order; photo, art_painting, cartoon, sketch when None.
        test_fraction: Share of each training list to test on, in (0, 1).
        split_seed: Seed of that draw.

    Raises:
        DataError: The root, a list or an image is missing; the message names it.

    Reference:
        Li, Yang, Song, Hospedales, "Deeper, broader and artier domain generalization", ICCV 2017,
        arXiv 1710.03077.
    """

    homepage = "https://dali-dl.github.io/project_iccv2017.html"
    licence = "not stated; images from Caltech256, Sketchy, TU-Berlin, Google"
    layout = "<domain>/<class>/<image> and <domain>_{train,crossval}_kfold.txt"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        check_fraction("data.test_fraction", test_fraction)
        self.root = resolved_root(root)
        images = _first(self.root, _IMAGES, "photo", "the folder of images")
        lists = _first(self.root, _LISTS, "photo_train_kfold.txt", "the official list")
        rows = [
            row
            for domain in DOMAINS
            if domains is None or domain in domains
            for row in _listed(self.root / lists, domain, images)
        ]
        rows = cut(rows, "test", test_fraction, split_seed)
        self._fill(rows, domains, DOMAINS, CLASSES)
        check_unpacked(self.root, [record.file for record in self.records], lists.as_posix())

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Each kind in each style, with both lists."""
        styles = ("photo", "painting", "cartoon", "sketch")
        for domain, style in zip(DOMAINS, styles, strict=True):
            rows = write_objects(root / "kfold", domain, style, CLASSES, seed)
            for name, splits in {"train": ("train", "test"), "crossval": ("val",)}.items():
                lines = [
                    f"{row.file} {CLASSES.index(row.label) + 1}\n"
                    for row in rows
                    if row.split in splits
                ]
                folder = root / "pacs_label"
                folder.mkdir(exist_ok=True)
                (folder / f"{domain}_{name}_kfold.txt").write_text("".join(lines))


def _first(root: Path, folders: Sequence[str], name: str, what: str) -> PurePosixPath:
    for folder in folders:
        if (root / folder / name).exists():
            return PurePosixPath(folder)
    raise DataError(
        f"{root / name}: {what} does not exist, neither there nor below "
        f"{', '.join(folders[:-1])}; docs/data.md says how to get the data"
    )


def _listed(lists: Path, domain: str, images: PurePosixPath) -> list[Row]:
    names: dict[Split, str] = {"train": "train", "val": "crossval"}
    rows = []
    for split, name in names.items():
        for path, _ in read_image_list(lists / f"{domain}_{name}_kfold.txt"):
            if path != _SPOILT:
                # Labels are 1 to 7; the folder says the same by name.
                file = (images / path).as_posix()
                rows.append(Row(file, domain, path.split("/")[-2], file, split))
    return rows
