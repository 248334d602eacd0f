"""MedMNIST: abdominal organs in CT, cut in three directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    DomainDataset,
    Record,
    Split,
    resolved_root,
    select_domains,
)
from domainnorm.data.datasets.drawing import draw_grey, generator_of
from domainnorm.data.refusals import reading
from domainnorm.data.volumes.grey_values import import_medical
from domainnorm.errors import DataError
from domainnorm.registry import register

SUBSETS = {"axial": "OrganAMNIST", "coronal": "OrganCMNIST", "sagittal": "OrganSMNIST"}


@register
class MedMnist(DomainDataset):
    """Eleven organs in slices of abdominal CT; domains are the directions axial, coronal, sagittal.

    OrganAMNIST, OrganCMNIST and OrganSMNIST of MedMNIST, read through its package. All three are
    cut from the same 201 scans with the same official splits of scans, so no patient is in two
    splits. The patient of a slice is unknown; each slice is its own group.

    Args:
        root: Folder of the npz files: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use, in this order; null for all.
        size: Height and width of the images in pixels; one of the published sizes.

    Raises:
        DataError: The package medmnist or a file is missing; the message names it.

    Reference:
        Yang et al., "MedMNIST v2", Scientific Data 10, 2023, arXiv:2110.14795.
    """

    task = "classification"
    homepage = "https://medmnist.com"
    licence = "CC BY 4.0"
    layout = "organamnist.npz, organcmnist.npz, organsmnist.npz; or organamnist_64.npz, ..."

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        size: Literal[28, 64, 128, 224] = 28,
    ) -> None:
        self.root = resolved_root(root)
        self.size = size
        self.domain_names = select_domains(DOMAIN_KEYS, domains, list(SUBSETS))
        self._pixels: dict[tuple[str, Split], NDArray[np.uint8]] = {}
        labels = import_medical("medmnist").INFO["organamnist"]["label"]
        self.class_names = [labels[str(target)] for target in range(len(labels))]
        self.records = [
            Record(
                f"{domain}/{split}/{number}",
                domain,
                int(target),
                f"{domain}/{split}/{number}",
                split,
            )
            for domain in self.domain_names
            for split in get_args(Split)
            for number, target in enumerate(self._read(domain, split).labels.ravel())
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), three equal channels, 0 to 255.

        The images of its domain and split are loaded the first time that one of them is asked for.
        """
        record = self.records[index]
        key = (record.domain, record.split)
        if key not in self._pixels:
            self._pixels[key] = self._read(*key).imgs
        grey = self._pixels[key][int(record.file.rpartition("/")[2])]
        return np.repeat(grey[..., None], 3, axis=-1)

    def _read(self, domain: str, split: Split) -> Any:
        """The package's dataset, which holds the arrays ``imgs`` and ``labels``."""
        name = SUBSETS[domain]
        file = self.root / f"{name.lower()}{'' if self.size == 28 else f'_{self.size}'}.npz"
        if not file.is_file():
            raise DataError(
                f"{file}: missing; get it with python -m medmnist download --flag={name.lower()} "
                f"--root={self.root} --size={self.size} (docs/data_medical.md)"
            )
        reader = getattr(import_medical("medmnist"), name)
        with reading(file, "file of MedMNIST", "get it again"):
            return reader(split=split, root=str(self.root), size=self.size)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write three files of 28 × 28 pixels with 66 drawn slices each, 6 of every class."""
        root.mkdir(parents=True, exist_ok=True)
        for name in SUBSETS.values():
            arrays: dict[str, Any] = {}
            labels = np.tile(np.arange(11, dtype=np.uint8), 2)
            for split in get_args(Split):
                generators = (generator_of(seed, f"{name}{split}{at}") for at in range(len(labels)))
                drawn = [
                    draw_grey(generator, [1 + label], name, 28)
                    for label, generator in zip(labels.tolist(), generators, strict=True)
                ]
                arrays[f"{split}_images"] = np.stack(drawn)
                arrays[f"{split}_labels"] = labels[:, None]
            np.savez_compressed(root / f"{name.lower()}.npz", **arrays)
