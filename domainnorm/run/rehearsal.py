"""A run tried without training: its networks are made, and a batch of noise goes through each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch

from domainnorm.backbones import DomainModel
from domainnorm.data import DomainDataModule
from domainnorm.errors import DomainNormError, RecipeError
from domainnorm.recipe import Recipe
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage, plan_stages


def rehearse(recipe: Recipe) -> None:
    """Refuse what a run would refuse when its stages start, the later ones included.

    Every stage of the first seed is set up, without pretrained weights, and noise of the size of
    a training batch passes through the network. The list of the images is read, and no image.

    Args:
        recipe: A checked recipe.

    Raises:
        RecipeError: All that is refused, each as the run would say it.
    """
    try:
        parts = Parts(recipe)
        stages = plan_stages(recipe)
        parts.check_images(stages)
    except DomainNormError as error:
        raise RecipeError([str(error)], recipe.name) from error
    rehearse_stages(parts, stages)


def rehearse_stages(parts: Parts, stages: Sequence[Stage]) -> None:
    """`rehearse`, with the parts of the run at hand.

    Args:
        parts: Of the run.
        stages: All of it.

    Raises:
        RecipeError: See `rehearse`.
    """
    first = parts.recipe.seeds[0]
    refused = (_refused(parts, stage) for stage in stages if stage.seed == first)
    found = dict.fromkeys(chain.from_iterable(refused))
    if found:
        raise RecipeError(found, parts.recipe.name)


def _refused(parts: Parts, stage: Stage) -> Iterator[str]:
    """What network and method of a stage say."""
    try:
        model = parts.model(stage, stored=True)
        data = parts.data(stage, model)
    except DomainNormError as error:
        yield str(error)
        return
    in_chans = int(parts.recipe.backbone.options.get("in_chans", 3))
    for attempt in (
        lambda: _pass(model, data, in_chans),
        lambda: parts.method(stage, model, data),
    ):
        try:
            attempt()
        except DomainNormError as error:
            yield str(error)


@torch.no_grad()
def _pass(model: DomainModel, data: DomainDataModule, in_chans: int) -> None:
    """Noise instead of a training batch, with equal parts of the domains that the stage sees."""
    seen = [model.domain_names.index(name) for name in (*data.labelled, *data.unlabelled)]
    number = max(data.loading.batch_size, len(seen))
    height, width = data.crop or data.evaluation_pipeline.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(number, in_chans, height, width, generator=generator)
    label = torch.tensor([seen[k * len(seen) // number] for k in range(number)])
    given = {}
    if model.end_to_end and model.encoder is not None:
        given["embedding"] = torch.zeros(number, model.encoder.embedding_size)
    model.train()(image, label, **given)
