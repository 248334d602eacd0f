"""Pairs of images, worse and as they should be, in folders of one domain each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from domainnorm.data.augmentation.degradation import bicubic
from domainnorm.data.dataset import UNLABELLED, Record
from domainnorm.data.datasets.drawing import (
    SCENE_SIZE,
    SCENES,
    draw_scene,
    generator_of,
    write_image,
)
from domainnorm.data.datasets.folder import FolderDataset
from domainnorm.data.folders import (
    DEFAULT_TABLE,
    check_listed,
    list_folders,
    list_images,
    tell_loose,
)
from domainnorm.data.images import INPUT, TARGET, read_image, read_size
from domainnorm.data.refusals import refuse
from domainnorm.data.table import Row, write_table
from domainnorm.errors import DataError
from domainnorm.ranges import LARGEST_SCALE
from domainnorm.registry import register


@register
class Pairs(FolderDataset):
    """Image files laid out as <domain>/input/<image>, with <domain>/target/<image> beside them.

    An input and its target have the same name, but for the suffix, in folders of the same names.
    A domain without a folder ``target`` has inputs alone. The table of splits, which lists inputs,
    and drawn splits are those of the dataset ``folder``.

    See `FolderDataset` for the other keys.

    Args:
        scale: How many times as many pixels targets have along each side, 1 to 64; inputs are
            enlarged, bicubic.
        options: Keys of `FolderDataset`.
    """

    task = "restoration"
    images_in = INPUT
    layout = "<domain>/input/<image>, <domain>/target/<image>, splits.csv or none"
    expected = "<domain>/input/<image> and <domain>/target/<image>"

    def __init__(self, *, scale: int = 1, **options: Any) -> None:
        if type(scale) is not int or not 1 <= scale <= LARGEST_SCALE:
            raise DataError(
                f"data.scale: {scale!r}, expected a whole number from 1 to {LARGEST_SCALE}"
            )
        self.scale = scale
        self.class_names = []
        super().__init__(**options)

    def scan(self) -> list[Row]:
        """Images below ``<domain>/input/``."""
        found = []
        tell_loose(self.root, self.left_out, self.root, "a folder of a domain")
        for domain in list_folders(self.root):
            tell_loose(self.root / domain, self.left_out, self.root, INPUT)
            names = list_images(self.root / domain / INPUT, self.left_out, self.root)
            files = [f"{domain}/{INPUT}/{name}" for name in names]
            found += [Row(file, domain, "", file, "train") for file in files]
        return found

    def take(self, rows: Sequence[Row], table: Path | None) -> None:
        """Targets lie beside the inputs."""
        self.records = []
        for domain in self.domain_names:
            names = list_images(self.root / domain / TARGET, self.left_out, self.root)
            targets = {_stem(f"{domain}/{TARGET}/{name}"): name for name in names}
            used: dict[str, str] = {}
            for row in rows:
                if row.domain == domain:
                    found = targets.get(_stem(row.file))
                    clean = None if found is None else f"{domain}/{TARGET}/{found}"
                    self._check_pair(row.file, clean, used, lacking=bool(targets))
                    record = Record(row.file, domain, UNLABELLED, row.group, row.split)
                    self.records.append(replace(record, clean=clean))
            for name in names:
                if (file := f"{domain}/{TARGET}/{name}") not in used:
                    self.left_out.add("target without an input", file)
        if self.records and not any(record.clean for record in self.records):
            refuse(f"{self.root}: no image has a target; expected {self.expected} (docs/data.md)")
        check_listed(self.root, [record.clean for record in self.records if record.clean], None)

    def _check_pair(
        self, file: str, clean: str | None, used: dict[str, str], *, lacking: bool
    ) -> None:
        """Refuse an input without a target where others have one, and a target of two inputs."""
        if clean is None and lacking:
            expected = f"{_stem(file).replace(f'/{INPUT}/', f'/{TARGET}/', 1)}.*"
            refuse(
                f"{self.root / file}: no target; expected {expected}; add it, or move images "
                f"without one to a domain that has no folder '{TARGET}'"
            )
        elif clean is not None and used.setdefault(clean, file) != file:
            refuse(
                f"{self.root / clean}: the target of {used[clean]} and of {file}; rename one of "
                "the inputs"
            )

    def image(self, index: int) -> NDArray[np.uint8]:
        """See `DomainDataset`; at the size of the target."""
        pixels = super().image(index)
        size = [self.scale * side for side in pixels.shape[:2]]
        return pixels if self.scale == 1 else _sized(pixels, size)

    def clean(self, index: int) -> NDArray[np.uint8]:
        """See `DomainDataset`; a target of another size than its input's is refused, too."""
        record = self.records[index]
        if record.clean is None:
            return super().clean(index)
        pixels = read_image(self.root / record.clean, self.white)
        own_height, own_width = pixels.shape[:2]
        height, width = read_size(self.root / record.file)
        if (own_height, own_width) != (self.scale * height, self.scale * width):
            factor = own_height // height
            fits = (factor * height, factor * width) == (own_height, own_width)
            way = f"replace it, or set data.scale: {factor} if all pairs are so"
            way = way if fits else "give both the same view"
            raise DataError(
                f"{self.root / record.clean}: {own_width} × {own_height} pixels, but its input "
                f"{self.root / record.file} has {width} × {height}, expected {self.scale} times as "
                f"many along both sides; {way}"
            )
        return pixels

    @classmethod
    def write_sample(
        cls,
        root: Path,
        *,
        seed: int = 0,
        domains: Sequence[str] = ("site_a", "site_b"),
        scale: int = 1,
    ) -> None:
        """Drawn scenes as targets, blurred and smaller ones as inputs, and a table of splits."""
        rows, splits = [], [split for split, count in SCENES.items() for _ in range(count)]
        height, width = (side // scale for side in SCENE_SIZE)
        for domain in domains:
            for number, split in enumerate(splits):
                file, target = (f"{domain}/{one}/{number:03d}.png" for one in (INPUT, TARGET))
                size = (scale * height, scale * width)
                clean, _ = draw_scene(generator_of(seed, file), 4, domain, size)
                write_image(root / target, clean)
                write_image(root / file, _sized(_sized(clean, (32, 32)), (height, width)))
                rows.append(Row(file, domain, "", f"{domain}_{number // 4}", split))
        write_table(root / DEFAULT_TABLE, rows)


def _sized(pixels: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) at another height and width, bicubic."""
    made = bicubic(torch.from_numpy(pixels).movedim(2, 0).float(), size)
    return made.round().clamp(0, 255).byte().movedim(0, 2).contiguous().numpy()


def _stem(file: str) -> str:
    """``a/1`` for ``site/input/a/1.png`` as for ``site/target/a/1.jpg``."""
    path = PurePosixPath(file)
    return str(PurePosixPath(*path.parts[2:]).with_suffix(""))
