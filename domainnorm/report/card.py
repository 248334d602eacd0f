"""Card of an exported model: what it is, what it was measured to do, how to load it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from domainnorm.data.images import WHITE
from domainnorm.report.results import Result

_METRICS = (
    *("balanced_accuracy", "accuracy", "macro_f1", "ece"),
    *("miou", "dice", "pixel_accuracy", "boundary_iou"),
    *("auroc", "average_precision"),
    *("style_accuracy", "look_accuracy", "distance", "round_trip_ssim"),
    *("psnr", "psnr_input", "ssim", "ssim_input"),
)
# What the norms got in the tests of a run, by the recipe's condition.
_UNDER = {
    "id": "its own norms",
    "estimate": "the norms of the domain that an encoder estimated for each",
    "id_or_estimate": "its own norms, or those estimated where the encoder had no images of it",
    "mixture": "the mixture of all norms that an encoder estimated for each",
    "embedding": "norms that follow each image",
}
_KINDS = {
    "classification": "An image classifier",
    "segmentation": "A segmentation network",
    "multilabel": "A classifier of findings",
    "translation": "A network that gives images the style of a domain",
    "restoration": "A network that restores images",
}
# What comes out where images do.
_IMAGES = {
    "translation": "Outputs are images, normalized as the input is; the domain is the one asked "
    "for.",
    "restoration": "Outputs are images, from 0, black, to 1, white.",
}
_LICENCE = (
    "## Licence\n\n"
    "*To be filled in by whoever publishes this file. The licences of the training images and of "
    "the pretrained weights may limit it.*"
)
_LOADING = {
    "onnx": """\
import json, onnxruntime

session = onnxruntime.InferenceSession("{file}")
about = json.loads(session.get_modelmeta().custom_metadata_map["domainnorm"])
logits = session.run(None, {onnx_inputs})[0]""",
    "torch_export": """\
import torch

model = torch.export.load("{file}").module()
logits = model({inputs})""",
    "timm": """\
import timm
from safetensors.torch import load_file

model = timm.create_model("{backbone}", num_classes={num_classes}{options}).eval()
model.load_state_dict(load_file("{file}"))
logits = model({inputs})""",
}


def model_card(
    about: Mapping[str, Any], results: Sequence[Result], counts: Mapping[str, int]
) -> str:
    """The card in Markdown; the licence is left to whoever publishes the model.

    Args:
        about: Description of the exported model, the content of its ``model.json``.
        results: What the exported stage measured, one result per domain.
        counts: Domain → number of test images.
    """
    sections = (_head(about), _domains(about, results, counts), _input(about), _loading(about))
    return "\n\n".join((*sections, _origin(about), _LICENCE)) + "\n"


def _head(about: Mapping[str, Any]) -> str:
    served = (
        f"the domain `{about['domain']}`" if about["domain"] else _listed(about["domain_names"])
    )
    classes = f" for {len(about['class_names'])} classes"
    outputs = f"Classes, in the order of the logits: {_listed(about['class_names'])}."
    if about["task"] in _IMAGES:
        classes, outputs = "", _IMAGES[about["task"]]
    return (
        f"# {about['recipe']}: {about['backbone']}\n\n"
        f"{_KINDS[about['task']]}{classes} on {served}, "
        f"fitted with the method `{about['method']}`"
        + (" (which saw labels of the target)" if about["supervised"] else "")
        + f".\n\n{outputs}"
    )


def _domains(about: Mapping[str, Any], results: Sequence[Result], counts: Mapping[str, int]) -> str:
    shown = [name for name in _METRICS if any(name in result.metrics for result in results)]
    lines = [
        "## Domains and measured accuracy",
        "",
        f"| label | domain | role | test images | {' | '.join(shown)} |",
        "|---:|---|---|---:|" + "---:|" * len(shown),
    ]
    for result in results:
        label = about["domain_names"].index(result.domain)
        cells = " | ".join(_cell(result, metric) for metric in shown)
        lines.append(
            f"| {label} | {result.domain} | {result.role} | {counts.get(result.domain, '')} "
            f"| {cells} |"
        )
    seed = f"one seed ({results[0].seed})" if results else "no seed"
    notes = [
        f"Each domain's test images under {_UNDER[about['condition']]}; {seed}; in brackets "
        "bootstrap intervals over the test images."
    ]
    if about["condition"] not in ("id", "embedding"):
        notes.append("The file does not estimate domains, its numbers under the true ones differ.")
    if about["domain"]:
        notes.append(f"The file holds the norms of `{about['domain']}` alone.")
    return "\n".join([*lines, "", " ".join(notes)])


def _cell(result: Result, metric: str) -> str:
    value = result.metrics.get(metric, math.nan)
    low, high = result.intervals.get(metric, (math.nan, math.nan))
    if math.isnan(value):
        return "n/a"
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _of_16_bits(white: int | None) -> list[str]:
    """A line about files of 16 bits, where they do not use them all."""
    if white is None:
        return ["- Files of 16 bits: the parts of the training data were scaled differently."]
    return [] if white == WHITE else [f"- Files of 16 bits: {white} and more is shown as white."]


def _input(about: Mapping[str, Any]) -> str:
    image = about["preprocessing"]
    whole = (image["height"], image["width"])
    height, width = image["crop"] or whole
    window = (
        f"- It is a window of the image, which is {whole[0]} × {whole[1]} pixels after resizing; "
        "blend the logits where windows overlap."
    )
    lines = [
        "## Input",
        "",
        f"- `image`: (N, {len(image['mean'])}, {height}, {width}), float32, "
        + ("RGB." if len(image["mean"]) == 3 else "the brightness of the colours."),
        *([] if (height, width) == whole else [window]),
        f"- Resizing: {image['resize']}",
        *_of_16_bits(image.get("white")),
        f"- Normalization: (x / 255 - mean) / std, mean {image['mean']}, std {image['std']}.",
    ]
    if about["domain"] is None:
        labels = ", ".join(f"{label} {name}" for label, name in enumerate(about["domain_names"]))
        lines.append(f"- `domain`: (N,), int64, the label of each image's domain: {labels}.")
    return "\n".join(lines)


def _loading(about: Mapping[str, Any]) -> str:
    labelled = about["domain"] is None
    options = "".join(f", {key}={value!r}" for key, value in about["backbone_options"].items())
    code = _LOADING[about["format"]].format(
        file=about["file"],
        backbone=about["backbone"],
        num_classes=len(about["class_names"]),
        options=options,
        inputs="image, domain" if labelled else "image",
        onnx_inputs='{"image": image, "domain": domain}' if labelled else '{"image": image}',
    )
    return f"## Loading\n\n```python\n{code}\n```"


def _origin(about: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    start = "pretrained weights of timm" if about["pretrained"] else "random weights"
    return "\n".join(
        (
            "## Origin",
            "",
            f"- Data: dataset `{about['dataset']}`, source {_listed(about['source'])}, "
            f"target {_listed(about['target']) or 'none'}.",
            f"- Backbone: `{about['backbone']}` of timm, from {start}; norm: "
            f"`{json.dumps(about['norm'])}`.",
            f"- Run: recipe `{about['recipe']}`, `{about['stage']}`.",
            f"- Exported with {packages}; outputs differ from those of the model by "
            f"{about['largest_difference']:.1e} of the largest logit at most.",
        )
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
