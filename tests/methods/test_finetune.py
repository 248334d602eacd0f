import pytest
import torch
from torch import nn

from domainnorm.errors import ConversionError
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


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_norms_change_only_rows_of_the_target(optimizer):
    done = fit("finetune", source_model(), optimizer=optimizer)
    names = changed(done.before, done.model)
    assert all(".modulation." in name or ".statistics." in name for name in names)
    assert rows_changed(done.before, done.model, names) == {TARGET_ROW}


@pytest.mark.parametrize("norm", ["dsbn", "cin"])
def test_norms_keep_the_source_bit_for_bit(norm):
    model = source_model(norm)
    expected = logits(model, "clean")
    assert torch.equal(logits(fit("finetune", model).model, "clean"), expected)


def test_norms_keep_the_source_where_some_layers_were_not_converted():
    model = make_model(where="early")
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    expected = logits(model, "clean")
    assert torch.equal(logits(fit("finetune", model).model, "clean"), expected)


def test_norms_of_one_domain_are_a_small_part_of_the_network():
    model = make_model()
    method = make("finetune", model)
    expected = sum(2 * norm.modulation.scale.shape[1] for norm in model.norms())
    assert method.trained_parameters == expected
    assert expected < 0.02 * sum(parameter.numel() for parameter in model.parameters())


def test_shared_scales_are_counted_whole():
    model = make_model("bn")
    expected = sum(2 * norm.modulation.scale.shape[1] for norm in model.norms())
    assert make("finetune", model).trained_parameters == expected


def test_head_changes_the_classifier_alone():
    done = fit("finetune", source_model(), train="head")
    assert changed(done.before, done.model) == {"backbone.fc.weight", "backbone.fc.bias"}


def test_head_parameters_are_counted():
    model = make_model()
    expected = sum(parameter.numel() for parameter in model.backbone.fc.parameters())
    assert make("finetune", model, train="head").trained_parameters == expected


def test_all_changes_kernels_and_keeps_rows_of_the_source():
    done = fit("finetune", source_model(), train="all")
    names = changed(done.before, done.model)
    assert "backbone.conv1.0.weight" in names
    tables = {name for name in names if ".modulation." in name or ".running_" in name}
    assert rows_changed(done.before, done.model, tables) == {TARGET_ROW}


def test_nothing_to_train_says_so():
    with pytest.raises(
        ConversionError, match=r"method.train: this model has no parameters in 'head'"
    ):
        make("finetune", make_model_without_head(), train="head")


def make_model_without_head():
    model = make_model()
    model.backbone.fc = nn.Identity()
    return model
