"""Ratios of functions timed against each other in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from domainnorm.run.machine import keep_freed_memory, quiet_lightning


def prepare() -> None:
    """One thread, no banners, and freed memory stays with the process.

    By default glibc hands freed tensors back to the system or not by the pattern of all other
    allocations, and fresh pages cost more than the layers that are timed: whoever allocates in the
    less lucky order would look two to three times slower.
    """
    torch.set_num_threads(1)
    keep_freed_memory()
    quiet_lightning()


def interleaved(
    functions: Mapping[str, Callable[[], object]], budget: float, rounds: int = 15
) -> dict[str, list[float]]:
    """Time functions in turn, so that a change of the machine's speed reaches all of them.

    Thread CPU time is read, which other processes do not add to; torch must run on one thread.

    Args:
        functions: What to time, by name; the order is reversed in every other round.
        budget: Seconds per function.
        rounds: Times each function is timed.

    Returns:
        Seconds of one call, one value per round, in the order of the rounds.
    """
    calls = {}
    for name, function in functions.items():
        function()
        started = time.thread_time()
        function()
        seconds = time.thread_time() - started
        calls[name] = max(1, int(budget / rounds / max(seconds, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            started = time.thread_time()
            for _ in range(calls[name]):
                functions[name]()
            times[name].append((time.thread_time() - started) / calls[name])
    return times


def ratio(times: Mapping[str, list[float]], name: str, reference: str) -> float:
    """Median of the ratios within each round."""
    return statistics.median(a / b for a, b in zip(times[name], times[reference], strict=True))


def saved_bytes(forward: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps for backward, beyond the storages of ``known``."""
    seen = {tensor.untyped_storage().data_ptr() for tensor in known}
    total, kept = 0, []

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            kept.append(storage)  # a freed storage's address would be met again
            total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    del output
    return total
