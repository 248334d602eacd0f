"""One stage: fit a method, keep its weights, test it on every domain."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from safetensors import SafetensorError

from domainnorm.backbones import DomainModel, load_model, read_header, save_domains, save_model
from domainnorm.data import DomainDataModule
from domainnorm.errors import CheckpointError
from domainnorm.evaluation import Evaluated
from domainnorm.loggers import RunLogger, create_loggers, recording
from domainnorm.methods import Method
from domainnorm.registry import METHODS
from domainnorm.report import MERIT, QUARTER, Result, load_results, results_json
from domainnorm.run.machine import is_first, wait_for_all
from domainnorm.run.models import encoder_weights, given_weights, ready_encoder, teach_encoder
from domainnorm.run.parts import Parts
from domainnorm.run.plan import SOURCE_ONLY, Stage
from domainnorm.run.run_folder import EPOCHS, RESULTS, WEIGHTS
from domainnorm.run.scoring import Scorer
from domainnorm.run.training import BEST, LOG, TRAINING, fit, make_trainer
from domainnorm.storage import DAMAGED, digest_of, write_json
from domainnorm.terminal import create_console

MADE_OF = "made_of.json"
_GONE = "gone"  # in the place of the digest of weights
# Keys that say where a stage is carried out, and those of which it has its own.
_ELSEWHERE = (
    *("data.root", "data.cache", "data.num_workers", "data.eval_batch_size"),
    *("data.source", "data.target", "data.transfers", "checkpoint", "backbone.weights"),
    *("trainer.threads", "trainer.accelerator", "trainer.devices", "trainer.num_nodes"),
    *("trainer.strategy", "trainer.channels_last", "trainer.logger"),
)


@dataclass
class Bench:
    """A stage set up: its method, data, trainer, loggers, and what scores it without labels."""

    stage: Stage
    parts: Parts
    method: Method
    data: DomainDataModule
    trainer: Trainer
    place: Path
    scorer: Scorer
    loggers: list[RunLogger]


def run_stage(parts: Parts, stage: Stage, folder: Path) -> list[Result]:
    """One result for each domain of a stage, which is carried out unless it is finished already.

    Its files are in ``folder / stage.key``, a run folder being given.
    """
    place = folder / stage.key
    check_unchanged(place, made_of(parts, stage), finished=(place / RESULTS).exists())
    if (place / RESULTS).exists():
        _remove_checkpoints(place)  # a kill may have come before
        return load_results(place / RESULTS)
    bench = set_up(parts, stage, folder)
    with recording(bench.loggers, _options(parts, stage)):
        results = _carried_out(bench, folder)
    wait_for_all()
    return results


def _carried_out(bench: Bench, folder: Path) -> list[Result]:
    """Fit, save, test and score a stage."""
    parts, stage, method = bench.parts, bench.stage, bench.method
    online, former = method.protocol == "online", encoder_weights(method.model)
    started = time.perf_counter()
    if not online:
        if given_weights(parts.recipe, stage) is None:
            bench = _fitted(bench, folder)
            method = bench.method
        teach_encoder(method.deployed, bench.data, stage.seed, former)
    seconds = time.perf_counter() - started
    if not online and is_first():
        _save_model(bench)
    predictions = predict(bench)
    if online:  # the test was the training
        seconds = time.perf_counter() - started
        method.share_rows()
        _save_model(bench)
    scores, unlabelled = bench.scorer.scores()
    results = [
        replace(one, scores=scores.get(one.domain, {}))
        for one in score(bench, predictions, seconds)
    ]
    told = {f"test/{one.domain}/{key}": one.metrics[key] for one in results for key in one.metrics}
    for logger in bench.loggers:
        logger.log_metrics(told, bench.trainer.global_step)
    if is_first():
        _save_results(bench, predictions, unlabelled, results)
    return results


def made_of(parts: Parts, stage: Stage) -> dict[str, Any]:
    """What the results of a stage hang on: its part of the recipe, and the data by name."""
    flat = _options(parts, stage)
    for part in flat.get("data.parts") or ():
        part.pop("root", None)
    told = {key: json.dumps(value, default=str) for key, value in flat.items()}
    told |= parts.digests
    real = (one for one in parts.dataset.records if not one.generated)  # of others a digest is told
    records = [one for one in real if one.domain in stage.roles.all]
    names = sorted(
        f"{one.file}\0{one.domain}\0{one.group}\0{one.split}\0{one.target}\0{one.labels}"
        for one in records
    )
    return {
        "recipe": {key: value for key, value in told.items() if not key.startswith(_ELSEWHERE)},
        "checkpoint": _given_digest(parts, stage),
        "images": dict(Counter(f"{one.domain}, {one.split}" for one in records)),
        "data": hashlib.sha256("\n".join(names).encode()).hexdigest(),
    }


def _given_digest(parts: Parts, stage: Stage) -> str:
    """Of the weights that `checkpoint` gives the stage; of a finished one they may be gone."""
    try:
        given = given_weights(parts.recipe, stage)
    except CheckpointError:  # told by `set_up`, if they are needed
        return _GONE
    return "" if given is None else digest_of(given)


def _options(parts: Parts, stage: Stage) -> dict[str, Any]:
    """Dotted keys and values of a stage's part of the recipe."""
    roles = stage.roles
    data = replace(
        parts.recipe.data, source=list(roles.source), target=list(roles.target), transfers=[]
    )
    recipe = replace(parts.recipe, data=data, method=stage.method, compare=[], seeds=[stage.seed])
    return dict(_flat(yaml.safe_load(recipe.to_yaml())))


