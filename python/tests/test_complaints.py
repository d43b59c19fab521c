"""What users of PyTorch's dynamic quantization complained of, each with a test that holds the mend.

Each test is named after its complaint; `pt` is an issue of pytorch/pytorch, ORT one of microsoft/onnxruntime.
"""

import copy
import io
import os
import pickle
import platform
import time

import pytest
import torch
from conftest import CELLS, SEQUENCES, Tagger, mean_error, torch_ao
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pad_sequence

import fourfold
from fourfold import _core


def count_calls(monkeypatch):
    """Counts the calls of the Linear kernel, however it is reached, by the shape of the weight."""
    calls = []
    packed = fourfold._packing.packed

    class Counting:
        def __init__(self, handle, layer):
            self.handle, self.layer = handle, layer

        def forward(self, *arguments):
            calls.append(self.layer)
            return self.handle.forward(*arguments)

    monkeypatch.setattr(fourfold._packing, "packed", lambda layer, t: Counting(packed(layer, t), layer))
    return calls


# ---- The table ----


def test_no_engine_on_arm_macos_windows_pt123507_pt29327_pt28945_pt83504():
    """The portable definition is in every build, and gives the bits of the fastest instruction set."""
    assert fourfold.supported_isas()[-1] == "scalar"
    if platform.machine() in ("arm64", "aarch64"):
        assert fourfold.supported_isas() == ["scalar"] or "neon" in fourfold.supported_isas()[0]
    model, x = nn.LSTM(8, 24), torch.randn(9, 2, 8)
    results = []
    for isa in fourfold.supported_isas():
        fourfold.set_isa(isa)
        results.append(fourfold.quantize_dynamic(model)(x)[0])
    assert all(torch.equal(results[0], other) for other in results)


@pytest.mark.parametrize("size", [8, 64, 256])
def test_int8_slower_than_float_at_small_sizes_pt62804_pt41865(size):
    """Faster than float, at small sizes too: best of many, as the machine may be busy."""
    model = nn.LSTM(size, size).eval()
    quantized, x = fourfold.quantize_dynamic(model), torch.randn(20, 1, size)

    def best(module):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            module(x)
            times.append(time.perf_counter() - start)
        return min(times)

    torch.set_num_threads(1)
    with torch.no_grad():
        assert best(quantized) < best(model)


def test_no_onnx_export_pt35536_pt24235_pt123555(tagger):
    """Not there yet: the state is kept plain, and dequantize() gives what exports."""
    quantized = fourfold.quantize_dynamic(tagger)
    assert all(type(value) in (torch.Tensor, nn.Parameter) for value in quantized.state_dict().values())
    x = torch.randn(5, 2, 8)
    float_again = quantized.lstm.dequantize()
    assert type(float_again) is nn.LSTM
    assert mean_error(float_again(x)[0], quantized.lstm(x)[0]) < 0.02


