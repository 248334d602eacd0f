from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from domainnorm.cli.program import COMMANDS, find_command
from domainnorm.data.datasets import FolderMasks

HEAVY = ("torch", "lightning", "albumentations", "matplotlib", "timm", "numpy", "sklearn")
PROBE = f"""
import sys
from domainnorm.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as ended:  # after the help of a command
    code = ended.code
loaded = [name for name in {HEAVY} if name in sys.modules]
print("loaded:", loaded, file=sys.stderr)
sys.exit(code or (3 if loaded else 0))
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["list"],
        ["show", "medical/wbc"],
        ["check", "medical/wbc", "quickstart"],
        ["copy", "quickstart"],
        ["data", "list"],
        ["predict", "--help"],
    ],
    ids=" ".join,
)
def test_light_command_loads_nothing_heavy(words, process):
    done = process("-c", PROBE, *words)
    assert (done.returncode, done.stderr) == (0, "loaded: []\n")


@pytest.mark.parametrize("command", ["run", "compare", "report", "export", "pack"])
def test_help_of_a_command_that_reads_no_recipe_loads_no_omegaconf(command, process):
    probe = PROBE.replace(str(HEAVY), str((*HEAVY, "omegaconf")))
    assert process("-c", probe, command, "--help").stderr == "loaded: []\n"


def test_check_of_data_loads_no_torch(process, tmp_path):
    FolderMasks.write_sample(tmp_path)
    probe = PROBE.replace(str(HEAVY), str(("torch", "lightning", "albumentations", "sklearn")))
    done = process("-c", probe, "data", "check", "folder_masks", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "loaded: []\n")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]], ids=["none", "long", "short"])
def test_help_names_every_command(domainnorm, words):
    done = domainnorm(*words)
    assert done.returncode == 0
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary_of_one_line(command):
    assert 10 < len(find_command(command).summary) <= 90


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_its_usage(domainnorm, command):
    done = domainnorm(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: domainnorm {command}")


def test_version_is_that_of_the_package(domainnorm):
    assert domainnorm("--version").stdout == f"domainnorm {version('domainnorm')}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "unknown command 'rnu': did you mean 'run'?"),
        (["--versoin"], "unknown option '--versoin': did you mean '--version'?"),
        (["run", "quickstart", "--outptu", "x"], "unknown option '--outptu': did you mean '--out"),
        (["run"], "expected a recipe, or --resume RUN_FOLDER"),
        (["run", "quickstart", "--resume", "x"], "got 'quickstart' beside --resume"),
        (["run", "quickstrt"], "unknown recipe 'quickstrt': did you mean 'quickstart'?"),
        (["run", "quickstart", "sed=1"], "sed: unknown key 'sed': did you mean 'seed'?"),
        (["run", "quickstart", "wbc"], "override 'wbc': expected key=value"),
        (["matrix", "quickstart", "--kind", "norm"], "invalid choice: 'norm'"),
        (["show"], "the following arguments are required: RECIPE"),
        (["show", "missing.yaml"], "unknown recipe 'missing': "),
        (["check"], "the following arguments are required: RECIPE"),
        (["check", "seed=1"], "no recipe given, only overrides"),
        (["list", "nroms"], "unknown kind 'nroms': did you mean 'norms'?"),
        (["test"], "the following arguments are required: RUN_FOLDER"),
        (["predict", "x"], "the following arguments are required: IMAGES"),
        (["predict", "x", "y", "--unseen", "nearst"], "invalid choice: 'nearst'"),
        (["predict", "x", "y", "--domian", "a"], "unknown option '--domian': did you mean '--dom"),
        (["pack"], "expected one of save, show, check as the first word"),
        (["pack", "shwo", "x"], "unknown action 'shwo': did you mean 'show'?"),
        (["pack", "show"], "domainnorm pack show: 1 problem\n  - got nothing, expected FILE"),
        (["pack", "save", "run"], "got run, expected RUN DOMAIN [FILE]"),
        (["pack", "check", "a", "b", "c"], "got a b c, expected RUN FILE"),
        (["export", "x"], "the following arguments are required: --format"),
        (["export", "x", "--format", "onx"], "invalid choice: 'onx'"),
        (["export", "x", "--format", "onnx", "--tolerance", "-1"], "got '-1', expected a positive"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_command_line_is_answered_with_exit_code_2(domainnorm, words, message):
    done = domainnorm(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [(["check", "quickstart"], 0), (["copy", "quickstart", "/dev/null/x"], 1), (["check", "x"], 2)],
    ids=["done", "failed", "misused"],
)
def test_exit_code_reaches_the_shell(process, words, code):
    assert process("-m", "domainnorm", *words).returncode == code


@pytest.mark.parametrize("command", ["run", "matrix"])
def test_bad_recipe_is_answered_before_anything_heavy_is_loaded(process, command):
    done = process("-c", PROBE, command, "quickstart", "sed=1")
    assert done.returncode == 2
    assert done.stderr.endswith("loaded: []\n")


def test_reader_that_leaves_a_pipe_causes_no_traceback(tmp_path):
    command = f"{sys.executable} -m domainnorm list | true"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
