"""MultiheadAttention, beside PyTorch's."""

import pytest
import torch
from conftest import mean_error
from torch import nn

import fourfold

OPTIONS = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"add_bias_kv": True, "add_zero_attn": True},
    {"kdim": 6, "vdim": 10},
]


def inputs(options):
    query, key, value = torch.randn(5, 2, 16), torch.randn(7, 2, 16), torch.randn(7, 2, 16)
    key, value = key[..., : options.get("kdim", 16)], value[..., : options.get("vdim", 16)]
    return [t.transpose(0, 1) if options.get("batch_first") else t for t in (query, key, value)]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype, limit", [(torch.qint8, 0.08), (torch.float16, 0.002)])
def test_as_pytorchs(options, dtype, limit):
    model = nn.MultiheadAttention(16, 4, **options).eval()
    quantized = fourfold.quantize_dynamic(nn.Sequential(model), {nn.MultiheadAttention}, dtype)[0]
    query, key, value = inputs(options)
    mask = torch.randn(5, 7)
    three = torch.rand(8, 5, 7) < 0.3
    padding = torch.tensor([[False] * 7, [False] * 5 + [True] * 2])
    calls = [
        {},
        {"attn_mask": mask},
        {"attn_mask": three & False | three},
        {"key_padding_mask": padding},
        {"attn_mask": mask, "key_padding_mask": padding.float() * -1e4},
        {"average_attn_weights": False},
        {"need_weights": False, "attn_mask": mask},
    ]
    for arguments in calls:
        with torch.no_grad():
            expected, expected_weights = model(query, key, value, **arguments)
            actual, weights = quantized(query, key, value, **arguments)
        assert actual.shape == expected.shape
        assert mean_error(actual, expected) < limit, arguments
        assert (weights is None) == (expected_weights is None)
        if weights is not None:
            assert weights.shape == expected_weights.shape
            assert mean_error(weights, expected_weights) < limit


@pytest.mark.parametrize("options", OPTIONS)
def test_dequantize_and_attributes(options):
    model = nn.MultiheadAttention(16, 4, **options).eval()
    quantized = fourfold.nn.MultiheadAttention.from_float(model)
    float_again = quantized.dequantize()
    assert {name: p.shape for name, p in float_again.named_parameters()} == {
        name: p.shape for name, p in model.named_parameters()
    }
    for name in ("in_proj_weight", "in_proj_bias", "bias_k"):
        expected, actual = getattr(model, name), getattr(quantized, name)
        assert (expected is None) == (actual is None)
        if expected is not None:
            assert torch.allclose(actual, expected, atol=0.01)
    again = fourfold.nn.MultiheadAttention.from_float(float_again)
    integers = {name: t for name, t in quantized.state_dict().items() if t.dtype == torch.int8}
    assert all(torch.equal(again.state_dict()[name], t) for name, t in integers.items())


def test_unbatched_causal_and_refusals():
    quantized, x = fourfold.nn.MultiheadAttention(16, 4), torch.randn(5, 16)
    assert torch.equal(quantized(x, x, x)[0], quantized(x[:, None], x[:, None], x[:, None])[0][:, 0])
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    output, _ = quantized(x, x, x, attn_mask=causal, is_causal=True, need_weights=False)
    assert torch.allclose(output, quantized(x, x, x, attn_mask=causal)[0], atol=1e-6)
    with pytest.raises(RuntimeError, match="Need attn_mask"):
        quantized(x, x, x, is_causal=True)
    with pytest.raises(RuntimeError, match="shape of the 2D attn_mask"):
        quantized(x, x, x, attn_mask=torch.zeros(4, 5))
    with pytest.raises(AssertionError, match="embedding dimension of 16, but got 8"):
        quantized(x[:, :8], x, x)
    with pytest.raises(TypeError, match="expected a torch.nn.MultiheadAttention, got Linear"):
        fourfold.nn.MultiheadAttention.from_float(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="dtype must be"):
        fourfold.nn.MultiheadAttention(16, 4, dtype=torch.float64)


def test_in_a_decoder_layer_and_compiled():
    layer = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True).eval()
    quantized = fourfold.quantize_dynamic(layer, {nn.Linear, nn.MultiheadAttention})
    target, memory = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    with torch.no_grad():
        expected = quantized(target, memory)
        assert mean_error(expected, layer(target, memory)) < 0.05
        compiled = torch.compile(quantized, fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(target, memory), expected, atol=1e-6)


def test_saved_and_loaded(tmp_path):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    quantized = fourfold.quantize_dynamic(layer, {nn.Linear, nn.MultiheadAttention})
    fourfold.save(quantized, tmp_path / "model.safetensors")
    other = fourfold.quantize_dynamic(
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), {nn.Linear, nn.MultiheadAttention}
    )
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        assert torch.equal(fourfold.load(tmp_path / "model.safetensors", into=other)(x), quantized(x))
