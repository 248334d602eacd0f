"""The export of a finished stage for deployment, checked against the model it comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from domainnorm import backbones
from domainnorm.data.dataset import white_of
from domainnorm.errors import CheckpointError, ConditionError, ExportError, RecipeError, unknown
from domainnorm.evaluation import load_evaluated, write_json
from domainnorm.recipe import Recipe
from domainnorm.report import Result, load_results, model_card
from domainnorm.run.models import find_stage, preprocessing_of, stored_model
from domainnorm.run.run_folder import RESULTS, WEIGHTS, read_folder
from domainnorm.storage import folder_beside, replace_text

FILES = {"onnx": "model.onnx", "torch_export": "model.pt2", "timm": "model.safetensors"}
ABOUT, CARD = "model.json", "card.md"
_RESIZE = {
    "cover": "the shorter side becomes that of the input, the centre is cut",
    "pad": "the whole image is fitted into the input, around it is the mean colour",
    "stretch": "both sides become those of the input",
}
_KERNEL = (
    "; images that shrink are averaged over areas (cv2.INTER_AREA), images that grow are "
    "interpolated ({})."
)


@dataclass(frozen=True)
class Exported:
    """What `export_run` has left.

    Args:
        folder: Where the files are.
        stage: Which stage of the run it is.
        difference: See `largest_difference`.
    """

    folder: Path
    stage: str
    difference: float


def export_run(
    folder: Path,
    kind: str,
    *,
    domain: str | None = None,
    stage: str | None = None,
    output: Path | None = None,
    tolerance: float = 1e-4,
) -> Exported:
    """Export the model of a finished stage, compare it with the model, and describe it.

    Nothing appears in ``output`` unless the exported file computes what the model computes.

    Args:
        folder: What `run_recipe` or `run_matrix` made.
        kind: ``onnx``, ``torch_export`` or ``timm``.
        domain: Fold the norms of this domain, for a program without the input ``domain``.
        stage: The end of its path in the run folder, such as ``seed1/tent``; needed when several
            could be meant.
        output: Folder for the files; ``<stage>/export/<kind>[-<domain>]`` when None.
        tolerance: Largest difference, as a fraction of the largest logit.

    Raises:
        CheckpointError: Not a run folder, no finished stage, or weights that do not fit.
        ConditionError: No such domain.
        ConversionError: Norms that cannot be folded.
        ExportError: A missing package, a network that cannot be exported, or one whose outputs
            differ by more than ``tolerance``.
        RecipeError: Several stages and none chosen, ``timm`` without a domain, a generator, or a
            translator whose norms take the style of an image.
    """
    recipe, _ = read_folder(folder)
    place = folder / _chosen(recipe, folder, stage)
    if kind == "timm" and recipe.task.name == "segmentation":
        problem = "--format timm holds classifiers; take onnx or torch_export for segmentation"
        raise RecipeError([problem], "domainnorm export")
    if recipe.task.name == "generation":
        problem = "the network of task 'generation' is asked many times for each image, which an"
        raise RecipeError(
            [f"{problem} exported file does not do; take `domainnorm generate`"],
            "domainnorm export",
        )
    # An exported program has no policy about unseen domains: it takes numbers of known ones.
    model, _ = stored_model(replace(recipe, unseen="error", far=None), place)
    if domain is not None and domain not in model.domain_names:
        raise ConditionError(unknown("domain", domain, model.domain_names))
    if recipe.task.name == "translation" and model.end_to_end:
        problem = "norms take the style of an image, of which a program would have the input's own"
        raise RecipeError([f"{problem}; train with 'norm: cin' to export"], "domainnorm export")
    if kind == "timm" and domain is None:
        if model.num_domains > 1:
            problem = f"--format timm holds one domain; add --domain, {_one_of(model.domain_names)}"
            raise RecipeError([problem], "domainnorm export")
        domain = model.domain_names[0]
    default = place / "export" / (kind if domain is None else f"{kind}-{domain}")
    output = default if output is None else output
    about = _describe(recipe, folder, place, model) | {"format": kind, "domain": domain}
    about["file"] = FILES[kind]
    with folder_beside(output) as made:
        difference = _write(model, made, about)
        if not difference <= tolerance:
            raise ExportError(
                f"{FILES[kind]}: its outputs differ from the model's by {difference:.1e} of the "
                f"largest logit, expected at most {tolerance:.1e}; nothing was kept. Report it, "
                "or pass a larger --tolerance if you can accept that"
            )
        about["largest_difference"] = difference
        write_json(about, made / ABOUT)
        replace_text(made / CARD, model_card(about, *_measured(place)))
        output.mkdir(exist_ok=True)
        # The description last: a folder that has it is complete.
        for file in sorted(made.iterdir(), key=lambda file: file.name == ABOUT):
            file.replace(output / file.name)
    return Exported(output, str(place.relative_to(folder)), difference)


def _chosen(recipe: Recipe, folder: Path, asked: str | None) -> str:
    """The stage that is meant, as a path below the run folder."""
    if asked is not None:
        return find_stage(folder, recipe, asked).relative_to(folder).as_posix()
    found = sorted(folder.glob(f"stages/*/*/*/{RESULTS}"))
    keys = [file.parent.relative_to(folder).as_posix() for file in found]
    if not keys:
        raise CheckpointError(f"{folder}: no finished stage; go on with `run --resume {folder}`")
    likely = [key for key in keys if key.rpartition("/")[2] == recipe.method.label] or keys
    if len(likely) > 1:
        problem = f"{len(likely)} stages could be meant; add --stage, {_one_of(likely)}"
        raise RecipeError([problem], "domainnorm export")
    return likely[0]


def _one_of(names: list[str] | tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}"


def _describe(
    recipe: Recipe, folder: Path, place: Path, model: backbones.DomainModel
) -> dict[str, Any]:
    results = load_results(place / RESULTS)
    preprocessing = preprocessing_of(recipe, model)
    return {
        "version": 1,
        "recipe": recipe.name,
        "stage": place.relative_to(folder).as_posix(),
        "method": place.name,
        "supervised": any(result.supervised for result in results),
        "task": recipe.task.name,
        "dataset": recipe.dataset.name,
        "source": [result.domain for result in results if result.role == "source"],
        "target": [result.domain for result in results if result.role == "target"],
        "backbone": recipe.backbone.name,
        "backbone_options": recipe.backbone.options,
        "pretrained": recipe.backbone.pretrained or recipe.backbone.weights is not None,
        "norm": recipe.norm,
        "condition": recipe.condition,
        "domain_names": list(model.domain_names),
        "class_names": list(backbones.read_header(place / WEIGHTS).class_names),
        "preprocessing": {
            **asdict(preprocessing),
            "white": white_of(recipe.dataset.options),
            "resize": _RESIZE[preprocessing.fit] + _KERNEL.format(preprocessing.interpolation),
        },
        "packages": {name: version(name) for name in ("domainnorm", "torch", "timm")},
    }


def _measured(place: Path) -> tuple[list[Result], dict[str, int]]:
    """Results of the stage, and the number of test images of each domain."""
    results = load_results(place / RESULTS)
    files = {result.domain: f"predictions-{result.domain}.safetensors" for result in results}
    counts = {
        domain: len(load_evaluated(place / file).labelled()) for domain, file in files.items()
    }
    return results, counts


def _write(model: backbones.DomainModel, folder: Path, about: Mapping[str, Any]) -> float:
    """Write the exported file into ``folder``; how far its outputs are from the model's."""
    file, domain = folder / FILES[about["format"]], about["domain"]
    image = about["preprocessing"]
    # A network that is used window by window is exported for one window.
    size = (len(image["mean"]), *(image["crop"] or (image["height"], image["width"])))
    network = model if domain is None else backbones.fold_domain(model, domain)
    notes = {"domainnorm": json.dumps(about, ensure_ascii=False)}
    if about["format"] == "onnx":
        backbones.export_onnx(network, size, file, notes)
        program: Any = backbones.load_onnx(file)
    elif about["format"] == "torch_export":
        backbones.export_program(network, size, file, notes)
        program = backbones.load_program(file)
    else:
        program = _write_timm(network, folder, about)
    if domain is None:
        return backbones.largest_difference(program, model, size, model.num_domains)
    reference = _OfDomain(model, domain)  # not the folded network: folding is checked as well
    return backbones.largest_difference(program, reference, size, None)


