"""Image files in folders of one domain each: with folders of classes, or masks beside them."""

from __future__ import annotations

import abc
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    UNLABELLED,
    FileDataset,
    MaskFiles,
    Record,
    checked_white,
    resolved_root,
    select_domains,
)
from domainnorm.data.datasets.class_files import ALLOW_HINT, ClassFiles, scan_classes
from domainnorm.data.datasets.drawing import SCENE_SIZE, write_image, write_objects, write_scenes
from domainnorm.data.datasets.label_sets import CAMVID11
from domainnorm.data.folders import (
    DEFAULT_TABLE,
    Cuts,
    check_listed,
    find_table,
    images_in,
    list_folders,
    list_images,
    tell_loose,
)
from domainnorm.data.images import IMAGES, SUFFIXES
from domainnorm.data.masks import VOID, read_classes, read_mask
from domainnorm.data.refusals import refuse
from domainnorm.data.table import Row, write_table
from domainnorm.errors import DataError
from domainnorm.registry import register

_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")  # formats that keep numbers as they are
_STAINS = ("tecom_rapid", "cellavision")
_LIGHTS = ("day", "dusk", "night", "fog", "rain", "snow")


class FolderDataset(FileDataset, abc.ABC):
    """Images in a folder for each domain, with an optional table of splits.

    The splits of a table are used. If it has no ``val`` row at all, a validation split is cut out
    of its training rows. Without a table, test and validation splits are drawn from all images.
    Drawn splits are stratified by domain and class and keep groups whole. They depend only on file
    names and ``split_seed``, not on the chosen ``domains``.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        splits: Name of the table inside ``root``: CSV with columns file, domain and, optionally,
            class, group, split. An empty group means the file itself, an empty class an unlabelled
            image. If no row has a split, all splits are drawn. The default table may be absent; an
            empty name uses no table.
        domains: Domains to use, in this order; null for all.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no table, in (0, 1).
        split_seed: Seed of drawn splits.
        white: Pixel value of 16-bit images that is white, 256 to 65535; 4095 for 12 bits.

    Raises:
        DataError: The root, a domain, a file or a class is missing, or the table is wrong; the
            message names the key, folder or file.

    Attributes:
        groups: What the groups of the table are, see `Cuts`.
        expected: What should be below the root.
        images_in: Folder of the images in that of a domain.
    """

    groups: Literal["whole", "sequences"] = "whole"
    expected: str
    images_in: str = ""

    def __init__(
        self,
        *,
        root: str,
        splits: str = "splits.csv",
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        white: int = 65535,
    ) -> None:
        cuts = Cuts(val_fraction, test_fraction, split_seed, self.groups)
        self.root = resolved_root(root)
        self.white = checked_white(white)
        self.prepare()
        table = find_table(self.root, splits)
        rows = cuts.tabled(table) if table else cuts.drawn(self._scanned())
        known = {row.domain for row in rows} | set(() if table else list_folders(self.root))
        self.domain_names = select_domains(DOMAIN_KEYS, domains, sorted(known))
        if table is not None:
            self._tell_unlisted({row.file for row in rows}, table)
        for row in rows if table is None else ():
            # A file that was moved by mistake makes a domain of its own, which nobody asks for.
            if row.domain not in self.domain_names and row.file == f"{row.domain}/{_name(row)}":
                kind = "image right in the folder of a domain that is not asked for"
                self.left_out.add(kind, row.file)
        self.take(rows, table)
        check_listed(self.root, [record.file for record in self.records], table)

    def prepare(self) -> None:
        """Read what the root has beside the images."""

    def _tell_unlisted(self, listed: Collection[str], table: Path) -> None:
        """Tell of images of the chosen domains that the table does not list."""
        for domain in self.domain_names:
            for name in list_images(self.root / domain / self.images_in):
                file = (PurePosixPath(domain) / self.images_in / name).as_posix()
                if file not in listed:
                    self.left_out.add(f"image that {table.name} does not list", file)

    @abc.abstractmethod
    def take(self, rows: Sequence[Row], table: Path | None) -> None:
        """Set classes, and the records of the chosen domains.

        Args:
            rows: Images of all domains, with their splits.
            table: Where they are from; None for folders.
        """

    @abc.abstractmethod
    def scan(self) -> list[Row]:
        """Images of all folders, sorted by file, all in the training split."""

    def _scanned(self) -> list[Row]:
        rows = self.scan()
        if not rows:
            raise DataError(
                f"data.root: no images below {self.root}; expected {self.expected} (docs/data.md)"
            )
        return rows


