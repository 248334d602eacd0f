"""What a run tells of itself while it goes on."""

import re

import pytest

from domainnorm.run import training
from domainnorm.run.execute import time_left
from domainnorm.run.machine import quiet_lightning
from domainnorm.run.parts import Parts
from domainnorm.run.plan import plan_stages
from domainnorm.run.stage import predict, run_stage, set_up
from domainnorm.run.training import DomainBar, EpochLines
from tests.run.tiny import recipe, run


@pytest.mark.parametrize(
    ("took", "ahead", "expected"),
    [
        ([], ["a", "b"], ""),
        ([("a", 20.0)], ["b"], "  less than a minute left"),
        ([("a", 60.0)], ["b", "c"], "  about 2 min left"),
        ([("a", 60.0), ("b", 600.0)], ["a", "b"], "  about 11 min left"),
        ([("a", 60.0), ("b", 180.0)], ["c"], "  about 2 min left"),
        ([("a", 7200.0)], ["a"], "  about 2 h left"),
    ],
)
def test_time_left_is_that_of_stages_alike(took, ahead, expected):
    assert time_left(took, ahead) == expected


def test_run_says_what_is_left_after_its_first_stage(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "_BETWEEN_LINES", 0.0)
    run(tmp_path, "method=tent", "compare=[]", "method.epochs=1")
    shown = capsys.readouterr().out
    lines = re.findall(r"^\[\d/2\].*$", shown, re.MULTILINE)
    assert [line.endswith("left") for line in lines] == [False, True]
    assert re.search(r"epoch 2/2  loss \d\.\d{3}  balanced_accuracy \d\.\d{3}", shown)


class Told(DomainBar):
    """Keeps what stands before each bar."""

    def __init__(self):
        super().__init__()
        self.told = []

    def _add_task(self, total_batches, description, visible=True):
        self.told.append(description)
        return super()._add_task(total_batches, description, visible)


@pytest.mark.parametrize(
    ("method", "order", "expected"),
    [
        ("source_only", "shuffled", ["test clean", "test colour_cast"]),
        ("neo", "mixed", ["test colour_cast", "test clean"]),
    ],
)
def test_bar_of_a_test_names_its_domain(tmp_path, method, order, expected):
    quiet_lightning()
    asked = recipe(f"method={method}", "compare=[]", f"data.stream_order={order}")
    parts, (*before, stage) = Parts(asked), plan_stages(asked)
    for one in before:
        run_stage(parts, one, tmp_path)
    bench, bar = set_up(parts, stage, tmp_path), Told()
    callbacks = bench.trainer.callbacks
    callbacks[:] = [bar if isinstance(one, EpochLines) else one for one in callbacks]
    predict(bench)
    assert [one for one in bar.told if one.startswith("test ")] == expected
