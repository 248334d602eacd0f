"""Domain packs: what one domain owns, in a file; a bad file changes nothing."""

import copy
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from domainnorm.backbones import (
    add_domain,
    convert_norms,
    load_domain,
    read_pack_header,
    save_domain,
)
from domainnorm.errors import CheckpointError, ConditionError
from domainnorm.norms.statistics.running import DomainStatistics
from domainnorm.registry import STATISTICS, Entry
from tests.backbones.domains.test_pack_files import fields, rewrite
from tests.backbones.networks import DOMAINS, NORMS, make

IMAGE = torch.rand(4, 3, 64, 64)


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


def test_pack_of_the_first_release_is_read():
    conv = nn.Conv2d(3, 4, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.arange(12.0).view_as(conv.weight))
    norms = {"1": "dsbn", "2": {"statistics": "mixed", "modulation": "table"}}
    network = nn.Sequential(conv, nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    model = convert_norms(network, norms, DOMAINS)
    load_domain(model, Path(__file__).with_name("pack_of_0.1.0.safetensors"), "d")
    for rank, owned in enumerate(model.domain_rows()):
        row = owned.tensor[-1]
        wanted = torch.arange(4.0) + rank + 1 if row.is_floating_point() else torch.tensor(7)
        torch.testing.assert_close(row, wanted, rtol=0, atol=0)


class OwnStatistics(DomainStatistics):
    """Statistics of a user, registered under a name that is not that of their module."""


def test_pack_names_norms_of_users_as_recipes_do_and_by_their_module_before(tmp_path, monkeypatch):
    entry = Entry("statistics", "own", OwnStatistics.__module__, "OwnStatistics")
    entries = {name: STATISTICS.entry(name) for name in STATISTICS.names()}
    monkeypatch.setitem(STATISTICS.__dict__, "_entries", {**entries, "own": entry})
    norm = {"statistics": "own", "modulation": "table"}
    model = convert_norms(nn.Sequential(nn.BatchNorm2d(3)), norm, DOMAINS).eval()
    file = tmp_path / "b.safetensors"
    save_domain(model, "b", file)
    assert fields(file)["layers"] == {"0": "own*table eps=1e-05"}
    rewrite(file, layers={"0": "test_packs*table eps=1e-05"}, digest="")
    assert load_domain(model, file, "again") == "again"
    rewrite(file, layers={"0": "domain*table eps=1e-05"}, digest="")
    with pytest.raises(CheckpointError, match=r"layer '0' is own\*table .* here, domain\*table"):
        load_domain(model, file, "other")
