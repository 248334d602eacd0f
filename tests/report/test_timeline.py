"""The timeline of a stream."""

import numpy as np
import pytest
from PIL import Image

from domainnorm.evaluation import EvaluationError
from domainnorm.report import save_timeline
from domainnorm.report.timeline import running_mean


def test_timeline_of_two_domains_and_an_alarm(tmp_path):
    weights = {"a": [1.0, 1.0, 0.0], "$new$": [0.0, 0.0, 1.0]}
    path = tmp_path / "figures" / "timeline.png"
    save_timeline(weights, [0.7, 0.0, 1e4], [0.9, float("nan"), 0.5], {2: "$new$"}, 1e4, path)
    with Image.open(path) as figure:
        assert figure.size[0] > 1000


def test_no_images_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="got no images, expected at least one"):
        save_timeline({}, [], [], {}, 10.0, tmp_path / "timeline.png")


def test_running_mean_looks_back_and_passes_over_what_is_not_known():
    values = [1.0, 3.0, float("nan"), 5.0, 7.0]
    wanted = []
    for n in range(len(values)):
        window = [v for v in values[max(0, n - 1) : n + 1] if np.isfinite(v)]
        wanted.append(np.mean(window))
    assert running_mean(values, 2).tolist() == wanted
