import copy

import pytest
import torch
from torch.testing import assert_close

from domainnorm.backbones import create_model
from domainnorm.errors import CheckpointError, ConditionError, DataError, DomainNormError
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.streams import StreamAdapter, StreamRow, reliable_entropy
from domainnorm.tasks import MultiLabel
from tests.encoders.pairs import images
from tests.reference.streams import entropy, moments_with_prior
from tests.streams.following import NEW, make, stream, task


def rows_of(model, number):
    return {owned.key: owned.tensor[:number].detach().clone() for owned in model.domain_rows()}


def follow(adapter, batches):
    return [adapter(batch) for batch in batches]


@pytest.mark.parametrize("lr", [0.0, 1e-2])
@pytest.mark.parametrize("norm", ["dsbn", "cin", "cbn"])
def test_known_domains_are_followed_and_stay_bit_for_bit(norm, lr):
    model = make(norm)
    before, shared = rows_of(model, 2), copy.deepcopy(model.state_dict())
    adapter = StreamAdapter(model, task(), lr=lr)
    steps = follow(adapter, stream(0, 0, 1, NEW, NEW, NEW, 0))
    assert [int(step.weights[-1].argmax()) for step in steps] == [0, 0, 1, 1, 2, 2, 0]
    assert [step.opened for step in steps] == [None] * 3 + ["found_1"] + [None] * 3
    assert model.domain_names == ("a", "b", "found_1")
    after = rows_of(model, 2)
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(value, after[key]), key
    own = {owned.key for owned in model.domain_rows()}
    for key, value in model.state_dict().items():
        if key not in own and "gaussians" not in key:
            assert torch.equal(value, shared[key]), key


def test_coming_back_costs_nothing():
    model = make()
    untouched = copy.deepcopy(model)
    adapter, image = StreamAdapter(model, task(), lr=1e-2), images(0, 4)
    follow(adapter, [*stream(0, NEW, NEW, NEW, NEW, 0, 0, 0)])
    step = adapter(image)
    assert_close(step.weights[:, 0], torch.ones(4), atol=1e-4, rtol=0)
    assert_close(step.output, untouched(image, "a"), atol=1e-3, rtol=1e-3)


def test_prediction_knows_nothing_of_its_own_batch_and_of_what_comes_later():
    one, other = (StreamAdapter(make(), task()) for _ in range(2))
    beginning = stream(0, NEW, NEW, NEW)
    first = follow(one, beginning)
    second = follow(other, [*beginning[:3], images(1, 4)])
    for step, same in zip(first[:3], second[:3], strict=True):
        assert torch.equal(step.output, same.output)
    weights = first[3].weights
    model = make()
    third = StreamAdapter(model, task())
    follow(third, beginning[:3])
    assert_close(first[3].output, model(beginning[3], weights=weights))


def test_new_domain_starts_as_the_mixture_its_images_were_taken_for():
    model = make()
    adapter = StreamAdapter(model, task(), prior=1e12)
    steps = follow(adapter, stream(0, NEW))
    image = images(0, 4)
    before = steps[1].weights.double().mean(0)
    assert_close(
        model(image, "found_1"),
        model(image, weights=torch.cat([before, before.new_zeros(1)]).float().expand(4, -1)),
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("same", [True, False], ids=["one class", "classes"])
def test_moments_are_those_of_the_images_and_the_prior(same):
    model = make("dsbn")
    head = model.get_classifier()
    with torch.no_grad():
        head.weight.normal_()
        features = model.forward_head(
            model.forward_features(images(1, 8), "b"), "b", pre_logits=True
        )
        head.bias.copy_(-head.weight @ features.mean(0))
        head.bias[1] += 1e6 * same
    row = StreamRow(model, "b", share=0.5, prior=2.0, lr=0.0)
    first = next(n.statistics for n in model.norms() if isinstance(n.statistics, RunningMoments))
    start = first.running_mean[1].clone().numpy(), first.running_var[1].clone().numpy()
    seen, classes = [], []
    hooks = [
        first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])),
        model.register_forward_hook(lambda _, __, output: classes.append(output.argmax(1))),
    ]
    for batch in (images(1, 3), images(1, 5) * 3):
        row.update(batch)
    for hook in hooks:
        hook.remove()
    assert same == (len(set(torch.cat(classes).tolist())) == 1)
    wanted = moments_with_prior(
        torch.cat(seen).numpy().astype(float), torch.cat(classes).numpy(), 3, *start, 0.5, 2.0
    )
    assert_close(first.running_mean[1], torch.tensor(wanted[0], dtype=torch.float32))
    assert_close(first.running_var[1], torch.tensor(wanted[1], dtype=torch.float32))
    assert float(row.images.sum()) == 8


def test_layers_beyond_the_depth_keep_their_moments():
    model = make("dsbn")
    norms = list(model.norms())
    before = [norm.statistics.running_mean[1].clone() for norm in norms]
    StreamRow(model, "b", share=0.5, prior=2.0, lr=0.0, depth=0.5).update(images(1, 8))
    pairs = zip(norms, before, strict=True)
    moved = [not torch.equal(norm.statistics.running_mean[1], own) for norm, own in pairs]
    assert moved == [n < round(len(norms) / 2) for n in range(len(norms))]


