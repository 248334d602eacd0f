"""Disturbed streams: ``python -m tests.fuzz.streams --seed 0 --count 200``.

`domainnorm adapt` follows a short stream twice, first half of it, then all. Between the calls one
thing goes wrong: a file that it has left is damaged, an image is, images come, go or are renamed;
or the second call is killed and made again. What may come of it: the log of a stream that nothing
happened to; a refusal that names the file; a log that has every image once, the damaged one as
unreadable. Anything else is a fault.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2

import domainnorm.serve.stream as following
from domainnorm.run.parts import Parts
from domainnorm.serve.stream_log import StreamLine, read_log
from tests.fuzz.command import parser_of, tabulate
from tests.fuzz.images import damaged
from tests.fuzz.kills import KILLED, call_forked
from tests.run.tiny import WORDS, newest, recipe

OUTCOMES = ("same", "refused", "other")
TRAINED = (*WORDS, "encoder=style", "data.image_size=48", "method=source_only", "compare=[]")
METHODS = {
    "online, opened": ("method={name: online, rows: opened, run_length: 100}",),
    "alpha_bn, opened": ("method={name: alpha_bn, memory: stream, rows: opened}",),
    "t3a": ("method=t3a", "--domain", "clean"),
    "tent_online": ("method={name: tent_online, lr: 0.05}", "--domain", "clean"),
    "cotta": ("method={name: cotta, augmentations: 2}", "--domain", "clean"),
}
FILES = ("state.pt", "stream.json", "log.csv")
CASES = (
    *("kill", "kill", "kill anew"),
    *(f"damaged {name}" for name in FILES),
    *(f"lost {name}" for name in FILES),
    *("damaged image", "image lost", "image renamed", "image added", "strange name", "no image"),
)
_STRANGE = ("a\nb{}", 'a,"b"{}', "\u00e4 {}", "\udce4{}", "=1|{}", "n" * 200 + "{}", "-{}", "a\r{}")


class Bench:
    """A trained run, a stream, and for each method the folders that calls without fault leave."""

    def __init__(self, place: Path) -> None:
        self.place, self.said = place, place / "said.txt"
        words = ("run", "quickstart", *TRAINED, "--output", str(place / "run"))
        assert call_forked(words, self.said) == 0, self.said.read_text()
        self.run = newest(place / "run")
        dataset = Parts(recipe(*TRAINED[len(WORDS) :])).dataset
        clean = [n for n, one in enumerate(dataset.records) if one.domain == "clean"][:8]
        (place / "whole").mkdir()
        (place / "half").mkdir()
        for number, index in enumerate([*clean, *clean, *clean]):
            image = dataset.image(index)[..., ::-1]
            image = 255 - image if 8 <= number < 16 else image
            assert cv2.imwrite(str(place / "whole" / f"{number}.png"), image)
        self.seconds = 1.0

    def follow(self, stream: Path, output: Path, method: str, seconds: float | None = None) -> int:
        """Exit code of a call; it is killed after some seconds where there is a number of them."""
        words = ("--stream", str(stream), "--output", str(output), "--batch-size", "2")
        return call_forked(("adapt", str(self.run), *words, *METHODS[method]), self.said, seconds)

    def wanted(self, method: str) -> tuple[Path, list[StreamLine]]:
        """What a call for half of the stream has left, and the log of the whole of it."""
        half, whole = self.place / f"{method} half", self.place / f"{method} whole"
        if not whole.exists():
            stream = self.place / "stream"
            _images(self.place / "whole", stream, range(12))
            assert self.follow(stream, half, method) == 0, self.said.read_text()
            shutil.copytree(half, whole)
            _images(self.place / "whole", stream, range(24))
            begun = time.monotonic()
            assert self.follow(stream, whole, method) == 0, self.said.read_text()
            self.seconds = time.monotonic() - begun
        return half, read_log(whole / "log.csv")


def _images(source: Path, stream: Path, numbers: Sequence[int]) -> None:
    shutil.rmtree(stream, ignore_errors=True)
    stream.mkdir()
    for number in numbers:
        shutil.copy(source / f"{number}.png", stream)


def disturb(case: str, output: Path, stream: Path, draw: random.Random) -> str:
    """Let one thing go wrong; the name of the image that is damaged, if one is."""
    image = draw.choice(sorted(stream.iterdir()))
    kind, _, name = case.partition(" ")
    file = output / name
    if name in FILES:
        file.unlink() if kind == "lost" else file.write_bytes(damaged(file.read_bytes(), draw))
    elif case == "damaged image":
        image.write_bytes(damaged(image.read_bytes(), draw))
        return image.name
    elif case == "image lost":
        image.unlink()
    elif case == "image renamed":
        image.rename(image.with_name(f"{draw.randrange(40)}_new.png"))
    elif case == "image added":
        shutil.copy(image, image.with_name(f"{draw.randrange(40)}_new.png"))
    elif case == "strange name":
        image.rename(image.with_name(draw.choice(_STRANGE).format(image.name)))
    elif case == "no image":
        image.unlink()
        draw.choice([image.mkdir, lambda: image.symlink_to("nowhere"), lambda: None])()
    return ""


def trial(bench: Bench, case: str, method: str, draw: random.Random) -> tuple[str, str]:
    """What came of a case, and what is wrong with that; nothing if it is as it should be."""
    half, wanted = bench.wanted(method)
    output, stream = bench.place / "output", bench.place / "stream"
    shutil.rmtree(output, ignore_errors=True)
    _images(bench.place / "whole", stream, range(24))
    if case != "kill anew":
        shutil.copytree(half, output)
    done = {line.image for line in read_log(half / "log.csv")} if output.exists() else set()
    image = disturb(case, output, stream, draw)
    if case.startswith("kill"):
        for _ in range(draw.randint(1, 3)):
            code = bench.follow(stream, output, method, draw.uniform(0, bench.seconds))
            if code not in (0, KILLED):
                return "refused", f"after a kill: {bench.said.read_text()[-600:]}"
    names = {one.name for one in stream.iterdir() if not one.is_dir()}
    code = bench.follow(stream, output, method)
    said = bench.said.read_text(errors="replace")
    if code not in (0, 1, 2) or "Traceback" in said:
        return "other", f"exit code {code}: {said[-600:]}"
    if left := [one.name for one in output.rglob(".partial.*")]:
        return "other", f"left over: {left}"
    if code:
        told = any(name in said for name in (str(output), str(stream), "rename it"))
        right = case.startswith(("damaged s", "damaged l", "lost")) or case == "strange name"
        return "refused", "" if told and right else f"refused: {said[-600:]}"
    lines = read_log(output / "log.csv")
    if lines == wanted:
        return "same", ""
    return "other", _wrong(lines, names | done, image if image not in done else "", case)


def _wrong(lines: list[StreamLine], names: set[str], image: str, case: str) -> str:
    """What is wrong with a log that is another one than without the disturbance."""
    if case.startswith(("kill", "damaged s", "damaged l", "lost")):
        return "another log"
    if sorted(line.image for line in lines) != sorted(names):
        return f"logged {sorted(line.image for line in lines)}, expected {sorted(names)}"
    told = [line.event for line in lines if line.image == image]
    return f"read as another image: {told}" if told and "unreadable" not in told[0] else ""


def fuzz(seed: int, count: int, place: Path) -> dict[str, tuple[Counter[str], list[str]]]:
    """For each case how often each thing came of it, and faults in words."""
    following._SAVED_EVERY = 2
    bench = Bench(place)
    found: dict[str, tuple[Counter[str], list[str]]] = {case: (Counter(), []) for case in CASES}
    for number in range(count):
        draw = random.Random(f"stream {number} {seed}")
        case, method = CASES[number % len(CASES)], draw.choice(list(METHODS))
        came, wrong = trial(bench, case, method, draw)
        counts, faults = found[case]
        counts[came] += 1
        if wrong:
            faults.append(f"{number}, {case}, {method}: {wrong!r}")
            print(faults[-1], file=sys.stderr, flush=True)
    return found


def main() -> int:
    asked = parser_of("streams", __doc__, 60, "streams").parse_args()
    with tempfile.TemporaryDirectory() as place:
        found = fuzz(asked.seed, asked.count, Path(place))
    return tabulate("case", OUTCOMES, ((case, *came) for case, came in found.items()))


if __name__ == "__main__":
    sys.exit(main())
