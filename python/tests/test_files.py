"""save and load: what a file keeps, for whom, and what is refused."""

import copy
import json
import os
import struct

import numpy as np
import pytest
import torch
from conftest import Tagger
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import fourfold


def metadata(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["fourfold"])


def test_a_file_describes_the_tree(tagger, tmp_path):
    path = tmp_path / "model.safetensors"
    fourfold.save(fourfold.quantize_dynamic(tagger), path)
    assert metadata(path) == {
        "version": 1,
        "model": {
            "kind": "Module",
            "type": "Tagger",
            "children": {
                "embedding": {"kind": "Embedding", "num_embeddings": 30, "embedding_dim": 8},
                "lstm": {
                    "kind": "LSTM",
                    "input_size": 8,
                    "hidden_size": 16,
                    "num_layers": 2,
                    "bidirectional": True,
                },
                "gru": {"kind": "GRU", "input_size": 32, "hidden_size": 8, "batch_first": True},
                "cell": {"kind": "GRUCell", "input_size": 8, "hidden_size": 8},
                "head": {
                    "kind": "Sequential",
                    "children": {
                        "0": {"kind": "Linear", "in_features": 8, "out_features": 8},
                        "1": {"kind": "ReLU"},
                        "2": {"kind": "Linear", "in_features": 8, "out_features": 5},
                    },
                },
            },
            "tensors": ["offset"],
        },
    }
    with safe_open(path, "pt") as file:
        assert file.get_tensor("lstm.weight_hh_l1").dtype == torch.int8
        assert torch.equal(file.get_tensor("offset"), tagger.offset)


@pytest.mark.parametrize("dtype", [torch.qint8, torch.float16])
def test_round_trips(tagger, indices, tmp_path, dtype):
    path, again = tmp_path / "model.safetensors", tmp_path / "again.safetensors"
    quantized = fourfold.quantize_dynamic(tagger, dtype=dtype)
    fourfold.save(quantized, path)
    filled = fourfold.load(path, into=Tagger())
    assert torch.equal(filled(indices), quantized(indices))
    tree = fourfold.load(path)
    assert repr(tree) == repr(quantized)
    x = torch.randn(4, 2, 8)
    assert torch.equal(tree.lstm(x)[0], quantized.lstm(x)[0])
    assert torch.equal(tree.head(x), quantized.head(x)) and torch.equal(tree.offset, tagger.offset)
    with pytest.raises(
        NotImplementedError, match="a file does not say how Tagger runs: load.path, into=Tagger"
    ):
        tree(indices)
    for model in (filled, tree):
        fourfold.save(model, again)
        assert again.read_bytes() == path.read_bytes()


def test_float_models_are_saved_too(tagger, indices, tmp_path):
    fourfold.save(tagger, tmp_path / "float.safetensors")
    assert torch.equal(fourfold.load(tmp_path / "float.safetensors", into=Tagger())(indices), tagger(indices))
    assert type(fourfold.load(tmp_path / "float.safetensors").lstm) is nn.LSTM


