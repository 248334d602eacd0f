"""Streams of which nobody says the domain: rows are opened for what is new."""

import copy
import io

import pytest
import torch
from torch.testing import assert_close

from domainnorm import adapt_online, create_model
from domainnorm.encoders import create_encoder
from domainnorm.errors import ConditionError, DataError, DomainNormError
from domainnorm.methods import Roles
from domainnorm.registry import METHODS
from domainnorm.tasks.classification import Classification
from tests.encoders.pairs import images
from tests.methods.bench import SMALL
from tests.streams.following import NEW, make, stream, task

GIVEN = {**SMALL, "eata": {"fisher_weight": 0.0}}
NAMES = [name for name in METHODS.names() if METHODS.load(name).protocol == "online"]
every_stream = pytest.mark.parametrize("name", NAMES)


def opening(name, model=None, **options):
    model = make() if model is None else model
    options = {"rows": "opened", "max_domains": 2, **GIVEN.get(name, {}), **options}
    return adapt_online(model, name, task=task(), **options)


def of_run(name):
    """A method as a run has it, of two targets that its encoder does not know."""
    roles = Roles(("a", "b"), ("x", "y"))
    model, given = make(spare=roles.target), GIVEN.get(name, {})
    return METHODS.load(name)(model, task(), roles, rows="opened", **given)


def rows_of(model, number):
    return {owned.key: owned.tensor[:number].detach().clone() for owned in model.domain_rows()}


@every_stream
def test_rows_of_known_domains_stay_and_their_images_are_predicted_as_before(name):
    model = make()
    untouched, before = copy.deepcopy(model), rows_of(model, 2)
    stream_of = opening(name, model)
    batches = stream(0, 1)
    for batch, domain in zip(batches, "ab", strict=True):
        assert_close(stream_of(batch), untouched(batch, domain), atol=1e-3, rtol=1e-3)
    for batch in stream(NEW, NEW, NEW):
        assert stream_of(batch).shape == (8, 3)
    assert stream_of.opened == ["found_1"]
    assert int(stream_of.seen.domain[-1]) == 2
    after = rows_of(stream_of.method.deployed, 2)
    for key, value in before.items():
        assert torch.equal(value, after[key]), key


@every_stream
def test_a_row_starts_as_what_its_images_were_taken_for(name, monkeypatch):
    stream_of = opening(name)
    method = stream_of.method
    seen = []

    before = type(method).row_opened

    def opened(self, row):
        seen.append({model: rows_of(model, row + 1) for model in self.copies})
        before(self, row)

    monkeypatch.setattr(type(method), "row_opened", opened)
    for batch in stream(0, NEW):
        stream_of(batch)
    assert len(seen) == 1
    for rows in seen[0].values():
        for key, value in rows.items():  # taken for b, and for nothing else
            assert_close(value[2], value[1], rtol=1e-4, atol=1e-4), key


@every_stream
def test_what_is_pulled_back_is_pulled_to_the_row_as_it_was_opened(name):
    stream_of = opening(name)
    method = stream_of.method
    for batch in stream(0, NEW):
        stream_of(batch)
    start, own = getattr(method, "start", []), {id(p): k for k, p in method.named_parameters()}
    for parameter, former in zip(getattr(method, "adapted", []), start, strict=False):
        if len(former) == 4:
            assert_close(former[2], former[1], rtol=1e-4, atol=1e-4), own[id(parameter)]


@every_stream
def test_a_killed_stream_goes_on(name):
    batches = stream(0, NEW, NEW, 1, NEW)
    one, file = opening(name), io.BytesIO()
    for batch in batches[:2]:
        one(batch)
    assert one.opened
    torch.save(one.state_dict(), file)
    torch.manual_seed(0)
    wanted = [one(batch) for batch in batches[2:]]
    other = opening(name)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    torch.manual_seed(0)
    assert_close([other(batch) for batch in batches[2:]], wanted, rtol=0, atol=0)
    assert other.opened == one.opened


@pytest.mark.parametrize("norm", ["dsbn", "cbn"])
@every_stream
def test_what_a_new_domain_moves_changes_no_prediction_of_known_ones(name, norm):
    model = make(norm)
    with torch.no_grad():
        model.get_classifier().weight.mul_(20)
    images_of_a = images(0, 6)
    wanted = copy.deepcopy(model)(images_of_a, "a")
    options = {"lr": 0.1} if "lr" in METHODS.entry(name).parameters else {}
    stream_of = opening(name, model, **options)
    for batch in stream(0, NEW, NEW, NEW, NEW):
        stream_of(batch)
    found = stream_of(images_of_a)
    assert stream_of.seen.domain.tolist() == [0] * 6
    assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    assert stream_of.opened == ["found_1"]


@every_stream
def test_images_of_a_run_and_those_that_opened_a_row_share_a_memory(name):
    method = of_run(name)
    method.begin_stream(method.roles.target)
    for number, batch in enumerate(stream(0, NEW, NEW, *[30] * 5)):
        index = torch.arange(len(batch)) + 8 * number
        domain = torch.full((len(batch),), 2)
        method.follow_stream({"image": batch, "domain": domain, "index": index})
    assert method.watch.opened == ["x", "y"]


