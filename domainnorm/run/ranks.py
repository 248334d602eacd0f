"""Processes that carry out one run together, one for each device: who writes, who waits."""

from __future__ import annotations

import atexit
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import Popen
from typing import TypeVar

from lightning.fabric import Fabric
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import distributed

from domainnorm.errors import DomainNormError
from domainnorm.norms.kernels.collectives import several_ranks
from domainnorm.recipe import Recipe
from domainnorm.run.quiet import quiet_lightning

_PATIENCE = 10.0  # seconds
Shared = TypeVar("Shared", str, Path)


def is_first() -> bool:
    """Whether this process is the one that writes files and prints."""
    return not several_ranks() or distributed.get_rank() == 0


def of_first(value: Shared) -> Shared:
    """What the first process passed, in every process."""
    if not several_ranks():
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def wait_for_all() -> None:
    """Go on when every process is here, so that what the first one wrote can be read."""
    if several_ranks():
        distributed.barrier()


@contextmanager
def on_all_ranks(recipe: Recipe) -> Iterator[None]:
    """Start the other processes of a recipe with several devices, and end them on an error.

    They run the same command line up to here, unless torchrun or a cluster has started them, and go
    on together; all but the first are silent. Nothing happens where a recipe has a single device.

    Args:
        recipe: Section ``trainer``.

    Raises:
        DomainNormError: What Lightning refuses, such as a GPU that is not there.
    """
    options = recipe.trainer
    quiet_lightning()
    with readable_refusals():
        fabric = Fabric(
            accelerator=options.accelerator,
            devices=options.devices,
            num_nodes=options.num_nodes,
            strategy=options.strategy,
        )
    fabric.launch()
    # Threads of gloo that still hold tensors when the interpreter ends abort the process.
    atexit.register(_leave)
    if not several_ranks():
        yield
        return
    try:
        if is_first():
            yield
        else:
            warnings.simplefilter("ignore")
            with redirect_stdout(StringIO()):
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
        codes = [process.poll() for process in processes]
        if any(codes):
            return True
        time.sleep(0.1)
    return False


def _leave() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
