from __future__ import annotations

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch.testing import assert_close

from domainnorm.data import DomainDataModule, Loading
from domainnorm.data.datasets import Scans
from domainnorm.data.sampler import OwnDraws
from domainnorm.errors import DataError

LIGHTNING_WARNINGS = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    # Lightning 2.6 asks torch's pytree for a class that torch 2.14 deprecates.
    "ignore:.*LeafSpec.*:FutureWarning",
)
SMALL = Loading(batch_size=24, eval_batch_size=16)


@pytest.fixture
def make(scans, preprocessing):
    def make_module(**changes) -> DomainDataModule:
        options = {
            "domain_names": ["clean", "colour_cast", "textured"],
            "labelled": ["clean"],
            "unlabelled": ["textured"],
            "preprocessing": preprocessing,
            "augment": {"default": ["HorizontalFlip"], "textured": []},
            "loading": SMALL,
            **changes,
        }
        return DomainDataModule(options.pop("dataset", scans), **options)

    return make_module


@pytest.fixture
def relabelled(scans) -> Scans:
    """The same images with other labels wherever the training of `make` may see none."""
    other = scans.without_labels([])
    other.records = [
        record if record.domain == "clean" else replace(record, target=9 - record.target)
        for record in scans.records
    ]
    return other


class Recorder(LightningModule):
    """Keeps the batches of every epoch, and learns nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[dict[str, torch.Tensor]]] = {}

    def training_step(self, batch, batch_idx):
        self.epochs.setdefault(self.current_epoch, []).append(batch)
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: DomainDataModule, epochs: int, start=None, end=None) -> Recorder:
    recorder = Recorder()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
    )
    trainer.fit(recorder, datamodule=module, ckpt_path=start)
    if end is not None:
        trainer.save_checkpoint(end)
    return recorder


def test_training_mixes_labelled_and_unlabelled_domains(make):
    batch = next(iter(make().train_dataloader()))
    assert batch["domain"].tolist() == [0] * 12 + [2] * 12


def test_batches_never_hold_a_masked_target(make):
    for batch in make().train_dataloader():
        assert set(batch["target"][batch["domain"] == 2].tolist()) == {-1}
        assert (batch["target"][batch["domain"] == 0] >= 0).all()


@pytest.mark.parametrize("labelled", [["clean"], []])
def test_training_loader_reaches_no_masked_target(make, labelled):
    records = make(labelled=labelled).train_dataloader().dataset.dataset.records
    assert {record.domain for record in records if record.target != -1} == set(labelled)


def test_training_view_is_the_same_whatever_the_hidden_labels(make, relabelled):
    views = [make(**change).train_dataloader().dataset for change in ({}, {"dataset": relabelled})]
    first, second = (
        pickle.dumps(
            {key: v.tolist() if torch.is_tensor(v) else v for key, v in vars(view).items()}
        )
        for view in views
    )
    assert first == second


def test_training_batches_are_the_same_whatever_the_hidden_labels(make, relabelled):
    hidden = list(make(dataset=relabelled).train_dataloader())
    assert_close(list(make().train_dataloader()), hidden, rtol=0, atol=0)


def test_validation_loader_reaches_no_label_of_other_domains(make):
    (loader,) = make().val_dataloader()
    kept = {r.domain for r in loader.dataset.dataset.records if r.target != -1}
    assert kept == {"clean"}


def test_validation_covers_labelled_domains_only(make):
    module = make()
    domains = [batch["domain"] for loader in module.val_dataloader() for batch in loader]
    assert (module.val_domains, set(torch.cat(domains).tolist())) == (["clean"], {0})


def test_method_without_labels_has_no_validation(make):
    assert make(labelled=[]).val_dataloader() == []


def test_testing_covers_every_domain_with_labels(make, scans):
    module = make()
    loaders = module.test_dataloader()
    assert module.test_domains == ["clean", "colour_cast", "textured"]
    for label, loader in enumerate(loaders):
        batch = next(iter(loader))
        assert set(batch["domain"].tolist()) == {label}
        assert batch["target"].tolist() == [scans.records[i].target for i in batch["index"]]


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_sees_every_image_of_its_split_once(make, scans, split):
    loader = getattr(make(), f"{split}_dataloader")()[0]
    seen = torch.cat([batch["index"] for batch in loader]).tolist()
    assert seen == [
        i for i, r in enumerate(scans.records) if (r.domain, r.split) == ("clean", split)
    ]


def test_evaluation_does_not_augment(make, scans, preprocessing):
    module = make(augment={"default": [{"name": "InvertImg", "p": 1.0}]})
    batch = next(iter(module.test_dataloader()[0]))
    assert_close(batch["image"][0], preprocessing(scans.image(int(batch["index"][0]))))


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_for_the_domains_alone_hold_no_label(make, scans, split):
    loader = make().domain_dataloader(split)
    batches = list(loader)
    assert all((batch["target"] == -1).all() for batch in batches)
    assert all(record.target == -1 for record in loader.dataset.dataset.records)
    index = torch.cat([batch["index"] for batch in batches])
    found = [scans.records[position] for position in index.tolist()]
    wanted = [r for r in scans.records if r.split == split and r.domain in ("clean", "textured")]
    assert found == wanted


def test_images_for_the_domains_alone_can_be_mixed(make):
    module = make()
    plain = order(module.domain_dataloader("train"))
    loader = module.domain_dataloader("train", mixed=True)
    first, second = order(loader), order(loader)
    assert sorted(first) == sorted(second) == sorted(plain)
    assert first not in (plain, second)
    assert first == order(module.domain_dataloader("train", mixed=True))


def order(loader):
    return torch.cat([batch["index"] for batch in loader]).tolist()


def test_images_for_the_domains_alone_are_not_augmented(make, scans, preprocessing):
    batch = next(iter(make().domain_dataloader("train")))
    first = scans.image(int(batch["index"][0]))
    assert_close(batch["image"][0], preprocessing(first))


def test_images_to_score_are_training_images_without_labels_and_the_same_each_time(make, scans):
    first, again = (list(make().scoring_dataloader("textured", 20)) for _ in range(2))
    assert [b["index"].tolist() for b in first] == [b["index"].tolist() for b in again]
    assert all(torch.equal(a["strong"], b["strong"]) for a, b in zip(first, again, strict=True))
    records = [scans.records[index] for batch in first for index in batch["index"].tolist()]
    assert {(one.domain, one.split) for one in records} == {("textured", "train")}
    assert len(records) == 20
    assert all(bool((batch["target"] == -1).all()) for batch in first)
    assert not any(torch.equal(batch["strong"], batch["image"]) for batch in first)


def test_images_to_score_with_labels_are_for_validation(make, scans):
    (batch,) = make().scoring_dataloader("clean", 5)
    records = [scans.records[index] for index in batch["index"].tolist()]
    assert {(one.domain, one.split) for one in records} == {("clean", "val")}
    assert batch["target"].tolist() == [one.target for one in records]


def test_images_to_score_are_of_domains_that_may_be_seen(make):
    with pytest.raises(DataError, match="unknown domain 'colour_cast'"):
        make().scoring_dataloader("colour_cast", 5)


def test_domain_has_its_own_pipeline(make, scans, preprocessing):
    module = make(augment={"default": [{"name": "InvertImg", "p": 1.0}], "textured": []})
    batch = next(iter(module.train_dataloader()))
    plain = torch.stack([preprocessing(scans.image(int(i))) for i in batch["index"]])
    assert_close(batch["image"][12:], plain[12:])
    assert not torch.isclose(batch["image"][:12], plain[:12]).all()


def test_workers_do_not_change_batches(make):
    alone = list(make().train_dataloader())
    shared = list(make(loading=replace(SMALL, num_workers=2)).train_dataloader())
    assert_close(shared, alone, rtol=0, atol=0)


def test_loaders_leave_the_global_generator_alone(make):
    before = torch.get_rng_state()
    list(make().train_dataloader())
    assert_close(torch.get_rng_state(), before)


@LIGHTNING_WARNINGS
def test_resumed_run_sees_the_batches_of_an_uninterrupted_one(make, tmp_path):
    whole = fit(make(), 5)
    fit(make(), 3, end=tmp_path / "epoch_3.ckpt")
    resumed = fit(make(), 5, start=tmp_path / "epoch_3.ckpt")
    assert list(resumed.epochs) == [3, 4]
    assert_close(resumed.epochs, {epoch: whole.epochs[epoch] for epoch in (3, 4)})


@LIGHTNING_WARNINGS
def test_epochs_have_different_batches(make):
    epochs = fit(make(), 2).epochs
    assert not torch.equal(epochs[0][0]["index"], epochs[1][0]["index"])


def test_class_frequency_is_that_of_labelled_training_images(make, scans):
    counts = [0] * 10
    for record in scans.records:
        counts[record.target] += (record.domain, record.split) == ("clean", "train")
    expected = torch.tensor(counts).double() / sum(counts)
    assert_close(make().class_frequency(), expected)


def first_epoch(module):
    return {key: [batch[key] for batch in module.train_dataloader()] for key in ("index", "domain")}


def unequal(scans):
    """Half as many images of class 1 in the training of `make`."""
    found = scans.without_labels([])
    found.records = [
        record
        for at, record in enumerate(scans.records)
        if record.target != 1 or at % 2 or record.split != "train"
    ]
    return found


def test_balanced_batches_hold_every_class_of_labelled_domains_equally_often(make, scans):
    module = make(dataset=unequal(scans), loading=replace(SMALL, sampling="balanced"))
    counts = torch.zeros(10)
    for batch in module.train_dataloader():
        counts += torch.bincount(batch["target"][batch["labelled"]], minlength=10)
    assert counts.max() - counts.min() <= 1


class Even:
    """Draws images at even places, at random."""

    def draw(self, records, length, generator):
        return 2 * generator.integers((len(records) + 1) // 2, size=length)


def test_own_sampler_draws_the_images_of_labelled_domains(make, scans):
    module = make(loading=replace(SMALL, sampling=Even()))
    kept = set(scans.positions(["clean"], "train")[::2])
    for batch in module.train_dataloader():
        assert set(batch["index"][batch["labelled"]].tolist()) <= kept


@pytest.mark.parametrize(
    ("found", "came"),
    [
        ([0], r"int64 of shape \(1,\)"),
        ([0.5] * 99, "float64 of shape"),
        (range(-1, 98), "numbers from -1 to 97"),
    ],
)
def test_own_sampler_that_gives_no_positions_is_named(found, came):
    draws = OwnDraws(np.arange(99), [None] * 99, SimpleNamespace(draw=lambda *asked: found))
    with pytest.raises(DataError, match=rf"data\.sampling: SimpleNamespace\.draw gave {came}"):
        draws.drawn((0, 0, 0), 99)


@pytest.mark.parametrize("sampling", ["balanced", "rare", Even()])
def test_sampling_leaves_unlabelled_domains_as_they_are(make, scans, sampling):
    plain, other = (
        first_epoch(make(loading=replace(SMALL, sampling=s))) for s in ("uniform", sampling)
    )
    assert_close(plain["domain"], other["domain"])
    for before, after, domain in zip(plain["index"], other["index"], plain["domain"], strict=True):
        assert torch.equal(before[domain == 2], after[domain == 2])
    assert not torch.equal(torch.cat(plain["index"]), torch.cat(other["index"]))


@pytest.mark.parametrize("sampling", ["balanced", Even()])
def test_resumed_run_sees_the_drawn_batches_it_would_have_seen(make, sampling):
    options = {"loading": replace(SMALL, sampling=sampling)}
    whole = fit(make(**options), 3).epochs
    module = make(**options)
    module.trainer = SimpleNamespace(current_epoch=2, global_rank=0, world_size=1)
    indices = [batch["index"] for batch in module.train_dataloader()]
    assert_close(indices, [batch["index"] for batch in whole[2]])


def test_sampling_that_labels_do_not_allow_is_refused(make, scans):
    several = scans.without_labels([])
    several.task = "multilabel"
    module = make(dataset=several, loading=replace(SMALL, sampling="rare"))
    with pytest.raises(DataError, match=r"data.sampling: 'rare' needs one class per image, but"):
        module.train_dataloader()


def test_classes_are_those_of_the_dataset(make):
    module = make()
    assert (module.num_classes, module.class_names) == (10, list("0123456789"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain_names": ["clean", "textur"]}, "domain_names: .* did you mean 'textured'"),
        ({"labelled": ["clear"]}, "labelled: .* did you mean 'clean'"),
        ({"unlabelled": ["clean"]}, "unlabelled: clean is also in labelled"),
        ({"augment": {"defualt": []}}, r"augment\.defualt: .* did you mean 'default'"),
        ({"augment": {"clean": ["Flip"]}}, r"augment\.clean\[0\]: no transform"),
    ],
)
def test_wrong_name_gives_key_and_nearest(make, changes, message):
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_unlabelled_image_of_a_labelled_domain_is_named(make, scans):
    masked = scans.without_labels(["clean"])
    with pytest.raises(DataError, match=r"clean/\d+: no label, but domain 'clean' trains with"):
        make(dataset=masked)


def test_unlabelled_test_image_passes_through(make, scans):
    masked = scans.without_labels(["textured"])
    batch = next(iter(make(dataset=masked).test_dataloader()[2]))
    assert set(batch["target"].tolist()) == {-1}


def test_labelled_domain_needs_validation_images(make, scans):
    bare = scans.without_labels([])
    bare.records = [replace(r, split="test") if r.split == "val" else r for r in bare.records]
    with pytest.raises(
        DataError, match=r"domain 'clean': no images in split val; .* raise data.val_fraction"
    ):
        make(dataset=bare)


@pytest.mark.parametrize(("devices", "split"), [(11, "val"), (40, None)])
def test_devices_without_an_image_to_evaluate_are_refused_before_training(make, devices, split):
    module = make()
    module.trainer = SimpleNamespace(global_rank=0, world_size=devices)
    with pytest.raises(DataError, match=f"in split {split or 'val'}, .* {devices} devices"):
        module.setup("fit")


def test_as_many_devices_as_images_to_evaluate_are_enough(make):
    module = make()
    module.trainer = SimpleNamespace(global_rank=0, world_size=2)
    module.setup("fit")


def test_transfer_without_training_domains_cannot_train(make):
    with pytest.raises(DataError, match="no images to draw batches from"):
        make(labelled=[], unlabelled=[]).train_dataloader()


@pytest.mark.parametrize(
    ("key", "value"),
    [("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1), ("seed", -1)],
)
def test_loading_refuses_numbers_out_of_range(key, value):
    with pytest.raises(DataError, match=f"{key}: {value}, expected"):
        Loading(**{key: value})
