"""The layers as torch.nn.Modules: constructors, reprs, state, errors, devices and dtypes."""

import copy

import pytest
import torch
from conftest import CELLS, SEQUENCES, mean_error
from torch import nn

import fourfold


@pytest.mark.parametrize(
    "module, expected",
    [
        (fourfold.nn.LSTM(8, 8), "DynamicQuantizedLSTM(8, 8)"),
        (
            fourfold.nn.GRU(3, 5, 2, batch_first=True, dropout=0.1, bidirectional=True),
            "DynamicQuantizedGRU(3, 5, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True)",
        ),
        (
            fourfold.nn.LSTM(3, 5, bias=False, proj_size=2),
            "DynamicQuantizedLSTM(3, 5, proj_size=2, bias=False)",
        ),
        (fourfold.nn.RNN(3, 4, 2, "relu"), "DynamicQuantizedRNN(3, 4, num_layers=2)"),
        (fourfold.nn.RNNCell(3, 4, nonlinearity="relu"), "DynamicQuantizedRNNCell(3, 4, nonlinearity=relu)"),
        (fourfold.nn.LSTMCell(3, 4), "DynamicQuantizedLSTMCell(3, 4)"),
        (
            fourfold.nn.Linear(8, 4),
            "DynamicQuantizedLinear(in_features=8, out_features=4, dtype=torch.qint8, "
            "qscheme=torch.per_channel_affine)",
        ),
        (
            fourfold.nn.Linear(8, 4, dtype=torch.float16),
            "DynamicQuantizedLinear(in_features=8, out_features=4, dtype=torch.float16)",
        ),
        (
            fourfold.nn.Embedding(10, 3),
            "QuantizedEmbedding(num_embeddings=10, embedding_dim=3, dtype=torch.qint8, "
            "qscheme=torch.per_channel_affine)",
        ),
    ],
)
def test_repr(module, expected):
    assert repr(module) == expected


@pytest.mark.parametrize(
    "kind, ours, options", SEQUENCES + CELLS + [(nn.Linear, fourfold.nn.Linear, {"bias": False})]
)
def test_constructor_takes_pytorchs_arguments_and_draws_its_weights(kind, ours, options):
    torch.manual_seed(3)
    expected = ours.from_float(kind(4, 6, **options)).state_dict()
    torch.manual_seed(3)
    module = ours(4, 6, **options)
    assert list(module.state_dict()) == list(expected)
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in expected.items())


def test_state_dict_has_plain_tensors_of_cpps_names():
    state = fourfold.nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3).state_dict()
    assert list(state)[:7] == [
        "weight_ih_l0",
        "weight_ih_l0_scale",
        "weight_hh_l0",
        "weight_hh_l0_scale",
        "bias_ih_l0",
        "bias_hh_l0",
        "weight_hr_l0",
    ]
    assert state["weight_ih_l0"].dtype == torch.int8 and state["weight_ih_l0"].shape == (24, 4)
    assert state["weight_ih_l0_scale"].dtype == torch.float32 and state["weight_ih_l0_scale"].shape == (24,)
    assert "weight_hr_l1_reverse_scale" in state and len(state) == 4 * 8


@pytest.mark.parametrize("kind, ours, options", SEQUENCES + CELLS)
def test_results_are_near_pytorchs(kind, ours, options):
    module = kind(12, 16, **options)
    quantized = ours.from_float(module)
    x = torch.randn(3, 12) if (kind, ours, options) in CELLS else torch.randn(6, 4, 12)
    flat = lambda r: r if isinstance(r, torch.Tensor) else torch.cat([flat(part).flatten() for part in r])  # noqa: E731
    with torch.no_grad():
        expected, actual = module(x), quantized(x)
        assert mean_error(flat(actual), flat(expected)) < 0.03
        state = expected[1] if (kind, ours, options) not in CELLS else expected
        assert mean_error(flat(quantized(x, state)), flat(module(x, state))) < 0.03


def test_given_state_is_not_written_to():
    module = fourfold.nn.LSTM(4, 4)
    h, c = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    before = h.clone(), c.clone()
    module(torch.randn(3, 2, 4), (h, c))
    assert torch.equal(h, before[0]) and torch.equal(c, before[1])


