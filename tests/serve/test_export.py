"""A stage of a run as files for deployment."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from domainnorm.backbones import create_model, load_model
from domainnorm.data import Preprocessing
from domainnorm.serve import export_run
from tests.run.tiny import TRANSFER, call, recipe, run

pytestmark = pytest.mark.slow

SERVE = Path(__file__).parents[2] / "docs" / "serve_onnx.py"
STAGE = f"{TRANSFER}/seed0/tent"
NAMES = ["clean", "colour_cast"]


def stored(finished):
    """The model of the stage that is exported."""
    model = create_model("test_resnet", 10, recipe().norm, NAMES)
    load_model(model, finished / STAGE / "model.safetensors")
    return model.eval()


@pytest.fixture(scope="module")
def served(finished, tmp_path_factory):
    """Folder of an ONNX export."""
    return export_run(finished, "onnx", output=tmp_path_factory.mktemp("served") / "onnx").folder


def test_onnx_file_computes_what_the_stage_has_learned(finished, served):
    session = onnxruntime.InferenceSession(str(served / "model.onnx"))
    image, domain = torch.randn(3, 3, 32, 32), torch.tensor([1, 0, 1])
    found = session.run(None, {"image": image.numpy(), "domain": domain.numpy()})[0]
    wanted = stored(finished)(image, domain).detach()
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-5)


def test_description_is_beside_the_file_and_in_it(served):
    about = json.loads((served / "model.json").read_text())
    metadata = {m.key: m.value for m in onnx.load(served / "model.onnx").metadata_props}
    inside = json.loads(metadata["domainnorm"])
    assert about.pop("largest_difference") < 1e-5
    assert inside == about
    assert inside["domain_names"] == NAMES
    assert inside["class_names"] == [str(digit) for digit in range(10)]
    image = inside["preprocessing"]
    assert (image["height"], image["width"], image["mean"]) == (32, 32, [0.5, 0.5, 0.5])


def test_export_leaves_its_files_and_nothing_else(served):
    assert {file.name for file in served.iterdir()} == {"model.onnx", "model.json", "card.md"}
    assert [file.name for file in served.parent.iterdir()] == ["onnx"]


def test_card_holds_what_was_measured(finished, served):
    card = (served / "card.md").read_text()
    results = json.loads((finished / "metrics.json").read_text())
    rows = [result for result in results if result["method"] == "tent"]
    assert len(rows) == 2
    for label, row in enumerate(rows):
        value, (low, high) = (row[key]["balanced_accuracy"] for key in ("metrics", "intervals"))
        cell = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        assert f"| {label} | {row['domain']} | {row['role']} | 10 | {cell} |" in card
    assert "## Licence\n\n*To be filled in" in card


@pytest.mark.parametrize("domain", [None, "colour_cast"])
@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
def test_code_of_the_card_runs(finished, tmp_path, monkeypatch, kind, domain):
    folder = export_run(finished, kind, domain=domain, output=tmp_path / "out").folder
    code = (folder / "card.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder)
    image, labels = torch.randn(2, 3, 32, 32), torch.tensor([1, 1])
    scope = {"image": image, "domain": labels}
    if kind == "onnx":
        scope = {name: tensor.numpy() for name, tensor in scope.items()}
    exec(code, scope)
    found, wanted = torch.as_tensor(scope["logits"]), stored(finished)(image, labels)
    torch.testing.assert_close(found.detach(), wanted.detach(), rtol=1e-4, atol=1e-5)


def test_timm_weights_load_strictly_into_a_fresh_network(finished, tmp_path):
    folder = export_run(finished, "timm", domain="colour_cast", output=tmp_path / "out").folder
    image = torch.randn(2, 3, 32, 32)
    wanted = stored(finished)(image, "colour_cast")
    network = timm.create_model("test_resnet", num_classes=10).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"))
    torch.testing.assert_close(network(image), wanted, rtol=1e-4, atol=1e-5)
    code = (folder / "card.md").read_text().split("```python\n")[1].split("```")[0]
    assert 'timm.create_model("test_resnet", num_classes=10)' in code


def test_timm_finds_weights_and_preprocessing_in_the_folder(finished, tmp_path):
    folder = export_run(finished, "timm", domain="clean", output=tmp_path / "out").folder
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    image = torch.randn(2, 3, 32, 32)
    wanted = stored(finished)(image, "clean")
    torch.testing.assert_close(network(image), wanted, rtol=1e-4, atol=1e-5)
    config = timm.data.resolve_model_data_config(network)
    assert (config["input_size"], tuple(config["mean"]), config["crop_pct"]) == (
        (3, 32, 32),
        (0.5, 0.5, 0.5),
        1.0,
    )


def test_example_serves_the_file_without_torch(finished, served, tmp_path):
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (20, 50), (90, 70)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    files = [tmp_path / f"{n}.png" for n in range(len(images))]
    for file, image in zip(files, images, strict=True):
        assert cv2.imwrite(str(file), image[..., ::-1])
    probe = (
        "import runpy, sys\nsys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "heavy = {'torch', 'timm', 'lightning', 'domainnorm'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    words = [SERVE, served / "model.onnx", "--domain", "colour_cast", *files]
    done = subprocess.run(
        [sys.executable, "-c", probe, *map(str, words)],
        cwd=tmp_path,
        env={"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    preprocess = Preprocessing(32, 32, (0.5,) * 3, (0.5,) * 3)
    batch = torch.stack([preprocess(image) for image in images])
    wanted = stored(finished)(batch, "colour_cast").detach().softmax(1).max(1)
    for line, file, label, value in zip(
        done.stdout.splitlines(), files, wanted.indices, wanted.values, strict=True
    ):
        name, found, probability = line.split("\t")
        assert (name, found) == (str(file), str(int(label)))
        assert float(probability) == pytest.approx(float(value), abs=1e-4)


def test_command_exports_and_says_how_exact_it_is(finished, tmp_path, capsys):
    words = ("export", str(finished), "--format", "torch_export", "--out", str(tmp_path / "out"))
    assert call(*words) == 0
    said = capsys.readouterr().out
    assert f"{STAGE}: largest difference " in said
    assert said.endswith(f"exported to {tmp_path / 'out'}\n")


def failing(*words, capsys):
    code = call("export", *map(str, words))
    return code, capsys.readouterr().err


def test_outputs_beyond_the_tolerance_leave_nothing(finished, tmp_path, capsys):
    words = (finished, "--format", "onnx", "--tolerance", "1e-12", "--out", tmp_path / "out")
    code, said = failing(*words, capsys=capsys)
    assert code == 1
    assert "model.onnx: its outputs differ from the model's by " in said
    assert "expected at most 1.0e-12; nothing was kept" in said
    assert list(tmp_path.iterdir()) == []


def test_earlier_export_survives_one_that_fails(finished, tmp_path, capsys):
    out = export_run(finished, "torch_export", output=tmp_path / "out").folder
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    failing(finished, "--format", "onnx", "--tolerance", "1e-12", "--out", out, capsys=capsys)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--format", "timm"], 2, "holds one domain; add --domain, one of clean, colour_cast"),
        (
            ["--format", "onnx", "--domain", "clen"],
            1,
            "domain 'clen': did you mean 'clean'",
        ),
        (["--format", "onnx", "--stage", "x"], 1, "unknown stage 'x'"),
    ],
)
def test_wrong_words_are_answered(finished, capsys, words, code, message):
    found, said = failing(finished, *words, capsys=capsys)
    assert found == code
    assert message in said


def test_stage_may_be_the_end_of_its_path(finished, tmp_path):
    short = export_run(finished, "onnx", stage="/".join(STAGE.split("/")[-2:]), output=tmp_path)
    assert short.stage == STAGE


def test_folder_without_a_run_is_refused(tmp_path, capsys):
    code, said = failing(tmp_path, "--format", "onnx", capsys=capsys)
    assert code == 1
    assert "no recipe.yaml in it" in said


def test_run_without_a_finished_stage_is_refused(finished, tmp_path, capsys):
    for name in ("recipe.yaml", "run.json"):
        shutil.copy(finished / name, tmp_path)
    code, said = failing(tmp_path, "--format", "onnx", capsys=capsys)
    assert code == 1
    assert "no finished stage; go on with `run --resume" in said


def test_several_stages_of_the_method_need_a_choice(finished, tmp_path, capsys):
    copied = tmp_path / "run"
    shutil.copytree(finished, copied)
    shutil.copytree(copied / TRANSFER / "seed0", copied / TRANSFER / "seed1")
    code, said = failing(copied, "--format", "onnx", capsys=capsys)
    assert code == 2
    assert f"2 stages could be meant; add --stage, one of {STAGE}, {TRANSFER}/seed1/tent" in said
    chosen = export_run(copied, "torch_export", stage=f"{TRANSFER}/seed1/tent")
    assert chosen.stage == f"{TRANSFER}/seed1/tent"
    assert chosen.folder == copied / chosen.stage / "export" / "torch_export"


def test_weights_of_another_shape_are_refused(finished, tmp_path, capsys):
    copied = tmp_path / "run"
    shutil.copytree(finished, copied)
    file = copied / STAGE / "model.safetensors"
    state = load_file(file)
    with safe_open(str(file), "pt") as opened:
        metadata = opened.metadata()
    header = json.loads(metadata["domainnorm"]) | {"digest": ""}
    metadata["domainnorm"] = json.dumps(header)
    state["backbone.fc.weight"] = torch.zeros(3, 3)
    save_file(state, file, metadata=metadata)
    code, said = failing(copied, "--format", "onnx", capsys=capsys)
    assert code == 1
    assert "1 tensors do not fit this model" in said


def test_network_of_one_channel_is_trained_exported_and_served(tmp_path):
    words = (
        "backbone.options={in_chans: 1}",
        "compare=[]",
        "trainer.max_epochs=1",
        "encoder=style",
    )
    folder = run(tmp_path / "runs", *words)
    served = export_run(folder, "onnx", output=tmp_path / "onnx")
    assert served.difference < 1e-5
    about = json.loads((served.folder / "model.json").read_text())["preprocessing"]
    image = np.random.default_rng(0).integers(0, 256, (40, 32, 3), dtype=np.uint8)
    found = runpy.run_path(str(SERVE))["preprocess"](image, about)
    np.testing.assert_array_equal(found, Preprocessing(32, 32, (0.5,), (0.5,))(image))
    plain = export_run(folder, "timm", domain="clean", output=tmp_path / "timm").folder
    network = timm.create_model(f"local-dir:{plain}", pretrained=True)
    assert timm.data.resolve_model_data_config(network)["input_size"] == (1, 32, 32)


def test_instance_statistics_do_not_fit_timm_but_fit_onnx(tmp_path, capsys):
    words = ("norm=cin", "method=source_only", "compare=[]", "trainer.max_epochs=1")
    folder = run(tmp_path / "runs", *words)
    capsys.readouterr()
    out = tmp_path / "out"
    words = (folder, "--domain", "clean", "--out", out)
    code, said = failing(*words, "--format", "timm", capsys=capsys)
    assert code == 1
    assert "does not fold into the layers of test_resnet" in said
    assert not out.exists()
    assert export_run(folder, "onnx", domain="clean", output=out).difference < 1e-5