def test_numpy_runs_a_file_with_the_same_bits(tmp_path):
    path = tmp_path / "model.safetensors"
    model = nn.ModuleDict(
        {
            "lstm": nn.LSTM(8, 6, 2, bidirectional=True, proj_size=3),
            "gru": nn.GRU(8, 6, batch_first=True),
            "cell": nn.LSTMCell(8, 6),
            "head": nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Dropout(), nn.Linear(9, 4, bias=False)),
            "table": nn.Embedding(9, 4),
            "bags": nn.EmbeddingBag(9, 4, mode="max"),
        }
    )
    spec = {nn.LSTM, nn.GRU, nn.LSTMCell, nn.Linear, nn.Embedding, nn.EmbeddingBag}
    quantized = fourfold.quantize_dynamic(model, spec)
    fourfold.save(quantized, path)
    arrays = fourfold.load(path, backend="numpy")
    x = torch.randn(5, 3, 8)
    output, (h, c) = quantized["lstm"](x)
    own, (own_h, own_c) = arrays.lstm(x.numpy())
    assert np.array_equal(own, output) and np.array_equal(own_h, h) and np.array_equal(own_c, c)
    own, _ = arrays.lstm(x.numpy(), (own_h, own_c))
    assert np.array_equal(own, quantized["lstm"](x, (h, c))[0])
    assert np.array_equal(arrays.gru(x.numpy())[0], quantized["gru"](x)[0])
    assert np.array_equal(arrays.gru(x[0].numpy())[0], quantized["gru"](x[0])[0])
    assert np.array_equal(arrays.cell(x[0].numpy())[1], quantized["cell"](x[0])[1])
    assert np.array_equal(arrays["head"](x.numpy()), quantized["head"](x))
    indices = torch.randint(0, 9, (3, 2))
    assert np.array_equal(arrays.table(indices.numpy()), quantized["table"](indices))
    assert np.array_equal(arrays.bags(indices.numpy()), quantized["bags"](indices))
    assert sorted(arrays.state_dict()) == sorted(quantized.state_dict())
    lengths = [5, 1, 3]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    padded, _ = nn.utils.rnn.pad_packed_sequence(quantized["lstm"](packed)[0])
    assert np.array_equal(arrays.lstm(x.numpy(), lengths=lengths)[0], padded)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: m[0](np.zeros((2, 3, 7), np.float32)), ValueError, "Expected 8, got 7"),
        (lambda m: m[0](np.zeros((2, 3, 8))), ValueError, "input must be float32, got float64"),
        (lambda m: m[0]([1]), TypeError, "input must be a numpy.ndarray, got list"),
        (lambda m: m[0](np.zeros((0, 3, 8), np.float32)), ValueError, "0 steps"),
        (
            lambda m: m[0](np.zeros((2, 3, 8), np.float32), (np.zeros((1, 3, 4), np.float32),) * 2),
            ValueError,
            "hidden",
        ),
        (lambda m: m[0](np.zeros((2, 3, 8), np.float32), lengths=[1]), ValueError, "lengths"),
        (lambda m: m[0](np.zeros((2, 8), np.float32), lengths=[1]), ValueError, "lengths"),
        (lambda m: m[1](np.zeros((2, 7), np.float32)), ValueError, "in_features, 8"),
        (lambda m: m[2](np.array([9])), ValueError, "index 9 at"),
        (lambda m: m[2](np.array([0.5])), ValueError, "must be int64 or int32, got float64"),
    ],
)
def test_numpy_refuses_bad_calls(tmp_path, call, error, message):
    model = nn.Sequential(nn.LSTM(8, 8), nn.Linear(8, 8), nn.Embedding(9, 4))
    fourfold.save(
        fourfold.quantize_dynamic(model, {nn.LSTM, nn.Linear, nn.Embedding}), tmp_path / "m.safetensors"
    )
    arrays = fourfold.load(tmp_path / "m.safetensors", backend="numpy")
    with pytest.raises(error, match=message):
        call(arrays)


def test_tied_weights_are_saved_once_for_each(tmp_path):
    model = nn.ModuleDict({"encoder": nn.Embedding(50, 16), "decoder": nn.Linear(16, 50, bias=False)})
    model["decoder"].weight = model["encoder"].weight
    quantized = fourfold.quantize_dynamic(model, {nn.Linear})
    fourfold.save(quantized, tmp_path / "tied.safetensors")
    arrays, x = fourfold.load(tmp_path / "tied.safetensors", backend="numpy"), torch.randn(2, 16)
    assert np.array_equal(arrays.decoder(x.numpy()), quantized["decoder"](x))


def test_another_librarys_file_fills_a_model(tagger, indices, tmp_path):
    save_file(tagger.state_dict(), tmp_path / "plain.safetensors")
    assert torch.equal(fourfold.load(tmp_path / "plain.safetensors", into=Tagger())(indices), tagger(indices))
    quantized = fourfold.quantize_dynamic(Tagger())
    fourfold.load(tmp_path / "plain.safetensors", into=quantized)
    assert torch.equal(quantized(indices), fourfold.quantize_dynamic(tagger)(indices))
    with pytest.raises(ValueError, match="plain.safetensors: describes no model.*into=model"):
        fourfold.load(tmp_path / "plain.safetensors")


@pytest.mark.parametrize("make", [lambda: nn.LSTM(8, 16), lambda: nn.Sequential(nn.Linear(8, 16)), nn.ReLU])
def test_a_model_of_other_names_or_shapes_is_refused_and_unchanged(tagger, tmp_path, make):
    fourfold.save(fourfold.quantize_dynamic(tagger), tmp_path / "model.safetensors")
    model = make()
    before, printed = {name: t.clone() for name, t in model.state_dict().items()}, repr(model)
    with pytest.raises(RuntimeError, match="Error.s. in loading state_dict"):
        fourfold.load(tmp_path / "model.safetensors", into=model)
    assert repr(model) == printed
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())


BATCH_FIRST = r"batch_first=True \(a state dict does not say: fourfold quantize takes --batch-first\)"
NONLINEARITY = r"nonlinearity='relu' \(a state dict does not say: fourfold quantize takes --nonlinearity\)"


