"""A recipe tried before it is run: on noise, without training, or made small on drawn data."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import timm
import torch

from domainnorm.backbones import DomainModel
from domainnorm.backbones.conversion.kinds import kind_of
from domainnorm.backbones.conversion.norm_layers import find_norms
from domainnorm.data import DomainDataModule
from domainnorm.data.table import read_lines, write_lines
from domainnorm.errors import DomainNormError, RecipeError
from domainnorm.loggers import check_loggers
from domainnorm.recipe import Recipe
from domainnorm.recipe.schema import BackboneConfig, DataConfig, Named
from domainnorm.registry import DATASETS
from domainnorm.run.models import given_weights
from domainnorm.run.parts import Parts
from domainnorm.run.plan import Stage, plan_stages
from domainnorm.run.stage import load_weights
from domainnorm.storage import make_folders
from domainnorm.terminal import say

SIDE = 64  # pixels; a multiple of 32, by which segmentation networks divide
CROP = 32
LARGE = 8_000_000  # parameters from which a smaller network of the same norms is taken
# A small network for each family of norms that most layers of the recipe's network belong to.
_SMALL = {"batch": "test_efficientnet", "layer": "test_convnext", "group": "test_efficientnet_gn"}
# Keys that describe files of the user's own, which a sample does not have.
_OWN_FILES = ("splits", "table", "columns", "findings", "config", "revision")


def rehearse(recipe: Recipe) -> None:
    """Refuse what a run would refuse when its stages start, the later ones included.

    Every stage of the first seed is set up, without pretrained weights, and noise of the size of
    a training batch passes through the network. The list of the images is read, a few
    masks, and no image.

    Raises:
        RecipeError: All that is refused, each as the run would say it.
    """
    check_loggers(recipe.trainer.logger, recipe.name)
    try:
        parts = Parts(recipe)
        stages = plan_stages(recipe)
        parts.check_images(stages)
    except (DomainNormError, OSError) as error:  # such as a name that is too long
        raise RecipeError([str(error)], recipe.name) from error
    rehearse_stages(parts, stages)


def rehearse_stages(parts: Parts, stages: Sequence[Stage]) -> None:
    """`rehearse`, with the parts of the run at hand."""
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
    attempts: list[Callable[[], Any]] = [
        lambda: _pass(model, data, in_chans),
        lambda: parts.method(stage, model, data),
    ]
    if (given := given_weights(parts.recipe, stage)) is not None:
        attempts.append(lambda: load_weights(model, given, parts, stage))
    for attempt in attempts:
        try:
            attempt()
        except DomainNormError as error:
            yield str(error)


@torch.no_grad()
def _pass(model: DomainModel, data: DomainDataModule, in_chans: int) -> None:
    """Noise instead of a training batch, with equal parts of the domains that the stage sees."""
    seen = [model.domain_names.index(name) for name in data.seen_domains]
    number = max(data.loading.batch_size, len(seen))
    height, width = data.crop or data.evaluation_pipeline.preprocessing.size
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(number, in_chans, height, width, generator=generator)
    label = torch.tensor([seen[k * len(seen) // number] for k in range(number)])
    given = {}
    if model.end_to_end and model.encoder is not None:
        given["embedding"] = torch.zeros(number, model.encoder.embedding_size)
    model.train()(image, label, **given)


def sample_recipe(recipe: Recipe, folder: Path, *, all_seeds: bool = False) -> Recipe:
    """Write a sample of a recipe's data, and make the recipe small enough to try it on.

    The first transfer, one epoch of two batches of small images on the CPU, one seed, no pretrained
    weights, and a small network of the same kind of norms in place of a large one. What a run does
    with it says that the recipe works, nothing about its results.

    Args:
        recipe: A checked recipe.
        folder: Where the sample is written, below which the roots are then.
        all_seeds: Whether all seeds of the recipe are kept, not the first alone.

    Raises:
        DataError: The dataset has no layout to write a sample in.
    """
    options = _written(recipe, folder.resolve())
    if "table" in options and recipe.data.attributes:
        _note(Path(options["root"]) / options["table"], recipe.data.attributes)
    return replace(
        recipe,
        name=f"{recipe.name}-sample",  # no one shall take its numbers for results
        dataset=replace(recipe.dataset, options=options),
        backbone=_small_backbone(recipe),
        data=_small_data(recipe.data),
        method=_tried(recipe.method),
        compare=[_tried(method) for method in recipe.compare],
        trainer=replace(
            recipe.trainer,
            max_epochs=1,
            min_steps=0,
            limit_batches=2,
            accelerator="cpu",
            devices=1,
            num_nodes=1,
            strategy="auto",
            precision="32-true",
        ),
        evaluation=replace(recipe.evaluation, resamples=50),
        checkpoint=None,
        seeds=recipe.seeds if all_seeds else recipe.seeds[:1],
    )


def _tried(method: Named) -> Named:
    """For one epoch, and ``default`` for that in any case: two batches make no one certain."""
    options = dict(method.options)
    if options.get("epochs") is not None:
        options["epochs"] = 1
    if method.name == "default":
        options["certainty"] = 0.0
    return replace(method, options=options)


def _written(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Options of the dataset, with the root of a sample that is written here."""
    name, options = recipe.dataset.name, dict(recipe.dataset.options)
    if "parts" in options:
        of_parts = [_own_domains(part, recipe.domains) for part in options["parts"]]
        everything = [domain for names in of_parts for domain in names]
        parts = [
            {"name": part["name"], **_on_sample(part, names, everything, folder / str(number))}
            for number, (part, names) in enumerate(zip(options["parts"], of_parts, strict=True))
        ]
        return {**options, "parts": parts}
    own = _own_domains(options, recipe.domains)
    return _on_sample({"name": name, **options}, own, own, folder)


