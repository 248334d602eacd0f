"""First hours of three users, from an installed wheel: ``python -m tests.benchmarks.first_hour``.

A wheel of this checkout is built and installed into an empty folder, and each user types there what
README and pages say: an engineer with two scanners and no labels at the second, a driving
researcher before a large download, and a researcher with a loop and a package of their own. Images
are real ones where ``DOMAINNORM_DATA`` has them, else drawn; ``--full`` trains as long as the
recipes that `start` writes say. Prints what was typed and waited for; ends with 1 where a command
fails.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from dataclasses import dataclass, field
from pathlib import Path

from tests.foreign import call, install, write

HERE = Path(__file__).parents[2]
DATA = Path(os.environ.get("DOMAINNORM_DATA", "data"))
LIGHT = ("list", "show", "check", "docs")  # that should answer at once
SHORT = ("trainer.max_epochs=1", "trainer.min_steps=0", "trainer.limit_batches=4")
WITHOUT_WEIGHTS = ("backbone.pretrained=false",)


@dataclass
class User:
    """Types commands in a folder of their own."""

    name: str
    folder: Path
    site: Path
    short: bool
    typed: list[str] = field(default_factory=list)
    light: list[float] = field(default_factory=list)
    written: int = 0  # lines of YAML and Python by hand
    begun: float = field(default_factory=time.perf_counter)

    def types(self, *words, code=0):
        """One command, which has to end with this code; what it says."""
        self.typed.append(" ".join(("domainnorm", *words)))
        began = time.perf_counter()
        said = self._run("-m", "domainnorm", *words, code=code)
        if words[0] in LIGHT and "--build" not in words:
            self.light.append(time.perf_counter() - began)
        return said

    def trains(self, *words):
        """A run, kept short unless it shall be whole; weights where they are at hand."""
        weights = () if os.environ.get("DOMAINNORM_WEIGHTS") else WITHOUT_WEIGHTS
        self.typed.append(" ".join(("domainnorm", "run", *words)))
        more = (*weights, *(SHORT if self.short else ()))
        said = self._run("-m", "domainnorm", "run", *words, *more, "trainer.threads=1")
        return self.folder / re.findall(r"^run folder: (.+)$", said, re.MULTILINE)[-1]

    def writes(self, name, text):
        """A file by hand."""
        write(self.folder, {name: text})
        self.written += len([line for line in text.splitlines() if line.strip()])

    def runs(self, file):
        """A script of their own."""
        self.typed.append(f"python {file}")
        return self._run(file)

    def _run(self, *words, code=0):
        done = call(self.site, *words, cwd=self.folder)
        if done.returncode != code:
            raise SystemExit(f"{self.name}: {self.typed[-1]}\n{done.stdout}{done.stderr}")
        return done.stdout

    def row(self):
        """What it took."""
        light = f"{sum(self.light) / len(self.light):.1f}, at most {max(self.light):.1f}"
        minutes = (time.perf_counter() - self.begun) / 60
        return f"| {self.name} | {len(self.typed)} | {self.written} | {light} | {minutes:.1f} |"


def engineer(user):
    """Two scanners, labels at the first: from the folders to a table of predictions."""
    cells, images = DATA / "wbc/cls", user.folder / "cells"
    if not cells.is_dir():
        user.types("data", "sample", "folder", "drawn")
        cells = user.folder / "drawn"
    first, second = sorted(entry.name for entry in cells.iterdir() if entry.is_dir())[::-1]
    shutil.copytree(cells / first, images / "scanner_a")
    (images / "scanner_b").mkdir()
    truth = {}
    for file in sorted((cells / second).rglob("*.*")):
        truth[f"{file.parent.name}-{file.name}"] = file.parent.name
        shutil.copy(file, images / "scanner_b" / f"{file.parent.name}-{file.name}")
    user.types("start", "cells")
    user.types("check", "cells.yaml")
    run = user.trains("cells.yaml")
    for method in ("source_only", "default"):
        stage = next(run.glob(f"stages/*/*/{method}"))
        words = ("predict", str(stage), "cells/scanner_b", "--domain", "scanner_b")
        user.types(*words, "--output", method)
        with (user.folder / method / "predictions.csv").open(encoding="utf-8") as table:
            lines = list(csv.DictReader(table))
        right = sum(line["prediction"] == truth[Path(line["image"]).name] for line in lines)
        print(f"{method}: {right} of {len(truth)} images of the scanner without labels are right")


def driver(user):
    """Before a download: what there is, and is missing, a trial on drawn data; then own films."""
    user.types("list", "recipes")
    user.types("docs", "data_driving")
    missing = [name for name in ("gta5", "cityscapes") if not (DATA / name).is_dir()]
    said = user.types("data", "check", "driving/gta5_cityscapes", code=1 if missing else 0)
    unsaid = [name for name in missing if f"'{name}' resolves to" not in said]
    if unsaid:
        raise SystemExit(f"driver: {user.typed[-1]} does not say that {unsaid} are missing\n{said}")
    user.types("run", "driving/gta5_cityscapes", "--sample")
    films = DATA / "camvid"
    if not films.is_dir():
        user.types("data", "sample", "folder_masks", "films")
        films = user.folder / "films"
    user.types("start", str(films), "groups=sequences", "--output", "films.yaml")
    user.types("check", "films.yaml")
    user.trains("films.yaml")


def researcher(user):
    """A package and a loop of one's own, as docs/extending.md has them."""
    page = user.types("docs", "extending")
    package, loop = page.split("## In your own loop")
    names = {"toml": "pyproject.toml", "python": "my_plugins.py", "yaml": "mine.yaml"}
    for language, name in names.items():
        user.writes(name, re.findall(rf"```{language}\n(.*?)```", package, re.DOTALL)[0])
    user.typed.append("pip install .")
    project = user.folder / "project"
    project.mkdir()
    for name in ("pyproject.toml", "my_plugins.py"):
        shutil.copy(user.folder / name, project)
    install(project, user.site)
    user.types("list", "methods")
    user.types("check", "mine.yaml")
    user.trains("mine.yaml", "data.per_domain=60")
    data = """
        import torch
        def images(domain):
            return [
                {"image": torch.rand(3, 32, 32), "domain": domain, "target": number % 2}
                for number in range(16)
            ]
        training = images("site_a") + images("site_b")
        validation, testing = images("site_a"), images("site_a") + images("site_b")
        images = torch.rand(2, 3, 32, 32)
        """
    code = re.findall(r"```python\n(.*?)```", loop, re.DOTALL)[0]
    user.writes("data.py", data)
    user.writes("loop.py", f"from data import *\n{code}")
    user.runs("loop.py")


def main(words=None):
    """Play all three, and print a table."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--full", action="store_true", help="train as long as the recipes say")
    full = parser.parse_args(words).full
    with tempfile.TemporaryDirectory() as place:
        built = ("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, str(HERE))
        subprocess.run([sys.executable, "-m", *built], check=True)
        (wheel,) = Path(place).glob("*.whl")
        rows = []
        for play in (engineer, driver, researcher):
            folder, site = Path(place) / play.__name__, Path(place) / f"site_{play.__name__}"
            folder.mkdir()
            install(wheel, site)
            user = User(play.__name__, folder, site, short=not full)
            play(user)
            print(*user.typed, "", sep="\n")
            rows.append(user.row())
    print("| user | commands | lines by hand | light commands, seconds | minutes in all |")
    print("|---|---:|---:|---:|---:|", *rows, sep="\n")


if __name__ == "__main__":
    main()
