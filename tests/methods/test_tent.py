import pytest
import torch

from domainnorm.errors import ConversionError
from domainnorm.losses import entropy_loss
from domainnorm.methods import Roles
from tests.methods.bench import (
    ONE,
    changed,
    fit,
    logits,
    make,
    make_model,
    rows_changed,
    source_model,
)

TARGET_ROW = ONE.all.index("colour_cast")


def test_entropy_of_the_target_falls():
    losses = fit("tent", source_model(), epochs=8, lr=1e-2).seen.losses
    assert sum(losses[-4:]) < sum(losses[:4])


def test_entropy_falls_on_test_images_of_the_target():
    adabn = fit("adabn", source_model()).model
    tent = fit("tent", source_model(), epochs=6, lr=1e-2).model
    first, last = (entropy_loss(logits(model, "colour_cast")) for model in (adabn, tent))
    assert last < first


@pytest.mark.parametrize("norm", ["dsbn", "cin"])
def test_only_scale_shift_and_running_moments_change(norm):
    done = fit("tent", source_model(norm), epochs=1)
    parts = {name.rsplit(".", 2)[1] for name in changed(done.before, done.model)}
    assert parts == {"modulation", "statistics"}


@pytest.mark.parametrize("norm", ["dsbn", "cin"])
def test_only_rows_of_the_target_change(norm):
    done = fit("tent", source_model(norm), epochs=2)
    assert rows_changed(done.before, done.model, changed(done.before, done.model)) == {TARGET_ROW}


def test_source_keeps_its_outputs_bit_for_bit():
    model = source_model()
    expected = logits(model, "clean")
    assert torch.equal(logits(fit("tent", model, epochs=2).model, "clean"), expected)


def test_moments_are_those_of_adabn_under_the_adapted_scales():
    # One batch is the whole set, so that deep layers see the same batches in both.
    tent = fit("tent", source_model(), epochs=2, batch_size=20).model
    expected = fit("adabn", make_copy(tent), batch_size=20).model.state_dict()
    for name, tensor in tent.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def make_copy(model):
    other = make_model()
    other.load_state_dict(model.state_dict())
    return other


def test_dropout_is_off_while_adapting():
    model = make_model(drop_rate=0.9)
    modes = []
    dropout = [m for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    model.backbone.fc.register_forward_pre_hook(
        lambda module, inputs: modes.append([m.training for m in dropout] + [module.training])
    )
    fit("tent", model, epochs=1)
    assert modes
    assert not any(mode for one in modes for mode in one)


def test_several_targets_adapt_in_one_model():
    roles = Roles(("clean",), ("colour_cast", "textured"))
    done = fit("tent", make_model(roles=roles), roles, epochs=1)
    names = {name for name in changed(done.before, done.model) if "modulation" in name}
    assert rows_changed(done.before, done.model, names) == {1, 2}


def test_trained_parameters_are_one_row_of_each_table():
    model = make_model()
    expected = sum(norm.modulation.scale.shape[1] * 2 for norm in model.norms())
    assert make("tent", model).trained_parameters == expected


def test_model_without_conditional_norms_says_so():
    model = make_model()
    for path in [name for name, module in model.named_modules() if hasattr(module, "modulation")]:
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, torch.nn.Identity())
    with pytest.raises(ConversionError, match="tent: the model has no conditional norm"):
        make("tent", model)