def _own_domains(options: Mapping[str, Any], domains: Sequence[str]) -> list[str]:
    """Those of ``domains`` that are of a dataset, or of a part, as it calls them."""
    prefix = str(options.get("prefix", ""))
    used = [domain.removeprefix(prefix) for domain in domains if domain.startswith(prefix)]
    return list(options.get("domains") or used)


def _note(table: Path, attributes: Sequence[str]) -> None:
    """Add the attributes that a table of the user's own has and a drawn one lacks: the domain."""
    lines = read_lines(table)
    write_lines(table, [{**dict.fromkeys(attributes, line["domain"]), **line} for line in lines])


def _on_sample(
    part: Mapping[str, Any], domains: Sequence[str], among: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Options without the name, with the root of a sample of some of all domains."""
    name, options = part["name"], {key: value for key, value in part.items() if key != "name"}
    parameters = DATASETS.entry(name).parameters
    if "root" not in parameters:
        return {**options, **({"per_domain": 60} if "per_domain" in parameters else {})}
    kind = DATASETS.load(name)
    root = folder / name
    make_folders(root)
    given = {key: value for key, value in options.items() if key != "root"}
    taken = inspect.signature(kind.write_sample).parameters
    if "domains" not in taken:
        kind.write_sample(root)
        return {**given, "root": str(root)}
    asked = {"among": among, "scale": options.get("scale", 1)}
    kind.write_sample(root, domains=domains, **{key: asked[key] for key in asked if key in taken})
    kept = {
        key: parameters[key].default if key in _OWN_FILES else value for key, value in given.items()
    }
    if kept.get("void_outside"):
        kept["void_outside"] = "fov"
    return {**kept, "root": str(root)}


def _small_backbone(recipe: Recipe) -> BackboneConfig:
    """The recipe's network without weights, or a small one of its family, which is told."""
    backbone = recipe.backbone
    with torch.device("meta"):
        network = timm.create_model(backbone.name, **backbone.options)
    untrained = replace(backbone, pretrained=False, weights=None)
    size = sum(parameter.numel() for parameter in network.parameters())
    parts = {name for name, _ in network.named_modules()}
    named = _texts([recipe.norm, [named.options for named in recipe.perturb]])
    # Rules that name layers of this network mean nothing in another one.
    if size <= LARGE or any("*" in text or text.lstrip("!") in parts for text in named):
        return untrained
    if len({level["reduction"] for level in network.feature_info}) == 1:  # a plain transformer
        small = "test_vit"
    else:
        layers = find_norms(network).values()
        families = Counter(kind.family for layer in layers if (kind := kind_of(layer)))
        usual = families.most_common(1)
        small = _SMALL.get(usual[0][0], "") if usual else ""
    if not small:
        return untrained
    say(f"sample: {small} in place of {backbone.name}, {size / 1e6:.0f} million parameters")
    return BackboneConfig(small)


def _texts(value: Any) -> Iterator[str]:
    """Every text in nested lists and mappings, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def _small_data(data: DataConfig) -> DataConfig:
    return replace(
        data,
        transfers=data.transfers[:1],
        image_size=_small_size(data.image_size),
        crop_size=None if data.crop_size is None else CROP,
        shots=None if data.shots is None else 1,
        batch_size=min(data.batch_size, 8),
        eval_batch_size=min(data.eval_batch_size, 8),
        num_workers=0,
    )


def _small_size(size: int | list[int] | None) -> int | list[int]:
    """The same shape, no side longer than 64 and each a multiple of 32 or as small as it was."""
    if size is None:
        return SIDE
    if isinstance(size, int):
        return min(size, SIDE)
    longest = max(size)
    return [max(CROP, round(side * SIDE / longest / CROP) * CROP) for side in size]
