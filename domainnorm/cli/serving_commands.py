"""Commands on a finished run: predictions, streams, exported files, domain packs."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from domainnorm import backbones, serve
from domainnorm.cli.parser import Action, Command, Parser, given
from domainnorm.cli.program import INTERRUPTED, TERMINATED, Terminated, ended_like_ctrl_c
from domainnorm.errors import RecipeError, counted
from domainnorm.terminal import say

_ROWS = 20
_BY = {
    "told": "told",
    "only": "the only one",
    "estimate": "estimated",
    "mixture": "estimated, mixed by weight",
    "nearest": "nearest by moments",
    "mean": "the mean of all domains",
    "batch": "statistics of the batch",
}
FORMATS = {
    "onnx": "a file for onnxruntime and others, with the domain as an input",
    "torch_export": "an archive for torch.export.load, with the domain as an input",
    "timm": "weights of one domain for timm.create_model",
}
_RUN = "RUN is the folder of a run or of one of its stages"
ACTIONS = {
    "save": Action(
        f"Save the parameters and moments of one domain. {_RUN}. FILE is the pack (default: "
        "DOMAIN.safetensors).",
        "RUN DOMAIN [FILE]",
    ),
    "show": Action("Show the domain of a pack, and the network that it fits.", "FILE"),
    "check": Action(f"Check that a pack fits the model of a run. {_RUN}.", "RUN FILE"),
}


def _configure_predict(parser: Parser) -> None:
    text = "folder of a run, or of one of its stages"
    parser.add_argument("folder", type=Path, metavar="RUN", help=text)
    text = (
        "an image; a folder of images with its subfolders; a text file with a path per line; or a "
        "table with the column image, and optionally domain and attributes (for runs on medical "
        "formats: DICOM files, NIfTI volumes)"
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help=text)
    text = (
        "folder for table, masks and figure (default: STAGE/predictions/IMAGES). A new prediction "
        "of the same images replaces the old one when it is complete. A folder with anything else "
        "is refused"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    parser.add_fields(serve.PredictOptions)


def _predict(arguments: Namespace) -> int:
    """Predict the images and say what was predicted."""
    options = given(serve.PredictOptions, arguments)
    try:
        with ended_like_ctrl_c():
            done = serve.predict_run(arguments.folder, arguments.images, arguments.output, options)
    except KeyboardInterrupt as error:
        return _stopped(error, "interrupted; nothing was written, earlier predictions stay")
    _say(done)
    return 0


def _stopped(error: KeyboardInterrupt, told: str) -> int:
    """Say what became of it, and give the exit code."""
    say(told, error=True)
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED


def _say(done: serve.Predicted) -> None:
    failed = len(done.unreadable)
    skipped = f", {failed} of them unreadable and skipped" if failed else ""
    say(f"{counted(done.images, 'image')}{skipped}")
    if done.unused:
        say(f"unused columns: {', '.join(done.unused)}")
    say("mean share of pixels:" if done.masks else "predicted:")
    found = {name: value for name, value in done.classes.items() if value}
    for name in sorted(found, key=lambda name: -found[name])[:_ROWS]:
        say(f"  {name}  {found[name]:.3f}" if done.masks else f"  {name}  {found[name]:.0f}")
    if len(found) > _ROWS:
        say(f"  and {len(found) - _ROWS} further classes")
    ways = ", ".join(f"{_BY[way]} ({number})" for way, number in done.by.items())
    if ways:
        say(f"domain: {ways}")
    for name, number in done.domains.items():
        say(f"  {name}  {number}")
    if done.unlike is not None:
        say(f"  near no known domain, by the encoder: {counted(done.unlike, 'image')}")
    if done.online:
        say(
            f"the model is in its last state under '{done.online}' and adapts no more; to adapt "
            f"further: domainnorm adapt RUN --stream FOLDER method={done.online}"
        )
    say(f"predictions: {done.folder}")


def _configure_adapt(parser: Parser) -> None:
    text = "folder of a run, or of one of its stages"
    parser.add_argument("folder", type=Path, metavar="RUN", help=text)
    text = (
        "a method that adapts while it predicts, such as method=neo method.memory=500. All images "
        "belong to one domain, unless method.rows=opened. Without method and --domain, the method "
        "is 'online': the run's encoder estimates domains, and new ones are opened"
    )
    parser.add_argument("overrides", nargs="*", metavar="method=NAME", help=text)
    text = (
        "a folder of images (or DICOM files), read in the order of their names; a text file with a "
        "path per line; or a table with the column image"
    )
    parser.add_argument("--stream", type=Path, required=True, metavar="FOLDER", help=text)
    text = (
        "folder for log, masks, timeline and packs (default: STAGE/adapt/FOLDER). The same command "
        "continues where it stopped"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    parser.add_fields(serve.StreamOptions)


def _adapt(arguments: Namespace) -> int:
    """Follow the stream and say what it showed."""
    options = given(serve.StreamOptions, arguments)
    try:
        given_to = arguments.folder, arguments.stream, arguments.output, options
        done = serve.adapt_run(*given_to, arguments.overrides)
    except KeyboardInterrupt:
        say("interrupted; the same command continues")
        return INTERRUPTED
    skipped = f", {done.passed_over} of them skipped" if done.passed_over else ""
    say(f"{counted(done.images, 'image')}{skipped}")
    for name, number in done.domains.items():
        opened = f"  (opened at image {done.opened[name]})" if name in done.opened else ""
        say(f"  {name}  {number}{opened}")
    packs = ", packs" if done.opened else ""
    say(f"log, timeline{packs}: {done.folder}")
    return 0


def _configure_translate(parser: Parser) -> None:
    _configure_images(parser, "translation", "translations/IMAGES-DOMAIN")
    parser.add_fields(serve.TranslateOptions)


def _configure_restore(parser: Parser) -> None:
    _configure_images(parser, "restoration", "restored/IMAGES[-DOMAIN]")
    parser.add_fields(serve.RestoreOptions)


def _configure_images(parser: Parser, task: str, place: str) -> None:
    """Arguments of commands that write images, by runs of a task, to a place in the stage."""
    text = f"folder of a run of task {task}, or of one of its stages"
    parser.add_argument("folder", type=Path, metavar="RUN", help=text)
    text = "folder of images, searched below as well; text file with a path per line; or an image"
    parser.add_argument("images", type=Path, metavar="IMAGES", help=text)
    text = f"where images and sheets go (default: STAGE/{place}); empty or new"
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)


def _translate(arguments: Namespace) -> int:
    """Translate the images and say where they are."""
    options = given(serve.TranslateOptions, arguments)
    return _write(serve.translate_run, arguments, options)


def _restore(arguments: Namespace) -> int:
    """Restore the images and say where they are."""
    return _write(serve.restore_run, arguments, given(serve.RestoreOptions, arguments))


def _write(make: Callable[..., serve.Translated], arguments: Namespace, options: object) -> int:
    try:
        with ended_like_ctrl_c():
            done = make(arguments.folder, arguments.images, options, arguments.output)
    except KeyboardInterrupt as error:
        return _stopped(error, "interrupted; nothing was written")
    renamed = f", {done.renamed} of them as PNG, which loses nothing" if done.renamed else ""
    say(f"{counted(done.images, 'image')}{renamed}: {done.folder}")
    say(f"{'sheets' if len(done.figures) > 1 else 'sheet'}: {', '.join(done.figures)}")
    if done.seams:
        say(
            "each tile was normalized by its own moments, so that neighbours may differ; for large "
            "images train with norm: tin, whose tiles share those of a small copy"
        )
    return 0


def _configure_generate(parser: Parser) -> None:
    text = "folder of a run of task generation, or of one of its stages"
    parser.add_argument("folder", type=Path, metavar="RUN", help=text)
    text = "where images and a sheet go (default: STAGE/generated/seedSEED); empty or new"
    parser.add_argument("--output", type=Path, metavar="DIR", help=text)
    parser.add_fields(serve.GenerateOptions)


def _generate(arguments: Namespace) -> int:
    """Make the images and say where they are."""
    options = given(serve.GenerateOptions, arguments)
    try:
        with ended_like_ctrl_c():
            done = serve.generate_run(arguments.folder, options, arguments.output)
    except KeyboardInterrupt as error:
        return _stopped(error, "interrupted; nothing was written")
    say(f"{counted(done.images, 'image')}: {done.folder}")
    classes = f"; classes: {', '.join(done.classes)}" if done.classes else ""
    say(f"domains: {', '.join(done.domains)}{classes}")
    return 0


def _configure_export(parser: Parser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder of a run")
    text = "; ".join(f"{name}: {meaning}" for name, meaning in FORMATS.items())
    parser.add_argument("--format", choices=FORMATS, required=True, help=text)
    text = "fold this domain's norms into the network; the program then takes only images"
    parser.add_argument("--domain", metavar="NAME", help=text)
    text = "stages/<transfer>/seed<n>/<method>, or the end of it; needed if the run has several"
    parser.add_argument("--stage", metavar="STAGE", help=text)
    text = "folder for the files (default: RUN_FOLDER/STAGE/export/FORMAT[-DOMAIN])"
    parser.add_argument("--out", "--output", type=Path, metavar="DIR", help=text)
    text = (
        "largest accepted difference from the model, as a fraction of the largest logit (default: "
        "%(default)s)"
    )
    parser.add_argument("--tolerance", type=_positive, default=1e-4, metavar="X", help=text)


def _export(arguments: Namespace) -> int:
    """Write the files and say how far the outputs are from those of the model."""
    done = serve.export_run(
        arguments.folder,
        arguments.format,
        domain=arguments.domain,
        stage=arguments.stage,
        output=arguments.out,
        tolerance=arguments.tolerance,
    )
    say(f"{done.stage}: largest difference {done.difference:.1e} of the largest logit")
    say(f"exported to {done.folder}")
    return 0


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"got '{text}', expected a positive number")
    return value


def _pack(arguments: Namespace) -> int:
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
    say(f"{path}: {_size(path.stat().st_size)}, of {stored.place}")


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
        say(f"{name:<15} {value}")


def _check(folder: str, file: str) -> None:
    model = serve.load_stored(Path(folder)).model
    header, _ = backbones.read_pack(model, file)
    say(f"ok  {file}: domain '{header.domain}' fits {folder}")


def _size(number: int) -> str:
    return f"{number / 1000:.1f} kB"


COMMANDS = {
    "predict": Command(
        "Predict images with the model of a run; write a table, masks and a figure.",
        _configure_predict,
        _predict,
    ),
    "adapt": Command(
        "Adapt the model of a run to a stream of images, and open new domains.",
        _configure_adapt,
        _adapt,
    ),
    "translate": Command(
        "Give images the style of a domain with a run of task translation, and show some.",
        _configure_translate,
        _translate,
    ),
    "restore": Command(
        "Give images back lost detail with a run of task restoration, and show some.",
        _configure_restore,
        _restore,
    ),
    "generate": Command(
        "Make images of classes and domains with a run of task generation, and show some.",
        _configure_generate,
        _generate,
    ),
    "export": Command(
        "Export the model of a run as ONNX, torch.export or timm weights, and check it.",
        _configure_export,
        _export,
    ),
    "pack": Command(
        "Save a domain of a run as a pack, show a pack, check whether it fits a run.",
        lambda parser: parser.add_actions(ACTIONS),
        _pack,
    ),
}
