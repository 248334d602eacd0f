"""What follows from a good recipe: what it asks for in vain, whether it needs a source model."""

from __future__ import annotations

from domainnorm.recipe.schema import Named, Recipe
from domainnorm.registry import METHODS


def remarks(recipe: Recipe) -> list[str]:
    """What a good recipe asks for in vain: a key, and for which of its methods."""
    methods = [recipe.method, *recipe.compare]
    asked = {named.label for named in methods}
    if "source_only" not in asked and not all(map(needs_no_source_model, methods)):
        methods.insert(0, Named("source_only"))  # a run trains one for those that adapt it
    reasons = {"patience": _no_score, "keep_best": _no_score, "keep_every": _no_epochs}
    found: dict[tuple[str, str], list[str]] = {}
    for key, reason in reasons.items():
        for named in methods:
            if getattr(recipe.trainer, key) is not None and (why := reason(named, recipe)):
                found.setdefault((key, why), []).append(named.label)
    return [
        f"trainer.{key}: has no effect on {', '.join(names)}: {why}"
        for (key, why), names in found.items()
    ]


def needs_no_source_model(method: Named) -> bool:
    """Whether nothing is adapted: it learns from target labels or images alone, or needs none."""
    constants = METHODS.entry(method.name).constants
    labelled = constants.get("labelled")
    alone = labelled in ("target", "all") and not constants.get("unlabelled")
    alone |= not labelled or bool(constants.get("without_target"))
    return alone and constants.get("starts_from") != "source_only"


def _no_epochs(method: Named, _: Recipe) -> str:
    """Why a method has no epochs; nothing where it has some."""
    online = METHODS.entry(method.name).constants.get("protocol") == "online"
    return "a stream has no epochs" if online else ""


def _no_score(method: Named, recipe: Recipe) -> str:
    """Why ``evaluation.selection`` scores no epoch of a method; nothing where it does."""
    constants, asked = METHODS.entry(method.name).constants, recipe.evaluation.selection
    labelled = constants.get("labelled", "")
    if why := _no_epochs(method, recipe):
        return why
    if asked == "validation":
        shots = recipe.data.shots is not None and constants.get("takes_shots", True)
        if labelled and not (labelled == "target" and shots):
            return ""
        return "no labelled validation images under evaluation.selection 'validation'"
    if asked == "oracle" or {"target", "all"} & {labelled, constants.get("unlabelled")}:
        return ""
    return f"no target image is seen, which evaluation.selection '{asked}' looks at"