def test_weights_only_rejects_the_state_dict_pt51216_pt41684_pt125564(tagger, indices):
    quantized = fourfold.quantize_dynamic(tagger)
    buffer = io.BytesIO()
    torch.save(quantized.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    assert state["lstm.weight_ih_l0"].dtype == torch.int8
    assert state["lstm.weight_ih_l0_scale"].dtype == torch.float32
    other = fourfold.quantize_dynamic(Tagger())
    other.load_state_dict(state)
    assert torch.equal(other(indices), quantized(indices))


def test_loading_needs_the_quantized_skeleton_first_pt51216(tagger, indices, tmp_path):
    """load() makes the skeleton itself, from the float model or from nothing."""
    quantized = fourfold.quantize_dynamic(tagger)
    fourfold.save(quantized, tmp_path / "model.safetensors")
    filled = fourfold.load(tmp_path / "model.safetensors", into=Tagger())
    assert torch.equal(filled(indices), quantized(indices))
    assert repr(fourfold.load(tmp_path / "model.safetensors")) == repr(quantized)
    assert torch.equal(pickle.loads(pickle.dumps(quantized))(indices), quantized(indices))


def test_weight_is_a_method_pt32764_pt109987_pt82443_transformers21839():
    linear = nn.Linear(8, 4)
    quantized = fourfold.quantize_dynamic(linear)
    assert isinstance(quantized.weight, torch.Tensor) and quantized.weight.dtype == torch.float32
    assert quantized.weight.shape == (4, 8) and quantized.weight.device.type == "cpu"
    assert torch.equal(quantized.bias, linear.bias)
    scale = quantized.state_dict()["weight_scale"]
    assert bool(((quantized.weight - linear.weight).abs() <= scale[:, None] * 0.5001).all())


def test_hugging_face_style_module_that_reads_weight_dtype_runs_in_int8(monkeypatch):
    class FeedForward(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x):
            return self.down(torch.relu(self.up(x.to(self.up.weight.dtype))))

    calls = count_calls(monkeypatch)
    model, x = FeedForward().eval(), torch.randn(3, 8)
    assert mean_error(fourfold.quantize_dynamic(model)(x), model(x)) < 0.05
    assert len(calls) == 2


@pytest.mark.filterwarnings(
    "ignore:The PyTorch API of nested tensors:UserWarning"
)  # the float model uses them
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_transformer_encoder_fast_path_bypasses_int8(monkeypatch, whole, compiled):
    calls = count_calls(monkeypatch)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    model = nn.TransformerEncoder(layer, 2).eval() if whole else layer
    with pytest.warns(UserWarning, match="stay float.*self_attn"):
        quantized = fourfold.quantize_dynamic(model, {nn.Linear})
    padding = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    x = torch.randn(2, 7, 16)
    run = torch.compile(quantized, backend="aot_eager") if compiled else quantized
    with torch.no_grad():
        actual = run(x, src_key_padding_mask=padding)
        expected = model(x, src_key_padding_mask=padding)
    assert len(calls) == (4 if whole else 2)
    kept = ~padding
    assert 0 < mean_error(actual[kept], expected[kept]) < 0.05


def test_multihead_attention_in_the_spec_has_all_four_products_in_int8(monkeypatch):
    calls = count_calls(monkeypatch)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    quantized = fourfold.quantize_dynamic(layer, {nn.Linear, nn.MultiheadAttention})
    x = torch.randn(2, 7, 16)
    with torch.no_grad():
        assert mean_error(quantized(x), layer(x)) < 0.05
    assert len(calls) == 6


def test_deepcopy_pt48448_pt82570(tagger, indices):
    quantized = fourfold.quantize_dynamic(tagger)
    expected = quantized(indices)
    duplicate = copy.deepcopy(quantized)
    quantized.state_dict()["lstm.weight_ih_l0"].zero_()
    assert torch.equal(duplicate(indices), expected)
    assert not torch.equal(quantized(indices), expected)


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("inplace", [False, True])
def test_weight_norm_pt28594_pt102981(new, inplace):
    apply = parametrizations.weight_norm if new else _old_weight_norm
    model = nn.Sequential(apply(nn.Linear(8, 4)), apply(nn.Linear(4, 4)), nn.Conv1d(4, 4, 1))
    model[2] = apply(model[2])
    x = torch.randn(3, 8)
    with torch.no_grad():
        for layer in model[:2]:
            (layer.parametrizations.weight.original0 if new else layer.weight_g).mul_(3)
        expected = model[1](model[0](x))
        quantized = fourfold.quantize_dynamic(model, {nn.Linear}, inplace=inplace)
        assert type(quantized[0]) is fourfold.nn.Linear
        assert not quantized[0]._forward_pre_hooks
        assert list(quantized[0].state_dict()) == ["weight", "weight_scale", "bias"]
        assert mean_error(quantized[1](quantized[0](x)), expected) < 0.03
        quantized[2](torch.randn(1, 4, 3))


def _old_weight_norm(module):
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(module)


def test_accuracy_of_per_tensor_weights_and_seven_bit_activations_pt152813_pt27949_pt44939_pt59098():
    for size in (64, 128):
        model, x = nn.LSTM(size, size), torch.randn(100, 1, size)
        with torch.no_grad():
            expected = model(x)[0]
            ours = mean_error(fourfold.quantize_dynamic(model)(x)[0], expected)
            theirs = mean_error(torch_ao(nn.Sequential(model))[0](x)[0], expected)
        assert ours < 0.012 and ours < theirs


def test_rows_a_thousand_times_smaller_vanish():
    model = nn.Linear(64, 2, bias=False)
    with torch.no_grad():
        model.weight[1] *= 0.001
    x = torch.randn(50, 64)
    quantized = fourfold.quantize_dynamic(model)
    with torch.no_grad():
        assert mean_error(quantized(x)[:, 1], model(x)[:, 1]) < 0.02


@pytest.mark.parametrize("kind, ours, options", SEQUENCES)
def test_results_depend_on_the_batch_and_on_padding_ort10111_ort8625(kind, ours, options):
    """Alone, batched, padded and packed: the same bits."""
    batch_first = options.get("batch_first", False)
    module = ours.from_float(kind(5, 7, **options)).eval()
    sequences = [torch.randn(length, 5) for length in (4, 9, 1, 6)]
    padded = pad_sequence(sequences, batch_first)
    lengths = [len(sequence) for sequence in sequences]
    packed = nn.utils.rnn.pack_padded_sequence(padded, lengths, batch_first, enforce_sorted=False)
    output, state = module(packed)
    assert isinstance(output, nn.utils.rnn.PackedSequence)
    output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first)
    whole, _ = module(padded)
    for b, sequence in enumerate(sequences):
        alone, alone_state = module(sequence)
        own = output[b] if batch_first else output[:, b]
        assert torch.equal(own[: lengths[b]], alone)
        h, alone_h = (state[0], alone_state[0]) if kind is nn.LSTM else (state, alone_state)
        assert torch.equal(h[:, b], alone_h)
        if lengths[b] == 9 or not options.get("bidirectional", False):
            own = whole[b] if batch_first else whole[:, b]
            assert torch.equal(own[: lengths[b]], alone)


