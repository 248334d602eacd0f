from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from domainnorm.data import DomainView, Draw, build_pipeline


@pytest.fixture
def view(scans, preprocessing) -> DomainView:
    positions = [i for i, r in enumerate(scans.records) if r.domain != "colour_cast"][::7]
    return DomainView(
        scans,
        positions,
        domain_names=["textured", "clean"],
        labelled=["clean"],
        pipelines={
            "clean": build_pipeline([], preprocessing),
            "textured": build_pipeline([{"name": "Rotate", "limit": 90, "p": 1.0}], preprocessing),
        },
    )


def first(view: DomainView, domain: int) -> int:
    return int(torch.nonzero(view.domains == domain)[0])


def test_sample_has_image_target_domain_and_index(view):
    sample = view[0]
    assert {key: (value.shape, value.dtype) for key, value in sample.items()} == {
        "image": ((3, 32, 32), torch.float32),
        "target": ((), torch.int64),
        "domain": ((), torch.int64),
        "index": ((), torch.int64),
        "labelled": ((), torch.bool),
    }


def test_domain_is_the_position_in_the_transfer(view, scans):
    names = [["textured", "clean"][view[i]["domain"]] for i in range(len(view))]
    assert names == [scans.records[view[i]["index"]].domain for i in range(len(view))]


def test_image_is_that_of_the_index(view, scans, preprocessing):
    sample = view[first(view, 1)]
    assert_close(sample["image"], preprocessing(scans.image(int(sample["index"]))))


def test_labelled_domain_keeps_its_targets(view, scans):
    sample = view[first(view, 1)]
    assert sample["target"] == scans.records[sample["index"]].target


def test_unlabelled_domain_has_target_minus_one(view):
    assert view[first(view, 0)]["target"] == -1


def test_view_holds_no_label_of_unlabelled_domains(view):
    kept = {record.target for record in view.dataset.records if record.domain != "clean"}
    assert kept == {-1}
    hidden = (view.domains == 0).nonzero().squeeze(1).tolist()
    assert {int(view[position]["target"]) for position in hidden} == {-1}


def test_view_leaves_the_dataset_as_it_is(view, scans):
    assert all(record.target >= 0 for record in scans.records)


def test_draw_seeds_the_augmentation(view):
    position = first(view, 0)
    seeds = {view[Draw(position, seed)]["image"].sum().item() for seed in range(5)}
    assert len(seeds) == 5


def test_plain_position_means_seed_zero(view):
    position = first(view, 0)
    assert_close(view[position]["image"], view[Draw(position, 0)]["image"])
