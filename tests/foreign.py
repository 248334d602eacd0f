"""Packages that are not ours: written, installed into a folder, and found there by commands."""

import os
import subprocess
import sys
from textwrap import dedent

INSTALL = ("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")


def write(folder, files):
    """Files of a project, by path in its folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text), encoding="utf-8")
    return folder


def install(project, target):
    """Install a project, or a wheel, into a folder, as a user does into an environment."""
    words = [sys.executable, "-m", *INSTALL, "--target", str(target), str(project)]
    subprocess.run(words, check=True, capture_output=True, text=True)


def call(target, *words, cwd=None):
    """Python in a process of its own, with what is installed in the folder."""
    environment = {**os.environ, "PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, *map(str, words)]
    return subprocess.run(
        words, check=False, cwd=cwd, capture_output=True, text=True, env=environment
    )


def said(target, *words):
    """What ``domainnorm`` prints, which has to succeed."""
    done = call(target, "-m", "domainnorm", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