def test_results_depend_on_later_frames_fastembed107():
    """Frames that are 20 times louder later on do not change what came before."""
    module = fourfold.nn.LSTM(8, 8)
    x = torch.randn(20, 1, 8)
    louder = x.clone()
    louder[10:] *= 20
    assert torch.equal(module(x)[0][:10], module(louder)[0][:10])


def test_proj_size_silently_dropped_pt60008_pt74953():
    model, x = nn.LSTM(8, 12, 2, proj_size=5, bidirectional=True), torch.randn(6, 2, 8)
    quantized = fourfold.quantize_dynamic(model)
    assert "proj_size=5" in repr(quantized)
    output, (h, c) = quantized(x)
    assert output.shape == (6, 2, 10) and h.shape == (4, 2, 5) and c.shape == (4, 2, 12)
    assert mean_error(output, model(x)[0].detach()) < 0.05


def test_threads_ignored_or_oversubscribed_pt45418_pt40473():
    torch.set_num_threads(1)
    fourfold.nn.Linear(8, 8)(torch.randn(1, 8))
    assert _core.num_threads() == 1 == fourfold.get_num_threads()
    torch.set_num_threads(2)
    assert fourfold.get_num_threads() == 2
    fourfold.set_num_threads(3)
    fourfold.nn.Linear(8, 8)(torch.randn(1, 8))
    assert _core.num_threads() == 3 == fourfold.get_num_threads()
    fourfold.set_num_threads(None)
    assert fourfold.get_num_threads() == 2


# ---- Silent traps ----


