"""Domain packs: what one domain owns, in a file; a bad file changes nothing."""

import copy
import json
import resource

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from domainnorm.backbones import (
    add_domain,
    convert_norms,
    load_domain,
    read_pack_header,
    save_domain,
    save_model,
)
from domainnorm.errors import CheckpointError, ConditionError
from tests.backbones.networks import DOMAINS, converted
from tests.backbones.test_domains import NORMS, make

IMAGE = torch.rand(4, 3, 64, 64)
KEY = "domainnorm_pack"


@pytest.fixture
def shipped(tmp_path):
    """A model, a copy that lacks its domain b, and the pack of b."""
    model = make()
    save_domain(model, "b", tmp_path / "b.safetensors")
    other = make(domains=("a", "c"))
    shared = {key: tensor for key, tensor in model.state_dict().items() if not is_row(key)}
    other.load_state_dict(shared, strict=False)
    return model, other, tmp_path / "b.safetensors"


def is_row(key):
    return ".modulation." in key or ".statistics." in key


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_loaded_domain_gives_the_outputs_of_the_saved_one(tmp_path, norm):
    model = make(norm)
    save_domain(model, "b", tmp_path / "b.safetensors")
    other = copy.deepcopy(model)
    assert load_domain(other, tmp_path / "b.safetensors", "again") == "again"
    assert other.domain_names == (*DOMAINS, "again")
    torch.testing.assert_close(other(IMAGE, "again"), model(IMAGE, "b"), rtol=0, atol=0)


def test_domain_travels_to_a_model_that_never_had_it(shipped):
    model, other, file = shipped
    load_domain(other, file)
    torch.testing.assert_close(other(IMAGE, "b"), model(IMAGE, "b"), rtol=0, atol=0)


def test_other_domains_keep_their_outputs(shipped):
    _, other, file = shipped
    wanted = other(IMAGE, "c")
    load_domain(other, file)
    torch.testing.assert_close(other(IMAGE, "c"), wanted, rtol=0, atol=0)


def test_domain_is_overwritten_on_request_only(shipped):
    model, _, file = shipped
    wanted = model(IMAGE, "b")
    with torch.no_grad():
        for rows in model.domain_rows():
            rows.tensor[1] = rows.tensor[0]
    with pytest.raises(CheckpointError, match="has a domain 'b' already; give another name="):
        load_domain(model, file)
    load_domain(model, file, replace=True)
    assert model.domain_names == DOMAINS
    torch.testing.assert_close(model(IMAGE, "b"), wanted, rtol=0, atol=0)


def test_trained_rows_of_the_other_domains_do_not_matter(shipped):
    model, _, file = shipped
    add_domain(model, "d")
    with torch.no_grad():
        for rows in model.domain_rows():
            rows.tensor[0] += 1
    load_domain(model, file, "again")
    torch.testing.assert_close(model(IMAGE, "again"), model(IMAGE, "b"), rtol=0, atol=0)


def test_pack_is_as_large_as_what_the_domain_owns(shipped):
    model, _, file = shipped
    stored = sum(tensor.numel() * tensor.element_size() for tensor in load_file(file).values())
    counters = 8 * len(list(model.norms()))
    assert stored == model.bytes_per_domain + counters
    assert file.stat().st_size < stored + 700 * len(list(model.norms()))


def test_header_says_what_the_pack_is_for(shipped):
    header, tensors = read_pack_header(shipped[2])
    assert (header.domain, header.backbone) == ("b", "test_resnet")
    assert header.layers["bn1"] == "domain*table eps=1e-05"
    assert {"conv1", "fc", "layer1"} <= set(header.shared)
    assert tensors["backbone.bn1.modulation.scale"].shape == (32,)


@pytest.mark.parametrize("norm", ["in", "bn", "adain"])
def test_model_whose_domains_own_nothing_has_no_packs(tmp_path, norm):
    model = convert_norms(nn.Sequential(nn.BatchNorm2d(3)), {"all": norm}, DOMAINS)
    with pytest.raises(CheckpointError, match="so there is nothing to save; convert with a norm"):
        save_domain(model, "a", tmp_path / "a.safetensors")


def test_unknown_domain_is_answered_and_no_file_is_left(tmp_path):
    with pytest.raises(ConditionError, match="unknown domain 'd': known: a, b, c"):
        save_domain(make(), "d", tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())


def test_failed_save_keeps_the_former_file_and_leaves_no_other(shipped, monkeypatch):
    model, _, file = shipped
    before = file.read_bytes()

    class UnfinishedError(OSError):
        pass

    def interrupted(*_):
        raise UnfinishedError

    monkeypatch.setattr(type(file), "replace", interrupted)
    with pytest.raises(UnfinishedError):
        save_domain(model, "a", file)
    assert file.read_bytes() == before
    assert [other.name for other in file.parent.iterdir()] == ["b.safetensors"]


def test_full_disk_is_a_message_and_leaves_no_file(tmp_path):
    model, limits = make(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"a\.safetensors: cannot be written .*; free"):
            save_domain(model, "a", tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_tied_norms_are_stored_once(tmp_path):
    norm = nn.BatchNorm2d(3)
    model = convert_norms(nn.Sequential(norm, nn.ReLU(), norm), "dsbn", DOMAINS).eval()
    save_domain(model, "a", tmp_path / "a.safetensors")
    assert len(load_file(tmp_path / "a.safetensors")) == 5
    assert load_domain(model, tmp_path / "a.safetensors", "d") == "d"


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
