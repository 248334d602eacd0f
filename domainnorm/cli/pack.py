"""Save a domain of a run as a pack, show a pack, check that it fits a run."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from domainnorm import backbones, serve
from domainnorm.cli.parser import Action, Parser
from domainnorm.errors import RecipeError

_RUN = "RUN is the folder of a run or of one of its stages"
ACTIONS = {
    "save": Action(
        f"Save all that a domain owns. {_RUN}, FILE the pack, DOMAIN.safetensors if left out.",
        "RUN DOMAIN [FILE]",
    ),
    "show": Action("Show whose domain a pack holds, and what it fits.", "FILE"),
    "check": Action(f"Check that a pack fits the model of a run. {_RUN}.", "RUN FILE"),
}


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    parser.add_actions(ACTIONS)


def execute(arguments: Namespace) -> int:
    """Carry out one of the actions."""
    action, words = arguments.action, arguments.words
    form = ACTIONS[action].form
    expected = form.split()
    optional = expected[-1].startswith("[")
    if not len(expected) - optional <= len(words) <= len(expected):
        got = " ".join(words) or "nothing"
        raise RecipeError([f"got {got}, expected {form}"], f"domainnorm pack {action}")
    carry_out: dict[str, Callable[..., None]] = {"save": _save, "show": _show, "check": _check}
    carry_out[action](*words)
    return 0


def _save(folder: str, domain: str, file: str | None = None) -> None:
    path = Path(file or f"{domain}.safetensors")
    stored = serve.load_stored(Path(folder))
    backbones.save_domain(stored.model, domain, path)
    print(f"{path}: {_size(path.stat().st_size)}, of {stored.place}")


def _show(file: str) -> None:
    header, tensors = backbones.read_pack_header(file)
    norms = Counter(norm.partition(" ")[0] for norm in header.layers.values())
    weights = ", ".join(f"{part} {digest[:12]}" for part, digest in header.shared.items())
    lines = {
        "domain": header.domain,
        "backbone": header.backbone or "not timm's",
        "norms": ", ".join(f"{number} {norm}" for norm, number in norms.items()),
        "tensors": f"{len(tensors)}, {_size(Path(file).stat().st_size)}",
        "shared weights": weights,
        "made with": f"domainnorm {header.made_with}",
    }
    for name, value in lines.items():
        print(f"{name:<15} {value}")


def _check(folder: str, file: str) -> None:
    model = serve.load_stored(Path(folder)).model
    header, _ = backbones.read_pack(model, file)
    print(f"ok  {file}: domain '{header.domain}' fits {folder}")


def _size(number: int) -> str:
    return f"{number / 1000:.1f} kB"
