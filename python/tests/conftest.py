"""What the tests share."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import warnings

import pytest
import torch
from torch import nn

import fourfold

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = pathlib.Path(os.environ.get("FOURFOLD_MODELS", ROOT.parent / "shared" / "models"))
BUILD = pathlib.Path(os.environ.get("FOURFOLD_BUILD", ROOT / "build"))  # of the C++ tests


@pytest.fixture(autouse=True)
def fixed_settings():
    """Each test draws the same numbers, and leaves no setting behind."""
    torch.manual_seed(29592)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    fourfold.set_num_threads(None)
    fourfold.set_isa("")
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def evaluate():
    """The trained models' own script, which rebuilds their networks and measures them."""
    script = MODELS / "evaluate.py"
    if not script.exists():
        pytest.skip(f"{script} is not there: FOURFOLD_MODELS names the folder of the trained models")
    spec = importlib.util.spec_from_file_location("evaluate", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_ao(model, spec=None, **arguments):
    """torch.ao.quantization.quantize_dynamic, which warns that it is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, spec, **arguments)


def mean_error(actual, expected):
    """Mean distance over mean magnitude."""
    return ((actual - expected).abs().mean() / expected.abs().mean()).item()


class Tagger(nn.Module):
    """One of most things."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.lstm = nn.LSTM(8, 16, 2, bidirectional=True)
        self.gru = nn.GRU(32, 8, batch_first=True)
        self.cell = nn.GRUCell(8, 8)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))
        self.register_buffer("offset", torch.randn(5))

    def forward(self, indices):
        x, _ = self.lstm(self.embedding(indices))
        x, _ = self.gru(x)
        return self.head(self.cell(x[-1])) + self.offset


@pytest.fixture
def tagger():
    return Tagger().eval()


@pytest.fixture
def indices():
    return torch.randint(0, 30, (6, 3))


SEQUENCES = [
    (nn.LSTM, fourfold.nn.LSTM, {}),
    (
        nn.LSTM,
        fourfold.nn.LSTM,
        {"num_layers": 2, "bidirectional": True, "proj_size": 3, "batch_first": True},
    ),
    (nn.LSTM, fourfold.nn.LSTM, {"bias": False}),
    (nn.GRU, fourfold.nn.GRU, {"num_layers": 2, "bidirectional": True}),
    (nn.GRU, fourfold.nn.GRU, {"batch_first": True, "bias": False}),
    (nn.RNN, fourfold.nn.RNN, {"nonlinearity": "relu", "bidirectional": True}),
    (nn.RNN, fourfold.nn.RNN, {"num_layers": 3}),
]
CELLS = [
    (nn.LSTMCell, fourfold.nn.LSTMCell, {}),
    (nn.GRUCell, fourfold.nn.GRUCell, {"bias": False}),
    (nn.RNNCell, fourfold.nn.RNNCell, {"nonlinearity": "relu"}),
]
