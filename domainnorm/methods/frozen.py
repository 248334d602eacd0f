"""The network as it was when training started, to stay near to."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.losses.precision import in_float32

_LEAST = 0.75  # share of a cell that pixels of one class have, for the cell to be of this class


class FrozenStart(nn.Module):
    """A copy of what computes features in a network, which neither learns nor follows it.

    Of a network for masks it is the encoder alone; what a decoder weighs is not copied. It is in
    evaluation mode, and part of checkpoints: a resumed run compares with the same start.

    Args:
        model: The network; copied by `take`, once its weights have been loaded.
        masks: Whether it is one for masks.
    """

    taken: Tensor

    def __init__(self, model: DomainModel, masks: bool) -> None:
        super().__init__()
        self.masks = masks
        self.model = _only_encoder(model) if masks else copy.deepcopy(model)
        self.model.requires_grad_(False)
        self.register_buffer("taken", torch.zeros((), dtype=torch.bool))
        self.eval()

    def take(self, model: DomainModel) -> None:
        """Copy the weights of ``model``, the first time it is asked to."""
        if not bool(self.taken):
            state = model.state_dict()
            if self.masks:
                place = "backbone.encoder.", "backbone."
                state = {name.replace(*place): tensor for name, tensor in state.items()}
            self.model.load_state_dict({name: state[name] for name in self.model.state_dict()})
            self.taken.fill_(True)

    def train(self, mode: bool = True) -> FrozenStart:
        """Evaluation mode, always."""
        super().train(False)
        return self


def deepest(maps: Any) -> Tensor:
    """The last of the feature maps (N, F, h, w) that an encoder returns."""
    if isinstance(maps, tuple) and isinstance(maps[0], list):
        maps = maps[0]  # beside the tokens that stand for no place
    found: Tensor = maps if isinstance(maps, Tensor) else maps[-1]
    return found


def feature_distance(
    features: Tensor,
    start: Tensor,
    label: Tensor | None = None,
    classes: Sequence[int] = (),
    rule: Literal["euclidean", "cosine"] = "euclidean",
) -> Tensor:
    """Mean distance between features of the same place.

    ``euclidean``: ``avg over n (and cells) of ||f[n] - f0[n]||``. ``cosine``: of ``0.1 · mean over
    channels of smooth_l1(f[n] - f0[n]) + 0.9 · (1 - cos(f[n], f0[n]))``. With ``classes`` it is
    that of the cells of which one of them has at least three quarters of the pixels; 0 where there
    is none.

    Args:
        features: (N, F) or (N, F, h, w).
        start: Those of the start, the same shape.
        label: Masks (N, H, W), or classes (N,), -1 where unknown, where ``classes`` are given.
        classes: Positions of classes; all cells when empty.
        rule: Of the distance of two vectors.

    Reference:
        Hoyer et al., DAFormer, CVPR 2022, arXiv:2111.14887, sec. 3.3; ``cosine``: the authors'
        program of Englert et al., VFM-UDA++, arXiv:2503.10685.
        Differs: there a learned projection lies between the features and those of ``cosine``.
    """
    distance = _distances(features, start, rule)
    if not classes:
        return distance.mean()
    assert label is not None
    shares = torch.stack([label == one for one in classes], 1).to(distance.dtype)
    if label.ndim > 1:
        height, width = distance.shape[1:]
        shares = F.adaptive_avg_pool2d(shares, (height, width))
    chosen = (shares >= _LEAST).any(1)
    return torch.where(chosen, distance, 0.0).sum() / chosen.sum().clamp(min=1)


@in_float32
def _distances(features: Tensor, start: Tensor, rule: str) -> Tensor:
    """Of each place: (N, F, ...) to (N, ...)."""
    if rule == "euclidean":
        distance: Tensor = torch.linalg.vector_norm(features - start, dim=1)
        return distance
    apart = F.smooth_l1_loss(features, start, reduction="none").mean(1)
    return 0.1 * apart + 0.9 * (1 - F.cosine_similarity(features, start, dim=1))


def _only_encoder(model: DomainModel) -> DomainModel:
    """A copy of a network for masks that returns the feature maps of its encoder."""
    network: Any = model.backbone
    kept = copy.copy(model)
    kept._modules = {**model._modules, "backbone": network.encoder}
    return copy.deepcopy(kept)
