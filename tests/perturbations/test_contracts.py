"""What every perturbation promises."""

import copy
import pickle

import pytest
import torch

from domainnorm.errors import ConditionError, DomainNormError, UnknownNameError
from domainnorm.perturbations import create_perturbation, list_perturbations

every_perturbation = pytest.mark.parametrize("name", list_perturbations())
SHAPES = [(6, 4, 11), (6, 4, 5, 7), (6, 4, 3, 4, 5)]
LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def seeded(perturbation, x):
    torch.manual_seed(7)
    return perturbation(x)


def test_the_four_of_the_field_are_there():
    assert list_perturbations() == ["dsu", "efdmix", "mixstyle", "padain"]


@every_perturbation
def test_evaluation_returns_the_input_itself(name):
    x = torch.randn(SHAPES[1])
    assert create_perturbation(name, p=1.0).eval()(x) is x


@every_perturbation
def test_probability_zero_returns_the_input_itself_and_draws_nothing(name):
    x, state = torch.randn(SHAPES[1]), torch.get_rng_state()
    assert create_perturbation(name, p=0.0)(x) is x
    assert torch.equal(torch.get_rng_state(), state)


@every_perturbation
@pytest.mark.parametrize("shape", SHAPES)
def test_probability_one_changes_training_features(name, shape):
    x = torch.randn(shape) * torch.rand(6, 4, *(1,) * (len(shape) - 2))
    output = create_perturbation(name, p=1.0)(x)
    assert output.shape == x.shape
    assert (output - x).abs().max() > 0.01


@every_perturbation
def test_batches_are_perturbed_at_the_given_rate(name):
    perturbation, x = create_perturbation(name, p=0.3), torch.randn(2, 2, 3)
    perturbed = sum(perturbation(x) is not x for _ in range(1000))
    assert perturbed == pytest.approx(300, abs=58)  # four standard deviations


@every_perturbation
def test_batch_of_no_sample_is_empty(name):
    x = torch.zeros(0, 4, 5, 7, requires_grad=True)
    output = create_perturbation(name, p=1.0)(x)
    output.sum().backward()
    assert output.shape == x.grad.shape == x.shape


@every_perturbation
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_memory_layout_is_kept(name, shape):
    x = torch.randn(shape).to(memory_format=LAYOUTS[len(shape)])
    assert create_perturbation(name, p=1.0)(x).stride() == x.stride()


@every_perturbation
def test_memory_layout_does_not_change_values(name):
    perturbation, x = create_perturbation(name, p=1.0), torch.randn(SHAPES[1])
    found = seeded(perturbation, x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, seeded(perturbation, x))


@every_perturbation
def test_channels_may_be_the_last_axis(name):
    x = torch.randn(SHAPES[1])
    tokens = x.flatten(2).movedim(1, 2)
    found = seeded(create_perturbation(name, p=1.0, channel_axis=-1), tokens)
    wanted = seeded(create_perturbation(name, p=1.0), x).flatten(2).movedim(1, 2)
    torch.testing.assert_close(found, wanted)


@every_perturbation
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_input_gives_narrow_output_close_to_float32(name, dtype):
    perturbation, x = create_perturbation(name, p=1.0), torch.randn(SHAPES[1]).to(dtype)
    output = seeded(perturbation, x)
    assert output.dtype == dtype
    torch.testing.assert_close(output.float(), seeded(perturbation, x.float()), rtol=0.03, atol=0.1)


@every_perturbation
@pytest.mark.parametrize("size", [1, 3])
def test_any_batch_size_gives_finite_values_and_gradients(name, size):
    x = torch.randn(size, 4, 3, 3, requires_grad=True)
    create_perturbation(name, p=1.0)(x).square().sum().backward()
    assert x.grad.isfinite().all()


@every_perturbation
def test_constant_features_give_finite_values_and_gradients(name):
    x = torch.ones(3, 4, 3, 3, requires_grad=True)
    create_perturbation(name, p=1.0)(x).sum().backward()
    assert x.grad.isfinite().all()


@every_perturbation
def test_batch_of_one_has_no_other_style_and_stays(name):
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(create_perturbation(name, p=1.0)(x), x, rtol=1e-4, atol=1e-5)


@every_perturbation
def test_empty_batch_stays_empty(name):
    assert create_perturbation(name, p=1.0)(torch.empty(0, 4, 3, 3)).shape == (0, 4, 3, 3)


@every_perturbation
def test_torch_seed_repeats_the_perturbation(name):
    perturbation, x = create_perturbation(name, p=1.0), torch.randn(SHAPES[1])
    assert torch.equal(seeded(perturbation, x), seeded(perturbation, x))


@every_perturbation
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copy_perturbs_alike(name, copied):
    perturbation, x = create_perturbation(name, p=1.0), torch.randn(SHAPES[1])
    assert torch.equal(seeded(copied(perturbation), x), seeded(perturbation, x))


@every_perturbation
def test_nothing_is_stored(name):
    assert not create_perturbation(name).state_dict()


@every_perturbation
def test_vectors_are_refused(name):
    message = r"perturbation: got features \(6, 4\); the style of a sample is taken over its pixels"
    with pytest.raises(ConditionError, match=message):
        create_perturbation(name, p=1.0)(torch.randn(6, 4))


@every_perturbation
@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_impossible_probability_is_refused(name, p):
    with pytest.raises(DomainNormError, match=rf"p: got {p}, expected a probability in \[0, 1\]"):
        create_perturbation(name, p=p)


@every_perturbation
def test_axis_of_samples_is_refused_as_channels(name):
    with pytest.raises(DomainNormError, match="channel_axis: got 0, the axis of the samples"):
        create_perturbation(name, channel_axis=0)


def test_unknown_perturbation_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="perturbation 'mixstile': did you mean 'mixstyle'"):
        create_perturbation("mixstile")


def test_unknown_option_is_answered_with_the_nearest():
    with pytest.raises(DomainNormError, match="'mixstyle': unknown option 'alfa': did you mean"):
        create_perturbation("mixstyle", alfa=0.2)


@pytest.mark.parametrize("name", ["mixstyle", "efdmix"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha: got 0.0, expected a number above 0"),
        ({"mode": "cross"}, "mode: got 'cross', expected 'random' or 'cross_domain'"),
    ],
)
def test_impossible_mixing_is_refused(name, options, message):
    with pytest.raises(DomainNormError, match=message):
        create_perturbation(name, **options)


def test_negative_spread_is_refused():
    with pytest.raises(DomainNormError, match=r"factor: got -1\.0, expected 0 or above"):
        create_perturbation("dsu", factor=-1.0)


@pytest.mark.slow
@every_perturbation
def test_compiles_in_one_graph(name):
    compiled = torch.compile(create_perturbation(name, p=1.0), fullgraph=True)
    x = torch.randn(SHAPES[1])
    output = compiled(x)
    assert output.shape == x.shape
    assert (output - x).abs().max() > 0.01
