from __future__ import annotations

import pytest
import torch

from domainnorm.backbones import load_domain, read_pack_header, save_domain
from domainnorm.cli.serving_commands import ACTIONS
from domainnorm.serve import load_stored
from tests.backbones.networks import make
from tests.cli.test_program import PROBE
from tests.run.tiny import TRANSFER, run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a run whose one method is the recipe's."""
    yield run(tmp_path_factory.mktemp("runs"), "method=source_only", "compare=[]")
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def pack(tmp_path):
    save_domain(make(), "b", tmp_path / "b.safetensors")
    return tmp_path / "b.safetensors"


def test_show_says_what_a_pack_holds(domainnorm, pack):
    done = domainnorm("pack", "show", str(pack))
    assert done.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["domain"] == "b"
    assert lines["backbone"] == "test_resnet"
    assert lines["norms"] == "15 domain*table"
    assert lines["tensors"] == f"75, {pack.stat().st_size / 1000:.1f} kB"
    digest = read_pack_header(pack)[0].shared["fc"][:12]
    assert f"fc {digest}" in lines["shared"]


def test_show_loads_nothing_heavy(process, pack):
    done = process("-c", PROBE, "pack", "show", str(pack))
    assert (done.returncode, done.stderr) == (0, "loaded: []\n")


def test_show_refuses_what_is_no_pack(domainnorm, tmp_path):
    (tmp_path / "x").write_text("a pack, is it not?")
    done = domainnorm("pack", "show", "x")
    assert done.returncode == 1
    assert done.stderr.startswith("domainnorm pack: x: not a complete domain pack")


@pytest.mark.slow
def test_run_leaves_a_pack_for_each_domain_that_fits_it(finished, domainnorm):
    place = finished / TRANSFER / "seed0/source_only"
    packs = sorted(place.glob("packs/*"))
    assert [file.name for file in packs] == ["clean.safetensors", "colour_cast.safetensors"]
    done = domainnorm("pack", "check", str(finished), str(packs[1]))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ok  {packs[1]}: domain 'colour_cast' fits {finished}\n"


@pytest.mark.slow
def test_pack_of_another_model_is_refused_by_check(finished, domainnorm, pack):
    done = domainnorm("pack", "check", str(finished), str(pack))
    assert done.returncode == 1
    assert "pack of 'test_resnet' does not fit this model: the shared weights of" in done.stderr


def test_saved_domain_can_be_loaded_again(finished, domainnorm, tmp_path):
    done = domainnorm("pack", "save", str(finished), "clean", "sub/mine.safetensors")
    assert done.returncode == 0
    model, image = load_stored(finished).model, torch.rand(2, 3, 32, 32)
    load_domain(model, tmp_path / "sub/mine.safetensors", "again")
    torch.testing.assert_close(model(image, "again"), model(image, "clean"), rtol=0, atol=0)


def test_file_is_called_after_the_domain(finished, domainnorm, tmp_path):
    domainnorm("pack", "save", str(finished / TRANSFER / "seed0/source_only"), "clean")
    assert read_pack_header(tmp_path / "clean.safetensors")[0].domain == "clean"


@pytest.mark.parametrize("name", ["packs", "."])
def test_folder_is_no_file_to_save_a_domain_in(finished, domainnorm, tmp_path, name):
    (tmp_path / "packs").mkdir()
    done = domainnorm("pack", "save", str(finished), "clean", name)
    assert done.returncode == 1
    assert f"{name}: is a folder, expected a file to write; name one in it, such as " in done.stderr
    assert "clean.safetensors" in done.stderr
    assert [file.name for file in tmp_path.rglob("*")] == ["packs"]


@pytest.mark.parametrize(
    ("folder", "domain", "message"),
    [
        ("", "claen", "unknown domain 'claen': did you mean 'clean'?"),
        ("stages", "clean", "neither a run folder (no recipe.yaml) nor that of a stage"),
        ("nowhere", "clean", "no such folder"),
    ],
)
def test_wrong_run_or_domain_is_answered(finished, domainnorm, tmp_path, folder, domain, message):
    done = domainnorm("pack", "save", str(finished / folder), domain)
    assert done.returncode == 1
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_a_help_of_its_own(domainnorm, action):
    done = domainnorm("pack", action, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: domainnorm pack {action} {ACTIONS[action].form}\n")
    assert ACTIONS[action].summary[:20] in done.stdout
