"""Objects in several styles, in official folders and lists: Office-Home, DomainNet, PACS, VisDA."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from domainnorm.data.dataset import Split, resolved_root
from domainnorm.data.datasets.class_files import ClassFiles, scan_classes
from domainnorm.data.datasets.drawing import draw_boxes, generator_of, write_image, write_objects
from domainnorm.data.folders import Cuts, check_listed, missing_files
from domainnorm.data.refusals import is_collecting, reading
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError, unknown
from domainnorm.registry import register


def read_image_list(file: Path) -> list[tuple[str, str]]:
    """Lines ``<path> <label>`` as pairs; the label is empty where a line has none.

    Raises:
        DataError: The list cannot be read, is empty, or a label is no number, a path none.
    """
    with reading(file, "list of images", "put the official list there (docs/data.md)"):
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    pairs = []
    for number, line in enumerate(lines, 1):
        path, _, label = line.strip().partition(" ")
        if label and not label.strip().isdecimal():
            raise DataError(f"{file}, line {number}: '{line}', expected '<path> <number>'")
        if "\0" in path:
            raise DataError(f"{file}, line {number}: a name with the character NUL; correct it")
        if path:
            pairs.append((path, label.strip()))
    if not pairs:
        raise DataError(f"{file}: no images are listed; get the official list again")
    return pairs


def check_unpacked(root: Path, files: Sequence[str], source: str) -> None:
    """Refuse a list that names a file which does not exist.

    Args:
        root: What the files are relative to.
        files: Paths below it.
        source: The list they are from, for messages.

    Raises:
        DataError: Names the first such file, and how many there are.
    """
    missing = [] if is_collecting() else missing_files(root, files)
    if missing:
        raise DataError(
            f"{root / missing[0]}: does not exist, but {source} lists it ({len(missing)} of "
            f"{len(files)} files are missing); unpack the images again"
        )


def class_of(names: Sequence[str], label: str, where: Path) -> str:
    """The name of a class by its number in a list; empty for none.

    Raises:
        DataError: There is no such number; the message names the list.
    """
    if not label:
        return ""
    if int(label) >= len(names):
        raise DataError(f"{where}: label {label}, expected 0 to {len(names) - 1}")
    return names[int(label)]


def read_lists(
    folder: Path, lists: Mapping[Split, str], domain: str, prefix: str = ""
) -> list[Row]:
    """Images of a domain by its official lists, whose classes are the folders of the images.

    Args:
        folder: Where the lists are.
        lists: For each split the name of the list, with ``{}`` for the domain.
        domain: The domain.
        prefix: Where listed paths start from, below the root.

    Raises:
        DataError: A list cannot be read.
    """
    rows = []
    for split, name in lists.items():
        file = folder / name.format(domain)
        for path, _ in read_image_list(file):
            if "/" not in path:
                raise DataError(f"{file}: '{path}', expected <domain>/<class>/<image>")
            rows.append(Row(prefix + path, domain, path.split("/")[-2], prefix + path, split))
    return rows


def write_lists(
    folder: Path, names: Mapping[str, Sequence[Split]], rows: Sequence[Row], classes: Sequence[str]
) -> None:
    """Write lists of drawn images.

    Args:
        folder: Where the lists are to be.
        names: For the name of each list, with ``{}`` for the domain, the splits that are in it.
        rows: Images of one domain.
        classes: Classes in the order of their numbers.
    """
    folder.mkdir(exist_ok=True)
    for name, splits in names.items():
        lines = [f"{r.file} {classes.index(r.label)}\n" for r in rows if r.split in splits]
        (folder / name.format(rows[0].domain)).write_text("".join(lines))


@register("office_home")
class OfficeHome(ClassFiles):
    """Office-Home: 65 kinds of everyday objects as art, clipart, product and real-world images.

    There are no official splits: most papers adapt to and test on the same, whole target domain.
    Here test and validation images are drawn by class, so that no test image is adapted to. Numbers
    are therefore not fully comparable with papers.

    Args:
        root: The folder ``OfficeHomeDataset_10072016``, which holds one folder for each domain.
        domains: Domains to use, in this order; null for Art, Clipart, Product, Real World.
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

    known = ("Art", "Clipart", "Product", "Real World")

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
        self._fill(
            cuts.drawn(scan_classes(self.root, self.known, self.left_out)), domains, self.known
        )
        self._check_classes()
        check_listed(self.root, [record.file for record in self.records], None)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Six of the kinds in each style."""
        for domain in cls.known:
            write_objects(root, domain, ["Bed", "Bike", "Bottle", "Knives", "Mug", "Toys"], seed)


@register("domainnet")
class DomainNet(ClassFiles):
    """DomainNet: 345 kinds of objects as clipart, infographic, painting, quickdraw, photo, sketch.

    The official lists ``<domain>_train.txt`` and ``<domain>_test.txt`` give training and test
    images; validation images are drawn from the training list by class. The lists of ``clipart``
    and ``painting`` belong to their cleaned version.

    Args:
        root: Folder with one folder and two lists for each domain.
        domains: Domains to use, in this order; null for those whose lists are there.
        classes: Classes to use, such as those of a smaller benchmark; null for all.
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

    known = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")

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
        there = [name for name in self.known if (self.root / f"{name}_train.txt").is_file()]
        there = there or list(self.known)
        lists: Mapping[Split, str] = {"train": "{}_train.txt", "test": "{}_test.txt"}
        read = [domain for domain in there if domains is None or domain in domains]
        rows = [row for domain in read for row in read_lists(self.root, lists, domain)]
        rows = cut(rows, "val", val_fraction, split_seed)
        names = sorted({row.label for row in rows})
        for name in classes or ():
            if name not in names:
                raise DataError(f"data.classes: {unknown('class', name, names)}")
        chosen = classes or names
        self._fill([row for row in rows if row.label in set(chosen)], domains, there, chosen)
        check_unpacked(self.root, [record.file for record in self.records], "<domain>_*.txt")

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Six of the kinds in each style, with both lists."""
        classes = ["airplane", "bicycle", "bus", "cup", "dog", "elephant"]
        for domain in cls.known:
            rows = write_objects(root, domain, classes, seed)
            lists: Mapping[str, Sequence[Split]] = {
                "{}_train.txt": ("train", "val"),
                "{}_test.txt": ("test",),
            }
            write_lists(root, lists, rows, classes)


_PACS = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
# The folder of images, and that of the lists, in the archives the authors have shared so far.
_IMAGES = ("kfold", "pacs_data", "Raw images/kfold", ".")
_LISTS = ("Train val splits and h5py files pre-read", "pacs_label", "splits", ".")
_SPOILT = "sketch/dog/n02103406_4068-1.png"  # listed, but left out by the loaders in use


@register("pacs")
class PACS(ClassFiles):
    """PACS: dog, elephant, giraffe, guitar, horse, house, person in four styles.

    The official lists ``<domain>_train_kfold.txt`` and ``<domain>_crossval_kfold.txt`` give the
    training and the validation images. The official ``<domain>_test_kfold.txt`` lists *all* images
    of a domain, including those of the other two lists, for models that have never seen the domain.
    Here models may also train on a domain or adapt to it, so test images are drawn by class from
    its training list instead. Published leave-one-out numbers are on all images.

    Args:
        root: Folder with the images (in ``kfold`` or ``pacs_data``, or directly) and the lists (in
            ``pacs_label``, ``splits``, their original folder, or directly).
        domains: Domains to use, in this order; null for photo, art_painting, cartoon, sketch.
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

    known = ("photo", "art_painting", "cartoon", "sketch")

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
        listed: Mapping[Split, str] = {
            "train": "{}_train_kfold.txt",
            "val": "{}_crossval_kfold.txt",
        }
        prefix = "" if images == PurePosixPath() else f"{images}/"
        rows = [
            row
            for domain in self.known
            if domains is None or domain in domains
            for row in read_lists(self.root / lists, listed, domain, prefix)
            if not row.file.endswith(_SPOILT)
        ]
        rows = cut(rows, "test", test_fraction, split_seed)
        self._fill(rows, domains, self.known, _PACS)
        check_unpacked(self.root, [record.file for record in self.records], lists.as_posix())

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Each kind in each style, with both lists."""
        for domain in cls.known:
            rows = write_objects(root / "kfold", domain, _PACS, seed)
            lists: Mapping[str, Sequence[Split]] = {
                "{}_train_kfold.txt": ("train", "test"),
                "{}_crossval_kfold.txt": ("val",),
            }
            write_lists(root / "pacs_label", lists, rows, ("", *_PACS))  # numbers from 1


def _first(root: Path, folders: Sequence[str], name: str, what: str) -> PurePosixPath:
    for folder in folders:
        if (root / folder / name).exists():
            return PurePosixPath(folder)
    raise DataError(
        f"{root / name}: {what} does not exist, neither there nor below "
        f"{', '.join(folders[:-1])}; docs/data.md says how to get the data"
    )


_VISDA = (
    "aeroplane",
    "bicycle",
    "bus",
    "car",
    "horse",
    "knife",
    "motorcycle",
    "person",
    "plant",
    "skateboard",
    "train",
    "truck",
)
# {section}_{object}__{camera yaw}_{light yaw}_{camera pitch}.png: one object, seen many times.
_RENDERED = re.compile(r"src_\d+_(.+?)__")


@register("visda")
class VisDA(ClassFiles):
    """VisDA-2017 classification: renderings (train), COCO (validation) and YouTube (test) crops.

    The three folders are three *domains*. Most papers adapt to and test on the whole of
    ``validation``. Here each domain gets splits drawn by class, so that no test image is adapted
    to; numbers are therefore not fully comparable with papers. All views of a rendered object share
    a split. ``test`` may be absent.

    Args:
        root: Folder with ``train``, ``validation`` and ``test``, each with its ``image_list.txt``
            (for ``test`` the list with labels that was published after the challenge).
        domains: Domains to use, in this order; null for those that are there.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on, in (0, 1).
        split_seed: Seed of the splits.

    Raises:
        DataError: The root, a list or an image is missing; the message names it.

    Reference:
        Peng et al., "VisDA: the visual domain adaptation challenge", 2017, arXiv 1710.06924.
    """

    homepage = "https://github.com/VisionLearningGroup/taskcv-2017-public"
    licence = "non-commercial research"
    layout = "{train,validation,test}/image_list.txt and the images it lists"

    known = ("train", "validation", "test")

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.root = resolved_root(root)
        there = [name for name in self.known if (self.root / name).is_dir()] or list(self.known)
        read = [domain for domain in there if domains is None or domain in domains]
        rows = [row for domain in read for row in _listed(self.root, domain)]
        self._fill(cuts.drawn(rows), domains, there, _VISDA)
        check_unpacked(self.root, [record.file for record in self.records], "image_list.txt")

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Two views of six models, and six photos, of each kind."""
        for domain in cls.known:
            lines = []
            for target in range(len(_VISDA)):
                for file in (file for n in range(6) for file in _names(domain, target, n)):
                    generator = generator_of(seed, f"{domain}{file}")
                    write_image(
                        root / domain / file, draw_boxes(generator, [target + 1], domain)[0]
                    )
                    lines.append(f"{file} {target}\n")
            (root / domain / "image_list.txt").write_text("".join(lines))


def _listed(root: Path, domain: str) -> list[Row]:
    source = root / domain / "image_list.txt"
    rows = []
    for path, label in read_image_list(source):
        file = f"{domain}/{path}"
        model = _RENDERED.match(Path(path).name)
        group = f"{domain}/{model[1]}" if model else file
        rows.append(Row(file, domain, class_of(_VISDA, label, source), group, "train"))
    return rows


def _names(domain: str, target: int, number: int) -> list[str]:
    """Official names of the pictures of one object."""
    if domain == "train":
        model = f"{target:08d}_{number:032x}"
        return [f"{_VISDA[target]}/src_1_{model}__{yaw}_80_150.png" for yaw in (44, 236)]
    if domain == "validation":
        return [f"{_VISDA[target]}/{_VISDA[target]}_{number}.jpg"]
    return [f"trunk01/{target * 100 + number:032x}.jpg"]
