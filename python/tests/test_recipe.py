"""PyTorch's recipe, with one import changed."""

import os
import re
import subprocess
import sys

import torch
from conftest import ROOT, mean_error, torch_ao
from torch import nn

import fourfold

RECIPE = ROOT / "examples" / "dynamic_quantization_recipe.py"


def test_recipe_prints_the_five_steps(tmp_path):
    # PyTorch's own threads wait for each other where other tests run beside this one: minutes instead of a second.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    printed = subprocess.run(
        [sys.executable, RECIPE], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    ).stdout
    assert "(lstm): LSTM(8, 8)" in printed
    assert "(lstm): DynamicQuantizedLSTM(8, 8)" in printed
    assert float(re.search(r"([\d.]+) times smaller", printed)[1]) > 1
    assert re.search(r"Floating point FP32: [\d.]+ µs\nQuantized INT8: [\d.]+ µs", printed)
    assert "output tensor values in the FP32 model is 0.12887" in printed
    difference, percent = re.search(r"difference .* is ([\d.]+) or ([\d.]+) percent", printed).groups()
    assert float(difference) < 0.00156 and float(percent) < 1.21  # torch.ao's


def test_only_the_import_differs_from_pytorchs_recipe():
    lines = RECIPE.read_text().splitlines()
    assert [line for line in lines if "fourfold" in line] == ["import fourfold as quantization"]


def test_closer_to_float_and_smaller_than_torch_ao(tmp_path):
    inputs = torch.randn(20, 1, 8)
    model = nn.ModuleDict({"lstm": nn.LSTM(8, 8)})
    ours, theirs = fourfold.quantize_dynamic(model), torch_ao(model)
    expected, _ = model["lstm"](inputs)
    assert mean_error(ours["lstm"](inputs)[0], expected) < mean_error(theirs["lstm"](inputs)[0], expected)
    fourfold.save(ours, tmp_path / "ours.safetensors")
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    assert (tmp_path / "ours.safetensors").stat().st_size < (tmp_path / "theirs.pt").stat().st_size