@register("folder")
class Folder(FolderDataset, ClassFiles):
    """Image files laid out as <domain>/<class>/<image>, with an optional table of splits.

    Images directly in the folder of a domain, or in its subfolder ``unlabelled``, have no label.

    See `FolderDataset` for the other keys.

    Args:
        allow_missing_classes: Accept a domain without training images of a class that another
            domain has, for rare classes and found domains, or no class at all, for tasks that read
            none, which need not set it. Misspelled classes then go unnoticed.
        options: Keys of `FolderDataset`.
    """

    layout = "<domain>/<class>/<image>, <domain>/<image> without label, splits.csv or none"
    expected = "<domain>/<class>/<image>, or <domain>/<image> without labels"

    def __init__(self, *, allow_missing_classes: bool = False, **options: Any) -> None:
        self._allow_missing = allow_missing_classes
        super().__init__(**options)

    def scan(self) -> list[Row]:
        """Images below ``<domain>/<class>/``, and those without a label.

        Raises:
            DataError: All of them lie deeper, so that folders are those of something else.
        """
        rows = scan_classes(self.root, list_folders(self.root), self.left_out, unlabelled=True)
        deep = [row.file for row in rows if row.label and row.file.count("/") > 2]
        labels = {row.label for row in rows if row.label}
        splits = {"train", "val", "valid", "test"}
        if deep and (len(deep) == len(rows) or labels <= splits):
            raise DataError(
                f"data.root: images below {self.root} lie deeper than {self.expected}: in "
                f"{deep[0]}, '{deep[0].split('/')[1]}' would be a class; set data.root to the "
                "folder of the domains, and write given splits into splits.csv (docs/data.md)"
            )
        return rows

    def take(self, rows: Sequence[Row], table: Path | None) -> None:
        """Classes are those of the chosen domains."""
        self._fill(rows, self.domain_names, self.domain_names)
        if strange := [name for name in self.domain_names if self._is_strange(name)]:
            for name in strange:
                self._refuse_strange(name)
            return
        self._check_classes(self._allow_missing, ALLOW_HINT)
        if not self.class_names and not self._allow_missing:
            whose = f"no image of {', '.join(self.domain_names)} has a class"
            expected = (
                "; expected <domain>/<class>/<image> in at least one domain; if these folders are "
                "the classes of one site, move them into a folder of that site"
            )
            expected = "" if table else expected
            raise DataError(f"{table or self.root}: {whose}{expected}")

    def _is_strange(self, domain: str) -> bool:
        """Whether all labels of a domain are the name of one folder that no other domain has."""
        labels: dict[bool, set[int]] = {True: set(), False: set()}
        for record in self.records:
            if record.is_labelled:
                labels[record.domain == domain].add(record.target)
        alone = len(labels[True]) == 1 and len(labels[False]) > 1
        return alone and not labels[True] & labels[False] and not self._allow_missing

    def _refuse_strange(self, domain: str) -> None:
        own = next(r for r in self.records if r.domain == domain and r.is_labelled)
        label = self.class_names[own.target]
        refuse(
            f"{self.root / domain}: all labels are '{label}', which no other domain has; if the "
            f"images have no label, move them directly into {domain}/, or rename that folder to "
            f"'unlabelled'{ALLOW_HINT}"
        )

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("photo", "painting")
    ) -> None:
        """Four kinds of objects, each domain in another style, with a table of splits."""
        kinds = ["car", "dog", "house", "person"]
        rows = [row for domain in domains for row in write_objects(root, domain, kinds, seed)]
        write_table(root / DEFAULT_TABLE, rows)


