"""Samples of domains that the model does not know."""

import copy

import pytest
import timm
import torch
from torch import nn

from domainnorm.backbones import (
    MomentEstimator,
    add_domain,
    convert_norms,
    create_model,
    fold_domain,
    interpolate_domains,
    tiled_inference,
)
from domainnorm.errors import ConditionError
from domainnorm.norms.kernels.sample_moments import Moments
from domainnorm.slot import divergence
from tests.backbones.networks import DOMAINS, NORMS, converted, make
from tests.reference.domains import symmetric_divergence

IMAGE = torch.rand(6, 3, 64, 64)
LABELS = torch.tensor([-1, 2, 0, -1, 1, -1])
NAMES = ["new", "c", "a", "other", "b", "new"]
UNSEEN = LABELS < 0
POLICIES = ["mean", "nearest", "batch"]


def model_of(policy, norm="dsbn", **options):
    model = make(norm, **options)
    model.unseen = policy
    return model


@pytest.mark.parametrize("policy", POLICIES)
def test_ways_to_say_that_a_domain_is_unseen_agree(policy):
    model = model_of(policy)
    wanted = model(IMAGE, LABELS)
    for domain in (LABELS.int(), LABELS.tolist(), NAMES):
        torch.testing.assert_close(model(IMAGE, domain), wanted, rtol=0, atol=0)
    everything = model(IMAGE)
    for domain in ("new", -1, torch.full((6,), -1)):
        torch.testing.assert_close(model(IMAGE, domain), everything, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("policy", "norm"),
    [(policy, norm) for policy in ("mean", "batch") for norm in NORMS]
    + [("nearest", norm) for norm in ("dsbn", "cin", {"late": "dsbn"})],
    ids=str,
)
def test_known_samples_are_as_without_the_others(policy, norm):
    model = model_of(policy, norm)
    wanted = model(IMAGE[~UNSEEN], LABELS[~UNSEEN])
    torch.testing.assert_close(model(IMAGE, LABELS)[~UNSEEN], wanted)


@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_mean_is_the_mixture_of_all_domains_in_equal_parts(norm):
    model = model_of("mean", norm)
    found = model(IMAGE, LABELS)[UNSEEN]
    soft = torch.full((int(UNSEEN.sum()), 3), 1 / 3)
    torch.testing.assert_close(found, model(IMAGE[UNSEEN], weights=soft))
    interpolate_domains(model, "mix", dict.fromkeys(DOMAINS, 1 / 3))
    torch.testing.assert_close(found, model(IMAGE[UNSEEN], "mix"))


def test_mean_follows_domains_that_are_added():
    model = model_of("mean")
    before = model(IMAGE)
    add_domain(model, "d", start="a")
    assert (model(IMAGE) - before).abs().max() > 1e-4
    assert torch.equal(model(IMAGE, "d"), model(IMAGE, "a"))


