"""A stream of image files followed by a finished model: log, timeline, packs, a state to go on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.progress import Progress
from torch import Tensor

from domainnorm.backbones import save_domains
from domainnorm.errors import CheckpointError, ConditionError, DataError, RecipeError
from domainnorm.evaluation import write_json
from domainnorm.methods import adapt_online, online_methods
from domainnorm.recipe import Named
from domainnorm.registry import TASKS
from domainnorm.run.models import StoredModel, load_stored
from domainnorm.run.run_folder import WEIGHTS, read_folder
from domainnorm.serve.image_list import name_of
from domainnorm.serve.image_sources import MASKS, ImageSource, VolumeImages, find_source
from domainnorm.serve.serving_options import StreamOptions
from domainnorm.serve.stored import FileModel, Reading, none_readable
from domainnorm.serve.stream_log import (
    Adapted,
    StreamLine,
    append_log,
    draw_timeline,
    read_log,
    summarize,
    write_log,
)
from domainnorm.storage import DAMAGED, digest_of, locked, make_folders, read_tensors, whole_file
from domainnorm.streams import Sighting
from domainnorm.terminal import create_console

ASKED, LOG, STATE, TIMELINE = "stream.json", "log.csv", "state.pt", "timeline.png"
PACKS = "packs"
# Batches between two states; what comes after the last is done again, with the same results.
_SAVED_EVERY = 20
_SHOWN = 0.0005
_UNREADABLE = "unreadable: "
_BLANK = 2.0  # standard deviation of pixels of 0 to 255, noise of a sensor included


def adapt_run(
    folder: Path,
    stream: Path,
    output: Path | None = None,
    options: StreamOptions | None = None,
    overrides: Sequence[str] = (),
) -> Adapted:
    """Let the model of a finished stage follow a stream; go on where an earlier call stopped.

    Files are taken in the order of their names, in which numbers count as such. Each is predicted
    and logged (``log.csv``; masks of the size of their image under ``masks/``, 255 where
    ``data.fit: cover`` has cut a border off); at the end come ``timeline.png``, also when
    interrupted, and a domain pack for each domain that was opened. Files that cannot be read,
    or whose pixels are all alike, are logged and passed over; so are those that are in the log
    already, and a folder may grow between two calls.

    Args:
        folder: A run, or one of its stages.
        stream: A folder of images, searched below as well, or a text file with a path per line; see
            `find_source`.
        output: Where the files go; ``<stage>/adapt/<name of the stream>`` when None.
        options: How the stream is followed.
        overrides: ``method=NAME`` and ``method.KEY=VALUE`` of one that adapts while it predicts.
            Images are of one domain, unless ``method.rows`` is ``opened``, as it is where neither
            a method nor a domain is named; what adapts is ``online`` then.

    Raises:
        RecipeError: Overrides that are wrong, a method that trains before, or rows that are opened
            by a run without encoder.
        CheckpointError: No finished stage, or an output folder of another model, stream or options.
        ConditionError: It is not said whose images these are.
        DataError: No images in the stream, none that can be read, two with one mask, or volumes.
    """
    options = options or StreamOptions()
    stored = load_stored(folder)
    stored.check_says()
    place = output or stored.place / "adapt" / name_of(stream)
    source = find_source(stored.recipe, stream, place / MASKS, white=options.white)
    if isinstance(source, VolumeImages):
        raise DataError(
            f"{stream}: volumes cannot be a stream; `domainnorm predict` writes their masks"
        )
    asked = {
        "model": digest_of(stored.place / WEIGHTS),
        "stream": str(stream.resolve()),
        **{name: value for name, value in asdict(options).items() if value is not None},
    }
    method = _named(stored, overrides, options.domain)
    asked["method"] = {"name": method.name, **method.options}
    follower = _Follower(stored, source, place, options, method)
    if follower.files.makes_masks:
        source.check_masks()
    make_folders(place)
    with locked(place):
        done = follower.go_on(asked)
        try:
            names = [str(name) for name, _ in source.listed.files]
            follower.follow([number for number, name in enumerate(names) if name not in done])
            # Not when interrupted: it may have learned from a batch that is not in the log.
            follower.save()
        finally:
            lines = follower.draw(f"{stored.recipe.name}: {stream.name}")
    if all(line.event.startswith(_UNREADABLE) for line in lines):
        raise none_readable(stream, [line.event.removeprefix(_UNREADABLE) for line in lines])
    return summarize(place, lines)


def _only(stored: StoredModel) -> str:
    """The one domain that images can be of, where nobody says it."""
    names = list(stored.model.domain_names)
    targets = {name for one in stored.recipe.transfers for name in one.target} & set(names)
    found = names if len(names) == 1 else sorted(targets)
    if len(found) != 1:
        raise ConditionError(
            f"--domain: missing; name the domain of these images: {', '.join(names)}"
        )
    return found[0]


class _Follower:
    """A model that adapts, with its files."""

    def __init__(
        self,
        stored: StoredModel,
        source: ImageSource,
        place: Path,
        options: StreamOptions,
        method: Named,
    ) -> None:
        self.source, self.place, self.options = source, place, options
        self.files = FileModel(stored)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        told = method.options["rows"] == "told"
        self.stream = adapt_online(
            self.files.model.to(self.device),
            method.name,
            domain=(options.domain or _only(stored)) if told else options.domain,
            task=self.files.task,
            max_domains=options.max_domains,
            **method.options,
        )
        self.predicted = 0  # images
        self.logged = 0  # lines of the log, which stay on the disk
        self.digest = hashlib.sha256()  # of them

    def go_on(self, asked: dict[str, Any]) -> set[str]:
        """Read what an earlier call left, if it asked for the same; the images in its log."""
        _claim_folder(self.place, asked)
        if not (self.place / STATE).exists():
            write_log(self.place / LOG, [])
            return set()
        try:
            state = read_tensors(self.place / STATE)
            number, digest, self.predicted = state["lines"], state["log"], int(state["images"])
            self.stream.load_state_dict(state["stream"])
        except DAMAGED as error:
            raise CheckpointError(
                f"{self.place / STATE}: not a complete stream state ({error}); delete "
                f"{self.place} to start again, or choose another --output"
            ) from error
        lines = read_log(self.place / LOG, number)
        self._count(lines)
        if self.digest.hexdigest() != digest:
            raise CheckpointError(
                f"{self.place / LOG}: its first {number} lines have changed; "
                f"restore it, delete {self.place} to start again, or choose another --output"
            )
        write_log(self.place / LOG, lines)
        return {line.image for line in lines}

    def follow(self, numbers: Sequence[int]) -> None:
        """Predict and learn from images, by their numbers, batch by batch."""
        console = create_console(error=True)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            progress = bar.add_task("images", total=len(numbers))
            rest, size = iter(numbers), self.options.batch_size
            for number, batch in enumerate(iter(lambda: list(islice(rest, size)), []), 1):
                lines = list(self._batch(batch))
                for line in lines:
                    if line.event:
                        said = f"{line.image}: {line.event}"
                        bar.console.print(said, markup=False, highlight=False, soft_wrap=True)
                append_log(self.place / LOG, lines)
                self._count(lines)
                bar.advance(progress, len(batch))
                if number % _SAVED_EVERY == 0:
                    self.save()

    def _count(self, lines: Sequence[StreamLine]) -> None:
        self.logged += len(lines)
        for line in lines:
            self.digest.update(repr(line).encode())

    def _batch(self, numbers: Sequence[int]) -> Iterator[StreamLine]:
        readings = [self._read(number) for number in numbers]
        images = [one.image for one in readings if one.image is not None]
        outputs = iter(self.stream(torch.stack(images).to(self.device)) if images else ())
        self.predicted += len(images)
        position = count()
        for number, one in zip(numbers, readings, strict=True):
            if one.problem:
                yield StreamLine(self._name(number), event=one.problem)
            else:
                yield self._line(number, one.size, next(outputs), next(position))

    def _read(self, number: int) -> Reading:
        try:
            pixels = self.source.read(number)
            # The standard deviation of all values; pixels.std() takes thirty times as long.
            if cv2.meanStdDev(pixels.reshape(-1, 1))[1] < _BLANK:
                return Reading(problem="blank: all pixels alike, as behind a lens cap")
            return Reading(self.files.tensor(pixels), pixels.shape[:2])
        except DataError as error:
            return Reading(problem=f"{_UNREADABLE}{error}")

    def _name(self, number: int) -> str:
        return str(self.source.listed.files[number][0])

    def _line(self, number: int, size: tuple[int, int], output: Tensor, n: int) -> StreamLine:
        prediction, confidence = self._prediction(number, size, output)
        return StreamLine(
            self._name(number), prediction, f"{confidence:.4f}", *self._domain(self.stream.seen, n)
        )

    def _domain(self, sighting: Sighting | None, n: int) -> tuple[str, ...]:
        """What the log says of the domain of an image of the last batch."""
        if sighting is None:
            return self.stream.domain, f"{self.stream.domain}=1.000", "0", "1", ""
        weights = sighting.weights[n].tolist()
        named = list(zip(self.files.model.domain_names, weights, strict=True))
        event = ""
        if sighting.alarm == n:
            found = sighting.opened
            event = f"new domain '{found}'" if found else "alarm, no room for a domain"
        return (
            max(named, key=lambda pair: pair[1])[0],
            "|".join(f"{domain}={weight:.3f}" for domain, weight in named if weight > _SHOWN),
            str(int(sighting.unlike[n])),
            f"{float(sighting.evidence[n]):.4g}",
            event,
        )

    def _prediction(self, number: int, size: tuple[int, int], output: Tensor) -> tuple[str, float]:
        """What is predicted for one image, (K, …), and how sure that is."""
        said = self.files.said(output)
        if not self.files.makes_masks:
            return "|".join(said.classes), said.confidence
        mask = self.files.mask(output, size)
        return self.source.write_mask(self.place, number, mask), said.confidence

    def save(self) -> None:
        """The state, whole or not at all, and packs of the domains that were opened."""
        if not self.predicted:
            return  # nothing was learned: files that cannot be read yet are tried again
        state = {"images": self.predicted, "stream": self.stream.state_dict()}
        with whole_file(self.place / STATE) as partial:
            told = {"lines": self.logged, "log": self.digest.hexdigest()}
            torch.save({**told, **state}, partial)
        if opened := self.stream.opened:
            packs = {name: self.place / PACKS / f"{name}.safetensors" for name in opened}
            save_domains(self.files.model, packs)

    def draw(self, title: str) -> list[StreamLine]:
        """Draw the timeline; the lines of the log."""
        lines = read_log(self.place / LOG, self.logged)
        names, file = self.files.model.domain_names, self.place / TIMELINE
        draw_timeline(lines, names, self.stream.method.run_length, file, title)
        return lines


def _named(stored: StoredModel, overrides: Sequence[str], domain: str | None) -> Named:
    """The method of a stream, checked as that of the run's recipe."""
    wrong = [word for word in overrides if not re.match(r"method(\.|=)", word)]
    if wrong:
        raise RecipeError(
            [f"got {wrong[0]}, expected method=NAME or method.KEY=VALUE"], "domainnorm adapt"
        )
    words = overrides or [_default(stored, domain)]
    # It may be one of those that are compared already, and rows are spare ones of its own.
    words = ["compare=[]", "data.rows=domain", *words]
    try:
        recipe, _ = read_folder(stored.place.resolve().parents[3], words)
    except RecipeError as error:
        raise RecipeError(error.problems, "domainnorm adapt") from error
    if recipe.method.name not in online_methods():
        text = (
            f"method: '{recipe.method.name}' trains before it predicts, and cannot follow streams"
        )
        names = ", ".join(online_methods())
        raise RecipeError([f"{text}; take one of {names}"], "domainnorm adapt")
    return recipe.method


