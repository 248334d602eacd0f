"""Streams of image files, through the console command."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch
from torch.nn.modules.module import register_module_forward_hook

from domainnorm.backbones import DomainModel, load_domain
from domainnorm.errors import DomainNormError
from domainnorm.run.models import load_stored
from domainnorm.run.parts import Parts
from domainnorm.serve import StreamOptions
from domainnorm.serve.stream_log import StreamLine, append_log, read_log, write_log
from tests.combinations import few
from tests.run.tiny import PATIENCE, call, recipe, run

WORDS = ("encoder=style", "data.image_size=48", "method=source_only", "compare=[]")
CLEAN, NEGATIVE = 16, 24
QUICK, SLOW = (
    (f"method={{name: online, rows: opened, run_length: {length}}}",) for length in (100, 1000)
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"), *WORDS)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    """Clean images, negatives, clean ones again; numbered without zeros."""
    folder = tmp_path_factory.mktemp("streams") / "shift"
    folder.mkdir()
    dataset = Parts(recipe(*WORDS)).dataset
    clean = [n for n, one in enumerate(dataset.records) if one.domain == "clean"]
    order = [*clean[:CLEAN], *clean[:NEGATIVE], *clean[:CLEAN]]
    for place, index in enumerate(order):
        image = cv2.cvtColor(dataset.image(index), cv2.COLOR_RGB2BGR)
        image = 255 - image if CLEAN <= place < CLEAN + NEGATIVE else image
        assert cv2.imwrite(str(folder / f"frame_{place}.png"), image)
    return folder


def log_of(folder):
    return read_log(folder / "log.csv")


def adapt(trained, stream, output, *words):
    return call("adapt", str(trained), "--stream", str(stream), "--output", str(output), *words)


@pytest.fixture(scope="module")
def followed(trained, stream, tmp_path_factory):
    output = tmp_path_factory.mktemp("followed")
    assert adapt(trained, stream, output, *QUICK) == 0
    return output


@pytest.mark.slow
def test_images_come_in_the_order_of_their_numbers(followed):
    names = [line.image for line in log_of(followed)]
    assert names == [f"frame_{n}.png" for n in range(2 * CLEAN + NEGATIVE)]


def test_change_is_noticed_and_coming_back_too(followed):
    lines = log_of(followed)
    opened = [n for n, line in enumerate(lines) if line.event]
    assert len(opened) == 1
    assert CLEAN <= opened[0] < CLEAN + 16
    assert lines[opened[0]].event == "new domain 'found_1'"
    assert {line.domain for line in lines[:CLEAN]} == {"clean"}
    assert {line.domain for line in lines[-8:]} == {"clean"}
    taken = [line.domain for line in lines[CLEAN + 16 : CLEAN + NEGATIVE]]
    assert taken == ["found_1"] * len(taken)


def test_log_says_what_the_model_says(trained, followed):
    stored = load_stored(trained)
    line = log_of(followed)[0]
    assert line.prediction in stored.class_names
    assert 1 / len(stored.class_names) <= float(line.confidence) <= 1
    assert line.domain_weights["clean"] == pytest.approx(1)


def test_timeline_is_a_figure(followed):
    assert cv2.imread(str(followed / "timeline.png")).shape[0] > 500


def test_pack_of_the_found_domain_fits_the_model(trained, followed):
    model = load_stored(trained).model
    assert load_domain(model, followed / "packs" / "found_1.safetensors") == "found_1"
    assert model(torch.rand(2, 3, 48, 48), "found_1").isfinite().all()


def test_same_command_again_changes_nothing(trained, stream, followed, capsys):
    before = (followed / "log.csv").read_bytes()
    assert adapt(trained, stream, followed, *QUICK) == 0
    assert (followed / "log.csv").read_bytes() == before
    assert "56 images\n" in capsys.readouterr().out


def test_other_options_need_another_folder(trained, stream, followed, capsys):
    assert adapt(trained, stream, followed, *SLOW) == 1
    said = capsys.readouterr().err
    assert "'run_length': 100" in said
    assert "'run_length': 1000" in said
    assert "choose another --ou" in said


@pytest.mark.slow
def test_stream_that_is_killed_goes_on(trained, stream, followed, tmp_path):
    words = [sys.executable, "-m", "domainnorm", "adapt", str(trained), "--stream", str(stream)]
    words += ["--output", str(tmp_path / "out"), *QUICK]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    log, limit = tmp_path / "out" / "log.csv", time.monotonic() + PATIENCE
    while not log.exists() or log.read_text().count("\n") < 2:
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run(words, check=False, capture_output=True).returncode == 0
    assert log.read_bytes() == (followed / "log.csv").read_bytes()


@pytest.fixture(scope="module")
def one_by_one(trained, stream, tmp_path_factory):
    output = tmp_path_factory.mktemp("one_by_one")
    assert adapt(trained, stream, output, *QUICK, "--batch-size", "1") == 0
    return output


@pytest.mark.slow
@pytest.mark.parametrize("at", few(1, [35, 10, 36]))
def test_stream_interrupted_within_a_batch_goes_on_as_if_it_were_not(
    trained, stream, one_by_one, tmp_path, at
):
    words = (*QUICK, "--batch-size", "1")
    passes = []

    def interrupt(module, *_):
        passes.extend([module] if isinstance(module, DomainModel) else [])
        if len(passes) == at:
            raise KeyboardInterrupt

    hook = register_module_forward_hook(interrupt)
    try:
        assert adapt(trained, stream, tmp_path, *words) == 130
    finally:
        hook.remove()
    assert (tmp_path / "timeline.png").exists()
    assert adapt(trained, stream, tmp_path, *words) == 0
    assert (tmp_path / "log.csv").read_bytes() == (one_by_one / "log.csv").read_bytes()
    done, expected = (torch.load(folder / "state.pt") for folder in (tmp_path, one_by_one))
    assert done["images"] == expected["images"] == 56
    for state in (done, expected):
        assert state["stream"]["remembered"].pop("present") == ""
        del state["stream"]["random"]  # this process goes on drawing
    torch.testing.assert_close(done["stream"], expected["stream"], rtol=0, atol=0)


def test_stream_that_grows_goes_on_where_it_stopped(trained, stream, followed, tmp_path):
    growing = tmp_path / "growing"
    growing.mkdir()
    files = sorted(stream.iterdir(), key=lambda file: int(file.stem.partition("_")[2]))
    for part in (files[:24], files[24:]):  # whole batches
        for file in part:
            (growing / file.name).write_bytes(file.read_bytes())
        assert adapt(trained, growing, tmp_path / "out", *QUICK) == 0
    assert (tmp_path / "out" / "log.csv").read_bytes() == (followed / "log.csv").read_bytes()


def test_unreadable_images_are_logged_and_passed_over(trained, stream, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{stream / 'frame_0.png'}\nbroken.png\nmissing.png\n")
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert adapt(trained, tmp_path / "list.txt", tmp_path / "out") == 0
    lines = log_of(tmp_path / "out")
    assert [bool(line.domain) for line in lines] == [True, False, False]
    assert "unreadable" in lines[1].event
    assert "not a readable image" in lines[1].event
    assert "No such file" in lines[2].event
    assert "3 images, 2 of them skipped" in capsys.readouterr().out


def test_stream_without_a_readable_file_is_an_error_until_there_is_one(
    trained, stream, tmp_path, capsys
):
    (tmp_path / "table.csv").write_text("path,domain\nframe.png,clean\n")
    assert adapt(trained, tmp_path / "table.csv", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}/table.csv: 1 file, none of them readable, expected a folder" in said
    assert f"the first is {tmp_path}/frame.png: " in said
    (tmp_path / "frame.png").write_bytes((stream / "frame_0.png").read_bytes())
    assert adapt(trained, tmp_path / "table.csv", tmp_path / "out") == 0


def test_frames_behind_a_lens_cap_are_passed_over(trained, stream, tmp_path):
    generator = np.random.default_rng(0)
    films = tmp_path / "film"
    films.mkdir()
    for place in range(24):
        file = films / f"frame_{place}.png"
        file.write_bytes((stream / f"frame_{place % 8}.png").read_bytes())
        if place >= 16:
            dark = generator.normal(4, 1.5, (48, 48, 3)).clip(0, 255).astype(np.uint8)
            cv2.imwrite(str(file), dark)
    assert adapt(trained, films, tmp_path / "out", *QUICK) == 0
    lines = log_of(tmp_path / "out")
    assert [line.event[:6] for line in lines[16:]] == ["blank:"] * 8
    assert all(line.domain for line in lines[:16])
    assert not list(tmp_path.glob("out/packs/*"))


@pytest.mark.slow
def test_files_of_something_else_are_not_overwritten(trained, stream, tmp_path, capsys):
    (tmp_path / "log.csv").write_text("my own")
    assert adapt(trained, stream, tmp_path) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path}: holds other files (log.csv); choose another --output" in said
    assert (tmp_path / "log.csv").read_text() == "my own"


def test_stream_that_is_named_by_dots_leaves_the_log_of_training_alone(
    trained, stream, tmp_path, monkeypatch
):
    stage = load_stored(trained).place
    before = (stage / "log.csv").read_bytes()
    inside = tmp_path / "cam.2024" / "inside"
    inside.mkdir(parents=True)
    (tmp_path / "cam.2024" / "frame.png").write_bytes((stream / "frame_0.png").read_bytes())
    monkeypatch.chdir(inside)
    assert call("adapt", str(trained), "--stream", "..") == 0
    assert (stage / "log.csv").read_bytes() == before
    assert (stage / "adapt" / "cam.2024" / "log.csv").exists()


@pytest.mark.parametrize("damage", ["cut", "bit", "missing key"])
def test_broken_state_is_named(trained, stream, followed, tmp_path, damage, capsys):
    for name in ("stream.json", "log.csv", "state.pt"):
        (tmp_path / name).write_bytes((followed / name).read_bytes())
    state = tmp_path / "state.pt"
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:100])
    elif damage == "bit":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    else:
        torch.save({"lines": 3}, state)
    assert adapt(trained, stream, tmp_path, *QUICK) == 1
    assert "state.pt: not a complete stream state" in capsys.readouterr().err


def _gone(log):
    log.unlink()


def _cut(log):
    log.write_bytes(log.read_bytes()[:2000])


def _changed(log):
    log.write_text(log.read_text().replace("clean", "blurred", 1))


def _bytes(log):
    log.write_bytes(log.read_bytes().replace(b"clean", b"cl\xe4n", 1))


@pytest.mark.parametrize("damage", [_gone, _cut, _changed, _bytes])
def test_log_that_is_not_that_of_the_state_is_named(
    trained, stream, followed, tmp_path, damage, capsys
):
    for name in ("stream.json", "log.csv", "state.pt"):
        (tmp_path / name).write_bytes((followed / name).read_bytes())
    damage(tmp_path / "log.csv")
    assert adapt(trained, stream, tmp_path, *QUICK) == 1
    assert "log.csv: its first 56 lines have changed" in capsys.readouterr().err


def test_what_a_kill_has_left_is_removed(trained, stream, followed, tmp_path):
    for name in ("stream.json", "log.csv", "state.pt"):
        (tmp_path / name).write_bytes((followed / name).read_bytes())
    (tmp_path / ".partial.1234.state.pt").touch()
    with (tmp_path / "log.csv").open("ab") as log:  # lines after a state are predicted again
        log.write(b'frame_56.png,cl\xe4n,"0.9')
    assert adapt(trained, stream, tmp_path, *QUICK) == 0
    assert not list(tmp_path.glob(".partial.*"))
    assert (tmp_path / "log.csv").read_bytes() == (followed / "log.csv").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere", "no such folder or list of files; check the path"), ("", "no images in it")],
)
def test_streams_without_images_are_refused(trained, tmp_path, name, message, capsys):
    assert adapt(trained, tmp_path / name, tmp_path / "out") == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_run_without_encoder_is_refused(stream, tmp_path, capsys):
    folder = run(tmp_path, "data.image_size=48", "method=source_only", "compare=[]")
    assert adapt(folder, stream, tmp_path / "out") == 1
    assert "needs an encoder, but this run has none; train with" in capsys.readouterr().err
    assert adapt(folder, stream, tmp_path / "out", "method={name: neo, rows: opened}") == 2
    assert "method.rows: 'opened' needs a domain encoder" in capsys.readouterr().err


def test_lines_with_commas_and_quotes_survive(tmp_path):
    lines = [StreamLine('a, "b".png', event="x\ny"), StreamLine("c.png", weights="a=0.5|b=0.5")]
    write_log(tmp_path / "log.csv", lines[:1])
    append_log(tmp_path / "log.csv", lines[1:])
    assert read_log(tmp_path / "log.csv") == lines
    assert lines[1].domain_weights == {"a": 0.5, "b": 0.5}
    with (tmp_path / "log.csv").open(newline="") as file:
        assert len(list(csv.reader(file))) == 3


def test_weights_of_names_with_the_signs_between_them_are_read():
    line = StreamLine("a.png", weights="scanner|A=0.250|b=2=0.500|c|=0.250")
    assert line.domain_weights == {"scanner|A": 0.25, "b=2": 0.5, "c|": 0.25}


def test_asked_options_stand_in_the_folder(followed):
    asked = json.loads((followed / "stream.json").read_text())
    assert asked["method"]["run_length"] == 100
    assert asked["method"]["rows"] == "opened"
    assert asked["batch_size"] == 8


def test_files_of_twelve_bits_are_followed_as_those_of_eight(trained, stream, tmp_path, capsys):
    dark = tmp_path / "dark"
    dark.mkdir()
    for file in sorted(stream.iterdir())[:8]:
        image = cv2.imread(str(file)).astype("uint16") * 16
        assert cv2.imwrite(str(dark / file.name), image)
    assert adapt(trained, dark, tmp_path / "told", "--white", "4080") == 0
    assert adapt(trained, dark, tmp_path / "untold") == 0
    bright = tmp_path / "bright"
    bright.mkdir()
    for file in sorted(stream.iterdir())[:8]:
        (bright / file.name).write_bytes(file.read_bytes())
    assert adapt(trained, bright, tmp_path / "eight") == 0
    assert log_of(tmp_path / "told") == log_of(tmp_path / "eight")
    assert log_of(tmp_path / "untold") != log_of(tmp_path / "eight")
    assert adapt(trained, dark, tmp_path / "told") == 1
    assert "white was 4080, now None" in capsys.readouterr().err


def test_white_that_is_no_value_of_sixteen_bits_is_refused():
    with pytest.raises(DomainNormError, match=r"data\.white: 255, expected 256 to 65535"):
        StreamOptions(white=255)


def test_batches_of_nothing_are_refused():
    with pytest.raises(DomainNormError, match="batch_size: got 0, expected 1 or more"):
        StreamOptions(batch_size=0)
