"""Foggy Cityscapes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from domainnorm.data.datasets.cityscapes import MASKS, OFFICIAL, record, write_masks
from domainnorm.data.drawings.street_files import write_image
from domainnorm.data.drawings.weather import photograph
from domainnorm.data.driving import DrivingDataset, check_masks, draw_scenes, found
from domainnorm.data.label_sets import CITYSCAPES_IDS
from domainnorm.registry import register

# Attenuation of light per metre: visibility of about 600, 300 and 150 m.
BETAS = {"beta_0.005": 0.005, "beta_0.01": 0.01, "beta_0.02": 0.02}


@register
class FoggyCityscapes(DrivingDataset):
    """Foggy Cityscapes: Cityscapes with fog of three densities rendered from its depth maps.

    A domain is a density. The splits are those of ``cityscapes``, and with equal ``val_fraction``
    and ``split_seed`` its sequences are in the same split here, whatever their fog.

    Args:
        root: Folder that holds leftImg8bit_foggy and the gtFine of Cityscapes: absolute, or
            relative to DOMAINNORM_DATA. It may be the folder of Cityscapes itself.
        domains: Some of ``beta_0.005``, ``beta_0.01``, ``beta_0.02``; all of them when None.
        classes: Label set of the masks.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of that draw.

    Raises:
        DataError: A folder, an image or a mask is missing, or a key is wrong.

    Reference:
        Sakaridis, Dai, Van Gool, "Semantic foggy scene understanding with synthetic data",
        IJCV 126, 2018, arXiv 1708.07819.
    """

    homepage = "https://people.ee.ethz.ch/~csakarid/SFSU_synthetic/"
    licence = "terms of Cityscapes: non-commercial research and teaching"
    layout = "leftImg8bit_foggy/<split>/<city>/*_leftImg8bit_foggy_beta_<beta>.png, gtFine/"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        classes: Literal[
            "cityscapes19", "cityscapes16", "cityscapes13", "camvid11"
        ] = "cityscapes19",
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        super().__init__(root, classes, CITYSCAPES_IDS)
        records = [
            record(file, domain, split, beta=str(beta))
            for domain, beta in BETAS.items()
            for official, split in OFFICIAL.items()
            for file in found(self.root, f"leftImg8bit_foggy/{official}/*/*_foggy_{domain}.png")
        ]
        check_masks(self.root, records, MASKS)
        records = draw_scenes(records, val_fraction, split_seed)
        self.keep(records, domains, list(BETAS))

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets in fog in the official layout."""
        for name, scene in write_masks(root, seed):
            for domain, beta in BETAS.items():
                # Drawn streets end after 100 m, so the same fog would hardly be seen.
                pixels = photograph(scene, "fog", density=3 * beta)
                file = f"leftImg8bit_foggy/{name}_leftImg8bit_foggy_{domain}.png"
                write_image(root / file, pixels)
