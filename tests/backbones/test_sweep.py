"""Architectures of timm, all of them in a sweep; docs/backbones.md says what became of each."""

from pathlib import Path

import pytest
import timm

from tests.backbones.sweep.logits import compare
from tests.backbones.sweep.page import (
    FAMILIES,
    REFUSED,
    SIGNATURES,
    family_row,
    refused_rows,
    representatives,
    rows_of,
)
from tests.backbones.sweep.survey import family_of, survey

PAGE = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
ROWS = {head: rows_of(PAGE, head) for head in (FAMILIES, REFUSED, SIGNATURES)}
REPRESENTATIVES = [row[SIGNATURES.index("representative")].strip("`") for row in ROWS[SIGNATURES]]
of_this_timm = pytest.mark.skipif(
    f"timm {timm.__version__}," not in PAGE,
    reason="the page is of another timm; write it with python -m tests.backbones.sweep",
)


def architectures_by_family():
    families = {}
    for name in timm.list_models():
        families.setdefault(family_of(name), []).append(name)
    return families


ARCHITECTURES = architectures_by_family()
ONE_OF_EACH = [min(names, key=len) for names in ARCHITECTURES.values()]
COMPARED = [
    pytest.param(name, marks=pytest.mark.sweep if place % 7 else pytest.mark.slow)
    for place, name in enumerate(REPRESENTATIVES)
]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def surveys(request):
    """What became of the architectures of a family."""
    return [survey(name) for name in ARCHITECTURES[request.param]]


@pytest.mark.sweep
def test_every_tensor_of_a_family_is_kept_and_what_has_no_norm_is_refused(surveys):
    assert [f"{found.name}: {what}" for found in surveys for what in found.wrong()] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_tensor_is_kept_and_what_has_no_norm_is_refused(name):
    assert survey(name).wrong() == []


@of_this_timm
@pytest.mark.sweep
def test_page_says_what_became_of_the_family(surveys):
    family = surveys[0].family
    assert [row for row in ROWS[FAMILIES] if row[0] == family] == [family_row(surveys)]
    assert [row for row in ROWS[REFUSED] if row[0] == family] == refused_rows(surveys)
    signatures = [
        (*key, str(count), f"`{name}`") for key, (name, count) in representatives(surveys).items()
    ]
    assert [row[:4] for row in ROWS[SIGNATURES] if row[0] == family] == signatures


@pytest.mark.parametrize("name", COMPARED)
def test_outputs_stay_the_same_through_conversion_and_folding(name):
    assert compare(name).wrong() == []


@of_this_timm
def test_page_counts_every_architecture():
    counted = {row[0]: int(row[1]) for row in ROWS[FAMILIES]}
    assert counted == {family: len(names) for family, names in ARCHITECTURES.items()}
    total, refused = len(timm.list_models()), sum(row[1].count("`") // 2 for row in ROWS[REFUSED])
    counts = f"{total:,} architectures: {total - refused:,} converted, {refused} refused."
    assert f"**timm {timm.__version__}, {counts}**" in PAGE
    assert sum(int(row[SIGNATURES.index("architectures")]) for row in ROWS[SIGNATURES]) == (
        total - refused
    )
