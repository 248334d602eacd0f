"""Encoders that learn features, from the loaders of a stage; models that a run is given."""

import numpy as np
import pytest
import torch

from domainnorm.backbones import create_model
from domainnorm.data import DomainDataModule, DomainDataset, Loading, Preprocessing
from domainnorm.data.dataset import Record
from domainnorm.encoders import create_encoder
from domainnorm.errors import CheckpointError
from domainnorm.recipe import load_recipe
from domainnorm.run.models import given_weights, teach_encoder
from domainnorm.run.plan import plan_stages
from domainnorm.run.run_folder import WEIGHTS, fill_folder


class Contrasts(DomainDataset):
    """Noise of a contrast of each domain's own: what batch norm hides where it sees one alone."""

    domain_names = ("low", "middle", "high")
    class_names = ("any",)

    def __init__(self, count=100):
        self.records = [
            Record(f"{domain}/{n}", domain, 0, f"{domain}{n}", "train" if n % 2 else "val")
            for domain in self.domain_names
            for n in range(2 * count)
        ]
        self.records += [
            Record(f"{name}/test", name, 0, name, "test") for name in self.domain_names
        ]

    def image(self, index):
        generator = np.random.default_rng(index)
        gain = 1 + 0.3 * self.domain_names.index(self.records[index].domain)
        gain += 0.03 * generator.standard_normal()
        pixels = 128 + 30 * gain * generator.standard_normal((16, 16, 3))
        return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture
def data():
    dataset = Contrasts()
    return DomainDataModule(
        dataset,
        domain_names=dataset.domain_names,
        labelled=["low"],
        unlabelled=["middle", "high"],
        preprocessing=Preprocessing(16, 16, (0.5,) * 3, (0.1,) * 3),
        loading=Loading(eval_batch_size=32),
    )


@pytest.mark.slow
def test_small_network_tells_domains_apart_that_differ_in_contrast_alone(data):
    torch.manual_seed(0)
    model = create_model("test_resnet", 1, "dsbn", data.domain_names)
    model.attach_encoder(create_encoder("cnn", 3), "mixture")
    teach_encoder(model, data, seed=0)
    with torch.no_grad():
        told = [
            model.encoder(batch["image"]).domain == batch["domain"]
            for batch in data.domain_dataloader("val")
        ]
    assert torch.cat(told).double().mean() > 0.9


def recipe_of(*words):
    return load_recipe("digits/mnist_usps", [*words, "seed=0"])


@pytest.mark.parametrize(
    ("then", "now"),
    [("data.split_seed=3", ""), ("data.val_fraction=0.2", "data.val_fraction=0.1")],
)
def test_a_checkpoint_that_has_learned_from_other_splits_is_refused(tmp_path, then, now):
    stage = plan_stages(recipe_of())[0]
    weights = tmp_path / stage.source_key / WEIGHTS
    weights.parent.mkdir(parents=True)
    weights.touch()
    fill_folder(tmp_path, recipe_of(*then.split()), "run")
    words = (f"checkpoint={tmp_path}", *now.split())
    key, value = then.split("=")
    expected = f"drawn with {key}={value}, here .*; set {then}"
    with pytest.raises(CheckpointError, match=expected):
        given_weights(recipe_of(*words), stage)
    assert given_weights(recipe_of(*words, then), stage) == weights