@pytest.mark.parametrize("kind, ours, options", SEQUENCES)
def test_non_contiguous_inputs(kind, ours, options):
    module = ours.from_float(kind(4, 6, **options))
    x = torch.randn(4, 5, 3).permute(1, 2, 0)
    assert not x.is_contiguous()
    output, state = module(x)
    assert torch.equal(output, module(x.contiguous())[0])
    strided = tuple(s.mT.contiguous().mT for s in state) if kind is nn.LSTM else state.mT.contiguous().mT
    assert torch.equal(module(x, strided)[0], module(x, state)[0])
    linear = fourfold.nn.Linear(3, 2)
    assert torch.equal(linear(x.mT), linear(x.mT.contiguous()))


def test_no_gradient_flows():
    module, x = fourfold.nn.LSTM(4, 4), torch.randn(3, 1, 4, requires_grad=True)
    output, (h, c) = module(x)
    assert not output.requires_grad and not h.requires_grad and not c.requires_grad
    assert not fourfold.nn.Linear(4, 4)(x).requires_grad
    assert not list(module.parameters())


def test_scalars_of_other_defaults_do_not_matter():
    """torch.set_default_dtype and a default device are for the caller's tensors."""
    module, x = fourfold.nn.LSTM(4, 4), torch.randn(3, 1, 4)
    expected = module(x)[0]
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(module(x)[0], expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert torch.equal(module(x)[0], expected)
        assert torch.equal(
            fourfold.nn.Linear.from_float(_linear())(x), fourfold.nn.Linear.from_float(_linear())(x)
        )


def _linear():
    with torch.device("cpu"):
        torch.manual_seed(1)
        return nn.Linear(4, 4)


def test_half_and_to_dtype_leave_quantized_weights_alone():
    model = nn.Sequential(fourfold.nn.Linear(4, 4), nn.Linear(4, 4))
    state = copy.deepcopy(model[0].state_dict())
    for change in (
        lambda m: m.half(),
        lambda m: m.to(torch.float64),
        lambda m: m.bfloat16(),
        lambda m: m.float(),
    ):
        change(model)
        for name, tensor in model[0].state_dict().items():
            assert tensor.dtype == state[name].dtype and torch.equal(tensor, state[name])
    assert model.half()[1].weight.dtype == torch.float16
    half = fourfold.nn.Linear(4, 4, dtype=torch.float16)
    assert half.float().state_dict()["weight"].dtype == torch.float16


def test_to_cpu_and_share_memory_work():
    module, x = fourfold.nn.Linear(4, 4), torch.randn(2, 4)
    expected = module(x)
    assert torch.equal(module.to("cpu").share_memory()(x), expected)
    assert module.state_dict()["weight"].is_shared()


@pytest.mark.parametrize("move", [lambda m: m.to("meta"), lambda m: m.cuda()])
def test_other_devices_are_a_clear_error(move):
    module, x = fourfold.nn.LSTM(4, 4), torch.randn(2, 1, 4)
    expected = module(x)[0]
    with pytest.raises(RuntimeError, match="DynamicQuantizedLSTM runs on the CPU only"):
        move(module)
    assert torch.equal(module(x)[0], expected)


def test_autocast_and_half_inputs_are_a_clear_error():
    lstm, linear = fourfold.nn.LSTM(4, 4), fourfold.nn.Linear(4, 4)
    x = torch.randn(2, 1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert lstm(x)[0].dtype == torch.float32 == linear(x).dtype
        half = nn.Linear(4, 4)(x)
        assert half.dtype == torch.bfloat16
        with pytest.raises(ValueError, match="input dtype .torch.bfloat16.*input.float.*autocast disabled"):
            lstm(half)
        with pytest.raises(
            RuntimeError, match="input must be float32, got torch.bfloat16.*autocast disabled"
        ):
            linear(half)


def test_writing_to_a_plain_tensor_changes_the_result():
    """The plain tensors are the truth: what is packed follows."""
    module, x = fourfold.nn.Linear(4, 3), torch.randn(2, 4)
    module(x)
    module.state_dict()["weight"].zero_()
    assert torch.equal(module(x), module.bias.expand(2, 3))
    module.bias.zero_()
    assert not module(x).any()
    module.bias = torch.ones(3)
    assert torch.equal(module(x), torch.ones(2, 3))


def test_batch_first_may_be_set_afterwards():
    module, x = fourfold.nn.GRU(4, 4), torch.randn(5, 2, 4)
    expected = module(x)[0]
    module.batch_first = True
    assert torch.equal(module(x.transpose(0, 1))[0], expected.transpose(0, 1))
    assert "batch_first=True" in repr(module)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x.transpose(0, 1))[0], expected.transpose(0, 1))


