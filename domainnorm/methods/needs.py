"""What methods ask of norms, in words that say it before and in a run; read without torch."""

from __future__ import annotations

# The constant `needs` of a method -> why it cannot work with norms that have nothing of it.
NEEDS = {
    "moments": (
        "this model has no running moments to re-estimate (no norm has batch or domain "
        "statistics); take a backbone with batch norms, and norm 'dsbn' or 'cbn'"
    ),
    "weights": (
        "the model has no conditional norm whose scale could adapt; take one with a modulation, "
        "such as norm 'dsbn' or 'cbn'"
    ),
}


def no_rows(rows_weight: float) -> str:
    """Why `joint` cannot hold rows of domains together where there are none."""
    return (
        f"got {rows_weight}, but no norm has a row per domain; use norm dsbn, cin or cbn, or set "
        "it to 0"
    )


def nothing_of(part: str) -> str:
    """Why `finetune` cannot train a part of the model alone."""
    return f"no parameter is a part of '{part}' here; take another part, such as all"
