"""Export the model of a run as ONNX, torch.export or timm weights, and check the file."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from domainnorm import serve
from domainnorm.cli.parser import Parser

FORMATS = {
    "onnx": "a file for onnxruntime and others, with the domain as an input",
    "torch_export": "an archive for torch.export.load, likewise",
    "timm": "weights of one domain for timm.create_model",
}


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder a run has left")
    text = "; ".join(f"{name}: {meaning}" for name, meaning in FORMATS.items())
    parser.add_argument("--format", choices=FORMATS, required=True, help=text)
    text = "fold this domain's norms into the network; its program takes images alone"
    parser.add_argument("--domain", metavar="NAME", help=text)
    text = "stages/<transfer>/seed<n>/<method>, needed when several could be meant"
    parser.add_argument("--stage", metavar="STAGE", help=text)
    text = "where the files go (default: RUN_FOLDER/STAGE/export/FORMAT[-DOMAIN])"
    parser.add_argument("--out", "--output", type=Path, metavar="DIR", help=text)
    text = "largest difference from the model, as a fraction of the largest logit (%(default)s)"
    parser.add_argument("--tolerance", type=_positive, default=1e-4, metavar="X", help=text)


def execute(arguments: Namespace) -> int:
    """Write the files and say how far the outputs are from those of the model."""
    done = serve.export_run(
        arguments.folder,
        arguments.format,
        domain=arguments.domain,
        stage=arguments.stage,
        output=arguments.out,
        tolerance=arguments.tolerance,
    )
    print(f"{done.stage}: largest difference {done.difference:.1e} of the largest logit")
    print(f"exported to {done.folder}")
    return 0


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"got '{text}', expected a positive number")
    return value