@pytest.mark.parametrize("layer", [nn.LSTM(4, 4), nn.Linear(4, 4)])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_top_level_layer_comes_back_unchanged(layer, inplace):
    layer = copy.deepcopy(layer)
    quantized = fourfold.quantize_dynamic(layer, inplace=inplace)
    assert isinstance(quantized, fourfold.nn._base.QuantizedModule)
    assert (quantized is layer) == inplace


def test_a_misspelled_name_is_ignored(tagger):
    with pytest.raises(ValueError, match="no module named 'lsmt'; did you mean 'lstm'"):
        fourfold.quantize_dynamic(tagger, {"lsmt"})


def test_a_spec_that_matches_nothing_is_silent():
    with pytest.warns(UserWarning, match="nothing of the model matched"):
        fourfold.quantize_dynamic(nn.Sequential(nn.ReLU()), {nn.LSTM})
    with pytest.warns(UserWarning, match=r"nothing of the model matched \(left out: 0\), nothing"):
        fourfold.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear: torch.qint8, "0": None})


def test_rnn_is_not_mapped():
    assert type(fourfold.quantize_dynamic(nn.Sequential(nn.RNN(4, 4)))[0]) is fourfold.nn.RNN


@pytest.mark.parametrize("kind, ours, options", SEQUENCES + CELLS)
def test_bias_false_hits_a_bare_assertion(kind, ours, options):
    model = kind(4, 4, **{**options, "bias": False})
    quantized = fourfold.quantize_dynamic(model)
    assert not any("bias" in name for name in quantized.state_dict())
    quantized(torch.randn(3, 4) if (kind, ours, options) in CELLS else torch.randn(2, 3, 4))


@pytest.mark.parametrize("kind, ours, options", SEQUENCES)
def test_an_unbatched_input_is_refused(kind, ours, options):
    module = ours.from_float(kind(4, 4, **options))
    x = torch.randn(5, 4)
    output, state = module(x)
    batched, batched_state = module(x[None] if options.get("batch_first") else x[:, None])
    assert torch.equal(output, batched.squeeze(0 if options.get("batch_first") else 1))
    h, batched_h = (state[0], batched_state[0]) if kind is nn.LSTM else (state, batched_state)
    assert torch.equal(h, batched_h.squeeze(1))
    again, _ = module(x, state)
    assert again.shape == output.shape


def _language_model():
    model = nn.ModuleDict({"encoder": nn.Embedding(50, 16), "decoder": nn.Linear(16, 50, bias=False)})
    model["decoder"].weight = model["encoder"].weight
    return model


def _saved_bytes(model):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()


@pytest.mark.parametrize("inplace", [False, True])
def test_a_tied_weight_makes_the_file_grow(inplace):
    model = _language_model()
    size = _saved_bytes(model)
    quantized = fourfold.quantize_dynamic(model, {nn.Linear}, inplace=inplace)
    assert type(quantized["decoder"]) is fourfold.nn.Linear
    assert quantized["decoder"].weight is quantized["encoder"].weight
    assert _saved_bytes(quantized) <= size + 64
    x = torch.randn(3, 16)
    expected = fourfold.nn.Linear.from_float(copy.deepcopy(_untied(quantized)))(x)
    assert torch.equal(quantized["decoder"](x), expected)
    with torch.no_grad():
        quantized["encoder"].weight.mul_(2)  # the packed weights follow
    assert torch.allclose(quantized["decoder"](x), 2 * expected, rtol=1e-5)
    other = fourfold.quantize_dynamic(_language_model(), {nn.Linear})
    other.load_state_dict(quantized.state_dict())
    assert torch.equal(other["decoder"](x), quantized["decoder"](x))


def _untied(model):
    linear = nn.Linear(16, 50, bias=False)
    linear.weight = nn.Parameter(model["encoder"].weight.detach().clone())
    return linear


