"""What a recipe says of conditions has to satisfy: estimates, their encoder and its norms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from domainnorm.ranges import problem_of_embedding
from domainnorm.recipe.norm import embedding_sizes, reads_domains, takes_embedding
from domainnorm.recipe.problems import Problems
from domainnorm.recipe.registries import ENCODERS
from domainnorm.recipe.schema import Named


def check_estimates(condition: str, unseen: str, problems: Problems) -> None:
    """Nothing is estimated where there is no encoder."""
    for key, value in (("condition", condition), ("unseen", unseen)):
        if value in ("estimate", "id_or_estimate", "mixture", "embedding"):
            text = f"'{value}' needs a domain encoder; add 'encoder: style', or leave the key out"
            problems.add(key, text)


def check_far(
    far: str | None, condition: str, unseen: str, problems: Problems, *, has_encoder: bool
) -> None:
    """Where nothing is estimated, no image is far from what is known."""
    estimated = ("estimate", "id_or_estimate", "mixture")
    if far is None:
        return
    if not has_encoder:
        text = f"'{far}' is for what a domain encoder says; add 'encoder: style', or leave the key"
        problems.add("far", f"{text} out")
    elif condition not in estimated and unseen not in estimated:
        text = f"'{far}' is for images whose domain is estimated; add 'condition: mixture' or"
        problems.add("far", f"{text} 'unseen: mixture', or leave the key out")


def check_precision(precision: str, encoder: Named | None, problems: Problems) -> None:
    """What an encoder looks at, moments, is worth nothing in a narrow type."""
    if encoder is not None and precision in ("16-true", "bf16-true"):
        mixed = precision.replace("true", "mixed")
        text = f"'{precision}' makes the encoder as narrow; take '{mixed}', or leave 'encoder' out"
        problems.add("trainer.precision", text)


def check_conditioned(condition: str, norm: Any, problems: Problems) -> None:
    """An estimate is for norms that look at it."""
    if condition in ("estimate", "id_or_estimate", "mixture") and not reads_domains(norm):
        text = f"'{condition}' would change nothing, since no norm looks at the domain; take norms"
        problems.add("condition", f"{text} that do, such as 'norm: dsbn', or leave the key out")


def check_end_to_end(condition: str, encoder: Named | None, norm: Any, problems: Problems) -> None:
    """An encoder that learns with the network reads no input of norms; some take what it says."""
    if condition != "embedding" or encoder is None:
        return
    if not takes_embedding(norm):
        text = "'embedding' is for norms that take one, and 'norm' names none; add 'norm: film', or"
        problems.add("condition", f"{text} 'hyper' as a modulation")
    elif text := problem_of_embedding(encoder.options["embedding"], embedding_sizes(norm)):
        problems.add("encoder", text)
    if ENCODERS.entry(encoder.name).constants.get("reads_backbone"):
        text = f"'embedding' is wanted by the first norm, whose input '{encoder.name}' reads;"
        problems.add("condition", f"{text} take 'encoder: style', 'cnn', 'metadata' or 'text'")


def check_attributes(encoder: Named | None, attributes: Sequence[str], problems: Problems) -> None:
    """An encoder that reads attributes has some, each once."""
    for name, count in Counter(attributes).items():
        if count > 1:
            problems.add("data.attributes", f"names '{name}' {count} times")
    reads = encoder and ENCODERS.entry(encoder.name).constants.get("reads_attributes")
    if encoder and reads and not attributes:
        text = f"'{encoder.name}' estimates domains from attributes of the images, and there are"
        problems.add("encoder", f"{text} none; name some, such as data.attributes: [scanner]")
