"""Damaged files of a finished run: ``python -m tests.fuzz.files --seed 0 --count 100``.

One tiny run is made, and one that was cut off. Of each kind of file in their folders ``count``
copies are damaged: bytes as in `tests.fuzz.images`, the content of another file, or values changed
in a container that is whole. What may come of reading them: the same content, a `DomainNormError`
that names the file, or other content where nothing speaks against it. Anything else is a fault:
another exception, a model that a refused file has changed, tensors that are not those of their
digest, code that is executed.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save

from domainnorm import report
from domainnorm.backbones import load_domain, load_model
from domainnorm.errors import DomainNormError
from domainnorm.evaluation import load_evaluated
from domainnorm.run import write_page
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import read_folder
from domainnorm.run.stage import check_unchanged, made_of, run_stage, set_up
from domainnorm.run.training import fit
from domainnorm.serve import load_stored
from tests.fuzz.command import parser_of, tabulate
from tests.fuzz.images import damaged
from tests.fuzz.recipes import CHANGES, MARKER
from tests.run.test_resume import Cut, PowerCutError, stages_of
from tests.run.tiny import TRANSFER, figures, run

Read = Callable[[Path], Any]
_WORDS = (
    "encoder=style",
    "method=adabn",
    "compare=[]",
    "data.batch_size=8",
    "trainer.max_epochs=2",
)
_CHOSEN = "evaluation.selection=validation"
_STAGE = f"{TRANSFER}/seed0/source_only"
_BYTES, _VALUES = "bytes", "values"


class Kind(NamedTuple):
    """A file of a run, or of one that was cut off, what reads it, and damages a digest shows."""

    file: str
    read: Read
    digest: tuple[str, ...] = ()
    cut: bool = False


class Runs(NamedTuple):
    """The folders of a finished run and of one that was cut off, and the parts of each."""

    finished: Path
    parts: Parts
    cut: Path
    cut_parts: Parts


def make_runs(place: Path) -> Runs:
    """Two tiny runs."""
    finished = run(place / "finished", *_WORDS)
    parts, cut, (stage,) = stages_of(place / "cut", "source_only", *_WORDS[3:], _CHOSEN)
    check_unchanged(cut / stage.key, made_of(parts, stage), finished=False)
    bench = set_up(parts, stage, cut)
    bench.trainer.callbacks.insert(0, Cut("on_train_epoch_start", 1))
    try:
        fit(bench.trainer, bench.method, bench.data, parts.recipe)
    except PowerCutError:
        return Runs(finished, Parts(read_folder(finished)[0]), cut, parts)
    raise AssertionError("it was not cut off")


def kinds(runs: Runs) -> list[Kind]:
    """Every file that something reads again, with what reads it."""
    stored = load_stored(runs.finished / _STAGE).model
    first = plan_stages(runs.parts.recipe)[0]

    def results(folder: Path) -> Any:
        found = run_stage(runs.parts, first, folder)
        tables = report.results_markdown(found, runs.parts.metric)
        report.results_csv(found, folder / "x.csv")
        return tables + report.validators_markdown(found, runs.parts.metric)

    def weights(folder: Path) -> Any:
        _unchanged(stored, lambda model: load_model(model, folder / _STAGE / "model.safetensors"))
        loaded = load_stored(folder / _STAGE)
        return loaded.model.state_dict(), loaded.class_names, loaded.model.domain_names

    def pack(folder: Path) -> Any:
        file = folder / _STAGE / "packs/clean.safetensors"
        return _unchanged(stored, lambda model: load_domain(model, file, replace=True))

    def resumed(folder: Path) -> Any:
        (stage,) = plan_stages(runs.cut_parts.recipe)
        run_stage(runs.cut_parts, stage, folder)
        return load_file(folder / _STAGE / "model.safetensors")

    def page(folder: Path) -> Any:
        return write_page(folder, folder / "x.html").read_text()

    def curves(folder: Path) -> Any:
        return report.save_curves(folder / _STAGE / "log.csv", folder / "x.png")

    whole = (_BYTES, _VALUES)
    said = [
        f"{_STAGE}/{name}.safetensors" for name in ("predictions-clean", "unlabelled-colour_cast")
    ]
    return [
        Kind("recipe.yaml", lambda folder: read_folder(folder)[0].to_yaml()),
        Kind("run.json", lambda folder: (read_folder(folder)[1], page(folder))),
        *(Kind(name, page) for name in ("environment.json", "results.md")),
        Kind("metrics.json", lambda folder: report.load_results(folder / "metrics.json")),
        *(Kind(f"{_STAGE}/{name}", results) for name in ("results.json", "made_of.json")),
        Kind(f"{_STAGE}/log.csv", curves),
        *(Kind(name, _evaluated(name)) for name in said),
        Kind(f"{_STAGE}/model.safetensors", weights, whole),
        Kind(f"{_STAGE}/packs/clean.safetensors", pack, whole),
        Kind(f"{_STAGE}/training.ckpt", resumed, (_BYTES,), cut=True),
        Kind(f"{_STAGE}/best.ckpt", resumed, (_BYTES,), cut=True),
        *(Kind(f"{_STAGE}/{name}", resumed, cut=True) for name in ("log.csv", "made_of.json")),
    ]


def _evaluated(name: str) -> Read:
    def read(folder: Path) -> Any:
        one = load_evaluated(folder / name)
        return vars(one), one.metrics() if one.is_labelled else None

    return read


def _unchanged(model: Any, load: Callable[[Any], Any]) -> Any:
    """What a copy of a model is after loading; what it was, if that is refused."""
    loaded = copy.deepcopy(model)
    try:
        load(loaded)
    except DomainNormError:
        one, other = (texts((of.state_dict(), of.domain_names)) for of in (model, loaded))
        assert one == other, "half loaded"
        raise
    return loaded.state_dict(), loaded.domain_names


class _Payload:
    """Pickle that runs a command when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARKER}",)