@pytest.mark.parametrize("norm", ["dsbn", "cbn"])
def test_batch_is_a_plain_network_in_training_mode_on_the_unseen_samples(norm):
    model = model_of("batch", norm)
    state = copy.deepcopy(model.state_dict())
    found = model(IMAGE, LABELS)[UNSEEN]
    plain = timm.create_model("test_resnet", num_classes=5)
    mean = copy.deepcopy(model)
    interpolate_domains(mean, "mix", dict.fromkeys(DOMAINS, 1 / 3))
    plain.load_state_dict(fold_domain(mean, "mix").state_dict())
    torch.testing.assert_close(found, plain.train()(IMAGE[UNSEEN]), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


def test_batch_of_one_value_per_channel_has_the_moments_of_the_mixture():
    model = convert_norms(nn.BatchNorm1d(3), "dsbn", DOMAINS, unseen="batch").eval()
    nn.init.normal_(model.backbone.statistics.running_mean)
    x = torch.randn(2, 3)
    found = model(x, ["a", "new"])
    model.unseen = "mean"
    torch.testing.assert_close(found, model(x, ["a", "new"]), rtol=0, atol=0)
    model.unseen = "batch"
    assert (model(x)[0] - found[0]).abs().max() > 1e-3


def test_nearest_is_the_domain_whose_stem_sees_such_images():
    model = model_of("nearest")
    images = torch.cat([IMAGE * 0.2, IMAGE * 3 + 5, -IMAGE])
    domain = torch.arange(3).repeat_interleave(len(IMAGE))
    moments = MomentEstimator(model)
    with moments.observing():
        model(images, domain)
    moments.write()
    assert torch.equal(model.nearest_domains(images), domain)
    torch.testing.assert_close(model(images), model(images, domain), rtol=0, atol=0)


@pytest.mark.parametrize("norm", ["dsbn", "cin", {"late": "dsbn"}], ids=str)
def test_nearest_domain_of_an_image_does_not_depend_on_its_batch(norm):
    model = make(norm)
    images = torch.cat([IMAGE, IMAGE * 4 - 2])
    alone = [int(model.nearest_domains(image[None])) for image in images]
    assert model.nearest_domains(images).tolist() == alone


def test_known_samples_keep_their_domain_beside_the_nearest_of_others():
    found = make().nearest_domains(IMAGE, LABELS)
    assert torch.equal(found[~UNSEEN], LABELS[~UNSEEN])
    assert found.min() >= 0


def test_divergence_is_that_of_gaussians_in_both_directions():
    own, running = (Moments(torch.randn(n, 4), torch.rand(n, 4)) for n in (2, 3))
    found = divergence(own, running, eps=0.1)
    for n in range(2):
        for d in range(3):
            gaussians = own.mean[n], own.var[n] + 0.1, running.mean[d], running.var[d] + 0.1
            assert float(found[n, d]) == pytest.approx(symmetric_divergence(*gaussians), rel=1e-4)


def test_nearest_where_an_image_is_several_rows():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            windows = x.reshape(len(x), 3, 4, 16, 64).transpose(1, 2).flatten(0, 1)
            return self.norm(windows).reshape(len(x), -1)

    model = convert_norms(Windows(), "dsbn", DOMAINS, example=torch.rand(1, 3, 64, 64)).eval()
    statistics = model.backbone.norm.statistics
    images = torch.stack([IMAGE[0], IMAGE[1] * 3, IMAGE[2] - 4])
    statistics.running_mean.copy_(images.mean((2, 3)))
    statistics.running_var.copy_(images.var((2, 3)))
    assert model.nearest_domains(images.flip(0)).tolist() == [2, 1, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_gradient_checkpointing_recomputes_under_the_same_condition(policy):
    model = model_of(policy)
    gradients = []
    for enabled in (False, True):
        model.backbone.set_grad_checkpointing(enabled)
        model.zero_grad()
        first = model(IMAGE, LABELS)
        model(IMAGE, "a")
        first.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(*gradients)


@pytest.fixture
def _fresh_compiler():
    """What one test has made the compiler skip is compiled again in another."""
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("policy", ["mean", "batch"])
def test_policy_compiles_into_one_graph(policy):
    model = model_of(policy)
    wanted = model(IMAGE, LABELS)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(IMAGE, LABELS), wanted)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_compiler")
def test_nearest_is_found_outside_the_graphs_of_a_compiler():
    model = model_of("nearest")
    wanted = model(IMAGE, LABELS)
    torch.testing.assert_close(torch.compile(model, backend="eager")(IMAGE, LABELS), wanted)


@pytest.mark.usefixtures("_fresh_compiler")
def test_nearest_in_a_single_graph_is_refused_saying_what_to_do():
    compiled = torch.compile(model_of("nearest"), backend="eager", fullgraph=True)
    with pytest.raises(Exception, match=r"pass domain=model\.nearest_domains\(image\)"):
        compiled(IMAGE, LABELS)


def test_model_with_condition_dropout_can_be_called_without_a_domain():
    model = make({"name": "dsbn", "dropout": 0.3})
    found = model(IMAGE)
    model.unseen = "mean"
    torch.testing.assert_close(found, model(IMAGE))


def test_learned_row_for_unknown_domains_comes_before_the_mean_of_rows():
    norm = {"name": "cbn", "dropout": 0.3}
    model = make(norm)
    for layer in model.norms():
        nn.init.uniform_(layer.modulation.unconditional.scale, 0.5, 1.5)
    wanted = model(IMAGE)
    model.unseen = "mean"
    torch.testing.assert_close(model(IMAGE), wanted)
    mixed = model(IMAGE, LABELS)
    torch.testing.assert_close(mixed[UNSEEN], wanted[UNSEEN])
    torch.testing.assert_close(mixed[~UNSEEN], model(IMAGE[~UNSEEN], LABELS[~UNSEEN]))


def test_one_domain_serves_all_tiles_of_an_unseen_image():
    network = nn.Sequential(nn.BatchNorm2d(3))
    model = convert_norms(network, "dsbn", DOMAINS, unseen="nearest").eval()
    statistics = model.backbone[0].statistics
    statistics.running_mean.copy_(torch.tensor([0.0, 5.0, 10.0])[:, None].expand(3, 3))
    image = torch.cat([torch.zeros(1, 3, 16, 16), torch.full((1, 3, 16, 16), 9.0)], dim=3)
    found = tiled_inference(model, image, tile=16, overlap=0)
    torch.testing.assert_close(found, model(image, "b"))


@pytest.mark.parametrize("policy", POLICIES)
def test_unseen_domains_are_errors_in_training(policy):
    model = model_of(policy).train()
    with pytest.raises(ConditionError, match="label -1 is out of range"):
        model(IMAGE, LABELS)
    with pytest.raises(ConditionError, match="unknown domain 'new'"):
        model(IMAGE, "new")
    with pytest.raises(ConditionError, match="domain: missing; this model serves 3 domains"):
        model(IMAGE)


def test_moments_of_unseen_domains_are_not_estimated():
    model = model_of("mean")
    before = copy.deepcopy(model.state_dict())
    with (
        MomentEstimator(model).observing(),
        pytest.raises(ConditionError, match="need one label per sample, got samples of unseen"),
    ):
        model(IMAGE)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_unseen_domains_are_errors_by_default():
    model = make()
    assert model.unseen == "error"
    with pytest.raises(ConditionError, match="label -1 is out of range"):
        model(IMAGE, LABELS)
    with pytest.raises(ConditionError, match=r"or say .* e\.g\. model\.unseen = 'mean'"):
        model(IMAGE)


def test_other_labels_out_of_range_stay_errors():
    model = model_of("mean")
    for label in (-2, 3):
        with pytest.raises(ConditionError, match=f"label {label} is out of range"):
            model(IMAGE, torch.full((6,), label))
        with pytest.raises(ConditionError, match=f"label {label} is out of range"):
            model(IMAGE, label)


@pytest.mark.parametrize(
    ("norm", "policy", "message"),
    [
        ("dsbn", "maen", "unknown policy for unseen domains 'maen': did you mean 'mean'"),
        ("cbn", "nearest", "'nearest' compares the moments of domains, but no norm of this"),
        ("cin", "batch", "'batch' replaces running moments, but no norm of this model"),
    ],
)
def test_policy_that_the_norms_cannot_carry_out_is_refused(norm, policy, message):
    network = nn.Sequential(nn.BatchNorm2d(3))
    with pytest.raises(ConditionError, match=message):
        convert_norms(network, {"all": norm}, DOMAINS, unseen=policy)


def test_nearest_of_vectors_is_refused():
    model = convert_norms(nn.BatchNorm1d(3), "dsbn", DOMAINS, unseen="nearest").eval()
    with pytest.raises(ConditionError, match=r"sees one value per channel, \(2, 3\); use 'mean'"):
        model(torch.rand(2, 3))


def test_nearest_of_a_model_in_training_is_refused():
    with pytest.raises(ConditionError, match=r"the model is training; call model\.eval\(\)"):
        make().train().nearest_domains(IMAGE)


def test_fixed_gate_pools_by_domain_and_refuses_unseen_ones():
    norm = {"statistics": "mixed", "modulation": "table", "parts": ["domain"], "gate": "fixed"}
    model = model_of("mean", norm)
    with pytest.raises(ConditionError, match="need a label per sample, got samples of unseen"):
        model(IMAGE, LABELS)


def test_policy_is_an_option_of_creation_and_is_copied():
    model = create_model("test_resnet", 3, "dsbn", DOMAINS, unseen="nearest")
    assert copy.deepcopy(model).unseen == "nearest"


def test_empty_batch_of_unseen_samples_is_empty():
    model = model_of("batch")
    assert model(IMAGE[:0]).shape == (0, 5)


@pytest.mark.parametrize("policy", POLICIES)
def test_model_of_one_domain_needs_no_label(policy):
    model = converted(domains=["only"]).eval()
    model.unseen = policy
    torch.testing.assert_close(model(IMAGE), model(IMAGE, "only"), rtol=0, atol=0)