def _flat(tree: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a mapping of mappings."""
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{above}.{key}" if above else str(key))
    else:
        yield above, tree


def check_same_images(place: Path, parts: Parts, stage: Stage) -> None:
    """Refuse data that a finished stage was not made of, wherever they lie; runs of before pass.

    Raises:
        CheckpointError: What differs is named.
    """
    file = place / MADE_OF
    if not file.exists():
        return
    try:
        told = _other_data(json.loads(file.read_text(encoding="utf-8")), made_of(parts, stage))
    except DAMAGED as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); start a new run") from error
    if told:
        raise CheckpointError(
            f"{place}: trained on other data ({told}), so test images may have been learned; "
            "restore the data, or start a new run"
        )


def _other_data(before: dict[str, Any], made: dict[str, Any]) -> str:
    """How the images of a stage differ from those it was made of; nothing if they do not."""
    if before["data"] == made["data"]:
        return ""
    then, now = before["images"], made["images"]
    changes = [
        f"{key}: {then.get(key, 0)} images, now {now.get(key, 0)}"
        for key in dict.fromkeys([*then, *now])
        if then.get(key) != now.get(key)
    ]
    return "; ".join(changes[:5]) or "equally many images, but other files, groups or labels"


def check_unchanged(place: Path, made: dict[str, Any], *, finished: bool) -> None:
    """Refuse to go on with a stage of other data, or to take results of another recipe for its own.

    Raises:
        CheckpointError: What differs is named.
    """
    file = place / MADE_OF
    if not file.exists():
        if is_first() and not finished:  # else one of before
            write_json(made, file)
        return
    way = "undo the change, or start a new run"
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        before = {name: before[name] for name in made}
        for name, one in before.items():
            if not isinstance(one, type(made[name])):
                raise TypeError(f"{name} is {one!r}")
    except DAMAGED as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); start a new run") from error
    if told := _other_data(before, made):
        raise CheckpointError(f"{place}: the data have changed since its start ({told}); {way}")
    then, now = before["recipe"], made["recipe"]
    # A key that one of both lacks is one of another version.
    changed = [
        f"{key} was {then[key]}, now {now[key]}"
        for key in now
        if key in then and then[key] != now[key]
    ]
    if made["checkpoint"] not in (before["checkpoint"], _GONE):
        changed.append("checkpoint: other weights")
    trained = finished or any(place.rglob(TRAINING))
    if changed and trained:
        what = "finished" if finished else "partly trained"
        raise CheckpointError(
            f"{place}: {what} with another recipe.yaml ({'; '.join(changed[:5])}); {way}"
        )
    if changed and is_first():
        write_json(made, file)


def _fitted(bench: Bench, folder: Path) -> Bench:
    """A bench whose method is fitted: of one with variants, all of them, and the best is kept."""
    if not bench.method.variants:
        with _writing(bench.place):
            fit(bench.trainer, bench.method, bench.data, bench.parts.recipe)
        bench.method.share_rows()
        return bench
    fitted = []
    for stage in bench.stage.variants(bench.method.variants):
        create_console().print(f"      {stage.variant}:", highlight=False)
        one = set_up(bench.parts, stage, folder)
        with recording(one.loggers, _options(one.parts, stage)):
            fitted.append(_fitted(one, folder))
        if not fitted[-1].trainer.current_epoch:  # there is nothing to learn, in any variant
            break
    best = max(fitted, key=lambda one: one.method.merit)
    best.method.facts |= {f"{MERIT}{one.stage.variant}": one.method.merit for one in fitted}
    if is_first() and (best.place / LOG).exists():
        shutil.copyfile(best.place / LOG, bench.place / LOG)
    if is_first() and (best.place / EPOCHS).exists():
        shutil.copytree(best.place / EPOCHS, bench.place / EPOCHS, dirs_exist_ok=True)
    best.trainer.loggers = [*bench.loggers]
    return replace(best, stage=bench.stage, place=bench.place, loggers=bench.loggers)


def _save_model(bench: Bench) -> None:
    model, place = bench.method.deployed, bench.place
    with _writing(place):
        name, classes = bench.parts.recipe.backbone.name, bench.data.class_names
        save_model(model, place / WEIGHTS, name, classes)
        if any(model.domain_rows()):
            packs = {name: place / f"packs/{name}.safetensors" for name in model.domain_names}
            save_domains(model, packs)


def _save_results(
    bench: Bench,
    predictions: Mapping[str, Evaluated],
    unlabelled: Mapping[str, Evaluated],
    results: list[Result],
) -> None:
    place = bench.place
    with _writing(place):
        for word, stored in (("predictions", predictions), ("unlabelled", unlabelled)):
            for domain, one in stored.items():
                one.save(place / f"{word}-{domain}.safetensors")
    results_json(results, place / RESULTS)
    _remove_checkpoints(place)


def _remove_checkpoints(place: Path) -> None:
    for leftover in (TRAINING, BEST):
        for path in (place / leftover, *place.glob(f"*/{leftover}")):
            path.unlink(missing_ok=True)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Say where it was that safetensors could not write; it wraps the system's error in its own."""
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(
            f"{place}: cannot be written ({error}); free some space, then go on with --resume "
            "RUN_FOLDER: what is stored stays"
        ) from error


def set_up(parts: Parts, stage: Stage, folder: Path, *, finished: bool = False) -> Bench:
    """The objects of a stage, with the weights it starts from; if ``finished``, its own."""
    seed_everything(stage.seed, workers=True, verbose=False)
    weights = folder / stage.key / WEIGHTS if finished else _start(parts, stage, folder)
    model = parts.model(stage, stored=weights is not None)
    data = parts.data(stage, model)
    if weights is None:
        ready_encoder(model, data, stage.seed)  # before a method counts, or copies, its parameters
    method = parts.method(stage, model, data)
    if weights is not None:
        for loaded in {model, method.deployed} if finished else {model}:
            load_weights(loaded, weights, parts, stage)
    opens = stage.method.options.get("rows") == "opened"  # what nobody has shown to the encoder
    if method.protocol == "online" and not finished and not opens:  # before it follows a stream
        teach_encoder(model, data, stage.seed, encoder_weights(model))
    method.finished, method.logs_tests = finished, False
    method.eval_domains = data.val_domains
    place = folder / stage.key
    place.mkdir(parents=True, exist_ok=True)
    scorer = Scorer(parts, stage, method)
    named = [] if finished else parts.recipe.trainer.logger
    loggers = create_loggers(named, folder, stage.key.removeprefix("stages/"))
    trainer = make_trainer(parts.recipe, scorer, data, stage.seed, place, loggers)
    return Bench(stage, parts, method, data, trainer, place, scorer, loggers)


def predict(bench: Bench, norm_domain: str | None = None) -> dict[str, Evaluated]:
    """Predictions on the test images of every domain, all under the norms of ``norm_domain``.

    Under those of each image's own domain when it is None.
    """
    bench.method.eval_domains = bench.data.test_domains
    bench.method.norm_domain = norm_domain
    bench.method.condition = bench.parts.recipe.condition if norm_domain is None else "id"
    bench.trainer.test(bench.method, datamodule=bench.data, verbose=False)
    found = bench.method.predictions()
    return {domain: found[domain] for domain in bench.data.domain_names}


def score(bench: Bench, predictions: dict[str, Evaluated], seconds: float) -> list[Result]:
    """Metrics and intervals of each domain; none but ``n = 0`` of one without labels."""
    stage, told = bench.stage, bench.method.domains_told()
    told |= {name: told.get(name, {}) | bench.method.facts for name in stage.roles.target}
    shots = bench.parts.recipe.data.shots if bench.data.shots.positions else None
    labels = bench.method.labelled in ("target", "all") or shots is not None
    labels |= bench.parts.recipe.evaluation.selection == "oracle"
    quarters = {name: _by_quarter(bench, name, one) for name, one in predictions.items()}
    loading = bench.parts.recipe.data
    length = f" in runs of {loading.stream_run}" if loading.stream_run else ""
    stream = f"{loading.stream_order}{length}, batches of {loading.stream_batch_size}"
    measured = {domain: _measure(bench, one) for domain, one in predictions.items()}
    return [
        Result(
            transfer=stage.transfer,
            method=stage.label,
            domain=domain,
            role="source" if domain in stage.roles.source else "target",
            seed=stage.seed,
            metrics=metrics | told.get(domain, {}) | quarters[domain],
            intervals=intervals,
            supervised=labels and bool(stage.roles.target),
            shots=shots,
            trained_parameters=bench.method.trained_parameters,
            trained_bytes=bench.method.trained_bytes,
            seconds=seconds,
            stream=stream if bench.method.protocol == "online" else "",
        )
        for domain, (metrics, intervals) in measured.items()
    ]


def _by_quarter(bench: Bench, domain: str, one: Evaluated) -> dict[str, float]:
    """The metric of a stream in each of its quarters; nothing of other domains, or few images."""
    place = {index: number for number, index in enumerate(one.index.tolist())}
    order = [place[index] for index in bench.data.arrivals(domain)]
    parts = [one.chosen(part) for part in torch.tensor(order, dtype=torch.long).tensor_split(4)]
    if not all(part.is_labelled for part in parts):
        return {}
    task = bench.method.task
    values = [part.metrics(**task.metric_options())[task.metric] for part in parts]
    return {f"{QUARTER}{number}": value for number, value in enumerate(values, 1)}


def _measure(
    bench: Bench, one: Evaluated
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Metrics and their intervals."""
    if not one.is_labelled:
        return {"n": 0.0}, {}
    evaluation = bench.parts.recipe.evaluation
    options = bench.method.task.metric_options(evaluation.bins)
    intervals = one.intervals(
        confidence=evaluation.confidence,
        resamples=evaluation.resamples,
        groups=bench.parts.dataset.groups_of(one.index.tolist()),
        **options,
    )
    return one.metrics(**options), intervals


def _start(parts: Parts, stage: Stage, folder: Path) -> Path | None:
    """The weights file a stage starts from; None for the pretrained backbone."""
    if METHODS.load(stage.method.name).starts_from == SOURCE_ONLY:
        return folder / stage.source_key / WEIGHTS
    return given_weights(parts.recipe, stage)


def load_weights(model: DomainModel, path: Path, parts: Parts, stage: Stage) -> None:
    """Weights of a file that another stage has left.

    Raises:
        CheckpointError: Damaged, or of another backbone, other classes or other layers.
    """
    wanted, header = parts.recipe.backbone.name, read_header(path)
    if header.backbone != wanted:
        # Equal shapes do not mean equal networks: tf_efficientnet_lite0 pads unlike its twin.
        raise CheckpointError(
            f"{path}: weights of '{header.backbone}', but backbone.name is '{wanted}'; change one"
        )
    load_model(model, path, stage.roles.source)
    classes = tuple(parts.dataset.class_names)
    if header.class_names != classes:
        raise CheckpointError(
            f"{path}: trained for the classes {', '.join(header.class_names)}, but the data has "
            f"{', '.join(classes)}"
        )
