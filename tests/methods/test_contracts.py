"""What every registered method promises; a new file in domainnorm/methods is covered at once."""

import functools
import math

import pytest
import torch

from domainnorm.methods import domains_of
from domainnorm.registry import METHODS
from tests.combinations import covering
from tests.methods.bench import ONE, SMALL, TWO, fit, model_of, scans, source_model

every_method = pytest.mark.parametrize("name", METHODS.names())
FITTED = [name for name in METHODS.names() if METHODS.load(name).protocol == "fit"]
every_fitted = pytest.mark.parametrize("name", FITTED)
BESIDE_THE_MODEL = {"neo", "t3a", "lame", "online"}  # what they learn, of one stream
GIVEN = {
    **SMALL,
    "tent": {"epochs": 1},
    "mcd": {"generator_steps": 1},
    "default": {"guard": 1.0},  # keeps what it has learned
}


def start(name, roles):
    adapts = METHODS.load(name).starts_from == "source_only"
    return source_model(roles=roles) if adapts else model_of(name, roles=roles)


@functools.cache
def fitted(name, roles=TWO):
    return fit(name, start(name, roles), roles, **GIVEN.get(name, {}))


@every_fitted
def test_unlabelled_domains_reach_training_without_labels(name):
    done = fitted(name)
    labelled = domains_of(done.method.labelled, TWO)
    for batch in done.seen.batches:
        for label, target in zip(batch["domain"].tolist(), batch["target"].tolist(), strict=True):
            assert (target == -1) == (TWO.all[label] not in labelled)


@every_fitted
def test_batches_say_whose_labels_may_be_learned(name):
    done = fitted(name)
    labelled = domains_of(done.method.labelled, TWO)
    for batch in done.seen.batches:
        told = [TWO.all[label] in labelled for label in batch["domain"].tolist()]
        assert batch["labelled"].tolist() == told


@every_fitted
def test_every_parameter_that_learns_is_in_one_optimizer(name):
    done = fitted(name)
    optimizers = done.trainer.optimizers
    held = [id(p) for one in optimizers for group in one.param_groups for p in group["params"]]
    assert len(held) == len(set(held))
    assert set(held) == {id(parameter) for parameter, _ in done.method._trained()}


@covering(1, name=METHODS.names(), norm=["dsbn", "cin"], precision=["bf16-mixed", "bf16-true"])
def test_bfloat16_keeps_everything_finite(name, norm, precision):
    done = fit(name, model_of(name, norm), ONE, precision=precision, **GIVEN.get(name, {}))
    assert all(bool(tensor.isfinite().all()) for tensor in done.method.state_dict().values())


@every_fitted
def test_training_sees_exactly_the_declared_domains(name):
    done = fitted(name)
    seen = {TWO.all[label] for batch in done.seen.batches for label in batch["domain"].tolist()}
    assert set(done.method.roles.lent(tuple(seen))) == set(done.method.trained_domains)
    assert seen == {
        *domains_of(done.method.labelled, TWO),
        *domains_of(done.method.unlabelled, TWO),
    }


@every_fitted
def test_training_sees_only_training_images(name):
    done = fitted(name)
    indices = {index for batch in done.seen.batches for index in batch["index"].tolist()}
    assert {scans().records[index].split for index in indices} == {"train"}


@every_method
def test_validation_holds_labelled_domains_only(name):
    done = fitted(name)
    assert tuple(done.data.val_domains) == domains_of(done.method.labelled, TWO)


@every_method
def test_checkpoint_loads_without_running_code_and_restores_the_state(name, tmp_path):
    done = fitted(name)
    path = tmp_path / "last.ckpt"
    done.trainer.save_checkpoint(path)
    stored = torch.load(path, weights_only=True)["state_dict"]
    other = type(done.method)(model_of(name, roles=TWO), done.method.task, TWO)
    other.load_state_dict(stored)
    wanted = done.method.state_dict()
    assert stored.keys() == wanted.keys()
    for key, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, wanted[key], rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted({*METHODS.names()} - BESIDE_THE_MODEL))
def test_something_of_the_model_changes(name):
    done = fitted(name)
    now = done.model.state_dict()
    assert any(not torch.equal(now[key], tensor) for key, tensor in done.before.items())


@every_method
def test_everything_stays_finite(name):
    state = fitted(name).model.state_dict()
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


@every_method
def test_roles_and_start_are_declared_in_known_words(name):
    constants = METHODS.entry(name).constants
    assert constants["starts_from"] in ("backbone", "source_only")
    assert constants["labelled"] in ("source", "target", "all", "")
    assert constants["unlabelled"] in ("target", "all", "")
    assert constants["labelled"] or constants["unlabelled"]
    assert constants["views"] in ("one", "two")
    assert constants["balance"] in ("domain", "role")
    assert constants["protocol"] in ("fit", "online")


@every_method
def test_constants_read_from_the_source_are_those_of_the_class(name):
    method = METHODS.load(name)
    for key, value in METHODS.entry(name).constants.items():
        assert getattr(method, key) == value


@covering(1, name=METHODS.names(), norm=["cin", "bn"])
def test_every_norm_with_running_moments_can_be_fitted(name, norm):
    model = model_of(name, norm)
    done = fit(name, model, ONE, **GIVEN.get(name, {}))
    assert all(math.isfinite(loss) for loss in done.seen.losses)
