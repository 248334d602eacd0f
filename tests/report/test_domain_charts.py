"""The timeline of a stream."""

import struct

import numpy as np
import pytest
from PIL import Image

from domainnorm.evaluation import EvaluationError
from domainnorm.report import save_embeddings, save_layer_differences, save_timeline
from domainnorm.report.domain_charts import running_mean


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


def size_of(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


def test_embeddings_of_any_number_of_domains_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    points = {f"$site_{n}$": rng.normal(n, 1, (5 + n, 7)) for n in range(10)}
    save_embeddings(points, tmp_path / "e.png", "a title")
    assert min(size_of(tmp_path / "e.png")) > 300


def test_points_in_one_place_are_drawn(tmp_path):
    save_embeddings({"a": np.ones((3, 4))}, tmp_path / "e.png")
    assert min(size_of(tmp_path / "e.png")) > 300


@pytest.mark.parametrize("points", [np.ones((1, 4)), np.ones((5, 1))])
def test_points_without_two_axes_are_refused(tmp_path, points):
    with pytest.raises(EvaluationError, match="expected at least two of two axes"):
        save_embeddings({"a": points}, tmp_path / "e.png")


def test_kinds_of_difference_without_values_are_left_out(tmp_path):
    nothing = {"a – b": [float("nan")] * 3}
    values = {"a – b": [0.1, 0.0, 2.0]}
    paths = ["bn1", "layer1.0.bn1", "layer1.0.bn2"]
    sizes = []
    for kinds in ({"moments": values}, {"moments": values, "scale": nothing}):
        save_layer_differences(kinds, paths, tmp_path / "l.png")
        sizes.append(size_of(tmp_path / "l.png"))
    assert sizes[0] == sizes[1]


def test_layers_without_any_difference_are_drawn(tmp_path):
    save_layer_differences({"scale": {"a – b": [float("nan")]}}, ["bn"], tmp_path / "l.png")
    assert min(size_of(tmp_path / "l.png")) > 100
