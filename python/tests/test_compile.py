"""torch.compile, torch.export, torch.jit: the same kernels as custom operators, the same bits."""

import io

import pytest
import torch
from conftest import CELLS, SEQUENCES, Tagger
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

import fourfold
from fourfold import _packing
from fourfold.nn import _ops

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

BAG = fourfold.nn.EmbeddingBag(20, 4)


def flat(result):
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def same(actual, expected):
    actual, expected = flat(actual), flat(expected)
    return len(actual) == len(expected) and all(torch.equal(a, e) for a, e in zip(actual, expected))


MODULES = [
    *((ours.from_float(kind(4, 6, **options)), torch.randn(5, 3, 4)) for kind, ours, options in SEQUENCES),
    *((ours.from_float(kind(4, 6, **options)), torch.randn(5, 4)) for kind, ours, options in SEQUENCES[:2]),
    *((ours.from_float(kind(4, 6, **options)), torch.randn(3, 4)) for kind, ours, options in CELLS),
    (fourfold.nn.LSTMCell(4, 4), torch.randn(4)),
    (fourfold.nn.Linear(4, 3), torch.randn(2, 5, 4)),
    (fourfold.nn.Linear(4, 3, bias=False, dtype=torch.float16), torch.randn(4)),
    (fourfold.nn.Embedding(20, 4), torch.randint(0, 20, (3, 2))),
    (BAG, torch.randint(0, 20, (3, 2))),
]
IDS = [f"{index}-{type(module).__name__}" for index, (module, _) in enumerate(MODULES)]


@pytest.mark.parametrize("module, x", MODULES, ids=IDS)
@pytest.mark.parametrize("grad", [False, True])
def test_compile_fullgraph(module, x, grad):
    expected = module(x)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(grad):
        assert same(compiled(x), expected)
        assert same(compiled(x), expected)


@pytest.mark.parametrize("module, x", MODULES, ids=IDS)
@pytest.mark.parametrize("strict", [False, True])
def test_export_save_and_load(module, x, strict):
    expected = module(x)
    program = torch.export.export(module, (x,), strict=strict)
    assert any("fourfold" in str(node.target) for node in program.graph.nodes)
    assert same(program.module()(x), expected)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    assert same(torch.export.load(buffer).module()(x), expected)


@pytest.mark.parametrize("module, x", MODULES, ids=IDS)
def test_jit_trace_save_and_load(module, x):
    expected = module(x)
    traced = torch.jit.trace(module, (x,))
    assert same(traced(x), expected)
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    assert same(torch.jit.load(buffer)(x), expected)


def test_jit_script_says_what_to_use_instead(tagger):
    with pytest.raises(
        RuntimeError, match="torch.jit.script: use torch.export, torch.compile, or torch.jit.trace"
    ):
        torch.jit.script(fourfold.quantize_dynamic(tagger))


def test_inductor_compiles_a_whole_model(tagger, indices):
    quantized = fourfold.quantize_dynamic(tagger)
    expected = quantized(indices)
    with torch.no_grad():
        assert torch.allclose(
            torch.compile(quantized, fullgraph=True)(indices), expected, rtol=1e-6, atol=1e-6
        )


def test_dynamic_shapes(tagger, indices):
    quantized = fourfold.quantize_dynamic(tagger)
    steps, batch = torch.export.Dim("steps", min=2, max=64), torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(quantized, (indices,), dynamic_shapes=({0: steps, 1: batch},))
    compiled = torch.compile(quantized, fullgraph=True, backend="aot_eager", dynamic=True)
    for shape in ((6, 3), (9, 5), (30, 2)):
        x = torch.randint(0, 30, shape)
        assert torch.equal(program.module()(x), quantized(x))
        assert torch.equal(compiled(x), quantized(x))


def test_packed_weights_are_made_once(monkeypatch):
    packings = []
    pack = _packing._pack
    monkeypatch.setattr(
        _packing, "_pack", lambda layer, tensors: packings.append(layer) or pack(layer, tensors)
    )
    module, x = fourfold.nn.LSTM(4, 4), torch.randn(3, 1, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    program = torch.export.export(module, (x,)).module()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            for run in (module, compiled, program) * 3:
                run(x)
    assert (
        len(packings) <= 2
    )  # the module's and the compiled one's tensors are the same; an export may copy them


def test_a_compiled_module_sees_new_weights():
    module, other, x = fourfold.nn.Linear(4, 4), fourfold.nn.Linear(4, 4), torch.randn(2, 4)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    compiled(x)
    module.load_state_dict(other.state_dict())
    assert torch.equal(compiled(x), other(x))


def test_packed_weights_go_with_the_tensors():
    import gc

    gc.collect()
    before = len(_packing._packed)
    module = fourfold.nn.Linear(4, 4)
    module(torch.randn(1, 4))
    assert len(_packing._packed) == before + 1
    del module
    gc.collect()
    assert len(_packing._packed) == before


def test_packed_sequences_in_an_exported_model():
    class Packing(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = fourfold.nn.LSTM(4, 6)

        def forward(self, x):
            return self.lstm(pack_padded_sequence(x, [5, 3, 2]))[0].data

    module, x = Packing(), torch.randn(5, 3, 4)
    assert module(x).shape == (10, 6)


def test_operators_pass_pytorchs_own_checks():
    lstm, linear, x = fourfold.nn.LSTM(4, 6), fourfold.nn.Linear(4, 3), torch.randn(5, 3, 4)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(
        _ops.recurrent, (x, None, None, None, lstm._tensors(), lstm._layer), test_utils=checks
    )
    torch.library.opcheck(
        _ops.recurrent,
        (x, None, None, torch.tensor([5, 2, 1]), lstm._tensors(), lstm._layer),
        test_utils=checks,
    )
    torch.library.opcheck(_ops.linear, (x, linear._tensors(), linear._layer), test_utils=checks)
    embedding, indices = fourfold.nn.Embedding(20, 4), torch.tensor([[1, 2]])
    torch.library.opcheck(
        _ops.embedding, (indices, embedding._tensors(), embedding._layer), test_utils=checks
    )
    torch.library.opcheck(
        _ops.embedding_bag, (indices, None, None, BAG._tensors(), BAG._layer), test_utils=checks
    )


def test_vmap_is_refused_by_name():
    with pytest.raises(RuntimeError, match="fourfold::linear"):
        torch.func.vmap(fourfold.nn.Linear(4, 3))(torch.randn(5, 2, 4))


def test_no_gradient_flows_in_compiled_code_either():
    module, x = fourfold.nn.Linear(4, 3), torch.randn(2, 4, requires_grad=True)
    assert not torch.compile(module, fullgraph=True, backend="aot_eager")(x).requires_grad
    assert not _ops.linear(x, module._tensors(), module._layer).requires_grad


def test_make_fx_and_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    module, x = fourfold.nn.Linear(4, 3), torch.randn(2, 4)
    graph = make_fx(module)(x)
    assert torch.equal(graph(x), module(x))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert module(mode.from_tensor(x)).shape == (2, 3)


def test_tagger_class_is_a_whole_graph(indices):
    quantized = fourfold.quantize_dynamic(Tagger())
    explanation = torch._dynamo.explain(quantized)(indices)
    assert explanation.graph_break_count == 0
