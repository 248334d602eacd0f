from __future__ import annotations

import pytest

from domainnorm.evaluation import readable, sentence


def test_sentence_keeps_capitals() -> None:
    assert sentence("macro F1") == "Macro F1"


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("miou", "mean IoU"),
        ("iou/sky", "IoU of sky"),
        ("dice/sign_symbol", "Dice of sign_symbol"),
        ("pixel_accuracy", "pixel accuracy"),
    ],
)
def test_metrics_are_written_as_words(metric: str, words: str) -> None:
    assert readable(metric) == words
