from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save_file

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import (
    Evaluated,
    EvaluationError,
    MultiLabelPredictions,
    MultiLabelStore,
    Predictions,
    PredictionStore,
    SegmentationCounts,
    SegmentationStore,
    load_evaluated,
)


def filled(order: list[int]) -> PredictionStore:
    store = PredictionStore()
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    for sample in order:
        store.update(logits[[sample]], torch.tensor([sample % 2]), torch.tensor([sample]))
    return store


def test_samples_come_sorted_by_index() -> None:
    assert filled([2, 0, 1]).compute().index.tolist() == [0, 1, 2]


def test_repeated_sample_counts_once() -> None:
    assert filled([1, 0, 1, 0]).compute().index.tolist() == [0, 1]


def test_probabilities_are_the_softmax_of_the_logits() -> None:
    expected = torch.tensor([[0.0, 1.0], [2.0, 0.0]]).softmax(dim=1)
    torch.testing.assert_close(filled([1, 0]).compute().probabilities, expected)


def test_single_sample_keeps_its_axes() -> None:
    predictions = filled([1]).compute()
    assert predictions.probabilities.shape == (1, 2)
    assert predictions.target.tolist() == [1]


def test_half_precision_logits_become_float32() -> None:
    store = PredictionStore()
    store.update(torch.zeros(1, 3).bfloat16(), torch.tensor([0]), torch.tensor([0]))
    assert store.compute().probabilities.dtype == torch.float32


def test_samples_gathered_from_two_processes_count_once() -> None:
    # torchmetrics' own hooks: a second process that saw the same batches.
    store = PredictionStore(
        distributed_available_fn=lambda: True, dist_sync_fn=lambda state, group: [state, state]
    )
    store.update(torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([1, 0]), torch.tensor([3, 2]))
    predictions = store.compute()
    assert predictions.index.tolist() == [2, 3]
    assert predictions.target.tolist() == [0, 1]


def test_reset_forgets_everything() -> None:
    store = filled([0, 1, 2])
    store.reset()
    store.update(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([8]))
    assert store.compute().index.tolist() == [8]


def test_pickled_store_computes_the_same() -> None:
    store = filled([2, 0])
    copy = pickle.loads(pickle.dumps(store))
    assert copy.compute().index.tolist() == store.compute().index.tolist()


def test_compute_before_update_is_an_error() -> None:
    with (
        pytest.warns(UserWarning, match="before the ``update`` method"),
        pytest.raises(EvaluationError, match="no batch came; call update first"),
    ):
        PredictionStore().compute()


def test_mismatched_batch_is_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"logits \(2, 3\), target \(1,\), index \(2,\)"):
        PredictionStore().update(torch.zeros(2, 3), torch.tensor([0]), torch.tensor([0, 1]))


def test_findings_are_stored_with_the_sigmoid_of_the_logits() -> None:
    store, logits = MultiLabelStore(), torch.tensor([[0.0, 3.0], [-2.0, 1.0]])
    store.update(logits, torch.tensor([[0, 1], [-1, 1]]), torch.tensor([5, 4]))
    found = store.compute()
    torch.testing.assert_close(found.probabilities, logits.sigmoid()[[1, 0]])
    assert found.target.tolist() == [[-1, 1], [0, 1]]


def masked(order: list[int], **options: float) -> SegmentationStore:
    """Images of four pixels; of image i, i pixels are class 1, and all are predicted class 1."""
    store = SegmentationStore(2, **options)
    for sample in order:
        target = (torch.arange(4) < sample).long().view(1, 2, 2)
        logits = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2)
        store.update(logits, target, torch.tensor([sample]))
    return store


def test_counts_of_images_come_once_and_sorted_by_index() -> None:
    found = masked([2, 0, 1, 2]).compute()
    assert found.index.tolist() == [0, 1, 2]
    assert found.confusion.tolist() == [[[0, 4], [0, 0]], [[0, 3], [0, 1]], [[0, 2], [0, 2]]]


def test_width_of_boundaries_is_a_fraction_of_the_diagonal() -> None:
    logits = torch.zeros(1, 1, 30, 40)
    expected = {0.02: 30 * 40 - 28 * 38, 0.1: 30 * 40 - 20 * 30}
    found = {}
    for ratio in expected:
        store = SegmentationStore(1, boundary=ratio)
        store.update(logits, torch.zeros(1, 30, 40).long(), torch.tensor([0]))
        found[ratio] = int(store.compute().boundary[0, 0, 0])
    assert found == expected


