"""A few labels of a target are seen, and no others."""

import numpy as np
import pytest
import torch

from domainnorm.data import (
    DomainDataModule,
    DomainDataset,
    Loading,
    Preprocessing,
    Record,
    Shots,
    draw_shots,
)
from domainnorm.errors import DataError


class Secret(Record):
    """A record whose label nobody may ask for."""

    def __getattribute__(self, name):
        if name in ("target", "mask", "labels"):
            raise AssertionError(f"the {name} of {self.file} was read")
        return super().__getattribute__(name)

    def without_label(self):
        return Record(self.file, self.domain, -1, self.group, self.split)


def guarded(dataset, shots, domain):
    """The dataset, in which reading a label of ``domain`` beyond the shots raises."""
    found = dataset.without_labels([])
    found.records = [
        Secret(**vars(record))
        if record.domain == domain and record.split != "test" and index not in shots
        else record
        for index, record in enumerate(dataset.records)
    ]
    return found


class Masks(DomainDataset):
    """Two domains of grey images, whose masks of two classes are drawn when they are read."""

    task = "segmentation"

    def __init__(self, readable=None):
        self.domain_names, self.class_names = ["a", "b"], ["ground", "thing"]
        self.readable = readable
        self.records = [
            Record(f"{domain}{n}", domain, -1, f"{domain}{n}", split, mask=f"{domain}{n}")
            for domain in self.domain_names
            for split, count in (("train", 6), ("val", 2), ("test", 2))
            for n in range(count)
        ]

    def image(self, index):
        return np.full((16, 16, 3), index, np.uint8)

    def mask(self, index):
        if self.readable is not None and index not in self.readable:
            raise AssertionError(f"mask {index} was read")
        return np.eye(16, dtype=np.uint8)


@pytest.fixture
def make(scans, preprocessing):
    def build(dataset=scans, number=1, **changes):
        domain = changes.pop("domain", "colour_cast")
        shots = draw_shots(dataset, domain, number, 0)
        options = {
            "domain_names": ["clean", "colour_cast"],
            "labelled": ["clean"],
            "unlabelled": ["colour_cast"],
            "preprocessing": preprocessing,
            "loading": Loading(batch_size=12),
            "shots": Shots({domain: shots}),
        }
        return DomainDataModule(dataset, **{**options, **changes})

    return build


def batches(module):
    found = list(module.train_dataloader())
    return {name: torch.cat([batch[name] for batch in found]) for name in found[0]}


def test_so_many_of_each_class_are_drawn_from_training_images(scans):
    drawn = draw_shots(scans, "clean", 2, seed=0)
    records = [scans.records[position] for position in drawn]
    assert {(record.domain, record.split) for record in records} == {("clean", "train")}
    assert sorted(record.target for record in records) == sorted([*range(10)] * 2)


def test_draws_go_by_seed_and_grow_with_the_number(scans):
    one, two = (set(draw_shots(scans, "clean", number, 3)) for number in (1, 2))
    assert one < two
    assert one == set(draw_shots(scans, "clean", 1, 3)) != set(draw_shots(scans, "clean", 1, 4))


def test_masks_are_drawn_unread():
    assert len(draw_shots(Masks(readable=()), "b", 3, 0)) == 3


@pytest.mark.parametrize(
    ("number", "message"),
    [(5, r"data.shots: 5, but domain 'clean' has \d images? of '\d' with a label"), (6, "6")],
)
def test_more_than_there_are_is_refused(scans, number, message):
    with pytest.raises(DataError, match=message):
        draw_shots(scans, "clean", number, 0)


def test_one_image_stays_without_label():
    with pytest.raises(DataError, match="6 of the 6 training images of domain 'b'"):
        draw_shots(Masks(), "b", 6, 0)


def test_shots_alone_have_labels_of_the_target(make, scans):
    module = make()
    seen, shots = batches(module), set(module.shots.all)
    for index, target, domain, known in zip(
        *(seen[name].tolist() for name in ("index", "target", "domain", "labelled")), strict=True
    ):
        told = domain == 0 or index in shots
        assert known == told
        assert target == (scans.records[index].target if told else -1)
    assert shots < {int(index) for index in seen["index"][seen["domain"] == 1]}


