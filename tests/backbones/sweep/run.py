"""The sweep in several processes, to be stopped and taken up again."""

import json
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict

import timm
import torch

from tests.backbones.sweep.logits import Comparison, compare
from tests.backbones.sweep.page import representatives
from tests.backbones.sweep.survey import Survey, survey

_KINDS = {"survey": (survey, Survey), "compare": (compare, Comparison)}


def run_sweep(names, workers, cache):
    """Survey architectures, and compare outputs of the representatives among them.

    Args:
        names: Architectures.
        workers: Processes, of one thread each.
        cache: File of results so far, a line of JSON each, or None.

    Returns:
        Surveys and comparisons, by architecture.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_prepare) as pool:
        surveys = _carry_out(pool, "survey", names, cache)
        chosen = [name for name, _ in representatives(surveys.values()).values()]
        chosen.sort(key=lambda name: -surveys[name].parameters)  # the longest ones first
        return surveys, _carry_out(pool, "compare", chosen, cache)


def _prepare():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _carry_out(pool, kind, names, cache):
    """Results by name, in the order of ``names``; those in the cache are not made again."""
    function, result = _KINDS[kind]
    found = _load(cache, kind, result, set(names))
    futures = {pool.submit(function, name): name for name in names if name not in found}
    for future in as_completed(futures):
        try:
            one = future.result()
        except Exception as error:
            pool.shutdown(cancel_futures=True)
            raise RuntimeError(f"{kind} of {futures[future]} failed") from error
        found[one.name] = one
        if cache:
            record = {"kind": kind, "versions": _versions(), **asdict(one)}
            with cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        print(f"\r{kind} {len(found)}/{len(names)} {one.name}\x1b[K", end="", flush=True)
    print()
    return {name: found[name] for name in names}


def _load(cache, kind, result, names):
    found = {}
    if cache and cache.is_file():
        for line in cache.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            known = (record.pop("kind"), record.pop("versions")) == (kind, _versions())
            if known and record["name"] in names:
                found[record["name"]] = result(**record)
    return found


def _versions():
    return f"timm {timm.__version__}, torch {torch.__version__}"