def test_only_reliable_predictions_count():
    output = torch.tensor([[4.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.0, 5.0, 0.0]])
    wanted = [entropy(p) for p in output.softmax(1)[[0, 2]].tolist()]
    assert float(reliable_entropy(output)) == pytest.approx(sum(wanted) / 2)
    assert reliable_entropy(torch.zeros(4, 3)) is None


def test_entropy_of_the_new_domain_falls():
    model, image = make("cbn"), images(1, 8)
    with torch.no_grad():
        model.get_classifier().weight.mul_(20)  # some predictions are reliable
    row = StreamRow(model, "b", share=1.0, prior=0.0, lr=1e-2)
    row.update(image)  # moments first
    before = reliable_entropy(model(image, "b"))
    for _ in range(10):
        row.update(image)
    assert reliable_entropy(model(image, "b")) < before


def test_no_more_domains_are_opened_than_allowed():
    adapter = StreamAdapter(make(), task(), max_domains=0)
    steps = follow(adapter, stream(0, NEW, NEW))
    assert steps[1].alarm == 4
    assert steps[1].opened is None
    assert adapter.model.domain_names == ("a", "b")


def test_memory_is_bounded():
    adapter = StreamAdapter(make(), task(), run_length=1e300)
    follow(adapter, stream(*[NEW] * 8))
    assert sum(1 for _ in adapter.state_dict()["unlike"]) == 32
    adapter = StreamAdapter(make(), task())
    follow(adapter, stream(*[NEW] * 30))
    assert len(adapter.state_dict()["embeddings"]["found_1"]) == 200


@pytest.mark.parametrize("stopped", [2, 6])
def test_state_goes_on_bit_for_bit(stopped, tmp_path):
    batches = stream(0, NEW, NEW, NEW, 1, NEW, 7, 7, 7)
    whole = StreamAdapter(make(), task(), lr=1e-3)
    steps = follow(whole, batches)
    first = StreamAdapter(make(), task(), lr=1e-3)
    follow(first, batches[:stopped])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = StreamAdapter(make(), task(), lr=1e-3)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    rest = follow(second, batches[stopped:])
    for step, same in zip(steps[stopped:], rest, strict=True):
        assert torch.equal(step.output, same.output)
        assert step.opened == same.opened
    assert second.num_images == whole.num_images
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key


def test_state_of_another_model_is_refused():
    adapter = StreamAdapter(make("dsbn"), task())
    follow(adapter, stream(0, NEW))
    with pytest.raises(CheckpointError, match="the state of the stream is of another model"):
        StreamAdapter(make("cbn"), task()).load_state_dict(adapter.state_dict())


def test_names_that_are_taken_are_passed_over():
    model = make(domains=("a", "found_1"))
    adapter = StreamAdapter(model, task())
    assert follow(adapter, stream(0, NEW))[1].opened == "found_2"


def test_model_without_encoder_is_refused():
    model = create_model("test_resnet", num_classes=3, norm="dsbn", domains=["a", "b"])
    with pytest.raises(ConditionError, match="needs an encoder, and this model has none"):
        StreamAdapter(model, task())


@pytest.mark.parametrize("option", ["max_domains", "share", "prior", "depth", "lr"])
def test_negative_options_are_refused(option):
    with pytest.raises(DomainNormError, match=f"{option}: got -1, expected 0 or more"):
        StreamAdapter(make(), task(), **{option: -1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("option", ["share", "prior", "depth", "lr"])
def test_options_that_are_not_finite_are_refused(option, value):
    with pytest.raises(DomainNormError, match=f"{option}: got {value}, expected 0 or more, and fi"):
        StreamAdapter(make(), task(), **{option: value})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_images_that_are_not_finite_are_refused_and_leave_nothing_behind(bad):
    adapter, other = (StreamAdapter(make(), task()) for _ in range(2))
    batch = images(0, 4)
    broken = batch.clone()
    broken[2, 0, 3, 3] = bad
    with pytest.raises(DataError, match="stream: image 2 of a batch of 4 is not finite, or too"):
        adapter(broken)
    assert_close(adapter(batch).output, other(batch).output, rtol=0, atol=0)
    assert_close(adapter.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_batches_of_no_images_are_refused():
    with pytest.raises(DataError, match="stream: a batch of no images, expected one or more"):
        StreamAdapter(make(), task())(images(0, 0))


def test_more_than_all_of_the_moments_is_refused():
    for option in ("share", "depth"):
        with pytest.raises(DomainNormError, match=f"{option}: got 2, expected at most 1"):
            StreamAdapter(make(), task(), **{option: 2})


def test_entropy_of_findings_is_refused():
    with pytest.raises(DomainNormError, match="lr: findings do not exclude each other; set it"):
        StreamAdapter(make(), MultiLabel(["x", "y", "z"]), lr=1e-3)
