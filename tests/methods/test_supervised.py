import pytest
import torch

from domainnorm.errors import DomainNormError
from domainnorm.methods import Roles
from domainnorm.methods.heads import pretrained_part
from domainnorm.registry import METHODS
from domainnorm.tasks import create_segmentation_model
from tests.methods.bench import ONE, TWO, changed, fit, make, make_model, rows_changed
from tests.reference.methods import (
    warmup_constant,
    warmup_cosine,
    warmup_poly,
    warmup_step,
)


def row(model, name, key):
    return {
        path: tensor[model.domain_names.index(name)]
        for path, tensor in model.state_dict().items()
        if path.endswith(key)
    }


@pytest.mark.parametrize("key", ["scale", "shift", "running_mean", "running_var"])
def test_source_only_gives_the_target_the_rows_of_one_source(key):
    model = fit("source_only").model
    source, target = row(model, "clean", key), row(model, "colour_cast", key)
    assert source
    assert all(torch.equal(source[path], target[path]) for path in source)


@pytest.mark.parametrize("key", ["scale", "shift", "running_mean"])
def test_source_only_gives_the_target_the_mean_of_several_sources(key):
    model = fit("source_only", roles=TWO).model
    first, second = row(model, "clean", key), row(model, "textured", key)
    for path, found in row(model, "colour_cast", key).items():
        torch.testing.assert_close(found, (first[path] + second[path]) / 2)


def test_source_only_gives_the_target_the_variance_of_the_mixture():
    model = fit("source_only", roles=TWO).model
    clean, textured = ((row(model, d, "mean"), row(model, d, "var")) for d in TWO.source)
    for path, found in row(model, "colour_cast", "running_var").items():
        mean = path.replace("running_var", "running_mean")
        apart = (clean[0][mean] - textured[0][mean]).square() / 4
        torch.testing.assert_close(found, (clean[1][path] + textured[1][path]) / 2 + apart)


def test_oracle_sees_only_the_target():
    seen = {int(label) for batch in fit("oracle").seen.batches for label in batch["domain"]}
    assert seen == {ONE.all.index("colour_cast")}


def test_joint_trains_rows_of_all_domains_apart():
    roles = Roles(("clean", "colour_cast", "textured"))
    done = fit("joint", make_model(roles=roles), roles)
    names = {n for n in changed(done.before, done.model) if n.endswith("running_mean")}
    assert rows_changed(done.before, done.model, names) == {0, 1, 2}
    first, second = row(done.model, "clean", "mean"), row(done.model, "textured", "mean")
    assert not any(torch.equal(first[path], second[path]) for path in first)


def test_decay_reaches_kernels_but_neither_tables_nor_biases():
    done = fit("source_only")
    groups = done.trainer.optimizers[0].param_groups
    names = {id(parameter): name for name, parameter in done.model.named_parameters()}
    decayed = {
        names[id(p)] for group in groups if group["weight_decay"] > 0 for p in group["params"]
    }
    expected = {
        name
        for name, parameter in done.model.named_parameters()
        if name.endswith("weight") and parameter.ndim > 1
    }
    assert decayed == expected
    assert sum(len(group["params"]) for group in groups) == len(names)


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5])
def test_rate_rises_and_falls_along_a_cosine(warmup):
    done = fit("source_only", epochs=4, lr=0.01, warmup=warmup)
    steps = len(done.seen.rates)
    expected = [0.01 * warmup_cosine(step, steps, warmup) for step in range(steps)]
    assert done.seen.rates == pytest.approx(expected)