def test_attributes_that_models_use():
    module = fourfold.nn.LSTM(4, 6, 2, bidirectional=True)
    module.flatten_parameters()
    assert module.mode == "LSTM" and fourfold.nn.RNN(2, 2, nonlinearity="relu").mode == "RNN_RELU"
    assert [len(group) for group in module.all_weights] == [4, 4, 4, 4]
    assert all(tensor.dtype == torch.float32 for group in module.all_weights for tensor in group)
    assert fourfold.nn.Linear(2, 2, bias=False).bias is None
    assert fourfold.nn.LSTMCell(3, 4).weight_ih.shape == (16, 3)


# ---- load_state_dict ----


def test_load_state_dict_takes_float_weights():
    float_module, module = nn.LSTM(4, 6), fourfold.nn.LSTM(4, 6)
    module.load_state_dict(float_module.state_dict())
    expected = fourfold.nn.LSTM.from_float(float_module)
    assert all(torch.equal(module.state_dict()[n], t) for n, t in expected.state_dict().items())


def test_load_state_dict_takes_the_format_that_it_is_given():
    x = torch.randn(2, 4)
    eight, sixteen = fourfold.nn.Linear(4, 4), fourfold.nn.Linear(4, 4, dtype=torch.float16)
    expected = sixteen(x), eight(x)
    states = copy.deepcopy((sixteen.state_dict(), eight.state_dict()))
    eight.load_state_dict(states[0])
    sixteen.load_state_dict(states[1])
    assert torch.equal(eight(x), expected[0]) and torch.equal(sixteen(x), expected[1])
    assert "float16" in repr(eight) and "qint8" in repr(sixteen)


@pytest.mark.parametrize("assign", [False, True])
def test_load_state_dict_assign(assign):
    other, module, x = fourfold.nn.GRU(4, 4), fourfold.nn.GRU(4, 4), torch.randn(2, 1, 4)
    module(x)
    module.load_state_dict(other.state_dict(), assign=assign)
    assert torch.equal(module(x)[0], other(x)[0])
    same = module.state_dict()["weight_ih_l0"].data_ptr() == other.state_dict()["weight_ih_l0"].data_ptr()
    assert same == assign


def _without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: _without(s, "weight"), "Missing key.*weight"),
        (lambda s: _without(s, "weight_scale"), "Missing key.*weight_scale"),
        (lambda s: {**s, "extra": torch.ones(1)}, "Unexpected key.*extra"),
        (lambda s: {**s, "weight": torch.zeros(3, 4, dtype=torch.int8)}, "weight: size mismatch"),
        (
            lambda s: {**s, "weight": torch.zeros(4, 4, dtype=torch.int32)},
            "weight: expected int8, float16 or float32",
        ),
        (lambda s: {**s, "weight": torch.full((4, 4), -128, dtype=torch.int8)}, "from -127 to 127"),
        (lambda s: {**s, "weight_scale": torch.zeros(4)}, "weight_scale: a scale must be positive"),
        (lambda s: {**s, "weight_scale": torch.full((4,), float("nan"))}, "weight_scale: a scale must be"),
        (lambda s: {**s, "weight_scale": torch.ones(3)}, r"weight_scale: expected float32 of shape \[4\]"),
        (lambda s: {**s, "weight": torch.full((4, 4), float("inf"))}, r"weight\[0, 0\]"),
        (lambda s: {**s, "weight": torch.full((4, 4), float("inf")).half()}, "must be finite"),
        (lambda s: {**s, "bias": torch.zeros(4, dtype=torch.int64)}, "bias: expected float32"),
        (lambda s: {**s, "weight": [1]}, "weight: expected a torch.Tensor, got list"),
    ],
)
def test_load_state_dict_refuses_what_does_not_fit_and_changes_nothing(change, message):
    module, x = fourfold.nn.Linear(4, 4), torch.randn(2, 4)
    expected = module(x)
    other = fourfold.nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match=message):
        module.load_state_dict(change(other.state_dict()))
    if "Missing" not in message and "Unexpected" not in message:  # PyTorch loads the rest then, as here
        assert torch.equal(module(x), expected)


