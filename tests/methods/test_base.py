"""What the base of methods gives to them: steps, teachers, features, streams."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from domainnorm.backbones import create_model, data_config
from domainnorm.errors import ConversionError, DomainNormError
from domainnorm.methods import Roles
from domainnorm.methods.heads import head_of, num_features
from domainnorm.methods.reestimation import kept_moments
from domainnorm.methods.samples import split
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.tasks import create_segmentation_model
from domainnorm.tasks.classification import Classification
from tests.methods.bench import ONE, TWO, changed, fit, make, make_data, make_model, scans
from tests.reference.adaptation import averaged


class TwoHeads(SupervisedMethod):
    """Steps by itself: everything on the supervised loss, then a second head alone."""

    unlabelled: str = "target"
    balance: str = "role"

    def __init__(self, model, task, roles, **options):
        super().__init__(model, task, roles, **options)
        self.automatic_optimization = False
        self.second = nn.Linear(num_features(model), 10)
        self.log_of_steps = []

    def optimized(self):
        return [self.model.parameters(), self.second.parameters()]

    def losses(self, batch):
        features, logits = self.features(batch)
        known = batch["labelled"]
        before = copy.deepcopy(self.state_dict())
        self.step(self.task.loss(logits[known], batch["target"][known]), 0)
        middle = copy.deepcopy(self.state_dict())
        self.step(self.second(features.detach()).square().mean(), 1)
        self.log_of_steps.append((before, middle, copy.deepcopy(self.state_dict())))
        return {}


class OwnStep(SupervisedMethod):
    """`SourceOnly` that steps by itself."""

    def __init__(self, model, task, roles, **options):
        super().__init__(model, task, roles, **options)
        self.automatic_optimization = False

    def losses(self, batch):
        self.step(super().losses(batch)["supervised"])
        return {}


class Averaged(SupervisedMethod):
    """`SourceOnly` with a teacher; keeps the state after each step."""

    def __init__(self, model, task, roles, *, decay=0.6, **options):
        super().__init__(model, task, roles, **options)
        self.follow(decay)
        self.states = []

    def on_train_batch_start(self, batch, batch_idx):
        if not self.states:
            self.states.append(copy.deepcopy(self.model.state_dict()))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        self.states.append(copy.deepcopy(self.model.state_dict()))

    def on_fit_end(self):
        pass  # the rows as training has left them


def names_changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    "name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_mambaout"]
)
def test_features_are_what_the_classifier_turns_into_logits(name):
    model = create_model(name, 10, None, ONE.all)
    size = data_config(model)["input_size"][1:]
    method = make("source_only", model)
    batch = {"image": torch.rand(3, 3, *size), "domain": torch.tensor([0, 1, 1])}
    method.eval()
    features, logits = method.features(batch)
    assert features.shape == (3, num_features(model))
    assert_close(head_of(model)(features).reshape(logits.shape), logits)


@pytest.mark.parametrize("decoder", ["unet", "fpn", "segformer"])
def test_features_of_masks_are_maps_in_front_of_the_head(decoder):
    options = {"decoder": decoder, "width": 32}
    model = create_segmentation_model("test_resnet", 3, "dsbn", ONE.all, **options).eval()
    method = make("source_only", model)
    batch = {"image": torch.rand(2, 3, 64, 64), "domain": torch.tensor([0, 1])}
    features, logits = method.features(batch)
    assert features.shape[:2] == (2, num_features(model))
    assert_close(head_of(model)(features), logits)


def test_network_without_classifier_says_so():
    method = make("source_only", make_model())
    method.model.backbone.fc = nn.Identity()
    with pytest.raises(ConversionError, match="this network has no classifier"):
        method.features({"image": torch.rand(1, 3, 32, 32), "domain": torch.tensor([0])})


def test_steps_move_only_what_their_optimizer_holds():
    done = fit(TwoHeads, make_model(), ONE)
    for before, middle, after in done.method.log_of_steps:
        first, second = names_changed(before, middle), names_changed(middle, after)
        assert first
        assert not any(name.startswith("second") for name in first)
        assert second == {"second.weight", "second.bias"}


@pytest.mark.parametrize("options", [{}, {"clip": 0.05}, {"accumulate": 2}])
def test_own_steps_equal_those_of_lightning(options):
    states = []
    for kind in ("source_only", OwnStep):
        torch.manual_seed(0)
        model = make_model()
        torch.manual_seed(1)
        states.append(fit(kind, model, ONE, epochs=2, **options).model.state_dict())
    for name, tensor in states[0].items():
        assert_close(states[1][name], tensor, rtol=0, atol=0, msg=name)


def test_several_optimizers_do_not_accumulate():
    with pytest.raises(DomainNormError, match=r"trainer\.accumulate: 2, but this method makes"):
        fit(TwoHeads, make_model(), ONE, accumulate=2)


def test_teacher_is_the_moving_average_of_parameters_and_moments():
    done = fit(Averaged, make_model(), ONE, epochs=2)
    assert any(name.endswith("running_var") for name in changed(done.before, done.model))
    expected = averaged(done.method.states, 0.6)
    found = done.method.deployed.state_dict()
    assert int(done.method.teacher_steps) == len(done.method.states) - 1
    for name, tensor in found.items():
        if tensor.is_floating_point():
            assert_close(tensor, expected[name], msg=name)


def test_teacher_follows_steps_and_not_batches():
    done = fit(Averaged, make_model(), ONE, epochs=2, accumulate=2)
    assert int(done.method.teacher_steps) == done.trainer.global_step
    assert len(done.method.states) > done.trainer.global_step + 1


def test_teacher_starts_from_weights_that_are_loaded_later():
    method = make(Averaged, make_model())
    state = {name: torch.ones_like(tensor) for name, tensor in method.model.state_dict().items()}
    method.model.load_state_dict(state)
    method.on_fit_start()
    assert all(torch.equal(t, state[n]) for n, t in method.deployed.state_dict().items())


def test_teacher_takes_no_gradients_and_stays_in_evaluation_mode():
    done = fit(Averaged, make_model(), ONE)
    done.method.train()
    assert not any(module.training for module in done.method.teacher.modules())
    teacher = {id(parameter) for parameter in done.method.teacher.parameters()}
    held = {id(p) for o in done.trainer.optimizers for g in o.param_groups for p in g["params"]}
    assert not teacher & held
    assert done.method.trained_parameters == make("source_only", make_model()).trained_parameters


def test_losses_are_logged_by_name_and_minimized_as_their_sum():
    done = fit("dann", make_model(), ONE)
    logged = done.trainer.callback_metrics
    assert_close(logged["train/loss"], logged["train/supervised"] + logged["train/domain"])


def test_single_loss_has_no_second_name():
    assert set(fit("source_only").trainer.callback_metrics) >= {"train/loss"}
    assert "train/supervised" not in fit("source_only").trainer.callback_metrics


def test_progress_is_the_share_of_batches_done():
    shares = []

    class Shares(SupervisedMethod):
        def losses(self, batch):
            shares.append(self.progress)
            return super().losses(batch)

    fit(Shares, make_model(), ONE, epochs=3)
    count = len(shares)
    assert shares == pytest.approx([number / count for number in range(count)])


@pytest.mark.parametrize("mixed", [False, True])
def test_sweep_shows_every_unlabelled_image_once_without_labels(mixed):
    """In the order of the files, or in another, as moments of batches want classes mixed."""
    seen = []

    class Sweeping(SupervisedMethod):
        unlabelled: str = "target"

        def on_train_epoch_start(self):
            for batch in self.sweep(mixed=mixed):
                seen.append((batch["index"].tolist(), batch["target"].tolist()))

    fit(Sweeping, make_model(), ONE)
    index = [one for part, _ in seen for one in part]
    wanted = [
        position
        for position, record in enumerate(scans().records)
        if (record.domain, record.split) == ("colour_cast", "train")
    ]
    assert sorted(index) == wanted
    assert (index == wanted) != mixed
    assert {label for _, part in seen for label in part} == {-1}


def test_shares_by_role_do_not_depend_on_the_number_of_domains():
    data = make_data(TwoHeads, make_model(roles=TWO), TWO, 12)
    for batch in data.train_dataloader():
        assert batch["labelled"].tolist().count(True) == 6


def test_kept_moments_stay_and_gradients_flow():
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    with kept_moments(model):
        loss = model(torch.rand(4, 3, 32, 32), torch.tensor([0, 0, 1, 1])).square().mean()
    loss.backward()
    assert changed(before, model) == set()
    assert any(p.grad is not None and bool(p.grad.abs().sum()) for p in model.parameters())


def test_split_keeps_lists_and_attributes_with_their_images():
    batch = {
        "labelled": torch.tensor([True, False, True]),
        "index": torch.tensor([4, 5, 6]),
        "original": ["a", "b", "c"],
        "attributes": {"scanner": ["x", "y", "z"]},
    }
    labelled, other = split(batch)
    assert labelled["index"].tolist() == [4, 6]
    assert labelled["original"] == ["a", "c"]
    assert other["attributes"] == {"scanner": ["y"]}


def test_task_says_what_a_method_of_masks_needs():
    with pytest.raises(DomainNormError, match=r"method\.mix: 'class' mixes masks"):
        make("mean_teacher", make_model(), mix="class")
    assert isinstance(make("mean_teacher", make_model(), mix="cut").task, Classification)


def test_stream_of_the_documentation_can_be_followed():
    page = Path(__file__).parents[2] / "docs/methods.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    model = make_model(roles=Roles(("site_a",), ("site_b",)))
    names = {"model": model, "images": torch.rand(2, 3, 32, 32)}
    exec(code, names)
    assert names["logits"].shape == (2, 10)