@register("folder_masks")
class FolderMasks(FolderDataset, MaskFiles):
    """Image files laid out as <domain>/images/<image>, with <domain>/masks/<stem>.png beside them.

    Names of masks may be in upper or lower case, and end with .tif, .tiff or .bmp instead.
    A mask holds the class number of each pixel (255 for no class), or its colour. ``classes.txt``
    names the classes, one per line, and their colours. An image without a mask has no label. The
    images of a domain without masks may lie directly in its folder. The table of splits and drawn
    splits are those of the dataset ``folder``.

    See `FolderDataset` for the other keys.

    Args:
        groups: Kind of the groups of the table. ``whole``: a group stays in one split.
            ``sequences``: a group may be cut in time; the end of its training part is for
            validation.
        void_outside: Folder beside ``images`` with the field of view of each image that has a
            mask. Pixels that are 0 there have no class. Null for none.
        options: Keys of `FolderDataset`.
    """

    task = "segmentation"
    images_in = "images"
    layout = "<domain>/images/<image>, <domain>/masks/<stem>.png, classes.txt, splits.csv or none"
    expected = "<domain>/images/<image> and <domain>/masks/<stem>.png"

    def __init__(
        self,
        *,
        groups: Literal["whole", "sequences"] = "whole",
        void_outside: str | None = None,
        **options: Any,
    ) -> None:
        self.groups = groups
        self.void_outside = void_outside
        self._listings: dict[PurePosixPath, dict[str, str]] = {}
        super().__init__(**options)

    def prepare(self) -> None:
        """Read ``classes.txt``."""
        self._classes = read_classes(self.root / "classes.txt")
        self.class_names = self._classes.names

    def scan(self) -> list[Row]:
        """Images below ``<domain>/images/``, or right in ``<domain>/`` where there is no other."""
        found = []
        tell_loose(self.root, self.left_out, self.root, "a folder of a domain")
        for domain in list_folders(self.root):
            if list_folders(self.root / domain):
                tell_loose(self.root / domain, self.left_out, self.root, IMAGES)
                names = list_images(self.root / domain / IMAGES, self.left_out, self.root)
                files = [f"{domain}/{IMAGES}/{name}" for name in names]
            else:
                names = list_images(self.root / domain, self.left_out, self.root)
                files = [f"{domain}/{name}" for name in names]
            found += [Row(file, domain, "", file, "train") for file in files]
        return found

    def take(self, rows: Sequence[Row], table: Path | None) -> None:
        """Masks lie beside the images."""
        used = [row for row in rows if row.domain in self.domain_names]
        self.records = [
            Record(row.file, row.domain, UNLABELLED, row.group, row.split, self._found(row.file))
            for row in used
        ]
        self.mask_folders = [self.root / domain / "masks" for domain in self.domain_names]
        self._check_domains()
        self._tell_lonely()
        check_listed(self.root, [record.mask for record in self.records if record.mask], None)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none."""
        mask = super().mask(index)
        record = self.records[index]
        if self.void_outside is not None:
            view = self._view(record.file, self.void_outside)
            inside = read_mask(self.root / view)
            self.check_size(view, inside, record.file)
            mask = np.where(inside == 0, np.uint8(VOID), mask)
        return mask

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """What an image or mask is made of, the field of view included."""
        own = super().sources(index, is_mask=is_mask)
        if is_mask and self.void_outside is not None:
            own.append(self.root / self._view(self.records[index].file, self.void_outside))
        return own

    def _found(self, file: str, folder: str = "masks") -> str | None:
        """The file of an image in a folder beside its own, if there is one."""
        path = PurePosixPath(file)
        for place in _places(file, folder):
            if place not in self._listings:
                self._listings[place] = _by_stem(self.root / place)
            names = self._listings[place]
            if name := names.get(path.stem) or names.get(path.stem.lower()):
                return (place / name).as_posix()
        return None

    def _tell_lonely(self) -> None:
        """Tell of files among the masks that are the mask of no image."""
        used = {record.mask for record in self.records}
        for folder in self.mask_folders:
            for name in list_images(folder):
                file = (folder / name).relative_to(self.root).as_posix()
                if file not in used:
                    self.left_out.add("mask without an image", file)

    def _view(self, file: str, folder: str) -> str:
        return self._found(file, folder) or _beside(file, folder)

    def _check_domains(self) -> None:
        if self.records and all(record.mask is None for record in self.records):
            refuse(
                f"{self.root / self.records[0].domain / 'masks'}: no image has a mask; expected "
                f"{_beside(self.records[0].file, 'masks')} for {self.records[0].file}, and so on"
            )
        for domain in self.domain_names:
            own = [record for record in self.records if record.domain == domain]
            if not own:
                refuse(
                    f"{self.root / domain / 'images'}: no images; expected files with one of the "
                    f"suffixes {' '.join(sorted(SUFFIXES))}"
                )
            masks: dict[str, str] = {}
            for record in own:
                if record.mask and masks.setdefault(record.mask, record.file) != record.file:
                    refuse(
                        f"{self.root / record.mask}: the mask of {masks[record.mask]} and of "
                        f"{record.file}; rename one of the images"
                    )

    @classmethod
    def write_sample(
        cls,
        root: Path,
        *,
        seed: int = 0,
        domains: Sequence[str] = ("day", "dusk"),
        among: Sequence[str] = (),
    ) -> None:
        """Short films with masks and round fields of view (``fov``), see `classes_of_sample`."""
        rows, classes = [], classes_of_sample([*domains, *among])
        view = np.zeros(SCENE_SIZE, np.uint8)
        cv2.circle(view, (SCENE_SIZE[1] // 2, SCENE_SIZE[0] // 2), SCENE_SIZE[0] // 2 - 2, 255, -1)
        for domain in domains:
            scenes = write_scenes(root, domain, len(classes), seed)
            for row in scenes:
                write_image(root / _beside(row.file, "fov"), view)
            rows += [replace(row, label="") for row in scenes]
        (root / "classes.txt").write_text("".join(classes))
        write_table(root / DEFAULT_TABLE, rows)


def _name(row: Row) -> str:
    return PurePosixPath(row.file).name


def classes_of_sample(domains: Sequence[str]) -> list[str]:
    """Lines of ``classes.txt`` that go with the domains: cells for stains, CamVid for lights."""
    if all(domain in _STAINS for domain in domains):
        return ["background\n", "cytoplasm\n", "nucleus\n"]
    if all(domain in _LIGHTS for domain in domains):
        return [f"{name},{r},{g},{b}\n" for name, (r, g, b) in CAMVID11.colours.items()]
    return ["ground\n", "vehicle,0,0,142\n", "person,220,20,60\n"]


def _beside(file: str, folder: str) -> str:
    """``day/masks/1.png`` for ``day/images/1.jpg``."""
    return (_places(file, folder)[0] / f"{PurePosixPath(file).stem}.png").as_posix()


def _places(file: str, folder: str) -> list[PurePosixPath]:
    """``day/masks/drive_1`` for ``day/images/drive_1/1.jpg``, else ``day/masks``, or beside it."""
    above = PurePosixPath(file).parent
    parts, found = above.parts, []
    for place in reversed([n for n, part in enumerate(parts) if part == IMAGES]):
        before, after = parts[:place], parts[place + 1 :]
        found += [PurePosixPath(*before, folder, *after), PurePosixPath(*before, folder)]
    return list(dict.fromkeys([*found, above.parent / folder]))


def _by_stem(folder: Path) -> dict[str, str]:
    """Names of masks by their stems, as written and in lower case; those in ``.png`` come first."""
    # A link that leads nowhere is no image without a label, but a mask that is missing.
    names = [name for name in images_in(folder) if name.lower().endswith(_SUFFIXES)]
    names.sort(key=lambda name: name.endswith(".png"))
    exact = {PurePosixPath(name).stem: name for name in names}
    return {stem.lower(): name for stem, name in exact.items()} | exact
