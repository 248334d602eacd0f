"""Engines of a comparison: run folders carried out by processes of this machine, or as jobs."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from domainnorm.errors import RecipeError
from domainnorm.recipe import Recipe

LOG, LOCK = "log.txt", ".lock"
_GRACE = 20.0  # seconds a process has to keep its checkpoint
_DAY = 24 * 60  # minutes
_VISIBLE = "CUDA_VISIBLE_DEVICES"


class Job(Protocol):
    """A run folder that is being carried out."""

    def poll(self) -> int | None:
        """The exit code, above 0 or below it after a failure; None while it runs."""


class Engine(Protocol):
    """Where run folders are carried out."""

    jobs: int

    def start(self, folder: Path, taken: Iterable[Job]) -> Job | None:
        """Begin with a folder; None while another process is at it."""

    def stop(self, jobs: Sequence[Job]) -> None:
        """End what runs; run folders can be gone on with."""


ENGINES = ("process", "submitit")


def check_engine(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an engine that is not there, or options that it does not take.

    Raises:
        RecipeError: submitit is not installed, or there are options for ``process``.
    """
    problem = ""
    if name == "submitit" and find_spec("submitit") is None:
        text = "it is not installed; pip install 'domainnorm[cluster]', or take --engine process"
        problem = f"--engine submitit: {text}"
    elif name == "process" and options:
        problem = f"--submit: got '{min(options)}', which is for --engine submitit"
    if problem:
        raise RecipeError([problem], "domainnorm compare")


def create_engine(
    name: str, recipes: Sequence[Recipe], folder: Path, jobs: int | None, options: Mapping[str, Any]
) -> Engine:
    """The engine ``process`` or ``submitit``.

    Args:
        name: Of the engine.
        recipes: Of all run folders.
        folder: Of the comparison.
        jobs: Run folders at a time; by default as many as this machine has room for, and all of
            them for ``submitit``.
        options: Parameters of submitit's executor, and ``cluster``.

    Raises:
        RecipeError: Parameters that submitit refuses.
    """
    if name == "submitit":
        return SubmititEngine(folder / "jobs", jobs or len(recipes), options)
    return ProcessEngine(recipes, jobs)


def command_of(folder: Path) -> list[str]:
    """The command that carries out a run folder."""
    return [sys.executable, "-m", "domainnorm", "run", "--resume", str(folder)]


class _Process:
    def __init__(self, process: subprocess.Popen[bytes], slot: int) -> None:
        self.process, self.slot = process, slot

    def poll(self) -> int | None:
        return self.process.poll()


class ProcessEngine:
    """Processes of this machine, each with its share of cores and devices.

    Args:
        recipes: Of all run folders; how many fit beside each other goes by what they ask for.
        jobs: Processes at a time, instead of as many as there are devices, or cores for threads
            and workers of each.
    """

    def __init__(self, recipes: Sequence[Recipe], jobs: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        groups = _device_groups(recipes)
        wanted = max(one.data.num_workers + (one.trainer.threads or 1) for one in recipes)
        self.jobs = jobs or min(len(groups) or max(1, cores // wanted), len(recipes))
        self.devices = [groups[slot % len(groups)] for slot in range(self.jobs)] if groups else []
        self.threads = max(1, cores // self.jobs)

    def start(self, folder: Path, taken: Iterable[Job]) -> Job | None:
        """Begin with a folder; None while another process is at it."""
        slots = {job.slot for job in taken if isinstance(job, _Process)}
        slot = min(set(range(self.jobs)) - slots)
        environment = dict(os.environ)
        environment.setdefault("OMP_NUM_THREADS", str(self.threads))
        if self.devices:
            environment[_VISIBLE] = self.devices[slot]
        with (folder / LOCK).open("w") as lock, (folder / LOG).open("ab") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            process = subprocess.Popen(
                command_of(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C is passed on by `stop`, once
                pass_fds=(lock.fileno(),),  # it holds the lock for as long as it lives
            )
        return _Process(process, slot)

    def stop(self, jobs: Sequence[Job]) -> None:
        """Let processes keep their checkpoints and end; then end them and what they started."""
        processes = [job.process for job in jobs if isinstance(job, _Process)]
        try:
            for process in processes:
                process.terminate()
            until = time.monotonic() + _GRACE
            while any(p.poll() is None for p in processes) and time.monotonic() < until:
                time.sleep(0.05)
        finally:
            for process in processes:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _device_groups(recipes: Sequence[Recipe]) -> list[str]:
    """Visible GPUs in groups as large as the recipes ask for; none where they take the CPU."""
    trainers = [recipe.trainer for recipe in recipes]
    if all(one.accelerator in ("cpu", "mps") for one in trainers) or not torch.cuda.is_available():
        return []
    visible = os.environ.get(_VISIBLE, "")
    names = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    asked = [one.devices for one in trainers]
    size = len(names) if "auto" in asked else max(one for one in asked if one != "auto")
    starts = range(0, len(names) - size + 1, size)
    return [",".join(names[start : start + size]) for start in starts] or [",".join(names)]


class SubmittedRun:
    """What a job of submitit calls, and submits again where the cluster has preempted it."""

    def __call__(self, folder: Path) -> int:
        """Carry out a run folder; its exit code. Waits while another job is at it."""
        with (folder / LOCK).open("w") as lock, (folder / LOG).open("ab") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _end_with(subprocess.Popen(command_of(folder), stdout=log, stderr=log))

    def checkpoint(self, folder: Path) -> Any:
        """The same once more, which goes on from the last epoch."""
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 - an extra

        return DelayedSubmission(self, folder)


def _end_with(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait(_GRACE)
        raise


class _Submitted:
    def __init__(self, job: Any, log: Path) -> None:
        self.job, self.log = job, log

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        if error is not None:
            with self.log.open("a", encoding="utf-8") as log:
                log.write(f"{str(error).strip()}\n")
            return 1
        return int(self.job.result())


class SubmititEngine:
    """Jobs of submitit: on Slurm where there is one, else as it decides, or as ``cluster`` says.

    Args:
        folder: For what submitit writes.
        jobs: Jobs that are submitted at a time.
        options: ``cluster``, and parameters of the executor such as ``slurm_partition``.
    """

    def __init__(self, folder: Path, jobs: int, options: Mapping[str, Any]) -> None:
        import submitit  # noqa: PLC0415 - an extra

        self.jobs = jobs
        given = {"name": "domainnorm", "timeout_min": _DAY, **options}  # its default is 5
        try:
            self.executor = submitit.AutoExecutor(folder, cluster=given.pop("cluster", None))
            self.executor.update_parameters(**given)
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            text = f"{' '.join(str(error).split())}; see submitit's AutoExecutor"
            raise RecipeError([f"--submit: {text}"], "domainnorm compare") from error

    def start(self, folder: Path, taken: Iterable[Job]) -> Job | None:
        """Submit a folder."""
        return _Submitted(self.executor.submit(SubmittedRun(), folder.resolve()), folder / LOG)

    def stop(self, jobs: Sequence[Job]) -> None:
        """Cancel what was submitted; on this machine, wait until it has ended."""
        submitted = [job.job for job in jobs if isinstance(job, _Submitted)]
        for job in submitted:
            job.cancel()
        until = time.monotonic() + (_GRACE if self.executor.cluster == "local" else 0.0)
        while any(not job.done() for job in submitted) and time.monotonic() < until:
            time.sleep(0.05)
