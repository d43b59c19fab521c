"""PyTorch modules with int8 or float16 weights: counterparts of torch.nn's classes of the same names."""

# ruff: noqa: E402
from fourfold._require import require_torch

require_torch("nn")

from fourfold.nn._attention import MultiheadAttention
from fourfold.nn._cells import GRUCell, LSTMCell, RNNCell
from fourfold.nn._embedding import Embedding, EmbeddingBag
from fourfold.nn._linear import Linear
from fourfold.nn._recurrent import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "GRUCell",
    "LSTM",
    "LSTMCell",
    "RNN",
    "RNNCell",
    "Embedding",
    "EmbeddingBag",
    "Linear",
    "MultiheadAttention",
]
