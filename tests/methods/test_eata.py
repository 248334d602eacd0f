import copy
import math

import pytest
import torch
from torch.testing import assert_close

from domainnorm.backbones import create_model, data_config
from domainnorm.data import DomainDataModule, Loading, Preprocessing, Stream
from domainnorm.data.datasets import Scans
from domainnorm.methods.eata import EATA
from domainnorm.methods.heads import head_of
from domainnorm.tasks.classification import Classification
from tests.combinations import covering
from tests.methods.bench import ONE, Trainer, changed, fit, make_model, rows_changed, source_model
from tests.reference import adaptation

TARGET = ONE.all.index("colour_cast")
NETWORKS = {"test_resnet": "dsbn", "test_vit": None, "test_convnext": None}
SURER = {"test_resnet": 20, "test_vit": 20, "test_convnext": 200}


def follow(model, *, batch_size=3, per_domain=170, **options):
    """EATA on the stream of the target, in float64; the method and the data."""
    size = data_config(model)["input_size"][-1]
    data = DomainDataModule(
        Scans(per_domain=per_domain),
        domain_names=ONE.all,
        labelled=["clean"],
        unlabelled=["colour_cast"],
        preprocessing=Preprocessing.from_config(data_config(model), min(size, 64)),
        loading=Loading(stream=Stream(batch_size=batch_size), eval_batch_size=16),
    )
    method = EATA(model, Classification([str(n) for n in range(10)]), ONE, **options)
    method.eval_domains = data.test_domains
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        inference_mode=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.test(method, datamodule=data, verbose=False)
    return method, data


def reference(model):
    """The network as the paper has it: statistics of the batch, the target's rows."""
    network = copy.deepcopy(model).double().eval()
    for norm in network.norms():
        norm.statistics.train()
    parameters = [p for norm in network.norms() for p in norm.modulation.parameters()]
    return lambda image: network(image.double(), "colour_cast"), parameters


@covering(1, _slow=[*NETWORKS][1:], name=NETWORKS, fisher_weight=[50.0, 0.0])
def test_stream_equals_the_published_rule(monkeypatch, name, fisher_weight):
    swept, sweep = [], EATA.sweep

    def recorded(self, *given, **options):
        for batch in sweep(self, *given, **options):
            swept.append(batch["image"])
            yield batch

    monkeypatch.setattr(EATA, "sweep", recorded)
    model = network_of(name)
    run, parameters = reference(model)
    options = {"lr": 0.05, "margin": 0.97, "redundancy": 0.97}
    method, data = follow(model, fisher_weight=fisher_weight, fisher_images=32, **options)
    loaders = data.test_dataloader()
    batches = [batch["image"] for batch in loaders[0]]
    assert bool(swept) == bool(fisher_weight)
    none = [torch.zeros_like(p) for p in parameters]
    weights = adaptation.fisher(run, swept[:2], parameters) if swept else none
    expected, kept = adaptation.eata(
        run, batches, parameters, fisher=weights, fisher_weight=fisher_weight, **options
    )
    assert len(batches) >= 10
    assert 0 < sum(kept) < sum(map(len, batches))
    found = method.predictions()["colour_cast"].probabilities
    order = torch.cat([batch["index"] for batch in loaders[0]]).argsort()
    wanted = torch.cat(expected).softmax(1)[order]
    assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)  # stored in float32
    for parameter, moved in zip(method.adapted, parameters, strict=True):
        assert_close(parameter, moved, rtol=1e-9, atol=1e-11)


@torch.no_grad()
def network_of(name):
    """A network that is sure of some images and not of others."""
    torch.manual_seed(0)
    model = create_model(name, 10, NETWORKS[name], ONE.all)
    head_of(model).weight.mul_(SURER[name])
    return model


def test_only_rows_of_the_target_move():
    done = fit("eata", source_model(), ONE, batch_size=4, lr=0.1, margin=1.0, redundancy=1.0)
    names = changed(done.before, done.model)
    assert {name.rsplit(".", 2)[1] for name in names} == {"modulation", "statistics"}
    assert rows_changed(done.before, done.model, names) == {TARGET}


@pytest.mark.parametrize("num_classes", [2, 4, 7, 1000])
def test_a_sure_sample_is_not_redundant_for_few_classes(num_classes):
    names = [str(number) for number in range(num_classes)]
    method = EATA(make_model(), Classification(names), ONE)
    least = 1 / math.sqrt(num_classes)  # cosine of a sure prediction with a balanced mean
    assert method.redundancy > least


def test_fisher_is_small_where_nothing_hangs_on_a_row():
    method, _ = follow(source_model(), fisher_images=16, per_domain=40)
    scale = method.fisher[0]
    assert bool(scale[TARGET].any())
    assert not bool(scale[1 - TARGET].any())


def test_stream_of_single_images_stays_finite():
    done = fit("eata", source_model(), ONE, batch_size=1)
    assert all(bool(tensor.isfinite().all()) for tensor in done.model.state_dict().values())