# ---- Bad calls: PyTorch's own kind of exception, and what it says ----

X = torch.randn(5, 3, 8)
STATE = torch.randn(1, 3, 8)
PACKED = nn.utils.rnn.pack_padded_sequence(torch.randn(5, 3, 7), [5, 4, 3])

BAD_CALLS = [
    # layer, arguments, message, the same exception as PyTorch's
    ("LSTM", (torch.randn(2, 5, 3, 8),), "LSTM: Expected input to be 2D or 3D, got 4D instead", True),
    ("GRU", (torch.randn(8),), "GRU: Expected input to be 2D or 3D, got 1D instead", True),
    (
        "LSTM",
        (torch.randn(5, 3, 7),),
        r"input.size\(-1\) must be equal to input_size. Expected 8, got 7",
        True,
    ),
    ("RNN", (torch.randn(5, 7),), r"input.size\(-1\) must be equal to input_size. Expected 8, got 7", True),
    ("LSTM", (PACKED,), r"input.size\(-1\) must be equal to input_size. Expected 8, got 7", True),
    ("LSTM", (X, (STATE[:, :2], STATE)), r"Expected hidden\[0\] size \(1, 3, 8\), got \[1, 2, 8\]", True),
    ("LSTM", (X, (STATE, STATE[:, :2])), r"Expected hidden\[1\] size \(1, 3, 8\), got \[1, 2, 8\]", True),
    ("GRU", (X, STATE[:, :2]), r"Expected hidden size \(1, 3, 8\), got \[1, 2, 8\]", True),
    ("RNN", (X, STATE[..., :7]), r"Expected hidden size \(1, 3, 8\), got \[1, 3, 7\]", True),
    (
        "LSTM",
        (X, (STATE[0], STATE[0])),
        r"For batched 3-D input, hx and cx should also be 3-D but got \(2-D, 2-D\)",
        True,
    ),
    ("LSTM", (X[:, 0], (STATE, STATE)), "For unbatched 2-D input, hx and cx should also be 2-D", True),
    ("GRU", (X, STATE[0]), "For batched 3-D input, hx should also be 3-D but got 2-D tensor", True),
    ("LSTM", (torch.randn(0, 3, 8),), "Expected sequence length to be larger than 0 in RNN", True),
    ("LSTM", (X.half(),), r"input dtype \(torch.float16\) does not match", True),
    ("GRU", (X.double(),), r"input dtype \(torch.float64\) does not match", True),
    ("LSTM", (X, (STATE.half(), STATE)), r"hidden\[0\] dtype \(torch.float16\)", False),
    ("LSTM", (X.to("meta"),), "input is on meta", False),
    ("LSTM", ("x",), "input must be a Tensor, got str", False),
    ("LSTM", (X, ("h", "c")), r"hx\[0\] must be a Tensor, got str", False),
    ("LSTM", (X, (STATE,)), "not enough values to unpack", False),
    ("LSTM", (), "missing 1 required positional argument: 'input'", True),
    ("LSTMCell", (X,), "LSTMCell: Expected input to be 1D or 2D, got 3D instead", True),
    ("GRUCell", (torch.randn(3, 7),), "input has inconsistent input_size: got 7, expected 8", True),
    ("RNNCell", (X[0], STATE[0, :2]), r"Input batch size 3 doesn't match hidden\[0\] batch size 2", True),
    (
        "LSTMCell",
        (X[0], (STATE[0], STATE[0, :2])),
        r"Input batch size 3 doesn't match hidden\[1\] batch size 2",
        True,
    ),
    (
        "GRUCell",
        (X[0], STATE[0, :, :7]),
        r"hidden\[0\] has inconsistent hidden_size: got 7, expected 8",
        True,
    ),
    ("GRUCell", (X[0], STATE[None]), "GRUCell: Expected hidden to be 1D or 2D, got 4D instead", True),
    ("LSTMCell", (X[0].half(),), "LSTMCell: input must be float32, got torch.float16", True),
    ("LSTMCell", (X[0, 0], (STATE[0, 0], STATE[0])), r"hx\[1\] must be 1D", False),
    ("Linear", (torch.randn(3, 7),), r"mat1 and mat2 shapes cannot be multiplied \(3x7 and 8x8\)", True),
    ("Linear", (torch.tensor(1.0),), "mat1 and mat2 shapes cannot be multiplied", True),
    ("Linear", (X.half(),), "input must be float32, got torch.float16", True),
    ("Linear", (X.to("meta"),), "input is on meta", False),
    ("Linear", ([1.0],), "input must be a Tensor, got list", True),
    ("Embedding", (torch.tensor([8]),), "index out of range in self.*index 8", True),
    ("Embedding", (torch.tensor([-1]),), "index out of range in self.*index -1", True),
    ("Embedding", (torch.tensor([1.5]),), "expected input to have one of the scalar types Long, Int", True),
    ("EmbeddingBag", (torch.tensor([1]),), "offsets has to be a 1D Tensor but got None", True),
    ("EmbeddingBag", (torch.tensor([[[1]]]),), "input has to be 1D or 2D Tensor", True),
    (
        "EmbeddingBag",
        (torch.tensor([[1]]), torch.tensor([0])),
        "if input is 2D, then offsets has to be None",
        True,
    ),
    ("EmbeddingBag", (torch.tensor([9]), torch.tensor([0])), "index 9", False),
    ("EmbeddingBag", (torch.tensor([1]), torch.tensor([1])), "offsets.0. is 1", False),
    ("EmbeddingBag", (torch.tensor([[1]]), None, torch.ones(1, 1)), "only supported for mode='sum'", True),
    ("EmbeddingBag", (torch.tensor([[1]]), None, torch.ones(1)), "same shape as the input", True),
]


