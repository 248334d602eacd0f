"""Weights files: rows are matched by name, and a bad file changes nothing."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from domainnorm.backbones import convert_norms, load_model, read_header, save_model
from domainnorm.errors import CheckpointError
from tests.backbones.networks import converted, randomize_rows

IMAGE = torch.rand(3, 3, 64, 64)
CLASSES = ["x", "y"]  # as many as domains: a classifier must not be taken for rows of domains


def make(domains=("a", "b"), name="test_resnet", norm="dsbn"):
    return converted(name, norm, domains, num_classes=2).eval()


@pytest.fixture
def saved(tmp_path):
    model, path = make(), tmp_path / "stage" / "model.safetensors"
    save_model(model, path, "test_resnet", CLASSES)
    return model, path


@pytest.mark.parametrize("domains", [("a", "b"), ("b", "a"), ("c", "a", "b"), ("b",), ("a", "z")])
@pytest.mark.parametrize("norm", ["dsbn", "cbn", "cin", "bn"])
def test_known_domains_give_the_saved_outputs(tmp_path, domains, norm):
    model, other = make(norm=norm), make(domains, norm=norm)
    save_model(model, tmp_path / "model.safetensors", "test_resnet", CLASSES)
    load_model(other, tmp_path / "model.safetensors")
    for name in set(domains) & {"a", "b"}:
        torch.testing.assert_close(other(IMAGE, name), model(IMAGE, name), rtol=0, atol=0)


def test_what_domains_share_is_not_reordered_even_if_it_has_as_many_rows(tmp_path):
    norm = {"statistics": "domain", "modulation": "lowrank", "rank": 2}
    model, other = make(norm=norm), make(("b", "a"), norm=norm)
    for layer in model.norms():
        for code in layer.modulation.rows():
            torch.nn.init.normal_(code)
    save_model(model, tmp_path / "model.safetensors", "test_resnet", CLASSES)
    load_model(other, tmp_path / "model.safetensors")
    for name in ("a", "b"):
        torch.testing.assert_close(other(IMAGE, name), model(IMAGE, name), rtol=0, atol=0)


@pytest.mark.parametrize(("sources", "as_source"), [(["b"], "b"), (["a"], "a"), (["nowhere"], "")])
def test_new_domain_gets_the_rows_of_the_sources(saved, sources, as_source):
    model, path = saved
    other = make(("new", "a", "b"))
    load_model(other, path, sources)
    if as_source:
        torch.testing.assert_close(other(IMAGE, "new"), model(IMAGE, as_source))
    else:
        for norm in other.norms():
            scale = norm.modulation.scale
            torch.testing.assert_close(scale[0], scale[1:].mean(0))


def test_header_round_trips(saved):
    header = read_header(saved[1])
    assert (header.backbone, header.domain_names) == ("test_resnet", ("a", "b"))
    assert header.class_names == ("x", "y")


def test_training_can_go_on_from_a_loaded_model(saved):
    other = make(("b", "a")).train()
    load_model(other, saved[1])
    other(IMAGE, "a").sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in other.parameters())


def test_tied_norms_can_be_saved_and_loaded(tmp_path):
    norm = nn.BatchNorm2d(3)

    def tied():
        return randomize_rows(convert_norms(nn.Sequential(norm, norm), "dsbn", ("a", "b"))).eval()

    model, path = tied(), tmp_path / "model.safetensors"
    save_model(model, path, "tied", CLASSES)
    norm = nn.BatchNorm2d(3)
    other = tied()
    load_model(other, path)
    torch.testing.assert_close(other(IMAGE, "b"), model(IMAGE, "b"), rtol=0, atol=0)


def test_failed_save_keeps_the_former_file_and_leaves_no_other(saved, monkeypatch):
    _, path = saved
    before = path.read_bytes()

    class UnfinishedError(OSError):
        pass

    def interrupted(*_):
        raise UnfinishedError

    monkeypatch.setattr(type(path), "replace", interrupted)
    with pytest.raises(UnfinishedError):
        save_model(make(), path, "test_resnet", CLASSES)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]


def rewrite(path, **changes):
    """Change fields of the header; a field set to None is taken out."""
    fields = {
        "backbone": "test_resnet",
        "domain_names": ["a", "b"],
        "class_names": CLASSES,
        "version": 1,
    } | changes
    fields = {key: value for key, value in fields.items() if value is not None}
    save_file(load_file(path), path, metadata={"domainnorm": json.dumps(fields)})


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1000])


def foreign(path):
    save_file({"weight": torch.zeros(3)}, path)


def deep(path):
    save_file(load_file(path), path, metadata={"domainnorm": "[" * 100_000})


def missing_tensor(path):
    with_header(path, {k: v for k, v in load_file(path).items() if "fc" not in k})


def unexpected_tensor(path):
    with_header(path, load_file(path) | {"extra": torch.zeros(3)})


def with_header(path, tensors):
    save_file(tensors, path)
    rewrite(path)


DAMAGES = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "not a complete model file"),
    "empty": (lambda path: path.write_bytes(b""), "not a complete model file of domainnorm"),
    "text": (lambda path: path.write_text("weights"), "not a complete model file of domainnorm"),
    "truncated": (truncated, "not a complete model file of domainnorm"),
    "foreign": (foreign, "not a complete model file of domainnorm"),
    "deep header": (deep, "not a complete model file of domainnorm"),
    "list header": (
        lambda path: save_file(load_file(path), path, metadata={"domainnorm": "[]"}),
        "not a complete model file of domainnorm",
    ),
    "no domains": (lambda path: rewrite(path, domain_names=None), "'domain_names'"),
    "domains are a word": (lambda path: rewrite(path, domain_names="ab"), "is not a list"),
    "domain twice": (lambda path: rewrite(path, domain_names=["a", "a"]), "are not distinct"),
    "no name": (
        lambda path: rewrite(path, domain_names=["a", ""]),
        "domain_names are not distinct",
    ),
    "later version": (lambda path: rewrite(path, version=2), "format version 2"),
    "other domains": (lambda path: rewrite(path, domain_names=["p", "q"]), "share none with"),
    "too few names": (lambda path: rewrite(path, domain_names=["a"]), "do not fit this model"),
    "missing tensor": (missing_tensor, r"fc\.weight missing, expected \(2,"),
    "unexpected tensor": (unexpected_tensor, "extra unexpected"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_file_is_answered_and_changes_nothing(saved, damage):
    _, path = saved
    spoil, message = DAMAGES[damage]
    spoil(path)
    other = make(("a", "b", "c"))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(CheckpointError, match=message) as error:
        load_model(other, path)
    assert str(path) in str(error.value)
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


def test_weights_of_another_network_are_refused_naming_it(saved):
    other = make(name="test_efficientnet")
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(CheckpointError, match=r"do not fit this model \(file: test_resnet\)"):
        load_model(other, saved[1])
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


def altered(path, change):
    """The file with other tensors and the same header."""
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def test_numbers_that_are_not_those_that_were_saved_are_refused(saved):
    _, path = saved
    other = make()
    before = copy.deepcopy(other.state_dict())

    def change(tensors):
        next(t for t in tensors.values() if t.is_floating_point()).view(-1)[0] += 1e-3

    altered(path, change)
    with pytest.raises(CheckpointError, match="its content has changed since it was saved"):
        load_model(other, path)
    torch.testing.assert_close(other.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("value", "where", "problem"),
    [
        (float("nan"), "scale", "has values that are not finite"),
        (float("inf"), "weight", "has values that are not finite"),
        (-1.0, "running_var", "has negative values"),
    ],
)
def test_weights_that_would_predict_no_number_are_refused(tmp_path, value, where, problem):
    model, path = make(), tmp_path / "model.safetensors"
    chosen = next(t for name, t in model.state_dict().items() if name.endswith(where))
    chosen.view(-1)[0] = value
    save_model(model, path, "test_resnet", CLASSES)
    with pytest.raises(CheckpointError, match=problem):
        load_model(make(), path)


def test_files_without_a_digest_are_read(saved):
    model, path = saved
    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["domainnorm"])
    del header["digest"]
    save_file(load_file(path), path, metadata={"domainnorm": json.dumps(header)})
    other = make()
    load_model(other, path)
    torch.testing.assert_close(other(IMAGE, "a"), model(IMAGE, "a"), rtol=0, atol=0)


@pytest.mark.parametrize("key", ["domain_names", "class_names", "backbone"])
def test_names_under_the_digest_are_those_that_were_saved(saved, key):
    path = saved[1]
    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["domainnorm"])
    value = header[key]
    header[key] = value + "x" if isinstance(value, str) else [*value[:-1], value[-1] + "x"]
    save_file(load_file(path), path, metadata={"domainnorm": json.dumps(header)})
    with pytest.raises(CheckpointError, match="its content has changed since"):
        load_model(make(), path)
