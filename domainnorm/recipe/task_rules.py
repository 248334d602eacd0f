"""Rules that a recipe has to satisfy for the sake of its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from domainnorm.ranges import (
    LARGEST_SCALE,
    OF_ANY_DATASET,
    labels_for,
    problem_of_sampling,
    problem_of_task,
)
from domainnorm.recipe.norm import reads_domains
from domainnorm.recipe.problems import Problems, spelled
from domainnorm.recipe.schema import Named, Recipe, labels_of
from domainnorm.registry import ENCODERS, SAMPLERS, TASKS


def check_task(recipe: Recipe, problems: Problems) -> None:
    """The dataset has labels for the task, which is complete; crops are for pixels."""
    task, dataset, crop = recipe.task, recipe.dataset, recipe.data.crop_size
    if task is None:
        return
    wanted = str(TASKS.entry(task.name).constants.get("labels"))
    found, read = wanted if dataset is None else labels_of(dataset), labels_for(wanted)
    if found not in (read, wanted, "") and wanted not in OF_ANY_DATASET:
        text = f"'{task.name}' needs labels for {read}, but dataset '{dataset.name}' has labels"
        problems.add("task", f"{text} for {found}; change task or data.name")
    elif text := _problem_of_draws(recipe.data.sampling, read):
        problems.add("data.sampling", text)
    if wanted in OF_ANY_DATASET and recipe.data.shots is not None:
        text = f"counts images of a class, and task '{task.name}' reads no labels; leave it out"
        problems.add("data.shots", text)
    if (check := _OWN_RULES.get(wanted)) is not None:
        check(recipe, problems)
    if wanted != "restoration" and recipe.data.degrade is not None:
        text = f"is given, and task '{task.name}' restores nothing; take task 'restoration', or"
        problems.add("data.degrade", f"{text} leave it out")
    if wanted == "segmentation":
        if not any(task.options.get(f"{loss}_weight", 0) for loss in ("ce", "dice", "focal")):
            text = "got 0, as dice_weight and focal_weight, expected one of the three above 0"
            problems.add("task.ce_weight", text)
        width = task.options.get("width", 32)
        if task.options.get("decoder") == "fpn" and width % 32:
            problems.add("task.width", f"got {width}, decoder 'fpn' takes multiples of 32")
        return
    if crop is not None and wanted != "restoration":
        text = f"{spelled(crop)}, but task '{task.name}' looks at whole images; leave the key out"
        problems.add("data.crop_size", f"{text}, or add RandomResizedCrop to augment")
    if recipe.evaluation.mask_size != "input":
        text = f"'original' is for masks, but task '{task.name}' has none; leave the key out"
        problems.add("evaluation.mask_size", text)


def _check_translation(recipe: Recipe, problems: Problems) -> None:
    """Images are asked for the style of one of several domains, each with rows of its own."""
    why = "task 'translation' asks for the style of a domain"
    if len(recipe.domains) < 2 and not problems.among("data"):
        text = f"got {len(recipe.domains)} domain, and {why}; name two or more"
        problems.add("data.source, data.target", text)
    if recipe.data.rows != "domain":
        text = f"got '{recipe.data.rows}', and {why}, which needs rows of its own; leave it out"
        problems.add("data.rows", text)
    if recipe.encoder is not None and recipe.condition != "embedding":
        text = f"is given, and {why}, which nothing estimates; leave it out, or add"
        problems.add("encoder", f"{text} 'condition: embedding' for the styles of images or words")
    if recipe.norm is not None and not reads_domains(recipe.norm):
        text = f"none of them looks at the domain, and {why}; take 'norm: cin'"
        problems.add("norm", text)
    if recipe.evaluation.selection == "oracle":
        text = "'oracle' compares with labels, and task 'translation' has none; take 'last'"
        problems.add("evaluation.selection", text)


def _reads_attributes(encoder: Named) -> bool:
    return bool(ENCODERS.entry(encoder.name).constants.get("reads_attributes"))


def _check_generation(recipe: Recipe, problems: Problems) -> None:
    """Domains are told apart by rows or by attributes, and no epoch is chosen by images."""
    why = "task 'generation' asks for images of a domain"
    if recipe.data.rows != "domain":
        text = f"got '{recipe.data.rows}', and {why}, which needs rows of its own; leave it out"
        problems.add("data.rows", text)
    encoder = recipe.encoder
    if encoder is not None and not (_reads_attributes(encoder) and recipe.condition == "embedding"):
        text = f"'{encoder.name}' is given, and {why}, which nothing estimates; leave it out, or"
        problems.add("encoder", f"{text} take 'text' with 'condition: embedding'")
    told = reads_domains(recipe.norm) or recipe.condition == "embedding"
    if recipe.norm is not None and len(recipe.domains) > 1 and not told:
        problems.add("norm", f"none of them looks at the domain, and {why}; take 'norm: cgn'")
    if (asked := recipe.evaluation.selection) != "last":
        text = f"got '{asked}', and images take too long to make after every epoch; take 'last'"
        problems.add("evaluation.selection", text)


def _check_restoration(recipe: Recipe, problems: Problems) -> None:
    """There is something to restore, once, and a norm where there are norms."""
    given, dataset = recipe.data.degrade, recipe.dataset
    paired = dataset is not None and labels_of(dataset) == "restoration"
    if paired and given is not None:
        text = f"is given, and images of dataset '{dataset.name}' come in pairs; leave it out"
        problems.add("data.degrade", text)
    elif paired:
        scale = dataset.options.get("scale", 1)
        if type(scale) is not int or not 1 <= scale <= LARGEST_SCALE:
            expected = f"a whole number from 1 to {LARGEST_SCALE}"
            problems.expect("data.scale", scale, expected)
    elif given is not None:
        _check_degrade(given, problems)
    else:
        text = "missing, and task 'restoration' undoes it; give {scale: 4, noise: 0.02}, say, or"
        problems.add("data.degrade", f"{text} take dataset 'pairs'")
    if recipe.norm is not None and not recipe.task.options.get("norms", True):
        problems.add("norm", "is given, and task.norms is false; drop one of the two")


_OWN_RULES = {
    "translation": _check_translation,
    "generation": _check_generation,
    "restoration": _check_restoration,
}


def _check_degrade(given: Mapping[str, Any], problems: Problems) -> None:
    """Known keys, numbers that make sense, and not nothing at all."""
    problems.check_keys("data.degrade", given, ["scale", "noise", "jpeg"])
    scale, noise, jpeg = given.get("scale", 1), given.get("noise", 0.0), given.get("jpeg")
    if type(scale) is not int or not 1 <= scale <= LARGEST_SCALE:
        problems.expect("data.degrade.scale", scale, f"a whole number from 1 to {LARGEST_SCALE}")
    if type(noise) not in (int, float) or not 0 <= noise <= 1:
        problems.expect("data.degrade.noise", noise, "a share of white from 0 to 1")
    ends = jpeg if isinstance(jpeg, list) else [1 if jpeg is None else jpeg] * 2
    whole = len(ends) == 2 and all(type(one) is int and 1 <= one <= 100 for one in ends)
    if not whole or ends[0] > ends[1]:
        expected = "a quality from 1 to 100, or the lowest and the highest, such as [10, 40]"
        problems.expect("data.degrade.jpeg", jpeg, expected)
    if (scale, noise, jpeg) == (1, 0, None):
        text = "scale 1 and noise 0 leave images as they are; set one of them, or jpeg"
        problems.add("data.degrade", text)


def _problem_of_draws(sampling: Any, labels: str) -> str:
    """What is wrong with a word, or a sampler of another package, where labels are of a kind."""
    if isinstance(sampling, str):
        return problem_of_sampling(sampling, labels)
    tasks = SAMPLERS.entry(sampling["name"]).constants.get("tasks", ())
    return problem_of_task(sampling["name"], tasks, labels)
