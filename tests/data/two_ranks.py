"""Fits and tests on two processes; each writes the images it saw to ``<folder>/<rank>.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from lightning import LightningModule, Trainer

from domainnorm.data import DomainDataModule, Loading, Preprocessing
from domainnorm.data.datasets import Scans


class Recorder(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[int]] = {"train": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"] += batch["index"].tolist()
        return self.weight * batch["image"].mean()

    def test_step(self, batch, batch_idx):
        self.seen["test"] += batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


if __name__ == "__main__":
    recorder = Recorder()
    data = DomainDataModule(
        Scans(per_domain=45),
        domain_names=["clean"],
        labelled=[],
        unlabelled=["clean"],
        preprocessing=Preprocessing(32, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        loading=Loading(batch_size=4),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(recorder, datamodule=data)
    trainer.test(recorder, datamodule=data, verbose=False)
    Path(sys.argv[1], f"{trainer.global_rank}.json").write_text(json.dumps(recorder.seen))
    # Gloo's threads must hold no tensor when the interpreter ends: it would abort.
    torch.distributed.destroy_process_group()
