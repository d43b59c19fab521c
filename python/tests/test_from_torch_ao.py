"""Models that torch.ao has quantized: the same integers."""

import warnings

import pytest
import torch
from conftest import Tagger, mean_error, torch_ao
from torch import nn
from torch.ao.quantization import per_channel_dynamic_qconfig

import fourfold

LAYERS = [
    (nn.Linear(6, 5), (3, 6)),
    (nn.Linear(6, 5, bias=False), (3, 6)),
    (nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True), (2, 4, 6)),
    (nn.GRU(6, 5, 2), (4, 2, 6)),
    (nn.LSTMCell(6, 5), (3, 6)),
    (nn.GRUCell(6, 5), (3, 6)),
    (nn.RNNCell(6, 5, nonlinearity="relu"), (3, 6)),
]
IDS = [f"{index}-{type(layer).__name__}" for index, (layer, _) in enumerate(LAYERS)]


def theirs_of(layer, form):
    model = nn.Sequential(layer)
    if form == "per_channel":
        if type(layer) in (nn.GRUCell, nn.RNNCell):
            pytest.skip("torch.ao has no such")
        return torch_ao(model, {type(layer): per_channel_dynamic_qconfig})
    return torch_ao(model, dtype=torch.float16 if form == "float16" else torch.qint8)


def integers(module):
    weights = {"weight": module.weight()} if hasattr(module, "weight") else module.get_weight()
    return {
        name: weight.int_repr() if weight.is_quantized else weight.half() for name, weight in weights.items()
    }


def flat(result):
    return (
        result if isinstance(result, torch.Tensor) else torch.cat([flat(part).flatten() for part in result])
    )


@pytest.mark.parametrize("layer, shape", LAYERS, ids=IDS)
@pytest.mark.parametrize("form", ["per_tensor", "per_channel", "float16"])
@pytest.mark.parametrize("inplace", [False, True])
def test_same_integers(layer, shape, form, inplace):
    theirs = theirs_of(layer, form)
    expected, x = integers(theirs[0]), torch.randn(shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(weight was|weights were) -128")
        ours = fourfold.from_torch_ao(theirs, inplace=inplace)
    assert (ours is theirs) == inplace
    state = ours[0].state_dict()
    for name, weight in expected.items():
        assert torch.equal(state[name], weight.clamp(min=-127) if weight.dtype == torch.int8 else weight)
    with torch.no_grad():
        assert mean_error(flat(ours(x)), flat(layer(x))) < 0.1
    assert repr(ours[0]).split("(")[0] == f"DynamicQuantized{type(layer).__name__}"


@pytest.mark.parametrize(
    "count, words", [(1, "1 weight was -128 and is -127 now"), (2, "2 weights were -128 and are -127 now")]
)
def test_minus_128_becomes_minus_127_and_is_counted(count, words):
    theirs = torch_ao(nn.Sequential(nn.Linear(4, 4)))
    weight = torch.zeros(4, 4)
    weight[0, :count] = -12.8
    theirs[0].set_weight_bias(torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8), None)
    assert int((theirs[0].weight().int_repr() == -128).sum()) == count
    with pytest.warns(UserWarning, match=words):
        ours = fourfold.from_torch_ao(theirs)
    assert ours[0].state_dict()["weight"][0, 0] == -127


def test_a_whole_model(indices):
    model = Tagger().eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(weight was|weights were) -128")
        ours = fourfold.from_torch_ao(torch_ao(model))
    assert type(ours.head[0]) is fourfold.nn.Linear and type(ours.embedding) is nn.Embedding
    assert mean_error(ours(indices), model(indices).detach()) < 0.05


def test_a_top_level_layer():
    theirs = torch_ao(nn.Sequential(nn.Linear(4, 4)))[0]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(weight was|weights were) -128")
        assert type(fourfold.from_torch_ao(theirs)) is fourfold.nn.Linear


def test_refusals():
    with pytest.raises(TypeError, match="model must be a torch.nn.Module, got int"):
        fourfold.from_torch_ao(3)
    with pytest.warns(UserWarning, match="no layer of torch.ao's to convert"):
        fourfold.from_torch_ao(nn.Linear(2, 2))
    theirs = torch_ao(nn.Sequential(nn.Linear(4, 4)))
    theirs[0].set_weight_bias(torch.quantize_per_tensor(torch.randn(4, 4), 0.1, 3, torch.qint8), None)
    with pytest.raises(ValueError, match="0: weight: its zero point is not 0"):
        fourfold.from_torch_ao(theirs)