@pytest.mark.parametrize("name", ["neo", "alpha_bn", "rotta", "cotta"])
def test_each_target_of_its_own_stream_keeps_its_row_and_its_place(name):
    method = of_run(name)
    model = method.model
    rows, known = [], []
    for target, domain in (("x", NEW), ("y", 9)):
        method.begin_stream((target,))
        for batch in stream(0, domain, domain, domain):
            method.follow_stream({"image": batch, "domain": torch.full((len(batch),), 2)})
        assert method.watch.opened == [target]
        row = model.domain_names.index(target)
        rows.append([one.tensor[row].clone() for one in method.deployed.domain_rows()])
        known.append(model.encoder.gaussians.mean[row].clone())
    method.facts = {}
    method.on_test_epoch_end()
    assert method.facts["rows_opened"] == 2
    for row, (values, mean) in enumerate(zip(rows, known, strict=True), 2):
        for one, value in zip(method.deployed.domain_rows(), values, strict=True):
            assert torch.equal(one.tensor[row], value), one.key
        for network in (model, method.deployed):
            assert torch.equal(network.encoder.gaussians.mean[row], mean)
            assert network.encoder.gaussians.known[row]


def test_a_row_is_made_of_what_raised_the_alarm_however_large_the_batch():
    stream_of = opening("neo")
    stream_of(images(0, 8))
    stream_of(torch.cat([images(NEW, 8), images(30, 40)]))
    assert stream_of.opened == ["found_1"]
    stream_of(images(NEW, 8))
    assert stream_of.seen.domain.tolist() == [2] * 8


def test_a_reset_forgets_what_was_opened():
    stream_of = opening("neo")
    for batch in stream(0, NEW, NEW):
        stream_of(batch)
    assert stream_of.opened
    stream_of.reset()
    assert stream_of.opened == []
    assert stream_of.seen is None
    assert not stream_of.method.model.encoder.gaussians.known[2:].any()


def test_names_that_are_taken_are_passed_over():
    stream_of = opening("neo", make(domains=("a", "found_1")))
    for batch in stream(0, NEW):
        stream_of(batch)
    assert stream_of.opened == ["found_2"]


def test_images_of_a_batch_may_be_of_several_domains():
    stream_of = opening("alpha_bn", memory="stream")
    for batch in stream(0, NEW, NEW):
        stream_of(batch)
    known, new = images(0, 3), images(NEW, 3)
    mixed = stream_of(torch.cat([known, new]))
    assert stream_of.seen.domain.tolist() == [0, 0, 0, 2, 2, 2]
    assert_close(mixed[:3], make().eval()(known, "a"), atol=1e-3, rtol=1e-3)


def test_images_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match=r"images: 0, 1 of the batch .* values that are not finite"):
        opening("neo")(images(0, 2) * float("nan"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reset": "domain"}, "beside reset: domain, which forgets opened rows"),
        ({"max_domains": 0}, "max_domains: got 0, expected 1 or more"),
        ({"run_length": 1.0}, "run_length: got 1.0, expected more than 1 image"),
        ({"run_length": float("inf")}, "run_length: got inf"),
    ],
)
def test_options_that_open_nothing_are_refused(options, problem):
    with pytest.raises((ConditionError, DomainNormError), match=problem):
        opening("neo", **options)


def test_a_domain_is_not_said_beside_rows_that_are_opened():
    with pytest.raises(ConditionError, match="domain: got a, but 'rows: opened' estimates it"):
        adapt_online(make(), "neo", task=task(), rows="opened", domain="a")


@pytest.mark.parametrize("name", ["eata", "neo"])
def test_a_refusal_leaves_the_model_as_it_was(name):
    model = make()
    with pytest.raises(DomainNormError):
        adapt_online(model, name, task=task(), rows="opened", run_length=float("inf"))
    with pytest.raises(DomainNormError, match="fisher_weight"):
        adapt_online(model, "eata", task=task(), rows="opened")
    assert model.domain_names == ("a", "b")


def test_what_has_no_rows_is_refused_before_the_model_changes():
    plain = create_model("test_resnet", 3, "dsbn", ["a", "b"])
    with pytest.raises(ConditionError, match="'opened' needs a domain encoder"):
        opening("neo", plain)
    assert plain.domain_names == ("a", "b")
    shared = create_model("test_resnet", 3, "bn", ["a", "b"])
    shared.attach_encoder(create_encoder("style", 2, shared.backbone))
    with pytest.raises(ConditionError, match="no norm depends on the domain"):
        opening("neo", shared)
    roles = Roles(("a",), ("b",), "one")
    with pytest.raises(DomainNormError, match=r"no row to open, since data\.rows is 'one'"):
        METHODS.load("neo")(make(), Classification(["x", "y", "z"]), roles, rows="opened")