@pytest.mark.parametrize("unlabelled", [["colour_cast"], []])
def test_no_label_of_the_target_but_those_of_shots_is_read(scans, preprocessing, unlabelled):
    shots = draw_shots(scans, "colour_cast", 1, 0)
    module = DomainDataModule(
        guarded(scans, shots, "colour_cast"),
        domain_names=["clean", "colour_cast"],
        labelled=["clean"],
        unlabelled=unlabelled,
        preprocessing=preprocessing,
        loading=Loading(batch_size=12, sampling="balanced"),
        shots=Shots({"colour_cast": shots}),
    )
    batches(module)
    module.class_frequency()
    for loader in (*module.val_dataloader(), module.domain_dataloader("train")):
        list(loader)


def test_no_mask_of_the_target_but_those_of_shots_is_read():
    shots = draw_shots(Masks(), "b", 2, 0)
    source = [at for at, record in enumerate(Masks().records) if record.domain == "a"]
    module = DomainDataModule(
        Masks(readable={*source, *shots}),
        domain_names=["a", "b"],
        labelled=["a"],
        unlabelled=["b"],
        preprocessing=Preprocessing(16, 16, (0.5,) * 3, (0.25,) * 3),
        loading=Loading(batch_size=6, balance="role", sampling="rare"),
        shots=Shots({"b": shots}),
    )
    seen = batches(module)
    hidden = (seen["target"] == -1).flatten(1).all(1)
    assert torch.equal(hidden, ~seen["labelled"])
    assert set(seen["index"][seen["labelled"] & (seen["domain"] == 1)].tolist()) == set(shots)
    module.class_frequency()


def test_shots_are_a_part_of_the_labelled_half(make):
    module = make(loading=Loading(batch_size=12, balance="role"))
    for batch in module.train_dataloader():
        assert batch["labelled"].sum() == 6
        assert (batch["labelled"] & (batch["domain"] == 1)).sum() == 3


def test_source_is_drawn_as_without_shots(make):
    sizes = {"loading": Loading(batch_size=12, balance="domain")}
    plain = batches(make(shots=None, loading=Loading(batch_size=8)))
    found = batches(make(**sizes))  # three parts of 4 instead of two
    count = min(int((one["domain"] == 0).sum()) for one in (plain, found))
    firsts = [one["index"][one["domain"] == 0][:count] for one in (plain, found)]
    assert torch.equal(*firsts)


def test_domain_of_shots_alone_shows_no_other_image(make):
    module = make(unlabelled=[])
    seen, shots = batches(module), set(module.shots.all)
    assert module.seen_domains == ["clean", "colour_cast"]
    assert {int(one) for one in seen["index"][seen["domain"] == 1]} == shots
    swept = module.domain_dataloader("train", domains=["colour_cast"])
    assert {int(one) for batch in swept for one in batch["index"]} == shots


def test_shots_are_not_validated_on(make):
    assert make().val_domains == ["clean"]
    assert make(labelled=[], unlabelled=[]).val_dataloader() == []


def test_shots_have_steps_of_their_own(make, scans, preprocessing):
    steps = {"colour_cast": [{"name": "InvertImg", "p": 1.0}]}
    module = make()
    module = make(shots=Shots(module.shots.positions, steps))
    view = module.train_dataloader().dataset
    for place, index in enumerate(view.positions):
        plain = preprocessing(scans.image(index))
        assert torch.equal(view[place]["image"], plain) == (index not in module.shots.all)


def test_frequency_counts_labels_that_are_seen(make, scans):
    module = make()
    labels = [r.target for r in scans.records if (r.domain, r.split) == ("clean", "train")]
    counts = np.bincount(labels, minlength=10) + 1
    np.testing.assert_allclose(module.class_frequency(), counts / counts.sum())


def test_labelled_domain_has_no_shots(make):
    with pytest.raises(DataError, match="shots: clean is also in labelled"):
        make(domain="clean")
