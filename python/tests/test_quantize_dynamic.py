"""quantize_dynamic: every form of spec, what it refuses, what it keeps."""

import pytest
import torch
from conftest import CELLS, SEQUENCES, mean_error
from torch import nn
from torch.ao.quantization import (
    default_dynamic_qconfig,
    float16_dynamic_qconfig,
    float_qparams_weight_only_qconfig,
    per_channel_dynamic_qconfig,
)
from torch.nn.utils import parametrizations, prune

import fourfold
from fourfold.nn._base import QuantizedModule


def quantized_names(model):
    return {name for name, module in model.named_modules() if isinstance(module, QuantizedModule)}


ALL_BUT_EMBEDDINGS = {"lstm", "gru", "cell", "head.0", "head.2"}


@pytest.mark.parametrize(
    "spec, expected",
    [
        (None, ALL_BUT_EMBEDDINGS),
        ({nn.LSTM}, {"lstm"}),
        ({nn.LSTM, nn.Linear}, {"lstm", "head.0", "head.2"}),
        ([nn.GRU, "head.0"], {"gru", "head.0"}),
        ({"head"}, {"head.0", "head.2"}),
        ({"lstm", nn.GRUCell}, {"lstm", "cell"}),
        ({nn.Linear: default_dynamic_qconfig}, {"head.0", "head.2"}),
        ({nn.Linear: per_channel_dynamic_qconfig, "head.0": None}, {"head.2"}),
        ({"head": None, nn.Linear: default_dynamic_qconfig, nn.GRU: torch.qint8}, {"gru"}),
        ({"head": None, "head.2": default_dynamic_qconfig}, {"head.2"}),
        ({"": default_dynamic_qconfig}, ALL_BUT_EMBEDDINGS | {"embedding"}),
        ({"": default_dynamic_qconfig, nn.Embedding: None, "lstm": None}, ALL_BUT_EMBEDDINGS - {"lstm"}),
        ({nn.Sequential: default_dynamic_qconfig}, {"head.0", "head.2"}),
        ({nn.Embedding: float_qparams_weight_only_qconfig}, {"embedding"}),
        ({"embedding", nn.GRU}, {"embedding", "gru"}),
    ],
)
@pytest.mark.parametrize("inplace", [False, True])
def test_specs(tagger, indices, spec, expected, inplace):
    before = tagger(indices)
    quantized = fourfold.quantize_dynamic(tagger.train(), spec, inplace=inplace)
    assert quantized_names(quantized) == expected
    assert (quantized is tagger) == inplace
    assert not any(module.training for module in quantized.modules())
    if not inplace:
        assert not quantized_names(tagger) and tagger.training
        assert torch.equal(tagger(indices), before)
    assert 0 < mean_error(quantized(indices), before.detach()) < 0.05


@pytest.mark.parametrize("dtype", [torch.qint8, torch.int8, "qint8", "int8", "torch.qint8"])
def test_names_of_int8(dtype):
    assert fourfold.quantize_dynamic(nn.Linear(4, 4), dtype=dtype).state_dict()["weight"].dtype == torch.int8


@pytest.mark.parametrize("dtype", [torch.float16, "float16", torch.half])
def test_float16(tagger, indices, dtype):
    quantized = fourfold.quantize_dynamic(tagger, dtype=dtype)
    assert quantized.state_dict()["lstm.weight_ih_l0"].dtype == torch.float16
    assert "dtype=torch.float16" in repr(quantized)
    assert mean_error(quantized(indices), tagger(indices).detach()) < 0.001


def test_float16_by_qconfig():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    spec = {"0": float16_dynamic_qconfig, "1": default_dynamic_qconfig}
    state = fourfold.quantize_dynamic(model, spec).state_dict()
    assert state["0.weight"].dtype == torch.float16 and state["1.weight"].dtype == torch.int8


def test_quint8_is_for_embeddings(tagger):
    assert quantized_names(fourfold.quantize_dynamic(tagger, dtype=torch.quint8)) == {"embedding"}
    with pytest.raises(ValueError, match="quint8 is for embeddings, not for Linear"):
        fourfold.quantize_dynamic(tagger, {nn.Linear}, dtype=torch.quint8)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (("model",), TypeError, "model must be a torch.nn.Module, got str"),
        ((nn.Linear(2, 2), nn.Linear), TypeError, "qconfig_spec must be None, a set or a dict"),
        ((nn.Linear(2, 2), {3}), TypeError, "expected a module class or a dotted name, got 3"),
        ((nn.Linear(2, 2), {int}), TypeError, "expected a module class or a dotted name"),
        ((nn.Linear(2, 2), None, torch.float64), ValueError, "dtype must be torch.qint8 or torch.float16"),
        ((nn.Linear(2, 2), None, "int4"), ValueError, "got int4"),
        ((nn.Linear(2, 2), {nn.Linear: torch.int32}), ValueError, "got torch.int32"),
        ((nn.Sequential(nn.Linear(2, 2)), {"o"}), ValueError, "no module named 'o'; did you mean '0'"),
        ((nn.Embedding(3, 2, max_norm=1.0), None, torch.quint8), ValueError, "max_norm"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=message):
        fourfold.quantize_dynamic(*arguments)


def test_subclasses_are_left_alone():
    class Special(nn.Linear):
        pass

    model = nn.Sequential(Special(4, 4), nn.Linear(4, 4))
    assert quantized_names(fourfold.quantize_dynamic(model)) == {"1"}


