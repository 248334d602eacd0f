"""Measure every domain under every domain's model or norms."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from domainnorm import run
from domainnorm.cli.parser import Parser
from domainnorm.cli.training import add_training, carry_out

KINDS = {
    "models": "one fine-tuned model per domain, every model on every domain",
    "norms": "one multi-domain model, every domain's data under every domain's norms",
    "both": "the two of them",
}


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    add_training(parser)
    text = "; ".join(f"{kind}: {meaning}" for kind, meaning in KINDS.items())
    parser.add_argument("--kind", choices=KINDS, default="both", help=f"{text} (default)")


def execute(arguments: Namespace) -> int:
    """Train the models of the matrix and test them."""
    return carry_out("matrix", arguments, partial(run.run_matrix, kind=arguments.kind))
