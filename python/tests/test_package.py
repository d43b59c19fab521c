"""The package as it is installed: types, stubs, and a life without PyTorch."""

import os
import pathlib
import re
import subprocess
import sys
import venv

import numpy as np
import pytest
import torch
from torch import nn

import fourfold
from fourfold import _core


def test_it_says_that_it_is_typed():
    assert (pathlib.Path(fourfold.__file__).parent / "py.typed").exists()
    assert re.fullmatch(r"\d+\.\d+\.\d+", fourfold.__version__)
    assert all(hasattr(fourfold, name) for name in fourfold.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fourfold.nothing


def stub_signatures():
    """Name -> argument names, of functions, and of methods as Class.method, with inheritance resolved."""
    import ast

    tree = ast.parse((pathlib.Path(fourfold.__file__).parent / "_core.pyi").read_text())
    signatures, classes = {}, {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            signatures[node.name] = [argument.arg for argument in node.args.args]
        if isinstance(node, ast.ClassDef):
            methods = {}
            for base in node.bases:
                methods.update(classes.get(ast.unparse(base), {}))
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    methods[method.name] = [argument.arg for argument in method.args.args]
            classes[node.name] = methods
    for name, methods in classes.items():
        if not name.startswith("_"):
            signatures.update({f"{name}.{method}": arguments for method, arguments in methods.items()})
    return signatures


def test_the_stubs_are_the_extensions():
    actual = {}
    for name, value in vars(_core).items():
        if name.startswith("_") or name == "Error":
            continue
        members = {name: value}
        if isinstance(value, type):
            members = {f"{name}.{method}": getattr(value, method) for method in ("__init__", "forward")}
        for full_name, function in members.items():
            signature = function.__nb_signature__[0][0]
            arguments = re.search(r"\((.*?)\) ->", signature, re.DOTALL)[1]
            names = re.findall(
                r"(?:^|, )/?(?:, )?(\w+)", re.sub(r"\[[^\[\]]*(\[[^\]]*\][^\[\]]*)*\]", "", arguments)
            )
            actual[full_name] = names
    assert actual == stub_signatures()


def test_importing_it_does_not_import_pytorch():
    code = "import sys, fourfold; assert 'torch' not in sys.modules; fourfold.set_num_threads(1)"
    subprocess.run([sys.executable, "-c", code], check=True)


RUN = """
import importlib.util, sys
import numpy as np
import fourfold
assert importlib.util.find_spec("torch") is None, "this environment is to have NumPy alone"
model = fourfold.load(sys.argv[1])
data = np.load(sys.argv[2])
output, (h, c) = model.lstm(data["x"])
np.savez(sys.argv[3], output=output, h=h, c=c, logits=model.head(output))
"""


WITHOUT_TORCH = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "torch" else find(name, *rest)
sys.modules["torch"] = None
import fourfold
try:
    {}
except ImportError as error:
    assert error.name == "torch"
    print(error)
"""


@pytest.mark.parametrize(
    "use, name",
    [
        ("fourfold.analyze", "analyze"),
        ("fourfold.from_torch_ao", "from_torch_ao"),
        ("from fourfold import quantize_dynamic", "quantize_dynamic"),
        ("fourfold.nn", "nn"),
        ("import fourfold.nn", "nn"),
        ("fourfold.save({}, 'm.safetensors')", "save"),
        ("fourfold.load('m.safetensors', into=3)", "load(into=...)"),
        ("fourfold.load('m.safetensors', backend='torch')", "load(backend='torch')"),
    ],
)
def test_what_needs_pytorch_says_so(use, name):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.replace("{}", use, 1)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"fourfold.{name} needs PyTorch: pip install torch\n",
        "",
    )


def test_the_wheel_runs_a_file_with_the_same_bits_where_there_is_numpy_alone(tmp_path):
    wheel = os.environ.get("FOURFOLD_WHEEL")
    if not wheel:
        pytest.skip("FOURFOLD_WHEEL names no wheel: make python-test builds one")
    venv.create(tmp_path / "clean", with_pip=True)
    python = tmp_path / "clean" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel]
    # Without this one's packages, which pip would take for installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    installed = subprocess.run(install, capture_output=True, text=True, env=environment)
    if installed.returncode != 0:
        pytest.skip(f"NumPy could not be installed: {installed.stderr.strip().splitlines()[-1]}")

    model = nn.ModuleDict(
        {
            "lstm": nn.LSTM(8, 12, 2, bidirectional=True),
            "head": nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)),
        }
    )
    quantized = fourfold.quantize_dynamic(model)
    fourfold.save(quantized, tmp_path / "model.safetensors")
    x = torch.randn(30, 4, 8)
    np.savez(tmp_path / "in.npz", x=x.numpy())
    arguments = [tmp_path / name for name in ("model.safetensors", "in.npz", "out.npz")]
    subprocess.run([python, "-c", RUN, *arguments], check=True, env=environment, cwd=tmp_path)

    actual = np.load(tmp_path / "out.npz")
    output, (h, c) = quantized["lstm"](x)
    for name, expected in (("output", output), ("h", h), ("c", c), ("logits", quantized["head"](output))):
        assert np.array_equal(actual[name], expected.numpy()), name
