"""Drawn slides of several stains, whose domain nobody wrote down."""

import numpy as np
import torch

from domainnorm.data.drawings.cells import HOSPITALS, STAINS, draw_tissue
from domainnorm.encoders import style_features

KINDS = [HOSPITALS[1], HOSPITALS[2], STAINS["tecom_rapid"]]


def slides(kind, count, side=48):
    """Images (H, W, 3) of healthy tissue in one stain."""
    return [
        draw_tissue(np.random.default_rng([kind, k]), KINDS[kind], side, tumour=False)
        for k in range(count)
    ]


def features(kind, count):
    """Style features (count, F) of slides of one stain."""
    pixels = torch.from_numpy(np.stack(slides(kind, count)))
    return style_features(pixels.permute(0, 3, 1, 2).float() / 255)
