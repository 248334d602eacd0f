"""A converted network, called with images and the domain of each."""

import copy
import io
import pickle

import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from domainnorm.errors import ConditionError
from tests.backbones.networks import DOMAINS, converted

IMAGE = torch.rand(4, 3, 64, 64)
LABELS = torch.tensor([2, 0, 1, 0])


@pytest.mark.parametrize(
    "domain", [LABELS.int(), ["c", "a", "b", "a"], LABELS.tolist()], ids=["int32", "names", "list"]
)
def test_ways_to_name_the_domains_of_a_batch_agree(domain):
    model = converted().eval()
    torch.testing.assert_close(model(IMAGE, domain), model(IMAGE, LABELS), rtol=0, atol=0)


@pytest.mark.parametrize("domain", ["b", 1])
def test_one_name_or_label_serves_all_images(domain):
    model = converted().eval()
    wanted = model(IMAGE, torch.ones(4, dtype=torch.long))
    torch.testing.assert_close(model(IMAGE, domain), wanted, rtol=0, atol=0)


def test_domains_differ():
    model = converted().eval()
    assert (model(IMAGE, "a") - model(IMAGE, "b")).abs().max() > 1e-3


def test_model_of_one_domain_needs_no_label():
    model = converted(domains=["only"]).eval()
    torch.testing.assert_close(model(IMAGE), model(IMAGE, "only"), rtol=0, atol=0)


def test_certain_weights_equal_labels():
    model = converted().eval()
    found = model(IMAGE, weights=torch.eye(3)[LABELS])
    torch.testing.assert_close(found, model(IMAGE, LABELS))


@pytest.mark.parametrize("norm", ["dsbn", "cbn"])
def test_weights_of_a_single_image_get_a_gradient(norm):
    model = converted(norm=norm).eval()
    weights = torch.tensor([[0.5, 0.3, 0.2]], requires_grad=True)
    model(IMAGE[:1], weights=weights).square().sum().backward()
    alone, weights.grad = weights.grad, None
    model(IMAGE[[0, 0]], weights=weights.expand(2, -1))[0].square().sum().backward()
    # Convolutions of one image and of two are summed in other orders.
    torch.testing.assert_close(weights.grad, alone, rtol=1e-4, atol=1e-5)


def test_backbone_called_directly_says_what_to_do():
    message = "conv1: no condition is set; call the DomainModel, not its backbone"
    with pytest.raises(ConditionError, match=message.replace("conv1", r"\w+")):
        converted().backbone(IMAGE)


def test_bad_call_leaves_no_condition_behind():
    model = converted()
    with pytest.raises(RuntimeError):
        model(torch.rand(2, 5, 64, 64), "a")
    assert model.slot.current is None


def test_block_of_a_condition_serves_other_methods_of_the_backbone():
    model = converted().eval()
    with model.condition(IMAGE, LABELS) as backbone:
        logits = backbone.forward_head(backbone.forward_features(IMAGE))
    torch.testing.assert_close(logits, model(IMAGE, LABELS))


def test_empty_batch_gives_empty_logits_in_evaluation():
    assert converted().eval()(IMAGE[:0], []).shape == (0, 5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copy_is_equal_and_independent(copied):
    model = converted().eval()
    wanted = model(IMAGE, LABELS)
    other = copied(model)
    assert {id(norm.slot) for norm in other.norms()} == {id(other.slot)}
    assert other.slot is not model.slot
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(other(IMAGE, LABELS), wanted, rtol=0, atol=0)


def test_copy_under_a_condition_starts_without_one():
    model = converted()
    with model.condition(IMAGE, LABELS):
        assert copy.deepcopy(model).slot.current is None


def test_state_dict_holds_everything_that_decides_the_output():
    model, other = converted().eval(), converted().eval()
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(IMAGE, LABELS), model(IMAGE, LABELS), rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["dsbn", "cin"])
def test_channels_last_gives_the_same_outputs(norm):
    model = converted(norm=norm).eval()
    wanted = model(IMAGE, LABELS)
    model.to(memory_format=torch.channels_last)
    found = model(IMAGE.to(memory_format=torch.channels_last), LABELS)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["dsbn", "cin", "cbn"])
def test_batch_of_one_can_be_trained(norm):
    model = converted(norm=norm).train()
    model(IMAGE[:1], "b").sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("norm", ["dsbn", "cin", "cbn"])
def test_absent_domains_get_zero_gradients_not_none(norm):
    model = converted(norm=norm).train()
    model(IMAGE, ["a", "c", "c", "a"]).sum().backward()
    for layer in model.norms():
        for table in layer.modulation.parameters():
            assert torch.equal(table.grad[1], torch.zeros_like(table[1]))


class Classifier(LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def training_step(self, batch, batch_idx):
        image, domain = batch
        return self.model(image, domain).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_model_trains_in_a_plain_lightning_trainer(tmp_path):
    model = converted()
    before = copy.deepcopy(model.state_dict())
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        log_every_n_steps=1,
    )
    loader = DataLoader(list(zip(IMAGE, LABELS, strict=True)), batch_size=4)
    trainer.fit(Classifier(model), loader)
    assert model.domain_names == DOMAINS
    assert all(p.isfinite().all() for p in model.parameters())
    scales = [name for name in before if name.endswith("modulation.scale")]
    assert not any(torch.equal(model.state_dict()[name], before[name]) for name in scales)


@pytest.mark.parametrize("wrapped", [False, True])
def test_state_of_other_domains_or_another_order_is_refused(wrapped):
    model = converted()
    other = copy.deepcopy(model)
    holders = [torch.nn.Sequential(one) if wrapped else one for one in (model, other)]
    stored = io.BytesIO()
    torch.save(holders[0].state_dict(), stored)
    stored.seek(0)
    state = torch.load(stored, weights_only=True)
    assert set(state) == set(holders[0].state_dict())  # no entry but those of tensors
    holders[1].load_state_dict(state)
    other.domain_names = (*DOMAINS[1:], DOMAINS[0])
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    for one in (state, holders[0].state_dict()):
        with pytest.raises(RuntimeError, match=r"rows of domains a, b, c .* build it with domains"):
            holders[1].load_state_dict(one)
    torch.testing.assert_close(dict(other.state_dict()), before, rtol=0, atol=0)
    holders[1].load_state_dict(dict(state))  # without a word of domains, as safetensors stores it
