"""Loggers' base: what a run tells each of them, and how they are made from a recipe."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch.loggers import Logger

from domainnorm.errors import DomainNormError, RecipeError
from domainnorm.registry import LOGGERS


class RunLogger(Logger):
    """A logger of Lightning that can be made for a run folder, beside a logger of Lightning.

    ``__init__`` takes the run folder and the name of a run below it, the same on ``--resume``;
    further keyword-only parameters are keys in recipes. Nothing is written before the first value.

    - ``needs``: packages that are imported.
    """

    needs: ClassVar[tuple[str, ...]] = ()

    def log_figure(self, file: Path) -> None:
        """Log an image; nothing where the tool takes none."""

    def close(self, *, failed: bool) -> None:
        """End the run of the tool, which may not have begun."""


def identity(folder: Path, run: str) -> str:
    """A name for a part of a run that no other has, and that it has again when it goes on."""
    return hashlib.sha256(f"{folder.resolve()}/{run}".encode()).hexdigest()[:16]


def check_loggers(named: Sequence[Mapping[str, Any]], where: str = "recipe") -> None:
    """Refuse loggers whose packages are not there.

    Args:
        named: ``trainer.logger`` of a recipe.
        where: What messages call the recipe.

    Raises:
        RecipeError: They are named, with the command that installs them.
    """
    problems = [
        f"trainer.logger: '{one['name']}' needs {package}, which is not installed; "
        f"pip install 'domainnorm[{one['name']}]', or leave it out"
        for one in named
        for package in LOGGERS.entry(one["name"]).constants.get("needs", ())
        if find_spec(package) is None
    ]
    if problems:
        raise RecipeError(problems, where)


def create_loggers(named: Sequence[Mapping[str, Any]], folder: Path, run: str) -> list[RunLogger]:
    """The loggers of a recipe for a part of its run.

    Args:
        named: ``trainer.logger`` of the recipe.
        folder: The run folder.
        run: Name of the part, unique in the folder, such as ``a-to-b/seed0/tent``.

    Raises:
        DomainNormError: What a tool says of its options.
    """
    check_loggers(named)
    made = []
    for one in named:
        options = {key: value for key, value in one.items() if key != "name"}
        with _said_by(one["name"]):
            made.append(LOGGERS.create(one["name"], folder, run, **options))
    return made


@contextmanager
def _said_by(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each tool has errors of its own
        raise DomainNormError(f"trainer.logger: {name}: {error}") from error


@contextmanager
def recording(loggers: Sequence[RunLogger], options: Mapping[str, Any]) -> Iterator[None]:
    """Log the options of a run first; its loggers are closed when the block ends.

    Raises:
        DomainNormError: What a tool says where its run cannot begin, such as that nobody is
            logged in.
    """
    try:
        for logger in loggers:
            with _said_by(LOGGERS.name_of(type(logger))):
                logger.log_hyperparams(dict(options))
        yield
    except BaseException:
        for logger in loggers:
            logger.close(failed=True)
        raise
    for logger in loggers:
        logger.close(failed=False)
