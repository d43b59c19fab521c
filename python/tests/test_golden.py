"""The same bits as the C++ library, on every case of the golden file."""

import json
import subprocess

import pytest
import torch
from conftest import BUILD, ROOT
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fourfold

GOLDEN = ROOT / "tests" / "golden" / "torch.safetensors"
DTYPES = {"qint8": torch.qint8, "float16": torch.float16}


def read_cases():
    with safe_open(GOLDEN, "pt") as file:
        entries = json.loads(file.metadata()["fourfold_golden"])
    tensors = load_file(GOLDEN)
    by_case = {}
    for name, tensor in tensors.items():
        case, _, rest = name.partition("/")
        by_case.setdefault(case, {})[rest] = tensor
    return [(entry, by_case[entry["name"]]) for entry in entries]


CASES = read_cases()


@pytest.fixture(scope="module")
def cpp(tmp_path_factory):
    """The folder with what C++ made of the cases."""
    program = BUILD / "dump_golden"
    if not program.exists():
        pytest.skip(f"{program} is not built: cmake --build --preset release --target dump_golden")
    folder = tmp_path_factory.mktemp("golden")
    subprocess.run([program, folder], check=True)
    return folder


def float_module(entry, tensors):
    module = getattr(nn, entry["kind"])(**entry["options"])
    weights = {name.removeprefix("weight/"): t for name, t in tensors.items() if name.startswith("weight/")}
    module.load_state_dict(weights)
    return module.eval()


def flat(kind, result):
    """A module's results by name."""
    if kind in ("Linear", "Embedding", "EmbeddingBag"):
        return {"output": result}
    if kind in ("GRUCell", "RNNCell"):
        return {"h_n": result}
    if kind == "LSTMCell":
        return dict(zip(("h_n", "c_n"), result))
    output, state = result
    return {"output": output, **dict(zip(("h_n", "c_n"), state if kind == "LSTM" else (state,)))}


def run(module, entry, tensors):
    kind = entry["kind"]
    if kind == "EmbeddingBag":
        return flat(kind, module(tensors["input"], tensors.get("offsets"), tensors.get("per_sample_weights")))
    arguments = [tensors["input"]]
    if "h0" in tensors:
        arguments.append((tensors["h0"], tensors["c0"]) if "c0" in tensors else tensors["h0"])
    if "lengths" not in tensors:
        return flat(kind, module(*arguments))
    batch_first = entry["options"]["batch_first"]
    time = tensors["input"].shape[1 if batch_first else 0]
    arguments[0] = pack_padded_sequence(arguments[0], tensors["lengths"], batch_first, enforce_sorted=False)
    output, state = module(*arguments)
    output, lengths = pad_packed_sequence(output, batch_first, total_length=time)
    assert torch.equal(lengths, tensors["lengths"])
    return flat(kind, (output, state))


@pytest.mark.parametrize("format", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_same_bits_as_cpp(cpp, format, threads):
    torch.set_num_threads(threads)
    expected = load_file(cpp / "results.safetensors")
    for entry, tensors in CASES:
        kind = getattr(fourfold.nn, entry["kind"])
        module = kind.from_float(float_module(entry, tensors), DTYPES[format])
        results = run(module, entry, tensors)
        assert results
        for name, actual in results.items():
            assert torch.equal(actual, expected[f"{entry['name']}/{format}/{name}"]), (entry, name)


@pytest.mark.parametrize("format", DTYPES)
def test_files_are_cpps_byte_for_byte(cpp, format, tmp_path):
    for entry, tensors in CASES:
        module = getattr(fourfold.nn, entry["kind"]).from_float(float_module(entry, tensors), DTYPES[format])
        fourfold.save(module, tmp_path / "model.safetensors")
        written = cpp / f"{entry['name']}.{format}.safetensors"
        assert (tmp_path / "model.safetensors").read_bytes() == written.read_bytes(), entry


@pytest.mark.parametrize("backend", ["torch", "numpy"])
def test_files_of_cpp_run_with_its_bits(cpp, backend):
    expected = load_file(cpp / "results.safetensors")
    for entry, tensors in CASES:
        if backend == "numpy" and "lengths" in tensors:
            continue
        module = fourfold.load(cpp / f"{entry['name']}.qint8.safetensors", backend=backend)
        if backend == "numpy":
            arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
            results = {name: torch.from_numpy(array) for name, array in run(module, entry, arrays).items()}
        else:
            results = run(module, entry, tensors)
        for name, actual in results.items():
            assert torch.equal(actual, expected[f"{entry['name']}/qint8/{name}"]), (entry, name)


def test_reprs_are_cpps(cpp):
    for entry, tensors in CASES:
        for format, dtype in DTYPES.items():
            module = getattr(fourfold.nn, entry["kind"]).from_float(float_module(entry, tensors), dtype)
            loaded = fourfold.load(cpp / f"{entry['name']}.{format}.safetensors", backend="numpy")
            assert repr(module) == repr(loaded)


def test_every_instruction_set_gives_the_same_bits():
    for entry, tensors in CASES[::7]:
        module = getattr(fourfold.nn, entry["kind"]).from_float(float_module(entry, tensors))
        results = []
        for isa in fourfold.supported_isas():
            fourfold.set_isa(isa)
            results.append(run(module.from_float(float_module(entry, tensors)), entry, tensors))
        for other in results[1:]:
            assert all(torch.equal(results[0][name], other[name]) for name in other), entry
