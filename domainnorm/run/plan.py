"""Stages that a recipe means, in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from domainnorm.methods import Roles
from domainnorm.recipe import Named, Recipe, needs_no_source_model
from domainnorm.registry import METHODS

SOURCE_ONLY = "source_only"
_LONGEST = 160  # bytes of a folder's name, which figures are called by as well


@dataclass(frozen=True)
class Stage:
    """One method, or a variant of one, fitted once and tested on every domain of a transfer."""

    roles: Roles
    seed: int
    method: Named
    variant: str = ""

    @property
    def label(self) -> str:
        """What the method is called in this recipe."""
        return self.method.label

    @property
    def transfer(self) -> str:
        """``source → target``, for tables."""
        source = " + ".join(self.roles.source)
        return f"{source} → {' + '.join(self.roles.target)}" if self.roles.target else source

    @property
    def key(self) -> str:
        """Folder of the stage below the run folder; names are safe on every file system."""
        place = f"stages/{self._transfer_folder}/seed{self.seed}/{self.label}"
        return f"{place}/{self.variant}" if self.variant else place

    @property
    def source_key(self) -> str:
        """Folder of the source model that an adapting method starts from."""
        return f"stages/{self._transfer_folder}/seed{self.seed}/{SOURCE_ONLY}"

    @property
    def _transfer_folder(self) -> str:
        source, target = "+".join(self.roles.source), "+".join(self.roles.target)
        place = f"{source}-to-{target}" if target else source
        if len(place.encode()) <= _LONGEST:
            return place
        digest = hashlib.sha256(place.encode()).hexdigest()[:8]
        return f"{place.encode()[: _LONGEST - 9].decode(errors='ignore')}-{digest}"

    def variants(self, options: Mapping[str, Mapping[str, Any]]) -> list[Stage]:
        """A stage for each variant, name → options that it has beside those of this one."""
        given = self.method.options
        return [
            replace(self, variant=name, method=replace(self.method, options={**given, **own}))
            for name, own in options.items()
        ]


def plan_stages(recipe: Recipe) -> list[Stage]:
    """Stages of a run: for every transfer and seed the source model, then each method.

    The source model is always a part of it, as the baseline of the table and the start of the
    methods that adapt it.
    """
    return [
        Stage(Roles(tuple(transfer.source), tuple(transfer.target), recipe.data.rows), seed, method)
        for transfer in recipe.transfers
        for seed in recipe.seeds
        for method in _methods(recipe)
    ]


def _methods(recipe: Recipe) -> list[Named]:
    asked = [*recipe.compare, recipe.method]
    methods = {method.label: method for method in asked}
    if not all(map(needs_no_source_model, asked)):
        methods.setdefault(SOURCE_ONLY, supervised_method(recipe, SOURCE_ONLY))
    rank = {SOURCE_ONLY: 0, "oracle": 2}
    return sorted(methods.values(), key=lambda method: rank.get(method.name, 1))


def supervised_method(recipe: Recipe, name: str) -> Named:
    """A supervised method with the recipe's options: its own, else those of ``source_only``.

    Options that neither sets have the defaults of the signature.
    """
    if own := _asked(recipe, name):
        return Named(name, own.options)
    parameters = METHODS.entry(name).parameters
    options = {key: parameter.default for key, parameter in parameters.items()}
    if shared := _asked(recipe, SOURCE_ONLY):
        options |= {key: value for key, value in shared.options.items() if key in options}
    return Named(name, options)


def _asked(recipe: Recipe, name: str) -> Named | None:
    """The method of a recipe, under its own name before others."""
    found = [method for method in (recipe.method, *recipe.compare) if method.name == name]
    return min(found, key=lambda method: bool(method.alias), default=None)
