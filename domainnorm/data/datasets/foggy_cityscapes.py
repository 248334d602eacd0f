"""Foggy Cityscapes."""

from __future__ import annotations

from pathlib import Path

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.cityscapes import MASKS, OFFICIAL, record, write_masks
from domainnorm.data.datasets.driving import DrivingDataset, draw_scenes, found
from domainnorm.data.datasets.label_sets import CITYSCAPES_IDS
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.weather import photograph
from domainnorm.registry import register

# Attenuation of light per metre: visibility of about 600, 300 and 150 m.
BETAS = {"beta_0.005": 0.005, "beta_0.01": 0.01, "beta_0.02": 0.02}


@register
class FoggyCityscapes(DrivingDataset):
    """Foggy Cityscapes: Cityscapes with fog of three densities rendered from its depth maps.

    A domain is a density. The splits are those of ``cityscapes``, and with equal ``val_fraction``
    and ``split_seed`` its sequences are in the same split here, whatever their fog.

    See `DrivingDataset` for the keys. ``root`` holds leftImg8bit_foggy and the gtFine of
    Cityscapes, whose own folder it may be. Domains are ``beta_0.005``, ``beta_0.01`` and
    ``beta_0.02``.

    Reference:
        Sakaridis, Dai, Van Gool, "Semantic foggy scene understanding with synthetic data",
        IJCV 126, 2018, arXiv 1708.07819.
    """

    homepage = "https://people.ee.ethz.ch/~csakarid/SFSU_synthetic/"
    licence = "terms of Cityscapes: non-commercial research and teaching"
    layout = "leftImg8bit_foggy/<split>/<city>/*_leftImg8bit_foggy_beta_<beta>.png, gtFine/"
    values = CITYSCAPES_IDS
    known = tuple(BETAS)
    mask_files = MASKS
    draw = staticmethod(draw_scenes)  # the same sequences, with fog and without

    def scan(self) -> list[Record]:
        """Records of the images in fog of each density."""
        return [
            record(file, domain, split, beta=str(beta))
            for domain, beta in BETAS.items()
            for official, split in OFFICIAL.items()
            for file in found(self.root, f"leftImg8bit_foggy/{official}/*/*_foggy_{domain}.png")
        ]

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets in fog in the official layout."""
        for name, scene in write_masks(root, seed):
            for domain, beta in BETAS.items():
                # Drawn streets end after 100 m, so the same fog would hardly be seen.
                pixels = photograph(scene, "fog", density=3 * beta)
                file = f"leftImg8bit_foggy/{name}_leftImg8bit_foggy_{domain}.png"
                write_image(root / file, pixels)
