"""VisDA-2017: twelve kinds of objects, rendered and real."""

from __future__ import annotations

import re
from pathlib import Path

from domainnorm.data.class_files import ClassFiles, check_unpacked, class_of, read_image_list
from domainnorm.data.dataset import resolved_root
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.folders import generator_of
from domainnorm.data.drawings.objects import draw_object
from domainnorm.data.folders import Cuts
from domainnorm.data.table import Row
from domainnorm.registry import register

DOMAINS = ("train", "validation", "test")
CLASSES = (
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


@register
class VisDA(ClassFiles):
    """VisDA-2017 classification: renderings (train), COCO (validation) and YouTube (test) crops.

    The three folders are three *domains*. Most papers adapt to and test on the whole of
    ``validation``; here each domain gets splits drawn by class, so that no image that was adapted
    to is tested on, and numbers are not quite comparable. All views of a rendered object share a
    split. ``test`` may be absent.

    Args:
        root: Folder with ``train``, ``validation`` and ``test``, each with its ``image_list.txt``
            (for ``test`` the list with labels that was published after the challenge).
        domains: Domains to use, in this order; those that are there when None.
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
        known = [domain for domain in DOMAINS if (self.root / domain).is_dir()] or list(DOMAINS)
        read = [domain for domain in known if domains is None or domain in domains]
        rows = [row for domain in read for row in _listed(self.root, domain)]
        self._fill(cuts.drawn(rows), domains, known, CLASSES)
        check_unpacked(self.root, [record.file for record in self.records], "image_list.txt")

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Two views of six models, and six photos, of each kind."""
        for domain in DOMAINS:
            lines = []
            for target, label in enumerate(CLASSES):
                for number in range(6):
                    for file in _names(domain, label, number):
                        style = "render" if domain == "train" else "photo"
                        image, _ = draw_object(label, style, generator_of(seed, f"{domain}{file}"))
                        write_image(root / domain / file, image)
                        lines.append(f"{file} {target}\n")
            (root / domain / "image_list.txt").write_text("".join(lines))


def _listed(root: Path, domain: str) -> list[Row]:
    source = root / domain / "image_list.txt"
    rows = []
    for path, label in read_image_list(source):
        file = f"{domain}/{path}"
        model = _RENDERED.match(Path(path).name)
        group = f"{domain}/{model[1]}" if model else file
        rows.append(Row(file, domain, class_of(CLASSES, label, source), group, "train"))
    return rows


def _names(domain: str, label: str, number: int) -> list[str]:
    """Official names of the pictures of one object."""
    if domain == "train":
        model = f"{CLASSES.index(label):08d}_{number:032x}"
        return [f"{label}/src_1_{model}__{yaw}_80_150.png" for yaw in (44, 236)]
    if domain == "validation":
        return [f"{label}/{label}_{number}.jpg"]
    return [f"trunk01/{CLASSES.index(label) * 100 + number:032x}.jpg"]
