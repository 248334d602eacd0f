from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from domainnorm.evaluation import EvaluationError, Predictions, PredictionStore


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


def _one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    # Rank 1 repeats sample 0, as a distributed sampler does to fill its last batch.
    store = filled([0, 2] if rank == 0 else [1, 0, 0])
    store.compute().save(f"{folder}/{rank}.safetensors")
    dist.destroy_process_group()


@pytest.mark.slow
def test_every_process_sees_all_samples_once(tmp_path: Path) -> None:
    mp.start_processes(_one_rank, (str(tmp_path),), nprocs=2, start_method="spawn")
    seen = [Predictions.load(tmp_path / f"{rank}.safetensors").index.tolist() for rank in (0, 1)]
    assert seen == [[0, 1, 2], [0, 1, 2]]
