import pytest
import torch
from torch.testing import assert_close

from domainnorm.backbones import create_model
from domainnorm.errors import ConditionError, DataError
from domainnorm.streams import DomainWatch
from tests.encoders.pairs import images
from tests.streams.following import NEW, make, stream

ROWS = (2, 3)


def watching(run_length=10_000.0, rows=ROWS):
    return DomainWatch(make(domains=("a", "b"), spare=("x", "y")), rows, run_length)


def follow(watch, batches):
    """What was told of each batch, and the rows that were opened."""
    told, opened = [], []
    for batch in batches:
        told.append(watch.look(batch))
        if told[-1].alarm is not None:
            opened.append(watch.open())
    return told, opened


def test_known_domains_are_followed_and_a_new_one_opens_a_row():
    watch = watching()
    told, opened = follow(watch, stream(0, 0, 1, NEW, NEW, NEW, 0))
    assert [int(one.domain[-1]) for one in told] == [0, 0, 1, 1, 2, 2, 0]
    assert [one.label for one in opened] == [2]
    assert watch.opened == ["x"]
    assert sum(opened[0].shares.values()) == pytest.approx(1)
    assert opened[0].shares["b"] > 0.99
    assert len(opened[0].images) >= 4


def test_what_is_told_knows_nothing_of_what_comes_later():
    one, other = watching(), watching()
    beginning = stream(0, NEW, NEW, NEW)
    first, _ = follow(one, beginning)
    second, _ = follow(other, [*beginning[:3], images(1, 4)])
    for told, same in zip(first[:3], second[:3], strict=True):
        assert torch.equal(told.weights, same.weights)
        assert torch.equal(told.evidence, same.evidence)


def test_no_more_rows_are_opened_than_there_are():
    watch = watching(rows=(2,))
    told, opened = follow(watch, stream(0, NEW, NEW, *[30] * 4))
    assert opened[0].label == 2
    assert opened[1:] == [None] * len(opened[1:])
    assert len(opened) > 1
    assert told[1].alarm == 4


def test_a_second_new_domain_is_not_taken_for_the_first():
    watch = watching()
    told, opened = follow(watch, stream(0, NEW, NEW, NEW, *[30] * 4))
    assert [one.label for one in opened] == [2, 3]
    assert told[-1].domain.tolist() == [3] * 8
    assert not told[-1].unlike.all()


def test_images_that_are_unlike_now_and_then_widen_what_is_known():
    watch = watching()
    follow(watch, stream(0, NEW))
    known = len(watch.seen["embeddings"][2])
    told, _ = follow(watch, [image[None] for image in images(NEW, 40)])
    assert any(bool(one.unlike) for one in told)
    assert len(watch.seen["embeddings"][2]) + len(watch.seen["waiting"]) == known + 40


def test_memory_is_bounded():
    watch = watching(1e300)
    follow(watch, stream(*[NEW] * 8))
    assert len(watch.seen["unlike"]) == 32
    watch = watching()
    follow(watch, stream(*[NEW] * 30))
    assert len(watch.seen["embeddings"][2]) == 200


@pytest.mark.parametrize("stopped", [2, 6])
def test_a_watch_goes_on_where_another_stopped(stopped, tmp_path):
    batches = stream(0, NEW, NEW, NEW, 1, NEW, 7, 7, 7)
    whole, first, second = watching(), watching(), watching()
    told, _ = follow(whole, batches)
    follow(first, batches[:stopped])
    torch.save([first.seen, first.gaussians.state_dict()], tmp_path / "state.pt")
    seen, gaussians = torch.load(tmp_path / "state.pt", weights_only=True)
    second.gaussians.load_state_dict(gaussians)
    second.seen = seen
    rest, _ = follow(second, batches[stopped:])
    for one, same in zip(told[stopped:], rest, strict=True):
        assert torch.equal(one.weights, same.weights)
        assert torch.equal(one.evidence, same.evidence)
        assert one.alarm == same.alarm
    assert second.opened == whole.opened


def test_model_without_encoder_is_refused():
    model = create_model("test_resnet", num_classes=3, norm="dsbn", domains=["a", "b"])
    with pytest.raises(ConditionError, match="needs a model with an encoder"):
        DomainWatch(model, ROWS, 100)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
def test_images_that_are_not_finite_are_refused_and_leave_nothing_behind(bad):
    watch, other = watching(), watching()
    batch = images(0, 4)
    broken = batch.clone()
    broken[2, 0, 3, 3] = bad
    with pytest.raises(
        DataError, match="stream: image 2 of a batch of 4 has values that are not finite"
    ):
        watch.look(broken)
    assert_close(watch.look(batch).weights, other.look(batch).weights, rtol=0, atol=0)
    assert_close(watch.seen, other.seen, rtol=0, atol=0)


def test_batches_of_no_images_are_refused():
    with pytest.raises(DataError, match="stream: a batch of no images, expected one or more"):
        watching().look(images(0, 0))