@pytest.mark.parametrize("name, arguments, message, as_torch", BAD_CALLS)
@pytest.mark.parametrize("compiled", [False, True])
def test_bad_calls(name, arguments, message, as_torch, compiled):
    float_module = getattr(nn, name)(8, 8)
    module = getattr(fourfold.nn, name).from_float(float_module)
    state = copy.deepcopy(module.state_dict())
    if compiled and (not arguments or not isinstance(arguments[0], torch.Tensor) or arguments[0].is_meta):
        pytest.skip("what is not compiled at all")
    if compiled:
        with pytest.raises(Exception):  # noqa: B017, PT011  (the compiler has its own words around ours)
            torch.compile(module, backend="eager", fullgraph=True)(*arguments)
        return
    with pytest.raises(Exception, match=message) as ours:
        module(*arguments)
    if as_torch:
        with pytest.raises(type(ours.value)):
            float_module(*arguments)
    assert all(torch.equal(module.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "make, error",
    [
        (lambda m: m.LSTM(8, 0), ValueError),
        (lambda m: m.LSTM(8, 8, proj_size=8), ValueError),
        (lambda m: m.LSTM(8, 8, dropout=2), ValueError),
        (lambda m: m.GRU(8, 8, num_layers=0), ValueError),
        (lambda m: m.RNN(8, 8, nonlinearity="sigmoid"), ValueError),
        (lambda m: m.LSTM(8.0, 8), TypeError),
        (lambda m: m.Linear(8), TypeError),
    ],
)
def test_bad_constructors_are_pytorchs_errors(make, error):
    with pytest.raises(error):
        make(nn)
    with pytest.raises(error):
        make(fourfold.nn)


def test_bad_modes_of_a_bag_are_said_at_once():
    with pytest.raises(ValueError, match="mode has to be one of sum, mean or max"):
        fourfold.nn.EmbeddingBag(3, 3, mode="min")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, "int4", None])
def test_bad_dtypes(dtype):
    with pytest.raises(ValueError, match="dtype must be torch.qint8 or torch.float16"):
        fourfold.nn.Linear(4, 4, dtype=dtype)


def test_nan_changes_only_the_outputs_that_depend_on_it():
    module, x = fourfold.nn.LSTM(4, 4), torch.randn(5, 3, 4)
    expected = module(x)[0]
    x[2, 1, 0] = float("nan")
    output = module(x)[0]
    assert torch.equal(output[:, [0, 2]], expected[:, [0, 2]]) and torch.equal(output[:2], expected[:2])
    assert output[2:, 1].isnan().all()
