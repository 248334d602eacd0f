"""Save a domain of a run as a pack, show a pack, check that it fits a run."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from domainnorm import backbones, run
from domainnorm.cli.parser import Parser
from domainnorm.errors import RecipeError

ACTIONS = {
    "save": "RUN DOMAIN [FILE]",
    "show": "FILE",
    "check": "RUN FILE",
}


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    forms = "; ".join(f"{action} {words}" for action, words in ACTIONS.items())
    parser.add_argument("action", choices=ACTIONS, help=f"one of: {forms}")
    text = "RUN is the folder of a run or of one of its stages, FILE a .safetensors file"
    parser.add_argument("words", nargs="*", metavar="...", help=text)


def execute(arguments: Namespace) -> int:
    """Carry out one of the actions."""
    action, words = arguments.action, arguments.words
    expected = ACTIONS[action].split()
    optional = expected[-1].startswith("[")
    if not len(expected) - optional <= len(words) <= len(expected):
        got = " ".join(words) or "nothing"
        raise RecipeError([f"got {got}, expected {ACTIONS[action]}"], f"domainnorm pack {action}")
    carry_out: dict[str, Callable[..., None]] = {"save": _save, "show": _show, "check": _check}
    carry_out[action](*words)
    return 0


def _save(folder: str, domain: str, file: str | None = None) -> None:
    path = Path(file or f"{domain}.safetensors")
    stored = run.load_stored(Path(folder))
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
    model = run.load_stored(Path(folder)).model
    header, _ = backbones.read_pack(model, file)
    print(f"ok  {file}: domain '{header.domain}' fits {folder}")


def _size(number: int) -> str:
    return f"{number / 1000:.1f} kB"
