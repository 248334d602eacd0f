"""The domain encoder of a run: attached to every model, taught after every stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from domainnorm import encoders
from domainnorm.backbones import DomainModel
from domainnorm.data import DomainDataModule
from domainnorm.data.dataset import Split
from domainnorm.encoders.base import Batches
from domainnorm.recipe import Recipe


class _Images:
    """Images of a loader with the labels of their domains, and nothing else of its batches."""

    def __init__(self, loader: DataLoader[dict[str, Any]]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            yield batch["image"], batch["domain"]

    def __len__(self) -> int:
        return len(self._loader)


def attach_encoder(recipe: Recipe, model: DomainModel) -> None:
    """Give a model its recipe's policy for unseen domains, and the encoder, not fitted, if any."""
    if recipe.encoder is None:
        model.unseen = recipe.unseen
        return
    in_chans = int(recipe.backbone.options.get("in_chans", 3))
    name, options = recipe.encoder.name, recipe.encoder.options
    encoder = encoders.create_encoder(name, model.num_domains, model.backbone, in_chans, **options)
    end_to_end = recipe.condition == "embedding"
    model.attach_encoder(encoder, recipe.unseen, end_to_end=end_to_end, far=recipe.far)


def ready_encoder(model: DomainModel, data: DomainDataModule, seed: int) -> None:
    """Before a stage that trains the encoder with the network: standardize what it looks at."""
    if model.encoder is None or not model.end_to_end:
        return
    generator = torch.Generator().manual_seed(seed)
    model.eval()
    encoders.start_encoder(model.encoder, _read_by(model.encoder, data, "train"), generator)
    model.train()


def encoder_weights(model: DomainModel) -> list[Tensor]:
    """Copies of the weights of an encoder end to end; none of others."""
    if model.encoder is None or not model.end_to_end:
        return []
    return [weight.detach().clone() for weight in model.encoder.parameters()]


def teach_encoder(
    model: DomainModel, data: DomainDataModule, seed: int, former: Sequence[Tensor] = ()
) -> None:
    """Fit the encoder to the training images that a stage may see; no class label is read.

    One that has learned with the network learns where the domains are and nothing else. Where it
    knows domains whose images this stage may not see (adaptation without the source), it stays as
    it is and learns the further ones by their images alone; but where the stage has trained the
    encoder, the embeddings of those domains are no longer what they were, and it forgets them.

    Args:
        model: Changed in place.
        data: Of the stage; held-out images come from its validation split.
        seed: Of the stage.
        former: `encoder_weights` before the stage.
    """
    if model.encoder is None:
        return
    model.eval()  # some encoders read features of the backbone
    seen = [model.domain_names.index(name) for name in data.seen_domains]
    known = model.encoder.gaussians.known.nonzero().flatten().tolist()
    training = _read_by(model.encoder, data, "train")
    weights = zip(former, encoder_weights(model), strict=False)
    moved = any(not torch.equal(old, new.to(old.device)) for old, new in weights)
    if moved or set(known) <= set(seen):
        fit = encoders.fit_domains if model.end_to_end else encoders.fit_encoder
        fit(model.encoder, training, _read_by(model.encoder, data, "val"), seed=seed)
    else:
        encoders.extend_encoder(model.encoder, training)


def _read_by(encoder: encoders.DomainEncoder, data: DomainDataModule, split: Split) -> Batches:
    if encoder.reads_attributes:  # without decoding an image
        return data.domain_attributes(split)
    learned_from = encoder.learns_features and split == "train"
    return _Images(data.domain_dataloader(split, mixed=learned_from))