def _default(stored: StoredModel, domain: str | None) -> str:
    """What adapts where nobody says it; findings have moments alone."""
    if domain is None and stored.recipe.encoder is None:
        raise ConditionError(
            "a stream of several domains needs an encoder, but this run has none; train with "
            "'encoder: style', or give the domain of the images: --domain NAME"
        )
    findings = TASKS.entry(stored.recipe.task.name).constants.get("labels") == "multilabel"
    name = "alpha_bn, memory: stream, share: layers" if findings else "online"
    return f"method={{name: {name}, rows: {'told' if domain else 'opened'}}}"


def _claim_folder(place: Path, asked: dict[str, Any]) -> None:
    """Make a folder for a stream, or find that of an earlier call; refuse any other with files."""
    make_folders(place)
    names = (LOG, STATE, TIMELINE, MASKS, PACKS)
    found = [name for name in names if (place / name).exists()]
    if (place / ASKED).exists():
        _check_same(place / ASKED, asked)
    elif found:
        raise CheckpointError(
            f"{place}: holds other files ({', '.join(found)}); choose another --output"
        )
    # Before all else is written: by this file the folder is known again.
    write_json(asked, place / ASKED)


def _check_same(path: Path, asked: dict[str, Any]) -> None:
    try:
        former = dict(json.loads(path.read_text(encoding="utf-8")))
    except DAMAGED as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); choose another --output"
        ) from error
    differing = [key for key in {**asked, **former} if former.get(key) != asked.get(key)]
    if differing:
        said = "; ".join(f"{key} was {former.get(key)}, now {asked.get(key)}" for key in differing)
        raise CheckpointError(
            f"{path.parent}: holds another stream ({said}); choose another --output, or delete it"
        )
