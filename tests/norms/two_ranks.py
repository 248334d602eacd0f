"""Three training steps of a norm on two processes; each writes ``<folder>/<rank>.pt``."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import distributed

from domainnorm.condition import Condition
from domainnorm.norms import create_norm

# Batches differ in size; rank 0 lacks domain 2, rank 1 lacks domain 0, domain 3 is in none.
LABELS = [[0, 0, 1, 0, 1], [1, 2, 2]]
STEPS = 3
COMPILED = ("dsbn", "unlike", "softmax", "hard clusters", "soft clusters")
CASES = {
    "dsbn": ("dsbn", {}, False),
    "cbn": ("cbn", {}, False),
    "dsbn strided": ("dsbn", {"stride": 2}, False),
    "dsbn cumulative channels_last": ("dsbn", {"momentum": None}, True),
    "unlike": ("auto_bn", {"stride": 2}, False),
    "half": ("domain*shared", {"share": 0.5, "momentum": None}, True),
    "split": ("ibn_a", {}, False),
    "learned": ("mixed*table", {"parts": ["domain", "instance"], "gate": "learned"}, True),
    "softmax": ("sn", {}, False),
    "fixed": ("alpha_bn", {"momentum": None}, False),
    "hard clusters": ("cluster_in", {}, False),
    "soft clusters": ("cluster_in", {"assignment": "soft"}, False),
    "soft cumulative": ("cluster_in", {"assignment": "soft", "momentum": None}, True),
}


def train(case, labels, share, reduce, compiled=False):
    """Outputs, gradients of the inputs and final state, of the samples in ``share``."""
    name, options, channels_last = CASES[case]
    torch.manual_seed(0)
    norm = create_norm(name, 3, 4, **options).double()
    call = torch.compile(norm, fullgraph=True, backend="aot_eager") if compiled else norm
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.1)
    seen = []
    for _ in range(STEPS):
        x = torch.randn(8, 3, 5, 4, dtype=torch.float64) * 3 + 100
        weight = torch.randn_like(x)
        x = x[share].to(memory_format=torch.channels_last) if channels_last else x[share]
        x = x.detach().requires_grad_()
        with norm.slot.holding(Condition(domain=torch.tensor(labels, dtype=torch.long))):
            output = call(x)
        optimizer.zero_grad()
        (output * weight[share]).sum().backward()
        for parameter in norm.parameters():
            reduce(parameter.grad)
        optimizer.step()
        seen += [output.detach(), x.grad]
    return seen, norm.state_dict()


def work(rank, folder):
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    share = slice(0, 5) if rank == 0 else slice(5, 8)
    found = {case: train(case, LABELS[rank], share, distributed.all_reduce) for case in CASES}
    # The other rank has no sample.
    labels, share_of_all = (LABELS[0] + LABELS[1], slice(None)) if rank == 0 else ([], slice(0, 0))
    for case in CASES:
        found[f"{case} alone"] = train(case, labels, share_of_all, distributed.all_reduce)
    for case in COMPILED:
        torch._dynamo.reset()  # all norms share one forward, and a limit of its recompilations
        compiled = train(case, LABELS[rank], share, distributed.all_reduce, compiled=True)
        found[f"{case} compiled"] = compiled
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.multiprocessing.spawn(work, args=(sys.argv[1],), nprocs=2)