def values_changed(data: bytes, suffix: str, draw: random.Random) -> bytes:
    """A whole container of the same kind, with something else in it."""
    change = CHANGES[draw.choice(["value", "number", "wrapped", "renamed", "deleted", "swapped"])]
    if suffix == ".ckpt":
        tree = torch.load(io.BytesIO(data), weights_only=True)
        if draw.random() < 0.2:
            tree[draw.choice(list(tree))] = _Payload()
        else:
            change(tree, draw)
        made = io.BytesIO()
        torch.save(tree, made)
        return made.getvalue()
    if suffix == ".safetensors":
        return _tensors_changed(data, change, draw)
    tree = {
        "whole": yaml.safe_load(data) if suffix in (".json", ".yaml") else data.decode().split(",")
    }
    change(tree, draw)
    whole = next(iter(tree.values()), "")
    if suffix in (".json", ".yaml"):
        return (
            json.dumps(whole, default=repr) if suffix == ".json" else yaml.safe_dump(whole)
        ).encode()
    return ",".join(map(str, whole) if isinstance(whole, list) else [str(whole)]).encode()


def _tensors_changed(data: bytes, change: Any, draw: random.Random) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "x.safetensors")
        file.write_bytes(data)
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            told = dict(opened.metadata() or {})
    name = draw.choice(list(tensors))
    one = tensors.pop(name)
    others = [one + 1, one * float("nan"), one.double(), one[None], one.flatten()[:1], -one]
    if draw.random() < 0.7:
        tensors |= {draw.choice([name, name, name, "x"]): draw.choice(others).contiguous()}
    elif told:
        tensors |= {name: one}
        key = draw.choice(list(told))
        try:
            tree = {key: json.loads(told[key])}
            change(tree, draw)
            told = {str(key): json.dumps(value, default=repr) for key, value in tree.items()}
        except ValueError:
            told[key] = "x"
    return save(tensors, told)


def damaged_file(file: Path, damage: str, draw: random.Random) -> bytes:
    """What stands in a file instead of its own content."""
    if damage == _BYTES:
        return damaged(file.read_bytes(), draw)
    if damage == _VALUES:
        return values_changed(file.read_bytes(), file.suffix, draw)
    others = sorted(one for one in file.parents[0].rglob("*") if one.is_file() and one != file)
    alike = [one for one in others if one.suffix == file.suffix]
    return draw.choice(alike if alike and draw.random() < 0.7 else others).read_bytes()


def outcome(kind: Kind, folder: Path, wanted: list[str], damage: str) -> str:
    """What becomes of a damaged file: ``same``, ``other``, ``refused``, or a fault in words."""
    found, fault = _tried(kind, folder)
    if Path(MARKER).exists():
        return "code was executed"
    if found and found[0] != wanted[0] and damage in kind.digest:
        return "other tensors, though a digest says so"
    return fault or ("same" if found == wanted else "other")


def _tried(kind: Kind, folder: Path) -> tuple[list[str], str]:
    """Content, or why there is none."""
    name, place = Path(kind.file).name, str(Path(kind.file).parent)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return texts(kind.read(folder)), ""
    except DomainNormError as error:
        named = name in str(error) or f"{place}: " in str(error)
        return [], "refused" if named else f"it is not named: {error}"
    except Exception as error:
        return [], f"{type(error).__name__}: {str(error)[:300]}"


def texts(content: Any) -> list[str]:
    """Content in a form that can be compared."""
    if isinstance(content, tuple):
        return [text for one in content for text in texts(one)]
    if isinstance(content, dict):
        return ["|".join(f"{key}={texts(value)}" for key, value in content.items())]
    if isinstance(content, torch.Tensor):
        data = content.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        return [f"{content.dtype}{tuple(content.shape)}{hashlib.sha256(data).hexdigest()}"]
    return [repr(content)]


def fuzz(kind: Kind, runs: Runs, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """How often each thing came of it, and faults in words."""
    draw = random.Random(f"{kind.file} {kind.cut} {seed}")
    found: Counter[str] = Counter()
    faults: list[str] = []
    wanted: list[str] = []
    before = Path.cwd()
    for number in range(-1, count):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "run")
            shutil.copytree(runs.cut if kind.cut else runs.finished, folder)
            os.chdir(place)
            try:
                if number < 0:
                    wanted = texts(kind.read(folder))
                    continue
                damage = draw.choice([_BYTES, _BYTES, _VALUES, _VALUES, "foreign"])
                file = folder / kind.file
                file.write_bytes(damaged_file(file, damage, draw))
                became = outcome(kind, folder, wanted, damage)
            finally:
                os.chdir(before)
        found[became] += 1
        if became not in ("same", "other", "refused"):
            faults.append(f"{kind.file} {number}, {damage}: {became}")
    return found, faults


def main() -> int:
    asked = parser_of("files", __doc__, 20, "damaged files of each kind").parse_args()
    with tempfile.TemporaryDirectory() as place, figures(drawn=False):
        with redirect_stdout(io.StringIO()):
            runs = make_runs(Path(place))
        return tabulate(
            "file",
            ("refused", "same", "other"),
            (
                (f"{kind.file}{', cut off' * kind.cut}", *fuzz(kind, runs, asked.seed, asked.count))
                for kind in kinds(runs)
            ),
        )


if __name__ == "__main__":
    sys.exit(main())
