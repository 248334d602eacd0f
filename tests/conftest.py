import os
import socket

# Set before torch starts its pool: tests run in parallel processes on the same cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


torch.manual_seed(0)  # for what test modules draw when they are imported


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing may reach out: a test that needs the network is a test that rots."""
    connect = socket.socket.connect

    def refuse(self, address):
        hosts = ("127.0.0.1", "localhost", "::1")
        if self.family != socket.AF_UNIX and str(address[0]) not in hosts:
            raise OSError(f"tests may not connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)
