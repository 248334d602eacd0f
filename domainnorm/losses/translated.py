"""Losses of translated images: what a classifier of patches says, and what patches keep."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.losses.precision import in_float32


@in_float32
def patch_domain_loss(real: Tensor, domain: Tensor, made: Tensor, asked: Tensor) -> Tensor:
    """Hinge of a classifier that says of patches whether they are real ones of a domain.

    With ``z[n, d, p]`` what it says of domain d at the patch p of image n: ``avg max(0, 1 - z)`` of
    real images' own domain ``+ avg max(0, 1 + z)`` of the others ``+`` the same of the domain that
    made images were asked for; what has no images counts nothing.

    Args:
        real: Of real images, (N, D, h, w).
        domain: Their domains, (N,).
        made: Of translated images, (M, D, h, w).
        asked: Which domain they were asked for, (M,).

    Returns:
        A scalar, 0 where all is right by 1 or more.

    Reference:
        Choi et al., StarGAN, CVPR 2018, arXiv:1711.09020, sec. 3.1 (a classifier of domains beside
        that of what is real); Miyato et al., Spectral Normalization for Generative Adversarial
        Networks, ICLR 2018, arXiv:1802.05957, eq. 16 (hinge).
        Differs: one output for each domain says both "real" and "of this domain", and real images
        of others are wrong examples beside made ones.
    """
    own = F.one_hot(domain, real.shape[1]).bool()
    parts = [F.relu(1 - real[own]), F.relu(1 + real[~own]), F.relu(1 + _of(made, asked))]
    return torch.stack([part.mean() for part in parts if part.numel()]).sum()


@in_float32
def patch_taken_loss(made: Tensor, asked: Tensor) -> Tensor:
    """How little patches are taken for real ones of the domain asked for, ``-avg z``.

    Args:
        made: What a classifier of patches says of translated images, (N, D, h, w).
        asked: Which domain they were asked for, (N,).

    Reference:
        Miyato et al., ICLR 2018, arXiv:1802.05957, eq. 17.
    """
    return -_of(made, asked).mean()


@in_float32
def patch_contrast_loss(maps: Tensor, wanted: Tensor, temperature: float = 0.07) -> Tensor:
    """Whether each place of an image is told from its other places by what the original has there.

    With ``f[p]`` and ``g[p]`` the features of place p, of length 1: ``avg over images and p of -log
    (exp(f[p] · g[p] / τ) / Σ_q exp(f[p] · g[q] / τ))``. Memory: the square of the places.

    Args:
        maps: Features f of translated images, (N, C, h, w).
        wanted: g, of the originals, the same shape.
        temperature: τ.

    Reference:
        Park et al., Contrastive Learning for Unpaired Image-to-Image Translation, ECCV 2020,
        arXiv:2007.15651, eq. 3 and 4.
        Differs: all places of the maps given, without a learned projection of them.
    """
    made, real = (F.normalize(one.flatten(2), dim=1) for one in (maps, wanted))
    logits = made.transpose(1, 2) @ real / temperature  # (N, places, places)
    places = torch.arange(logits.shape[2], device=logits.device).expand(logits.shape[:2])
    return F.cross_entropy(logits.flatten(0, 1), places.flatten())


def _of(told: Tensor, asked: Tensor) -> Tensor:
    """What is told of the domain that each image was asked for, (N, h, w)."""
    return told[torch.arange(len(told), device=told.device), asked]
