"""Predict images with the model of a run: a table, masks and a figure."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import get_args

from domainnorm import serve
from domainnorm.cli.parser import Parser
from domainnorm.cli.training import INTERRUPTED, TERMINATED, Terminated, ended_like_ctrl_c
from domainnorm.errors import counted
from domainnorm.ranges import Far, Unseen

_ROWS = 20
_BY = {
    "told": "told",
    "only": "the only one",
    "estimate": "estimated",
    "mixture": "estimated, mixed by weight",
    "nearest": "nearest by its moments",
    "mean": "the mean of all domains",
    "batch": "statistics of the batch",
}


def configure(parser: Parser) -> None:
    """Add the arguments of the command."""
    text = "folder of a run, or of one of its stages"
    parser.add_argument("folder", type=Path, metavar="RUN", help=text)
    text = (
        "folder of images, searched below as well; text file with a path per line; table with the "
        "column image, and if wanted domain and attributes; or an image (DICOM files and NIfTI "
        "volumes for runs of such data)"
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help=text)
    text = (
        "where table, masks and figure go (default: STAGE/predictions/IMAGES); an earlier "
        "prediction of the same images is replaced when the new one is complete, anything else "
        "that is there is refused"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    text = "the known domain that all images are of"
    parser.add_argument("--domain", metavar="NAME", help=text)
    text = (
        "what stands for a domain that is not told: estimate or mixture, by the encoder; nearest, "
        "by moments; mean of all; batch, statistics of the images predicted together (default: "
        "condition of the recipe where that is an estimate, else its unseen)"
    )
    parser.add_argument("--unseen", choices=get_args(Unseen), help=text)
    text = "what stands for an estimate near no known domain (default: far of the recipe)"
    parser.add_argument("--far", choices=get_args(Far), help=text)
    text = "images that are predicted together (default: data.eval_batch_size of the recipe)"
    parser.add_argument("--batch-size", type=int, metavar="N", help=text)
    text = "value of 16-bit files that is shown as white; as in training if left out"
    parser.add_argument("--white", type=int, metavar="V", help=text)


def execute(arguments: Namespace) -> int:
    """Predict the images and say what was predicted."""
    options = serve.PredictOptions(
        arguments.domain,
        arguments.unseen,
        arguments.far,
        arguments.batch_size,
        arguments.white,
    )
    try:
        with ended_like_ctrl_c():
            done = serve.predict_run(arguments.folder, arguments.images, arguments.output, options)
    except KeyboardInterrupt as error:
        print("interrupted; nothing was written, earlier predictions stay", file=sys.stderr)
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    _print(done)
    return 0


def _print(done: serve.Predicted) -> None:
    failed = len(done.unreadable)
    skipped = f", {failed} of them unreadable and passed over" if failed else ""
    print(f"{counted(done.images, 'image')}{skipped}")
    if done.unused:
        print(f"columns that nothing reads: {', '.join(done.unused)}")
    print("mean share of pixels:" if done.masks else "predicted:")
    found = {name: value for name, value in done.classes.items() if value}
    for name in sorted(found, key=lambda name: -found[name])[:_ROWS]:
        print(f"  {name}  {found[name]:.3f}" if done.masks else f"  {name}  {found[name]:.0f}")
    if len(found) > _ROWS:
        print(f"  and {len(found) - _ROWS} further classes")
    ways = ", ".join(f"{_BY[way]} ({number})" for way, number in done.by.items())
    if ways:
        print(f"domain: {ways}")
    for name, number in done.domains.items():
        print(f"  {name}  {number}")
    if done.unlike is not None:
        print(f"  of no known domain, by the encoder: {counted(done.unlike, 'image')}")
    print(f"predictions: {done.folder}")
