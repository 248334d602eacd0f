"""Files that are no packs for a model, or none at all."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from domainnorm.backbones import (
    load_domain,
    save_domain,
    save_model,
)
from domainnorm.errors import CheckpointError, ConditionError
from tests.backbones.networks import converted, make

KEY = "domainnorm_pack"


def fields(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[KEY])


def rewrite(path, tensors=None, **changes):
    """Change tensors or header fields of a pack; a field set to None is taken out."""
    header = {name: value for name, value in {**fields(path), **changes}.items() if value != []}
    save_file(tensors or load_file(path), path, metadata={KEY: json.dumps(header)})


def with_values(value, name="backbone.bn1.modulation.scale"):
    def spoil(path):
        tensors = load_file(path)
        tensors[name] = torch.full_like(tensors[name], value)
        rewrite(path, tensors)

    return spoil


def with_tensor(name, tensor):
    def spoil(path):
        tensors = {**load_file(path), name: tensor}
        rewrite(path, {key: value for key, value in tensors.items() if value is not None})

    return spoil


def raw(header, rest=b""):
    """A file with this JSON header."""

    def spoil(path):
        content = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.write_bytes(len(content).to_bytes(8, "little") + content + rest)

    return spoil


def with_entry(**entry):
    """A pack whose one tensor is described so."""
    usual = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

    def spoil(path):
        meta = {KEY: json.dumps(fields(path))}
        raw({"__metadata__": meta, "x": {**usual, **entry}}, b"\0" * 4)(path)

    return spoil


def huge_header(path):
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


def large_header(path):
    path.write_bytes((5 * 2**20).to_bytes(8, "little") + b" " * (6 * 2**20))


def model_file(path):
    save_model(make(), path, "test_resnet", list("vwxyz"))


SCALE = "backbone.bn1.modulation.scale"
NOT_A_PACK = "not a complete domain pack"
DAMAGES = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), NOT_A_PACK),
    "empty": (lambda path: path.write_bytes(b""), NOT_A_PACK),
    "text": (lambda path: path.write_text("a pack, is it not?"), NOT_A_PACK),
    "pickle": (lambda path: torch.save({"x": 1}, path), NOT_A_PACK),
    "truncated": (
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        "its tensors are not the",
    ),
    "truncated header": (lambda path: path.write_bytes(path.read_bytes()[:500]), "a header of"),
    "with a tail": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "its tensors are not"),
    "other safetensors": (lambda path: save_file({"x": torch.ones(1)}, path), "'__metadata__' is"),
    "model file": (model_file, f"'{KEY}' is missing"),
    "huge header": (huge_header, "a header of 4611686018427387904 bytes"),
    "large header": (large_header, "a header of 5242880 bytes"),
    "deep header": (raw(b"[" * 100_000), NOT_A_PACK),
    "list": (raw([1, 2]), NOT_A_PACK),
    "not UTF-8": (raw(b'{"\xff": 1}'), NOT_A_PACK),
    "later version": (lambda path: rewrite(path, version=2), "format version 2, this program"),
    "no domain": (lambda path: rewrite(path, domain=""), "an empty domain name"),
    "escape codes": (lambda path: rewrite(path, domain="\x1b[31mred"), "'domain' is not a printa"),
    "number for a name": (lambda path: rewrite(path, domain=3), "'domain' is not a printable"),
    "no layers": (lambda path: rewrite(path, layers=[]), "'layers' is missing"),
    "negative place": (with_entry(data_offsets=[-4, 0]), "'x' has a shape or place that is no"),
    "fractional shape": (with_entry(shape=[0.5]), "'x' has a shape or place that is no whole"),
    "shape that does not fit": (with_entry(shape=[2**40]), r"does not fit its 4 bytes"),
    "unknown dtype": (with_entry(dtype="F8"), r"'x', F8 \(1,\), does not fit its 4 bytes"),
    "gap": (with_entry(data_offsets=[2, 6]), "its tensors are not the 4 bytes"),
    "missing tensor": (
        with_tensor(SCALE, None),
        rf"does not fit this model: {SCALE} is \(32,\) here, absent in the pack",
    ),
    "further tensor": (with_tensor("x", torch.ones(1)), r"x is absent here, \(1,\) in the pack"),
    "other shape": (with_tensor(SCALE, torch.ones(3)), rf"{SCALE} is \(32,\) here, \(3,\) in"),
    "other dtype": (
        with_tensor(SCALE, torch.ones(32, dtype=torch.int64)),
        f"{SCALE} is torch.int64, expected torch.float32",
    ),
    "not a number": (with_values(float("nan")), f"{SCALE} has values that are not finite"),
    "other numbers": (with_values(0.5), "its content has changed since it was saved"),
    "another name": (
        lambda path: rewrite(path, domain="site_c"),
        "its content has changed since it was saved",
    ),
    "infinite": (with_values(float("inf")), f"{SCALE} has values that are not finite"),
    "negative variance": (
        with_values(-1, "backbone.bn1.statistics.running_var"),
        "running_var has negative values",
    ),
    "negative count": (
        with_values(-1, "backbone.bn1.statistics.num_batches_tracked"),
        "num_batches_tracked has negative values",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_bad_file_is_answered_and_changes_nothing(shipped, damage):
    _, other, file = shipped
    spoil, message = DAMAGES[damage]
    spoil(file)
    before, names = copy.deepcopy(other.state_dict()), other.domain_names
    with pytest.raises(CheckpointError, match=message) as error:
        load_domain(other, file)
    assert str(file) in str(error.value)
    assert other.domain_names == names
    assert all(torch.equal(tensor, before[key]) for key, tensor in other.state_dict().items())


def retrained(model):
    nn.init.normal_(model.backbone.layer1[0].conv1.weight)


def with_other_head(model):
    model.backbone.reset_classifier(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (retrained, "the shared weights of 'layer1' are not those it was made with"),
        (with_other_head, "the shared weights of 'fc' are not those it was made with"),
    ],
)
def test_pack_of_other_shared_weights_is_refused_naming_the_part(shipped, change, message):
    _, other, file = shipped
    change(other)
    with pytest.raises(CheckpointError, match=f"'test_resnet' does not fit this model: {message}"):
        load_domain(other, file)


@pytest.mark.parametrize(
    ("norm", "name", "message"),
    [
        ("cbn", "test_resnet", r"layer 'conv1\.1' is batch\*table eps=1e-05 here, domain\*table"),
        (
            "dsbn",
            "test_efficientnet",
            "layer 'conv_stem' is absent here|layer '.*' is .* absent in",
        ),
        ({"name": "dsbn", "eps": 1e-3}, "test_resnet", "eps=0.001 here, .* eps=1e-05 in the pack"),
    ],
)
def test_pack_of_another_network_or_norm_is_refused_naming_the_layer(shipped, norm, name, message):
    with pytest.raises(CheckpointError, match=message):
        load_domain(converted(name, norm), shipped[2], "new")


def test_pack_in_another_number_format_is_refused(shipped):
    _, other, file = shipped
    with pytest.raises(CheckpointError, match="in the same number format"):
        load_domain(other.half(), file)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_other_number_formats_have_packs(tmp_path, dtype):
    model = make().to(dtype)
    save_domain(model, "b", tmp_path / "b.safetensors")
    load_domain(model, tmp_path / "b.safetensors", "again")
    for rows in model.domain_rows():
        assert torch.equal(rows.tensor[3], rows.tensor[1])


def test_name_that_cannot_be_printed_is_refused(shipped):
    _, other, file = shipped
    with pytest.raises(ConditionError, match=r"domain: got 'x\\n', expected a name of printable"):
        load_domain(other, file, "x\n")
