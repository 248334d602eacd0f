"""Methods of every protocol through the real command line."""

import pytest
import torch
from safetensors.torch import load_file

from domainnorm.data import Stream
from domainnorm.evaluation import load_evaluated
from domainnorm.report import load_results
from domainnorm.run.parts import Parts
from tests.run.tiny import TRANSFER, WORDS, call, recipe, run

STREAM = ("method={name: eata, lr: 0.05, margin: 1.0, redundancy: 1.0}", "compare=[source_only]")


def stage(folder, name):
    return folder / TRANSFER / "seed0" / name


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), *STREAM, "data.stream_batch_size=4")


@pytest.mark.slow
def test_stream_moves_the_rows_of_the_target_alone(streamed):
    before, after = (
        load_file(stage(streamed, name) / "model.safetensors") for name in ("source_only", "eata")
    )
    assert before["backbone.fc.weight"].equal(after["backbone.fc.weight"])
    tables = [name for name in before if name.endswith("modulation.scale")]
    assert tables
    for name in tables:
        assert before[name][0].equal(after[name][0])
        assert not before[name][1].equal(after[name][1])


def test_every_test_image_of_a_stream_is_predicted_once(streamed):
    for domain in ("clean", "colour_cast"):
        one, other = (
            load_evaluated(stage(streamed, name) / f"predictions-{domain}.safetensors")
            for name in ("source_only", "eata")
        )
        assert sorted(one.index.tolist()) == sorted(other.index.tolist())


def test_tables_tell_how_the_stream_went(streamed):
    """The metric of each quarter is that of its images, in the order in which they came."""
    found = load_results(stage(streamed, "eata") / "results.json")
    one = next(result for result in found if result.domain == "colour_cast")
    stored = load_evaluated(stage(streamed, "eata") / "predictions-colour_cast.safetensors")
    order = Stream().positions(Parts(recipe()).dataset, ["colour_cast"], range(10), 0)
    assert sorted(order) == list(range(len(stored)))
    for number, quarter in enumerate((order[:3], order[3:6], order[6:8], order[8:]), 1):
        wanted = stored.chosen(torch.tensor(quarter)).metrics()["balanced_accuracy"]
        assert one.metrics[f"quarter_{number}"] == pytest.approx(wanted)
    assert one.stream == "shuffled, batches of 4"
    # Tensors of a backward pass are alive beside those of the forward pass.
    assert one.metrics["mb_per_image"] > 1.5 * one.metrics["mb_plain"] > 0
    assert "MB an image (predicting alone: " in (streamed / "results.md").read_text()
    assert not any("quarter_1" in other.metrics for other in found if other.role == "source")
    text = (streamed / "results.md").read_text()
    assert "by quarter of the stream, eata: colour_cast " in text
    assert "online, test images in one pass, shuffled, batches of 4: eata" in text


def test_testing_a_stream_again_follows_it_again(streamed, capsys):
    def rows():
        lines = [line for line in capsys.readouterr().out.splitlines() if "eata" in line]
        # Without what an image has cost, which makes the table wider or not.
        return [line.partition(";")[0].split() for line in lines]

    assert call("report", str(streamed)) == 0
    capsys.readouterr()
    assert call("test", str(streamed)) == 0
    first = rows()
    assert call("test", str(streamed)) == 0
    assert first == rows() != []
    shown = (streamed / "results.md").read_text().splitlines()
    score = (
        next(line for line in shown if line.startswith("| eata"))
        .split("|")[3]
        .split()[0]
        .strip("*")
    )
    assert score in " ".join(first[0])


@pytest.mark.parametrize("order", ["by_class", "stored"])
def test_order_of_a_stream_is_that_of_the_recipe(tmp_path, streamed, order):
    other = run(tmp_path, *STREAM, "data.stream_batch_size=4", f"data.stream_order={order}")
    found = [
        load_evaluated(stage(folder, "eata") / "predictions-colour_cast.safetensors")
        for folder in (streamed, other)
    ]
    assert not found[0].probabilities.equal(found[1].probabilities)


def test_classes_may_come_in_runs(tmp_path):
    words = ("data.stream_order=by_class", "data.stream_run=2", "data.stream_batch_size=4")
    folder = run(tmp_path, "method=neo", "compare=[source_only]", *words)
    text = (folder / "results.md").read_text()
    assert "online, test images in one pass, by_class in runs of 2, batches of 4: neo" in text


def test_stream_is_not_shared_by_devices(tmp_path, capsys):
    words = ("quickstart", *STREAM, "trainer.devices=2", "--output", str(tmp_path))
    assert call("run", *words) == 2
    assert (
        "trainer.devices: got 2, but devices cannot share the one stream" in capsys.readouterr().err
    )


def test_method_of_two_views_says_how_to_give_them(tmp_path, capsys):
    words = ("quickstart", *WORDS, "method=mean_teacher", "compare=[]", "--output", str(tmp_path))
    assert call("run", *words) == 2
    assert "augment/strong_*" in capsys.readouterr().err


def test_gradients_accumulate(tmp_path):
    folder = run(tmp_path, "method=source_only", "compare=[]", "trainer.accumulate=2")
    assert (stage(folder, "source_only") / "results.json").exists()
