"""Killed runs: ``python -m tests.fuzz.kills --seed 0 --count 30 --folder /dev/shm --tmp /tmp``.

A tiny run of several stages is killed at a random moment, gone on with, killed again, up to five
times, and at last gone on with to its end. Then its tables, weights, predictions and logs have to
be those of a run that nobody killed, and it may hold no file that the other one lacks.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors import safe_open

from tests.fuzz.command import parser_of
from tests.run.tiny import WORDS, call, figures, newest

RECIPE = (
    *WORDS,
    "method={name: tent, epochs: 2}",
    "compare=[source_only,dann,tent_online]",
    "encoder=style",
    "evaluation.selection=validation",
)
KILLED = -signal.SIGKILL
# Times, in JSON and in CSV; some files have them all over.
_OTHERS = re.compile(r"^torchinductor|wandb-\w+$")
_TIMES = re.compile(rb'"(seconds|ms_\w+)": [^,\n]*|.*,ms_.*|,[^,\n]*$', re.MULTILINE)
_TIMED = ("environment.json", "cost.json", "report.html", "results.md", ".running")


def call_forked(words: Sequence[str], said: Path, seconds: float | None = None) -> int:
    """Exit code of the console command in a fork of this process, which is killed after a while.

    Everything is imported here already, and no thread runs that a fork would lack.
    """
    child = os.fork()
    if not child:
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            code = 1
            try:
                with figures(drawn=False):
                    code = call(*words)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    limit = time.monotonic() + (seconds if seconds is not None else 600)
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def go_on(place: Path, seconds: float | None = None) -> int:
    """Begin a run below ``place``, or go on with the one that is there."""
    begun = [file.parent for file in place.glob("quickstart/*/recipe.yaml")]
    words = ("--resume", str(begun[0])) if begun else ("quickstart", *RECIPE)
    to = () if begun else ("--output", str(place))
    return call_forked(("run", *words, *to), place.with_suffix(".txt"), seconds)


def content(folder: Path) -> dict[str, object]:
    """Every file of a run, without what differs from run to run."""
    found: dict[str, object] = {}
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        if file.suffix == ".safetensors":  # metadata come in any order
            with safe_open(file, "np") as opened:
                tensors = {key: opened.get_tensor(key).tobytes() for key in opened.keys()}  # noqa: SIM118
                found[name] = (tensors, opened.metadata())
        elif file.is_file():
            data = file.read_bytes()
            if file.name in ("metrics.json", "results.json", "metrics.csv"):
                data = _TIMES.sub(b"", data)
            found[name] = b"" if file.name in _TIMED or file.suffix == ".png" else data
    return found


def differing(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    """What is wrong with the files of a run."""
    return [
        *(f"{name} is left over" for name in sorted(found.keys() - wanted.keys())),
        *(f"{name} is missing" for name in sorted(wanted.keys() - found.keys())),
        *(
            f"{name} differs"
            for name in sorted(found)
            if found[name] != wanted.get(name, found[name])
        ),
    ]


def trial(
    draw: random.Random, place: Path, seconds: float, wanted: dict[str, object]
) -> tuple[int, list[str]]:
    """Kill and go on; the number of kills that came before the end, and what is wrong."""
    kills = 0
    moments = [draw.uniform(0, seconds / 2) for _ in range(draw.choice([1, 2, 3, 5]))]
    for moment in [*moments, None]:
        code = go_on(place, moment)
        kills += code == KILLED
        if code not in (0, KILLED):
            return kills, [f"exit code {code}: {place.with_suffix('.txt').read_text()[-800:]!r}"]
    return kills, differing(content(newest(place)), wanted)


def fuzz(seed: int, count: int, place: Path) -> Iterator[tuple[int, list[str]]]:
    """Of each run its kills and its faults in words, until there were ``count`` kills."""
    begun = time.monotonic()
    (place / "whole").mkdir(parents=True)
    assert go_on(place / "whole") == 0, (place / "whole.txt").read_text()
    seconds, wanted = time.monotonic() - begun, content(newest(place / "whole"))
    for number in itertools.count():
        folder = place / str(number)
        folder.mkdir()
        kills, wrong = trial(random.Random(f"{number} {seed}"), folder, seconds, wanted)
        yield kills, [f"run {number}, {kills} kills: {one}" for one in wrong]
        shutil.rmtree(folder)
        count -= kills
        if count <= 0:
            return


def main() -> int:
    parser = parser_of("kills", __doc__, 10, "kills")
    parser.add_argument("--folder", type=Path, help="where runs go; a temporary one if left out")
    parser.add_argument("--tmp", type=Path, help="folder of temporary files")
    asked = parser.parse_args()
    if asked.tmp:
        os.environ["TMPDIR"] = tempfile.tempdir = str(asked.tmp)
    faults: list[str] = []
    print("| run | kills | faults | seconds |\n|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory(dir=asked.folder) as place:
        before, begun = set(Path(tempfile.gettempdir()).iterdir()), time.monotonic()
        for number, (kills, wrong) in enumerate(fuzz(asked.seed, asked.count, Path(place))):
            row = (number, kills, len(wrong), round(time.monotonic() - begun))
            print("| " + " | ".join(map(str, row)) + " |", flush=True)
            faults += wrong
            print("".join(f"{one}\n" for one in wrong), end="", file=sys.stderr)
        left = sorted(set(Path(tempfile.gettempdir()).iterdir()) - before)
    # A cache of torch, and what wandb makes where timm imports it.
    own = (file for file in left if not _OTHERS.search(file.name))
    faults += [f"{file} is left over" for file in own]
    print("\n".join(faults[:50]))
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