def test_pixels_of_the_ignored_index_are_not_counted() -> None:
    store = SegmentationStore(2, ignore_index=255)
    target = torch.tensor([[[0, 255], [1, 255]]])
    store.update(torch.zeros(1, 2, 2, 2), target, torch.tensor([0]))
    assert store.compute().confusion.tolist() == [[[1, 0], [1, 0]]]


def test_class_that_does_not_exist_is_an_error() -> None:
    store, target = SegmentationStore(2), torch.tensor([[[0, 255]]])
    with pytest.raises(EvaluationError, match="classes from 0 to 255 in the target, expected 0 to"):
        store.update(torch.zeros(1, 2, 1, 2), target, torch.tensor([0]))


def test_logits_of_a_diverged_network_are_an_error() -> None:
    logits = torch.full((1, 2, 1, 1), torch.nan)
    with pytest.raises(EvaluationError, match="logits that are nan"):
        SegmentationStore(2).update(logits, torch.zeros(1, 1, 1).long(), torch.tensor([0]))


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (1, 2, 2, 3), (2, 2, 2, 2), (2, 2)])
def test_mismatched_masks_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(EvaluationError, match=r"target \(1, 2, 2\), index \(1,\); expected"):
        SegmentationStore(2).update(
            torch.zeros(shape), torch.zeros(1, 2, 2).long(), torch.tensor([0])
        )


def test_mismatched_findings_are_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"expected \(N, K\), \(N, K\), \(N,\)"):
        MultiLabelStore().update(torch.zeros(2, 3), torch.zeros(2).long(), torch.arange(2))


def _one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    # Rank 1 repeats sample 0, as a distributed sampler does to fill its last batch.
    order = [0, 2] if rank == 0 else [1, 0, 0]
    filled(order).compute().save(f"{folder}/classes {rank}")
    masked(order).compute().save(f"{folder}/masks {rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_process_sees_all_samples_once(tmp_path: Path) -> None:
    mp.start_processes(_one_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    seen = [Predictions.load(tmp_path / f"classes {rank}").index.tolist() for rank in (0, 1)]
    assert seen == [[0, 1, 2], [0, 1, 2]]
    expected = masked([0, 1, 2]).compute().confusion
    for rank in (0, 1):
        counts = SegmentationCounts.load(tmp_path / f"masks {rank}")
        torch.testing.assert_close(counts.confusion, expected)


TENSORS = {
    "probabilities": torch.tensor([[0.25, 0.75]]),
    "target": torch.tensor([1]),
    "index": torch.tensor([3]),
}
KINDS = [
    Predictions(**TENSORS),
    SegmentationCounts(torch.ones(2, 3, 3).long(), torch.ones(2, 3, 2).long(), torch.arange(2)),
    MultiLabelPredictions(torch.rand(2, 3), torch.ones(2, 3).long(), torch.arange(2)),
]
kinds = pytest.mark.parametrize("saved", KINDS, ids=lambda one: one.kind)


@kinds
def test_saved_file_loads_as_its_class_with_equal_values(saved: Evaluated, tmp_path: Path) -> None:
    saved.save(tmp_path / "test.safetensors")
    loaded = load_evaluated(tmp_path / "test.safetensors")
    assert type(loaded) is type(saved)
    assert vars(loaded).keys() == vars(saved).keys()
    for name, tensor in vars(saved).items():
        torch.testing.assert_close(getattr(loaded, name), tensor, rtol=0, atol=0)


@kinds
def test_other_classes_refuse_the_file(saved: Evaluated, tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    saved.save(path)
    for other in KINDS:
        if type(other) is not type(saved):
            with pytest.raises(CheckpointError, match=rf"of a {saved.kind} model, expected"):
                type(other).load(path)


def test_files_without_a_kind_hold_class_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    save_file(TENSORS, path, metadata={"format": "domainnorm.predictions"})
    assert load_evaluated(path).index.tolist() == [3]


def test_unknown_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    save_file(TENSORS, path, metadata={"kind": "depth"})
    with pytest.raises(CheckpointError, match=r"test\.safetensors: .* the kind 'depth'"):
        load_evaluated(path)


@kinds
def test_unknown_option_is_not_ignored(saved: Evaluated) -> None:
    with pytest.raises(TypeError, match="'bin'"):
        saved.metrics(bin=10)
