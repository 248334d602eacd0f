"""Streams of files of one domain, followed by methods that adapt while they predict."""

import cv2
import pytest
import torch

import domainnorm.serve.stream as following
from domainnorm.registry import METHODS
from domainnorm.run.parts import Parts
from domainnorm.serve.stream_log import read_log
from tests.run.tiny import METHODS as TINY
from tests.run.tiny import TRANSFER, call, recipe, run

NAMES = [name for name in METHODS.names() if METHODS.load(name).protocol == "online"]
OPTIONS = {
    "cotta": ["method.augmentations=2"],
    "eata": ["method.fisher_weight=0", "method.lr=0.05"],
    "tent_online": ["method.lr=0.05"],
    "sar": ["method.lr=0.05", "method.margin=1.0"],
    "deyo": ["method.lr=0.05", "method.margin=1.0", "method.drop=-1.0"],
    "roid": ["method.lr=0.05"],
    "alpha_bn": ["method.memory=stream"],
}
IMAGES = 11


@pytest.fixture(scope="module")
def source(finished):
    """The stage of a source model, of a run that knows of no stream."""
    assert "source_only" in TINY
    return finished / TRANSFER / "seed0" / "source_only"


@pytest.fixture(scope="module")
def cast(tmp_path_factory):
    """Images of the target."""
    folder = tmp_path_factory.mktemp("streams") / "cast"
    folder.mkdir()
    dataset = Parts(recipe()).dataset
    chosen = [n for n, one in enumerate(dataset.records) if one.domain == "colour_cast"]
    for place, index in enumerate(chosen[:IMAGES]):
        image = cv2.cvtColor(dataset.image(index), cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / f"{place}.png"), image)
    return folder


def adapt(source, stream, output, *words):
    words = ("--stream", str(stream), "--output", str(output), "--batch-size", "2", *words)
    return call("adapt", str(source), *words)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_was_killed_goes_on_as_if_it_had_not(source, cast, tmp_path, name):
    words = (f"method={name}", *OPTIONS.get(name, []))

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "_SAVED_EVERY", 2)
        torch.manual_seed(0)
        assert adapt(source, cast, whole, *words) == 0
        append, logged = following.append_log, []

        def stop(path, lines):
            logged.extend(lines)
            if len(logged) > 6:
                raise InterruptedError
            append(path, lines)

        patch.setattr(following, "append_log", stop)
        torch.manual_seed(0)
        with pytest.raises(InterruptedError):
            adapt(source, cast, parts, *words)
        patch.setattr(following, "append_log", append)
        assert adapt(source, cast, parts, *words) == 0
    lines = read_log(whole / "log.csv")
    assert [line.image for line in lines] == [f"{n}.png" for n in range(IMAGES)]
    assert {line.domain for line in lines} == {"colour_cast"}
    assert read_log(parts / "log.csv") == lines


def test_a_method_that_trains_before_is_refused(source, cast, tmp_path, capsys):
    assert adapt(source, cast, tmp_path / "out", "method=dann") == 2
    said = capsys.readouterr().err
    assert (
        "method: 'dann' trains before it predicts, and cannot follow streams; take one of" in said
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["method=neoo"],
            "domainnorm adapt: 1 problem\n  - method: unknown method 'neoo': did you mean 'neo'?",
        ),
        (["method=neo", "method.memory=0"], "method.memory: got 0, expected 1 or more"),
        (["seed=1"], "got seed=1, expected method=NAME or method.KEY=VALUE"),
        (["method=neo", "--domain", "color_cast"], "did you mean 'colour_cast'?"),
        (["method=eata"], "set it to 0 (ETA)"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(source, cast, tmp_path, capsys, words, said):
    assert adapt(source, cast, tmp_path / "out", *words) in (1, 2)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_method_needs_another_folder(source, cast, tmp_path, capsys):
    assert adapt(source, cast, tmp_path, "method=neo") == 0
    assert adapt(source, cast, tmp_path, "method=t3a") == 1
    said = capsys.readouterr().err
    assert "holds another stream (method was {'name': 'neo'," in said
    assert "now {'name': 't3a'" in said


@pytest.mark.slow
def test_the_domain_of_several_targets_is_asked_for(tmp_path, cast, capsys):
    folder = run(tmp_path, "data.target=[colour_cast,textured]", "method=source_only", "compare=[]")
    capsys.readouterr()
    assert adapt(folder, cast, tmp_path / "out", "method=neo") == 1
    said = capsys.readouterr().err
    assert (
        "--domain: missing; name the domain of these images: clean, colour_cast, textured" in said
    )
    words = ("method=neo", "--domain", "textured")
    assert adapt(folder, cast, tmp_path / "out", *words) == 0
    assert {line.domain for line in read_log(tmp_path / "out" / "log.csv")} == {"textured"}


@pytest.mark.slow
def test_predictions_say_that_they_do_not_adapt(tmp_path, cast, source, capsys):
    folder = run(tmp_path / "run", "method=neo", "compare=[source_only]")
    capsys.readouterr()
    words = (str(cast), "--domain", "colour_cast")
    assert call("predict", str(folder), *words) == 0
    said = capsys.readouterr().out
    assert "the model is in its last state under 'neo' and adapts no more; to adapt" in said
    assert "further: domainnorm adapt" in said
    assert call("predict", str(source), *words, "--output", str(tmp_path / "plain")) == 0
    assert "adapts no more" not in capsys.readouterr().out