@pytest.mark.parametrize(
    "in_file, in_model, words",
    [
        (nn.LSTM(8, 16), nn.LSTM(8, 32), "hidden_size=16, the model hidden_size=32"),
        (nn.LSTM(8, 16), nn.LSTM(9, 16, 2), "input_size=8, num_layers=1, the model input_size=9, num_layers=2"),
        (nn.LSTM(8, 16), nn.LSTM(8, 16, batch_first=True), "batch_first=False, the model " + BATCH_FIRST),
        (nn.LSTM(8, 16), nn.LSTM(8, 16, bias=False), "bias=True, the model bias=False"),
        (nn.LSTM(8, 16), nn.LSTM(8, 16, bidirectional=True), "bidirectional=False, the model bidirectional=True"),
        (nn.LSTM(8, 16), nn.LSTM(8, 16, proj_size=4), "proj_size=0, the model proj_size=4"),
        (nn.LSTM(8, 16), nn.GRU(8, 16), "an LSTM, the model a GRU"),
        (nn.GRU(8, 16), nn.GRU(8, 16, batch_first=True), "batch_first=False, the model " + BATCH_FIRST),
        (nn.RNN(8, 16), nn.RNN(8, 16, nonlinearity="relu"), "nonlinearity='tanh', the model " + NONLINEARITY),
        (nn.RNNCell(8, 16), nn.RNNCell(8, 16, nonlinearity="relu"), "nonlinearity='tanh', the model " + NONLINEARITY),
        (nn.GRUCell(8, 16), nn.GRUCell(8, 16, bias=False), "bias=True, the model bias=False"),
        (nn.Linear(16, 4), nn.Linear(16, 7), "out_features=4, the model out_features=7"),
        (nn.Linear(16, 4), nn.Linear(16, 4, bias=False), "bias=True, the model bias=False"),
        (nn.Embedding(9, 4), nn.Embedding(8, 4), "num_embeddings=9, the model num_embeddings=8"),
        (nn.Embedding(9, 4), nn.EmbeddingBag(9, 4), "an Embedding, the model an EmbeddingBag"),
        (nn.EmbeddingBag(9, 4), nn.EmbeddingBag(9, 4, mode="sum"), "mode='mean', the model mode='sum'"),
        (nn.EmbeddingBag(9, 4), nn.EmbeddingBag(9, 4, padding_idx=0), "padding_idx=None, the model padding_idx=0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("file_is", ["quantized", "float"])
@pytest.mark.parametrize("model_is", ["float", "quantized"])
def test_a_layer_of_another_class_or_other_options_is_refused(
    tmp_path, in_file, in_model, words, file_is, model_is
):
    path = tmp_path / "model.safetensors"
    spec = {type(in_file): "qint8", type(in_model): "qint8"}
    given, model = (nn.ModuleDict({"part": copy.deepcopy(layer)}) for layer in (in_file, in_model))
    fourfold.save(given if file_is == "float" else fourfold.quantize_dynamic(given, spec), path)
    if model_is == "quantized":
        model = fourfold.quantize_dynamic(model, spec)
    before, printed = copy.deepcopy(model.state_dict()), repr(model)
    with pytest.raises(RuntimeError, match=f"^part: the file has {words}$"):
        fourfold.load(path, into=model)
    assert repr(model) == printed
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())


def test_all_layers_that_differ_are_named(tmp_path):
    fourfold.save(
        fourfold.quantize_dynamic(nn.Sequential(nn.GRU(3, 4), nn.Linear(4, 2))), tmp_path / "m.safetensors"
    )
    with pytest.raises(RuntimeError, match=r"^0: .*hidden_size=5.*\n1: .*in_features=5$"):
        fourfold.load(tmp_path / "m.safetensors", into=nn.Sequential(nn.GRU(3, 5), nn.Linear(5, 2)))
    fourfold.save(nn.Linear(3, 2), tmp_path / "m.safetensors")
    with pytest.raises(RuntimeError, match="^Linear: the file has out_features=2, the model out_features=4$"):
        fourfold.load(tmp_path / "m.safetensors", into=nn.Linear(3, 4))


@pytest.mark.parametrize(
    "in_file, in_model",
    [
        (nn.LSTM(8, 16, 2), nn.LSTM(8, 16, 2, dropout=0.2)),
        (nn.Embedding(9, 4), nn.Embedding(9, 4, padding_idx=0)),  # reads that row as any other
    ],
)
def test_options_that_change_no_result_may_differ(tmp_path, in_file, in_model):
    path, spec = tmp_path / "model.safetensors", {nn.LSTM, nn.Embedding}
    quantized = fourfold.quantize_dynamic(nn.Sequential(in_file), spec)
    fourfold.save(quantized, path)
    for model in (nn.Sequential(in_model), fourfold.quantize_dynamic(nn.Sequential(in_model), spec)):
        loaded = fourfold.load(path, into=model)
        assert all(torch.equal(loaded.state_dict()[name], t) for name, t in quantized.state_dict().items())


def test_refusals(tagger, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file: .*nothing.safetensors"):
        fourfold.load(tmp_path / "nothing.safetensors")
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got dict"):
        fourfold.save({}, path)
    with pytest.raises(ValueError, match="extension|model.bin"):
        fourfold.save(tagger, tmp_path / "model.bin")
    with pytest.raises(fourfold.Error, match="no/such"):
        fourfold.save(tagger, tmp_path / "no" / "such" / "model.safetensors")
    assert not path.exists()
    os.mkfifo(path)
    with pytest.raises(fourfold.Error, match="cannot write .*model.safetensors: Not a regular file"):
        fourfold.save(tagger, path)
    assert path.is_fifo()
    path.unlink()
    fourfold.save(tagger, path)
    with pytest.raises(TypeError, match="into must be a torch.nn.Module, got str"):
        fourfold.load(path, into="model")
    with pytest.raises(ValueError, match="backend must be 'torch' or 'numpy', got 'jax'"):
        fourfold.load(path, backend="jax")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(fourfold.Error, match="model.safetensors"):
        fourfold.load(path)


def _write(path, description, tensors=()):
    header = {
        "__metadata__": {"fourfold": description if isinstance(description, str) else json.dumps(description)}
    }
    data = b""
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _nested(depth):
    model = {"kind": "ReLU"}
    for _ in range(depth):
        model = {"kind": "Sequential", "children": {"0": model}}
    return model


LINEAR = {"kind": "Linear", "in_features": 2, "out_features": 1}
BIAS = ("bias", "F32", [1], bytes(4))


@pytest.mark.parametrize(
    "description, tensors, message",
    [
        ("no json", [], "describes no model"),
        ("[" * 100000, [], "describes no model"),
        ({"version": 2, "model": LINEAR}, [], "version 2"),
        ({"version": 1, "model": 3}, [], "describes no model"),
        ({"version": 1, "model": {"kind": "Conv1d"}}, [], "unknown kind 'Conv1d'"),
        ({"version": 1, "model": {"kind": ["Linear"]}}, [], "no object with a kind"),
        ({"version": 1, "model": {"kind": "Module", "children": []}}, [], "its children are no object"),
        ({"version": 1, "model": {"kind": "Module", "tensors": [3]}}, [], "no list of names"),
        ({"version": 1, "model": {"kind": "Module", "tensors": ["w"]}}, [], "w: missing"),
        ({"version": 1, "model": {"kind": "ReLU"}}, [BIAS], "bias: belongs to no module"),
        ({"version": 1, "model": {"kind": "ReLU", "p": 1}}, [], "does not know: p"),
        ({"version": 1, "model": LINEAR}, [BIAS], "weight: missing"),
        ({"version": 1, "model": {"kind": "Linear"}}, [BIAS], "out_features"),
        ({"version": 1, "model": {**LINEAR, "in_features": "2"}}, [BIAS], "weight|expected"),
        (
            {"version": 1, "model": {**LINEAR, "hidden": 2}},
            [BIAS, ("weight", "F32", [1, 2], bytes(8))],
            "option|hidden",
        ),
        (
            {"version": 1, "model": LINEAR},
            [BIAS, ("weight", "I8", [1, 2], bytes(2))],
            "weight_scale: missing",
        ),
        (
            {"version": 1, "model": LINEAR},
            [BIAS, ("weight", "I8", [1, 2], b"\x80\x00"), ("weight_scale", "F32", [1], struct.pack("<f", 1))],
            "-128",
        ),
        (
            {"version": 1, "model": LINEAR},
            [BIAS, ("weight", "I8", [1, 2], bytes(2)), ("weight_scale", "F32", [1], bytes(4))],
            "scale must be positive",
        ),
        (
            {"version": 1, "model": {"kind": "LSTM", "input_size": 1, "hidden_size": 1, "num_layers": 10**9}},
            [],
            "",
        ),
        ({"version": 1, "model": _nested(300)}, [], "nested deeper than 200"),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_hostile_files_are_refused(tmp_path, description, tensors, message, backend):
    _write(tmp_path / "hostile.safetensors", description, tensors)
    with pytest.raises(fourfold.Error, match=f"hostile.safetensors: .*{message}"):
        fourfold.load(tmp_path / "hostile.safetensors", backend=backend)
