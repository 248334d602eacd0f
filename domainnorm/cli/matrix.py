"""Measure every domain under every domain's model or norms."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from domainnorm import recipe, run
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

    def start(loaded: recipe.Recipe, output: Path) -> Path:
        # Looked up here: a bad recipe is answered before torch is imported.
        return run.run_matrix(loaded, output, arguments.kind)

    return carry_out("matrix", arguments, start)