SCHEDULES = {
    "cosine": warmup_cosine,
    "poly": warmup_poly,
    "step": warmup_step,
    "constant": warmup_constant,
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("method", "warmup"), [("source_only", 0.25), ("tent", 0.25), ("mcd", 0.0), ("swad", 0.0)]
)
def test_rate_follows_the_schedule(method, schedule, warmup):
    done = fit(method, epochs=6, lr=0.01, warmup=warmup, schedule=schedule)
    found = done.seen.rates[:: len(done.trainer.optimizers)]
    steps = len(found)
    expected = [0.01 * SCHEDULES[schedule](step, steps, warmup) for step in range(steps)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("method", ["source_only", "tent", "mcd"])
@pytest.mark.parametrize(
    ("optimizer", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_optimizer_is_the_one_that_is_named(method, optimizer, kind):
    done = fit(method, epochs=1, optimizer=optimizer)
    assert {type(one.optimizer) for one in done.trainer.strategy._lightning_optimizers} == {kind}


def test_every_method_that_is_fitted_with_a_rate_has_the_same_keys():
    rated = {name: METHODS.entry(name).parameters for name in METHODS.names()}
    fitted = [
        keys
        for name, keys in rated.items()
        if "lr" in keys and METHODS.entry(name).constants["protocol"] == "fit"
    ]
    assert len(fitted) > 20
    for keys in fitted:
        for key in ("optimizer", "schedule"):
            assert keys[key].annotation == rated["source_only"][key].annotation
        assert "warmup" in keys


def test_epochs_of_the_method_come_before_those_of_the_trainer():
    assert fit("source_only", epochs=3).trainer.current_epoch == 3
    assert make("source_only", make_model(), epochs=7).max_epochs == 7


def test_loss_that_is_not_finite_says_where_and_what_to_do():
    model = make_model()
    with torch.no_grad():
        model.backbone.fc.weight.fill_(float("nan"))
    expected = "training diverged: loss nan at epoch 0, step 0; lower method.lr or set"
    with pytest.raises(DomainNormError, match=expected):
        fit("source_only", model)


def test_every_parameter_counts_except_rows_of_domains_that_are_not_trained():
    model = make_model(roles=TWO)
    rows = sum(2 * norm.modulation.scale.shape[1] for norm in model.norms())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert make("source_only", model, TWO).trained_parameters == total - rows


@pytest.mark.parametrize("key", ["scale", "shift"])
def test_restyled_target_has_the_scale_and_shift_of_the_source(key):
    model = fit("restyle").model
    source, target = row(model, "clean", key), row(model, "colour_cast", key)
    assert source
    assert all(torch.equal(source[path], target[path]) for path in source)


def test_restyled_target_has_moments_of_its_own():
    model = fit("restyle").model
    source, target = row(model, "clean", "mean"), row(model, "colour_cast", "mean")
    assert source
    assert not any(torch.equal(source[path], target[path]) for path in source)


def test_rates_fall_with_the_distance_from_the_head():
    done = fit("source_only", lr=0.01, warmup=0.0, layer_decay=0.5)
    names = {parameter: name for name, parameter in done.model.named_parameters()}
    found = {
        names[one].removeprefix("backbone."): group["initial_lr"]
        for group in done.trainer.optimizers[0].param_groups
        for one in group["params"]
    }
    assert len(found) == len(names)
    layers = ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    for place, rate in found.items():
        layer = layers.index(place.partition(".")[0].replace("bn1", "conv1"))
        assert rate == pytest.approx(0.01 * 0.5 ** (5 - layer)), place


def test_layers_of_one_rate_are_the_groups_of_before():
    groups = fit("source_only", lr=0.01, layer_decay=1.0).trainer.optimizers[0].param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert {group["initial_lr"] for group in groups} == {0.01}


def rates(done):
    """Path of each parameter -> its peak rate."""
    names = {parameter: name for name, parameter in done.method.named_parameters()}
    groups = done.trainer.optimizers[0].param_groups
    return {names[one]: group["initial_lr"] for group in groups for one in group["params"]}


def test_what_is_pretrained_has_a_rate_of_its_own():
    found = rates(fit("dann", lr=0.01, backbone_rate=0.1))
    new = {name for name in found if not name.startswith("model.") or ".fc." in name}
    assert any(not name.startswith("model.") for name in new)  # the discriminator
    assert {found.pop(name) for name in new} == {0.01}
    assert list(found.values()) == pytest.approx([0.001] * len(found))


def test_encoders_of_masks_are_what_is_pretrained():
    model = create_segmentation_model("test_resnet", 3, "dsbn", ["a"], width=16)
    encoder = model.backbone.encoder
    assert pretrained_part(model) == set(encoder.parameters())
    assert len(set(model.parameters()) - pretrained_part(model)) > 0


def test_factors_of_rates_multiply():
    plain = rates(fit("source_only", lr=0.01, layer_decay=0.5))
    both = rates(fit("source_only", lr=0.01, layer_decay=0.5, backbone_rate=0.1))
    for name, rate in plain.items():
        assert both[name] == pytest.approx(rate * (1 if ".fc." in name else 0.1))
