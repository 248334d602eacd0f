"""A model as a program without its Python: an ONNX file or a torch.export archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from domainnorm.backbones.model import DomainModel
from domainnorm.errors import ExportError

Program: TypeAlias = Callable[..., Tensor]
# What tracing sees; 1 would be taken for a size that broadcasts, and 3 channels for 3 images.
_TRACED_BATCH = 5
_BATCHES = (1, 2, 7)


def export_onnx(
    network: nn.Module, size: tuple[int, int, int], path: Path, notes: Mapping[str, str]
) -> None:
    """Write an ONNX file with inputs ``image`` and, for a `DomainModel`, ``domain``.

    Args:
        network: In evaluation mode, on the CPU; a `DomainModel`, or a plain network.
        size: (C, H, W) of the images; any number of them is served.
        path: File to write; weights of more than 2 GB go into a file beside it.
        notes: Stored in the file's metadata.

    Shape:
        ``image`` (N, C, H, W) float32, ``domain`` (N,) int64, ``logits`` (N, K) float32.

    Raises:
        ExportError: The packages of ``domainnorm[export]`` are missing, or the network has
            operations that ONNX cannot express.
        ConditionError: The norms need more than the domain of each image.
    """
    _require("onnx", "onnxscript", "onnxruntime")
    served, inputs, shapes = _prepared(network, size)
    try:
        program = torch.onnx.export(
            served,
            inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["image", "domain"][: len(inputs)],
            output_names=["logits"],
            verbose=False,
        )
    except RuntimeError as error:
        raise ExportError(_refusal("ONNX", network, error)) from error
    assert program is not None
    program.model.metadata_props.update(notes)
    program.save(str(path))


def export_program(
    network: nn.Module, size: tuple[int, int, int], path: Path, notes: Mapping[str, str]
) -> None:
    """Write an archive for `torch.export.load`, whose module takes ``(image, domain)``.

    Args:
        network: See `export_onnx`.
        size: See `export_onnx`.
        path: File to write.
        notes: Stored in the archive as extra files.

    Raises:
        ExportError: The network has operations that cannot be traced.
        ConditionError: The norms need more than the domain of each image.
    """
    served, inputs, shapes = _prepared(network, size)
    try:
        program = torch.export.export(served, inputs, dynamic_shapes=shapes, strict=False)
    except (RuntimeError, ValueError) as error:
        raise ExportError(_refusal("torch.export", network, error)) from error
    torch.export.save(program, path, extra_files=dict(notes))


def load_onnx(path: Path) -> Program:
    """The program in an ONNX file, run by onnxruntime on the CPU: tensors in, logits out."""
    _require("onnxruntime")
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(np.asarray(session.run(None, given)[0]))

    return run


def load_program(path: Path) -> Program:
    """The program in an archive of `export_program`."""
    module: Program = torch.export.load(path).module()
    return module


@torch.no_grad()
def largest_difference(
    program: Program, network: nn.Module, size: tuple[int, int, int], num_domains: int | None
) -> float:
    """How far the outputs of a program are from those of the network, at most.

    Batches of several sizes, of images of Gaussian noise; their labels go through all domains.

    Args:
        program: Takes images and labels, or images alone.
        network: What it was made from, in evaluation mode.
        size: (C, H, W).
        num_domains: D; None where no labels are given.

    Returns:
        ``max |program - network|`` as a fraction of the largest logit, or of 1 where all are
        smaller; infinite where values are not finite.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for number in (*_BATCHES, *([] if num_domains is None else [num_domains + 1])):
        inputs = [torch.randn(number, *size, generator=generator)]
        if num_domains is not None:
            inputs.append((torch.arange(number) + number) % num_domains)
        found, wanted = program(*inputs), network(*inputs)
        apart = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1)
        worst = max(worst, float(apart) if bool(apart.isfinite()) else torch.inf)
    return worst


class _Labelled(nn.Module):
    """Makes labels below zero fail: ONNX's Gather would count them from the last domain on."""

    def __init__(self, model: DomainModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, domain: Tensor) -> Tensor:
        logits: Tensor = self.model(image, torch.where(domain < 0, self.model.num_domains, domain))
        return logits


def _prepared(
    network: nn.Module, size: tuple[int, int, int]
) -> tuple[nn.Module, tuple[Tensor, ...], tuple[dict[int, object], ...]]:
    inputs: tuple[Tensor, ...] = (torch.zeros(_TRACED_BATCH, *size),)
    if isinstance(network, DomainModel):
        inputs += (torch.zeros(_TRACED_BATCH, dtype=torch.long),)
    with torch.no_grad():
        network(*inputs)  # what the network itself refuses is better said by it than by a tracer
    served = _Labelled(network) if isinstance(network, DomainModel) else network
    return served.eval(), inputs, tuple({0: Dim.DYNAMIC} for _ in inputs)


def _require(*packages: str) -> None:
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ExportError(
                f"the format onnx needs the package {package}, which is not installed; "
                "pip install 'domainnorm[export]', or take the format torch_export"
            ) from error


def _refusal(target: str, network: nn.Module, error: Exception) -> str:
    network = network.backbone if isinstance(network, DomainModel) else network
    # The ONNX exporter wraps what tracing said in several lines of general advice.
    cause = error.__cause__ or error
    reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return f"{type(network).__name__} cannot be exported to {target}: {reason}"