def test_mapping_replaces_the_default():
    class Mine(fourfold.nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4))
    quantized = fourfold.quantize_dynamic(model, mapping={nn.Linear: Mine})
    assert type(quantized[0]) is Mine and type(quantized[1]) is nn.LSTM


def test_quantized_layers_are_left_alone(tagger, indices):
    once = fourfold.quantize_dynamic(tagger, {nn.LSTM})
    twice = fourfold.quantize_dynamic(once)
    assert quantized_names(twice) == ALL_BUT_EMBEDDINGS
    assert torch.equal(twice.lstm(torch.ones(2, 1, 8))[0], once.lstm(torch.ones(2, 1, 8))[0])


def test_other_references_to_a_layer_follow(tagger):
    tagger.layers = [tagger.lstm, tagger.gru]  # a plain list, unknown to torch.nn
    quantized = fourfold.quantize_dynamic(tagger)
    assert quantized.layers[0] is quantized.lstm and quantized.layers[1] is quantized.gru


@pytest.mark.parametrize("inplace", [False, True])
def test_hooks_are_kept_and_can_be_removed(inplace):
    calls = []
    model = nn.Sequential(nn.LSTM(4, 4))
    handle = model[0].register_forward_hook(lambda *_: calls.append("hook"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("pre"))
    model.register_forward_hook(lambda *_: calls.append("root"))
    quantized = fourfold.quantize_dynamic(model, inplace=inplace)
    quantized(torch.randn(2, 1, 4))
    assert calls == ["pre", "hook", "root"]
    handle.remove()
    calls.clear()
    quantized(torch.randn(2, 1, 4))
    assert calls == (["pre", "root"] if inplace else ["pre", "hook", "root"])


def test_parametrizations_of_recurrent_layers_are_folded():
    model = nn.Sequential(parametrizations.weight_norm(nn.LSTM(4, 6), "weight_hh_l0"))
    x = torch.randn(5, 2, 4)
    quantized = fourfold.quantize_dynamic(model)
    assert mean_error(quantized[0](x)[0], model[0](x)[0].detach()) < 0.03


def test_spectral_norm_and_pruning_are_folded():
    x = torch.randn(5, 8)
    pruned = prune.l1_unstructured(nn.Linear(8, 8), "weight", 0.5)
    spectral = nn.utils.spectral_norm(nn.Linear(8, 8)).eval()
    with torch.no_grad():
        spectral(x)  # from now on its weight is computed, and no leaf
    for layer in (pruned, spectral):
        quantized = fourfold.quantize_dynamic(nn.Sequential(layer))
        assert not quantized[0]._forward_pre_hooks
        with torch.no_grad():
            assert mean_error(quantized(x), layer(x)) < 0.03
    assert (fourfold.quantize_dynamic(pruned).state_dict()["weight"] == 0).sum() >= 32


def test_half_and_double_models_are_quantized(tagger, indices):
    expected = tagger(indices).detach()
    for dtype in (torch.float64, torch.bfloat16):
        quantized = fourfold.quantize_dynamic(tagger.to(dtype))
        assert quantized.lstm(torch.randn(2, 1, 8))[0].dtype == torch.float32
        assert expected.isfinite().all()


def test_in_inference_mode(tagger, indices):
    with torch.inference_mode():
        quantized = fourfold.quantize_dynamic(tagger)
        expected = quantized(indices)
    assert torch.equal(quantized(indices), expected)


def test_a_shared_weight_of_different_formats_stays_float():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    quantized = fourfold.quantize_dynamic(model, {"0": torch.qint8, "1": torch.float16})
    assert quantized[0].weight is quantized[1].weight and quantized[0].weight is not first.weight
    quantized(torch.randn(2, 4))


def test_memory_is_at_most_twice_the_int8_bytes_and_a_little():
    """What stays: the plain int8 tensors, and the packed ones."""
    import os
    import resource
    import subprocess
    import sys

    code = """
import gc, sys, torch, fourfold
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
x = torch.randn(2, 1, {size})
with torch.no_grad():
    warm = fourfold.quantize_dynamic({make}({size} // 8, {size} // 8))
    warm(torch.randn(2, 1, {size} // 8))
    model = {make}({size}, {size})
    int8 = sum(p.numel() for n, p in model.named_parameters() if "weight" in n)
    quantized = fourfold.quantize_dynamic(model, inplace=True)
    del model; gc.collect()
    before = resident()
    quantized(x); gc.collect()
    with_both = resident()
    bytes_of = sum(t.numel() * t.element_size() for t in quantized.state_dict().values())
    print((with_both - before + bytes_of) / int8)
"""
    assert resource
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    if "libasan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the address sanitizer has memory of its own beside each block")
    for make in ("torch.nn.LSTM", "torch.nn.Linear"):
        size = 2048
        program = code.replace("{make}", make).replace("{size}", str(size))
        ratio = float(
            subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        )
        assert ratio <= 2.2, (make, ratio)


@pytest.mark.parametrize("kind, ours, options", SEQUENCES + CELLS)
def test_from_float_and_back(kind, ours, options):
    module = kind(4, 6, **options)
    quantized = ours.from_float(module)
    again = ours.from_float(quantized.dequantize())
    for name, tensor in quantized.state_dict().items():
        if not name.endswith("_scale"):
            assert torch.equal(again.state_dict()[name], tensor)
    assert repr(quantized.dequantize()) == repr(module)
    with pytest.raises(TypeError, match=f"expected a torch.nn.{kind.__name__}, got Conv1d"):
        ours.from_float(nn.Conv1d(1, 1, 1))