def test_tied_weights_that_are_both_quantized_stay_tied():
    quantized = fourfold.quantize_dynamic(_language_model(), {nn.Linear, nn.Embedding})
    state = quantized.state_dict()
    assert state["encoder.weight"].dtype == torch.int8
    assert state["encoder.weight"].data_ptr() == state["decoder.weight"].data_ptr()


def test_embedding_bag_mean_returns_sums():
    model = nn.EmbeddingBag(10, 4)
    x = torch.tensor([[1, 2, 3], [4, 5, 5]])
    quantized = fourfold.quantize_dynamic(model, dtype=torch.quint8)
    assert type(quantized) is fourfold.nn.EmbeddingBag
    assert mean_error(quantized(x), model(x).detach()) < 0.02


@pytest.mark.parametrize("inplace", [False, True])
def test_forward_hooks_with_kwargs_break(inplace):
    seen = []
    model = nn.Sequential(nn.Linear(4, 4))
    model[0].register_forward_hook(
        lambda m, args, kwargs, out: seen.append(("after", kwargs)), with_kwargs=True
    )
    model[0].register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(("before", kwargs)), with_kwargs=True
    )
    quantized = fourfold.quantize_dynamic(model, inplace=inplace)
    x = torch.randn(1, 4)
    quantized[0](input=x)
    assert [(when, list(kwargs)) for when, kwargs in seen] == [("before", ["input"]), ("after", ["input"])]


@pytest.mark.parametrize("inplace", [False, True])
def test_a_linear_under_two_names_is_quantized_under_only_one(inplace):
    linear = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": linear, "b": nn.Sequential(linear)})
    quantized = fourfold.quantize_dynamic(model, inplace=inplace)
    assert type(quantized["a"]) is fourfold.nn.Linear
    assert quantized["a"] is quantized["b"][0]


def test_quantized_linear_refuses_one_dimension_and_the_input_keyword():
    module = fourfold.nn.Linear(4, 3)
    x = torch.randn(4)
    assert torch.equal(module(input=x), module(x[None])[0])
    assert module(torch.empty(0, 4)).shape == (0, 3)


def test_sentence_embeddings_with_outlier_rows_keep_their_direction():
    """A stack of layers with uneven rows: cosine with float above 0.998, where one scale a tensor gives less."""
    model = nn.Sequential(*(nn.Sequential(nn.Linear(96, 96), nn.GELU()) for _ in range(6))).eval()
    with torch.no_grad():
        for layer in model:
            layer[0].weight *= torch.rand(96, 1) * 4
        x = torch.randn(32, 96)
        expected = model(x)
        ours = torch.cosine_similarity(fourfold.quantize_dynamic(model)(x), expected).min()
        theirs = torch.cosine_similarity(torch_ao(model)(x), expected).min()
    assert ours > 0.998 and ours > theirs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_hangs_in_a_forked_child_after_threads_were_used():
    torch.set_num_threads(2)
    fourfold.set_num_threads(2)
    module, x = fourfold.nn.LSTM(512, 512), torch.randn(4, 2, 512)
    expected = module(x)[0]
    child = os.fork()
    if child == 0:  # nothing of pytest's may run here
        same = torch.equal(module(x)[0], expected)
        os._exit(0 if same else 1)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.1)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def test_an_error_leaves_the_model_as_it_was(tagger, indices):
    """Not only that: it names the weight."""
    expected = tagger(indices)
    with torch.no_grad():
        tagger.head[2].weight[1, 2] = float("nan")
    for inplace in (False, True):
        with pytest.raises(fourfold.Error, match=r"head\.2\.weight\[1, 2\]"):
            fourfold.quantize_dynamic(tagger, inplace=inplace)
        assert type(tagger.lstm) is nn.LSTM and tagger.training is False
    with torch.no_grad():
        tagger.head[2].weight[1, 2] = 0
    assert torch.equal(tagger(indices)[:, 0], expected[:, 0])
