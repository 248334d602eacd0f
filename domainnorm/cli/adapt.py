"""Follow a stream of images with the model of a run, and open domains it does not know."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from pathlib import Path

from domainnorm import serve
from domainnorm.cli.parser import Parser
from domainnorm.cli.training import INTERRUPTED
from domainnorm.errors import counted


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    text = "folder of a run with an encoder, or of one of its stages"
    parser.add_argument("folder", type=Path, metavar="RUN", help=text)
    text = (
        "folder of images (DICOM files for runs of such data), taken in the order of their names, "
        "a text file with a path per line, or a table with the column image"
    )
    parser.add_argument("--stream", type=Path, required=True, metavar="FOLDER", help=text)
    text = (
        "where log, masks, timeline and packs go (default: STAGE/adapt/FOLDER); the same command "
    )
    text += "again goes on where it stopped"
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    options = {
        "batch-size": (int, "images that are predicted together"),
        "run-length": (float, "images between false alarms, in expectation"),
        "max-domains": (int, "how many domains may be opened"),
        "share": (float, "largest part of the stream's moments in those of a new domain"),
        "prior": (float, "images of a new domain after which half of that part is reached"),
        "depth": (float, "part of the norm layers, from the input on, that take on such moments"),
        "lr": (float, "of entropy minimization in new domains; 0: statistics alone"),
        "white": (int, "value of 16-bit files that is shown as white; as in training if left out"),
    }
    defaults = serve.StreamOptions()
    for name, (kind, text) in options.items():
        default = getattr(defaults, name.replace("-", "_"))
        shown = text if default is None else f"{text} (%(default)s)"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="X", help=shown)


def execute(arguments: Namespace) -> int:
    """Follow the stream and say what it showed."""
    names = (field.name for field in fields(serve.StreamOptions))
    options = serve.StreamOptions(**{name: getattr(arguments, name) for name in names})
    try:
        done = serve.adapt_run(arguments.folder, arguments.stream, arguments.output, options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on")
        return INTERRUPTED
    skipped = f", {done.passed_over} of them passed over" if done.passed_over else ""
    print(f"{counted(done.images, 'image')}{skipped}")
    for name, number in done.domains.items():
        opened = f"  (opened at image {done.opened[name]})" if name in done.opened else ""
        print(f"  {name}  {number}{opened}")
    packs = ", packs" if done.opened else ""
    print(f"log, timeline{packs}: {done.folder}")
    return 0
