"""The machine of a run: its processes, one for each device, its threads, memory and versions."""

from __future__ import annotations

import atexit
import ctypes
import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from subprocess import Popen
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import distributed

from domainnorm.errors import DomainNormError
from domainnorm.norms.kernels.partition import several_ranks
from domainnorm.recipe import Recipe
from domainnorm.storage import write_json

_PATIENCE = 10.0  # seconds
_IGNORED = (
    ".*does not have many workers.*",  # workers are the recipe's choice
    "Checkpoint directory .* exists and is not empty",  # that is what resuming means
    "`LightningModule.configure_optimizers` returned `None`.*",  # adabn optimizes nothing
    ".*recommended to use `self.log\\('val/.*sync_dist.*",  # of the images of all ranks already
    "Found .* module\\(s\\) in eval mode at the start of training.*",  # teachers are
    ".*treespec, LeafSpec.*",  # Lightning 2.6 on torch 2.14, its own call
)

_LOGGERS = (
    "lightning.fabric.utilities.distributed",
    "lightning.fabric.utilities.rank_zero",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",
)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt of glibc
_PACKAGES = (
    "domainnorm",
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "torchmetrics",
    "albumentations",
    "omegaconf",
    "numpy",
    "opencv-python-headless",
)


def is_first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return not several_ranks() or distributed.get_rank() == 0


def of_first(make: Callable[[], Path]) -> Path:
    """What the first process, and no other, makes, in every process."""
    made = [make() if is_first() else None]
    if several_ranks():
        distributed.broadcast_object_list(made)
    assert made[0] is not None
    return made[0]


def wait_for_all() -> None:
    """Go on when every process is here, so that what the first one wrote can be read."""
    if several_ranks():
        distributed.barrier()


@contextmanager
def on_all_ranks(recipe: Recipe) -> Iterator[None]:
    """Start the other processes of a recipe with several devices, and end them on an error.

    They run the same command line up to here, unless torchrun or a cluster has started them, and go
    on together; all but the first are silent. Nothing happens where a recipe has a single device.

    Raises:
        DomainNormError: What Lightning refuses, such as a GPU that is not there.
    """
    keys = ("accelerator", "devices", "num_nodes", "strategy")
    quiet_lightning()
    with readable_refusals():
        fabric = Fabric(**{key: getattr(recipe.trainer, key) for key in keys})
    fabric.launch()
    # Threads of gloo that still hold tensors when the interpreter ends abort the process.
    atexit.register(_leave)
    if not several_ranks():
        yield
        return
    try:
        if not is_first():
            warnings.simplefilter("ignore")
        with nullcontext() if is_first() else redirect_stdout(StringIO()):
            yield
    except BaseException as error:
        # Without this one the others would wait for it.
        others = getattr(fabric.strategy.launcher, "procs", ())
        failed = isinstance(error, RuntimeError) and _has_failed(others)
        for process in others:
            process.kill()
        if failed:
            text = "another process of the run has failed; its message stands above"
            raise DomainNormError(text) from error
        raise


@contextmanager
def readable_refusals() -> Iterator[None]:
    """Turn Lightning's refusal of devices into an error that says how to go on without them."""
    try:
        yield
    # Of Trainer, of Fabric, and of a precision that needs a package.
    except (MisconfigurationException, RuntimeError, ModuleNotFoundError) as error:
        reason = str(error).splitlines()[0].rstrip(".!")
        raise DomainNormError(
            f"trainer: {reason}; without a GPU set trainer.accelerator=cpu "
            "trainer.precision=32-true, or take configs trainer/cpu"
        ) from error


def _has_failed(processes: Sequence[Popen[bytes]]) -> bool:
    """Whether one has ended with an error, or is about to: its connections close a bit earlier."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        if any(process.poll() for process in processes):
            return True
        time.sleep(0.1)
    return False


def _leave() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def quiet_lightning() -> None:
    """Hide banners about devices and tips, and warnings that never apply here."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _IGNORED:
        warnings.filterwarnings("ignore", message=message)


def prepare(recipe: Recipe) -> None:
    """Set threads and memory of a process that trains."""
    keep_freed_memory()
    if recipe.trainer.threads is not None:
        torch.set_num_threads(recipe.trainer.threads)


def keep_freed_memory() -> None:
    """Let freed tensors stay with the process, where the C library is glibc.

    By default glibc hands large ones back to the system, and every training step pays for fresh
    pages: up to a quarter of a step (docs/performance.md).
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that every glibc takes
        libc.mallopt(_TRIM_THRESHOLD, 1 << 30)


def write_cost(path: Path, seconds: float) -> None:
    """Write what the stages of a run took: seconds, and peak memory of its first process.

    Of a run that was interrupted, from where it went on.
    """
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    cost = {"seconds": seconds, "resident_bytes": peak_memory(), "device_bytes": device}
    write_json(cost, path)


def peak_memory() -> int:
    """The most bytes that this process has had in memory.

    ``getrusage`` is not asked where Linux can tell: its number begins with that of the process
    which started this one.
    """
    listing = Path("/proc/self/status")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # noqa: PLC0415 - Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def describe_environment() -> dict[str, Any]:
    """Versions, processor, devices, threads and the command line."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
