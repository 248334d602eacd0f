"""Drawn descriptions of the devices of domains, as tables of hospitals spell them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Maker, models that training has, models that it does not have. Domains have the first two.
MAKERS = (
    ("Aperio", ("AT2", "CS2"), ("GT450 DX", "ScanScope XT", "Versa 8")),
    ("Hamamatsu NanoZoomer", ("XR", "S60"), ("S360", "2.0-HT", "S210")),
    ("Zeiss Axioscan", (), ("7", "Z1")),
)
REPORTS = (
    "Peripheral blood smear, May-Grünwald-Giemsa stain, scanned with {} at {}x; all in focus.",
    "Smear of blood. Device: {}; objective {}x. No artefacts, quality sufficient.",
    "{} ({}x). Blood film of a patient under treatment, stained the day before.",
)
Describe = Callable[[int, str, np.random.Generator], str]


def device(row: int, change: str, draw: np.random.Generator) -> str:
    """A device of a domain's maker; ``change`` says in what it is unlike those of training."""
    other = "other maker" in change
    maker, known, further = MAKERS[2 if other else row]
    name = f"{maker} {draw.choice(further if other or 'other model' in change else known)}"
    return misspelled(name, draw) if "misspelled" in change else name


def misspelled(text: str, draw: np.random.Generator) -> str:
    """A text with one of its first six letters left out, doubled, or swapped with the next."""
    place = int(draw.integers(5))
    before, letter, after = text[:place], text[place], text[place + 1 :]
    wrong = (before + after, before + 2 * letter + after, before + after[0] + letter + after[1:])
    return wrong[draw.integers(3)]


def report(row: int, change: str, draw: np.random.Generator) -> str:
    """Sentences that name a device, and a magnification that tells nothing."""
    text = str(draw.choice(REPORTS))
    return text.format(device(row, change, draw), draw.choice((20, 40, 63, 100)))


ATTRIBUTES: dict[str, Describe] = {"device": device, "report": report}
CHANGES = ("", "other model", "misspelled", "other model, misspelled", "other maker")
