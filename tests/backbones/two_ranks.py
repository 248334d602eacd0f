"""Gradients of a model on two processes; rank 0 writes them to ``<folder>/gradients.pt``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from tests.backbones.networks import converted

IMAGE_SHAPE = (8, 3, 64, 64)
# Rank 0 lacks domain 2 and rank 1 lacks domain 0.
LABELS = [[0, 0, 1, 0], [1, 2, 2, 1]]
CASES = {
    "cin": ({"all": "cin"}, True, False),
    "cin checkpointed": ({"all": "cin"}, True, True),
    "dsbn": ("dsbn", True, False),
    "dsbn checkpointed": ("dsbn", True, True),
    "dsbn evaluated": ("dsbn", False, False),
    "dsbn evaluated checkpointed": ("dsbn", False, True),
}


def prepare(case):
    """The model and the images of one case, the same in every process."""
    norm, training, checkpointed = CASES[case]
    torch.manual_seed(0)
    model = converted("test_efficientnet", norm, dtype=torch.float64, num_classes=3)
    model.backbone.set_grad_checkpointing(checkpointed)
    return model.train(training), torch.randn(IMAGE_SHAPE, dtype=torch.float64)


def gradients(network, model, image, labels):
    """Gradients of the mean loss after two steps' worth of backward passes."""
    for _ in range(2):
        network(image, torch.tensor(labels)).square().mean().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def work(rank, folder):
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found = {}
    for case in CASES:
        model, image = prepare(case)
        network = DistributedDataParallel(model)
        found[case] = gradients(network, model, image.chunk(2)[rank], LABELS[rank])
    if rank == 0:
        torch.save(found, Path(folder, "gradients.pt"))
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.multiprocessing.spawn(work, (sys.argv[1],), nprocs=2)
