"""The house in numbers: ``python -m tests.benchmarks.house [--tree DIR]``.

Files and lines of the package, files that a reader passes on the walks that matter, and the time
light commands take. Another checkout is measured with the python and packages of this one.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import CO_OPTIMIZED
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from types import FrameType

LIGHT = {
    "python -c pass": ["-c", "pass"],
    "domainnorm list": ["-m", "domainnorm", "list"],
    "domainnorm show quickstart": ["-m", "domainnorm", "show", "quickstart"],
    "domainnorm check quickstart": ["-m", "domainnorm", "check", "quickstart"],
}
TIMES = 5
MODEL = "import domainnorm; create_model(...)"
ANSWER = "answer of the probe: "


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--probe", choices=PROBES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.probe:
        print(ANSWER + " ".join(PROBES[arguments.probe](arguments.tree / "domainnorm")))
        return
    tree = arguments.tree.resolve()
    for name, value in rows(tree):
        print(f"{name:<62} {value}", flush=True)


def rows(tree: Path) -> Iterator[tuple[str, object]]:
    package = tree / "domainnorm"
    files = sorted(package.rglob("*.py"))
    kinds = sum((kinds_of_lines(file.read_text(encoding="utf-8")) for file in files), Counter())
    yield "files", len(files)
    yield "lines", f"{kinds.total():,}"
    for kind in ("code", "docstring or comment", "import", "blank"):
        yield f"  {kind}", f"{kinds[kind]:,}"
    yield "longest file (lines)", max(len(file.read_text().splitlines()) for file in files)
    calls, norms, *passed = probe(tree, "kernel")
    yield "files from model(images, domain) to the kernel, training", len(passed)
    yield "  our Python calls per norm layer", f"{int(calls) / int(norms):.1f}"
    for file in passed:
        yield f"  {file}", ""
    for name, what in (("run", "run quickstart, before its first step,"), ("create", MODEL)):
        executed, all_loaded = probe(tree, name)
        yield f"files that {what} calls", executed
        yield "  loads", all_loaded
    dann = package / "methods" / "dann.py"
    yield "lines of the method DANN", lines(dann) if dann.is_file() else "none"
    yield "lines of the dataset Cityscapes: class, module", cityscapes(package)
    for name, words in LIGHT.items():
        yield f"seconds of {name}, best of {TIMES}", seconds(tree, words)


def kinds_of_lines(text: str) -> Counter[str]:
    """Lines by kind; a line of an import or a docstring is one, whatever else is on it."""
    number = len(text.splitlines())
    kinds = dict.fromkeys(range(1, number + 1), "code")
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip():
            kinds[line] = "blank"
        elif content.lstrip().startswith("#"):
            kinds[line] = "docstring or comment"
    for node in ast.walk(ast.parse(text)):
        kind = ""
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kind = "import"
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            kind = "docstring or comment" if isinstance(node.value.value, str) else ""
        if kind:
            kinds |= dict.fromkeys(range(node.lineno, (node.end_lineno or 0) + 1), kind)
    return Counter(kinds.values())


def cityscapes(package: Path) -> str:
    """Lines of the class that is registered as ``cityscapes``, and of the module it is in."""
    for file in sorted((package / "data" / "datasets").glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == "Cityscapes":
                size = (node.end_lineno or 0) - node.lineno + 1
                return f"{size}, {lines(file)} in {file.relative_to(package)}"
    return "none"


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def probe(tree: Path, name: str) -> list[str]:
    """What this file, run as a script with another tree on the path, finds out."""
    words = ["-P", __file__, "--probe", name, "--tree", str(tree)]
    return output_of(tree, words).rpartition(ANSWER)[2].split()


def output_of(tree: Path, words: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words],
        check=False,
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stderr}")
    return done.stdout


def seconds(tree: Path, words: list[str]) -> str:
    """The best time of a command by the clock, and by the processor where others are at work."""
    clock, processor = [], []
    for _ in range(TIMES):
        started, used = time.perf_counter(), getrusage(RUSAGE_CHILDREN)
        output_of(tree, words)
        now = getrusage(RUSAGE_CHILDREN)
        clock.append(time.perf_counter() - started)
        processor.append(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)
    return f"{min(clock):.2f}, of the processor {min(processor):.2f}"


@contextmanager
def counted(package: Path) -> Iterator[Counter[str]]:
    """Calls of our functions by file; modules and classes that are made while loading are none."""
    found: Counter[str] = Counter()
    start = f"{package}{os.sep}"

    def count(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & CO_OPTIMIZED and code.co_filename.startswith(start):
            found[code.co_filename.removeprefix(start)] += 1

    sys.setprofile(count)
    try:
        yield found
    finally:
        sys.setprofile(None)


def loaded(package: Path) -> int:
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return len({file for file in files if file.startswith(f"{package}{os.sep}")})


def passed_to_the_kernel(package: Path) -> list[str]:
    """Calls in a forward pass, number of norms, and the files passed on the way."""
    import torch  # noqa: PLC0415 (what the probes load is what they count)

    import domainnorm  # noqa: PLC0415

    model = domainnorm.create_model("resnet18", num_classes=4, norm="dsbn", domains=["a", "b"])
    norms = sum(name.endswith(".statistics") for name, _ in model.train().named_modules())
    images, domain = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 1, 0])
    model(images, domain=domain)  # what is loaded on first use is loaded
    with counted(package) as calls:
        model(images, domain=domain)
    return [str(calls.total()), str(norms), *sorted(calls)]


def called_before_the_first_step(package: Path) -> list[str]:
    """Files that are called, and that are loaded, when the quickstart begins to train."""
    from lightning.pytorch.strategies import Strategy  # noqa: PLC0415

    class Begun(BaseException):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Begun

    Strategy.training_step = stop  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as folder, counted(package) as calls, suppress(Begun):
        from domainnorm.cli import main as command  # noqa: PLC0415

        command(["run", "quickstart", "--output", folder])
        raise SystemExit("no training step")
    return [str(len(calls)), str(loaded(package))]


def called_for_a_model(package: Path) -> list[str]:
    """Files that are called, and that are loaded, for a model."""
    with counted(package) as calls:
        import domainnorm  # noqa: PLC0415

        domainnorm.create_model("resnet18", num_classes=4, norm="dsbn", domains=["a", "b"])
    return [str(len(calls)), str(loaded(package))]


PROBES = {
    "kernel": passed_to_the_kernel,
    "run": called_before_the_first_step,
    "create": called_for_a_model,
}

if __name__ == "__main__":
    main()