def _write_timm(network: nn.Module, folder: Path, about: Mapping[str, Any]) -> nn.Module:
    """Write weights and configuration as timm does; the plain network that they load into."""
    classes, options = about["class_names"], about["backbone_options"]
    plain: nn.Module = timm.create_model(about["backbone"], num_classes=len(classes), **options)
    try:
        plain.load_state_dict(network.state_dict())
    except RuntimeError as error:
        raise ExportError(
            f"norm {json.dumps(about['norm'])} does not fold into the layers of "
            f"{about['backbone']} (instance statistics remain separate layers); take the format "
            "onnx or torch_export, which can store any network"
        ) from error
    image = about["preprocessing"]
    known: Any = plain.pretrained_cfg
    plain.pretrained_cfg = {  # type: ignore[assignment]
        **{key: value for key, value in known.items() if not key.startswith("test_")},
        **{key: image[key] for key in ("mean", "std", "interpolation")},
        "input_size": (len(image["mean"]), image["height"], image["width"]),
        "crop_pct": 1.0,
    }
    config = {"num_classes": len(classes), "label_names": classes}
    timm.models.save_for_hf(
        plain, str(folder), model_config=config, model_args=options, safe_serialization=True
    )
    stored: nn.Module = timm.create_model(
        f"local-dir:{folder}", pretrained=True, num_classes=len(classes)
    )
    return stored.eval()


class _OfDomain(nn.Module):
    def __init__(self, model: backbones.DomainModel, domain: str) -> None:
        super().__init__()
        self.model, self.domain = model, domain

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(image, self.domain)
        return logits
