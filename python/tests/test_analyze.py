"""fourfold.analyze: its figures against ones computed by hand, its advice carried out, its page in a browser."""

import copy
import dataclasses
import html
import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections import namedtuple

import pytest
import torch
from conftest import MODELS, Tagger, mean_error
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import fourfold
from fourfold._analysis.values import float_tensors

QUICK = {"seconds": 0.01}


class Planted(nn.Module):
    """Two like layers; one gets an input that is large where its weights are zero, which eight bits do not bear."""

    def __init__(self):
        super().__init__()
        self.good, self.bad, self.unused = nn.Linear(64, 64), nn.Linear(64, 16), nn.Linear(3, 3)
        self.big = nn.LSTM(64, 64)
        with torch.no_grad():
            self.bad.weight[:, 0] = 0

    def forward(self, x):
        x = self.good(x) + self.big(x)[0]
        return self.bad(torch.cat([x[..., :1] + 500, x[..., 1:]], -1))


def test_figures_are_those_computed_by_hand(tagger, indices):
    report = fourfold.analyze(tagger, indices, **QUICK)
    quantized = fourfold.quantize_dynamic(tagger)
    assert report.difference.relative == pytest.approx(
        mean_error(quantized(indices), tagger(indices)), rel=1e-4
    )
    assert [layer.name for layer in report.layers] == ["lstm", "gru", "cell", "head.0", "head.2"]
    for layer in report.layers:
        alone = fourfold.quantize_dynamic(tagger, {layer.name})
        assert layer.error == pytest.approx(mean_error(alone(indices), tagger(indices)), rel=1e-4)
        weights = list(tagger.get_submodule(layer.name).state_dict().values())
        assert layer.bytes.before == sum(w.numel() * 4 for w in weights)
        assert layer.bytes.after < layer.bytes.before and layer.calls == 1
        assert sum(layer.errors.counts) == tagger(indices).numel()
    values = tagger.embedding(indices).numel()
    assert sum(report.layers[0].inputs.counts) == values
    state = quantized.state_dict()
    assert report.bytes.after == sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert [module.name for module in report.unquantized] == ["embedding", ""]


def test_the_model_is_as_it_was(tagger, indices):
    tagger.train()
    tagger.lstm.eval()
    before = copy.deepcopy(tagger.state_dict())
    fourfold.analyze(tagger, indices, lambda model: 1, **QUICK)
    assert tagger.training and not tagger.lstm.training and tagger.head.training
    assert all(torch.equal(value, before[name]) for name, value in tagger.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tagger.modules())


def test_the_advice_names_the_layer_that_costs_most_and_holds():
    model, x = Planted().eval(), torch.randn(10, 2, 64)
    with pytest.warns(UserWarning, match="never call unused: nothing is known"):
        report = fourfold.analyze(model, x, **QUICK)
    assert report.advice.leave == ["bad"]
    assert "Leave out bad: error" in str(report) and "'bad': None" in report.code
    assert report.never_called() == ["unused"]
    # The code that it prints, run as it stands.
    left_out = eval(report.code, {"fourfold": fourfold, "torch": torch, "nn": nn, "model": model})
    assert type(left_out.bad) is nn.Linear
    error = mean_error(left_out(x), model(x))
    assert error == pytest.approx(report.advice.error, rel=1e-4)
    assert error < 0.2 * mean_error(fourfold.quantize_dynamic(model)(x), model(x))


def test_nothing_is_left_out_where_the_metric_is_no_worse():
    model, x = Planted().eval(), torch.randn(10, 2, 64)
    with pytest.warns(UserWarning, match="never call"):
        report = fourfold.analyze(model, x, lambda model: torch.tensor(3), **QUICK)
    assert report.advice.leave == [] and len(report.choices) > 1
    assert report.metric_verdict() == "same"
    assert {layer.metric for layer in report.layers} == {3.0, None}


def test_a_module_of_two_names_is_left_out_under_both():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = self.b = nn.Linear(8, 8)
            self.c = nn.Linear(8, 8)

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

    model, x = Shared().eval(), torch.randn(20, 8)
    report = fourfold.analyze(model, x, **QUICK)
    assert [layer.name for layer in report.layers] == ["a", "c"] and report.layers[0].calls == 2
    choice = report.choices[1]
    alone = fourfold.quantize_dynamic(model, {"c" if choice.leave == ["a"] else "a"})
    assert choice.error == pytest.approx(mean_error(alone(x), model(x)), rel=1e-4)


TASKS = {
    "charrnn": lambda evaluate: torch.randint(0, 65, (80, 2)),
    "g2pm": lambda evaluate: (torch.randint(0, 5398, (20, 3)), torch.tensor([2, 9, 19])),
    "g2p_en": lambda evaluate: torch.randint(3, 29, (4, 9)),
    "silero": lambda evaluate: torch.tensor(evaluate.wav(MODELS / "silero_vad" / "test.wav")[:64000]),
    "nnsplit": lambda evaluate: torch.tensor(
        [list(b"It rains. We stay at home, where it is warm; do you? ")]
    ),
}


class Spelled(nn.Module):
    """g2p_en's network, which has no forward of its own: it reads letters and scores each next phoneme."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, letters):
        net, h = self.network, torch.zeros(len(letters), 256)
        for letter in letters.T:
            h = net.encoder(net.enc_emb(letter), h)
        scores = []
        for phoneme in letters.T:  # any will do to feed in
            h = net.decoder(net.dec_emb(phoneme), h)
            scores.append(net.fc(h))
        return torch.stack(scores)


@pytest.mark.parametrize("task", TASKS)
def test_trained_models_run_through_and_leaving_out_lowers_the_error_as_said(task, evaluate):
    class Loaded(Exception):
        pass

    def stop(model):
        raise Loaded(model)

    with pytest.raises(Loaded) as loaded:
        getattr(evaluate, task)(stop)
    model = loaded.value.args[0]
    model = Spelled(model).eval() if task == "g2p_en" else model
    inputs = TASKS[task](evaluate)
    report = fourfold.analyze(model, inputs, **QUICK)
    assert len(report.layers) == {"charrnn": 2, "g2pm": 3, "g2p_en": 3, "silero": 2, "nnsplit": 2}[task]
    assert report.difference.relative < 0.05 and report.bytes.ratio > 1
    for choice in report.choices[1:]:
        kept = {layer.name for layer in report.layers} - set(choice.leave)
        with torch.no_grad():
            args = inputs if isinstance(inputs, tuple) else (inputs,)
            outputs = [m(*args) for m in (fourfold.quantize_dynamic(model, kept), model)]
            actual, expected = (torch.cat([t.flatten() for _, t in float_tensors(o)]) for o in outputs)
        assert mean_error(actual, expected) == pytest.approx(choice.error, rel=1e-3)
    if report.advice.leave:
        assert report.advice.error < 0.9 * report.difference.relative


@pytest.mark.filterwarnings("default:analyze. the latency is no measure")
def test_a_busy_machine_is_said(monkeypatch):
    def measure(times):
        monkeypatch.setattr("fourfold._analysis.run.times_in_turns", lambda *_, **__: times)
        return fourfold.analyze(nn.Linear(4, 4), torch.randn(3, 4))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet = measure({"float": [10, 11, 11, 12, 30], "quantized": [5, 5.1, 5.2]})
    assert quiet.microseconds == (11, 5.1) and "busy" not in str(quiet) + quiet.to_html()
    with pytest.warns(UserWarning, match="no measure: times of like calls differ by a factor of 4.0"):
        busy = measure({"float": [10, 11, 12], "quantized": [5, 20, 5, 20, 5, 20, 20]})
    assert "(times of like calls differ by a factor of 4.0: the machine is busy)" in str(busy)
    assert "machine is busy" in busy.to_html()


def test_what_grows_is_called_larger():
    report = fourfold.analyze(nn.Linear(1, 3), torch.randn(5, 1), **QUICK)
    assert report.bytes == (24, 27)
    assert "1.12 times larger" in str(report) and "<big>1.12</big> times larger" in report.to_html()


def test_the_page_goes_where_a_link_points_with_the_permissions_of_what_is_there(tmp_path):
    report = fourfold.analyze(nn.Linear(4, 4), torch.randn(5, 4), **QUICK)
    link, target = tmp_path / "link.html", tmp_path / "pages" / "report.html"
    target.parent.mkdir()
    link.symlink_to(target)
    before = os.umask(0o027)
    try:
        report.save_html(link)
        assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o640
        target.chmod(0o604)
        report.save_html(link)
        assert target.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(before)
    assert os.listdir(target.parent) == ["report.html"]


def test_a_page_that_cannot_be_written_is_named_as_it_was_asked_for(tmp_path):
    report = fourfold.analyze(nn.Linear(4, 4), torch.randn(5, 4), **QUICK)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for error, path in (
        (FileNotFoundError, tmp_path / "none" / "page.html"),
        (NotADirectoryError, tmp_path / "file" / "page.html"),
        (IsADirectoryError, tmp_path / "folder"),
    ):
        with pytest.raises(error, match=f"{re.escape(repr(str(path)))}$"):
            report.save_html(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_pipe_is_no_file_to_replace(source, tmp_path):
    report = fourfold.analyze(nn.Linear(4, 4), torch.randn(5, 4), **QUICK)
    pipe, link = tmp_path / "pipe.html", tmp_path / "link.html"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match=f"^cannot write {path}: Not a regular file$"):
            report.save_html(path)
        done = command(source, "--html", path)
        assert (done.returncode, done.stdout) == (1, "")  # before the work
        assert done.stderr == f"error: cannot write {path}: Not a regular file\n"
    assert pipe.is_fifo() and link.is_symlink()
    assert sorted(path.name for path in tmp_path.glob("*.html*")) == ["link.html", "pipe.html"]


# ---- What models take and give ----


class Calls(nn.Module):
    """A layer, and what a function makes of its result."""

    def __init__(self, give):
        super().__init__()
        self.linear, self.give = nn.Linear(4, 4), give

    def forward(self, x, scale=1.0):
        return self.give(self.linear(x) * scale)


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    label: str = "a"


Pair = namedtuple("Pair", "first second")


@pytest.mark.parametrize(
    "give, names",
    [
        (lambda y: y, ["output"]),
        (lambda y: (y, [y, (y,)]), ["0", "1.0", "1.1.0"]),
        (lambda y: {"logits": y, "state": {"h": y}, "ids": y.argmax()}, ["logits", "state.h"]),
        (lambda y: Pair(y, None), ["first"]),
        (lambda y: Output(y), ["logits"]),
        (lambda y: (pack_sequence([y]), y.half()), ["0", "1"]),
    ],
)
def test_outputs_nested_in_whatever(give, names):
    report = fourfold.analyze(Calls(give), torch.randn(3, 4), **QUICK)
    assert list(report.outputs) == names
    assert all(0 < d.relative < 0.05 for d in report.outputs.values())


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_inputs_of_each_form(form, many):
    x = torch.randn(3, 4)
    call = {"tensor": x, "tuple": (x, 2.0), "dict": {"x": x, "scale": 2.0}}[form]
    report = fourfold.analyze(Calls(lambda y: y), [call, call] if many else call, **QUICK)
    assert report.layers[0].calls == (2 if many else 1)


def test_a_layer_alone_and_a_packed_sequence():
    packed = pack_sequence([torch.randn(5, 8), torch.randn(2, 8)])
    report = fourfold.analyze(nn.LSTM(8, 8), packed, **QUICK)
    assert report.layers[0].title == "model" and report.layers[0].error == report.difference.relative
    assert "Quantize it" in str(report)
    assert sum(report.layers[0].inputs.counts) == packed.data.numel()


def test_values_masked_with_infinity_are_left_out():
    def mask(y):
        return y.masked_fill(torch.eye(4)[:3].bool(), float("-inf"))

    report = fourfold.analyze(Calls(mask), torch.randn(3, 4), **QUICK)
    assert 0 < report.difference.relative < 0.05


def test_half_weights():
    report = fourfold.analyze(Tagger().eval(), torch.randint(0, 30, (6, 3)), dtype=torch.float16, **QUICK)
    assert report.dtype == "float16" and report.difference.relative < 1e-3 and 1.5 < report.bytes.ratio < 2


# ---- What is wrong ----

LINEAR, X = nn.Linear(4, 4), torch.randn(3, 4)


class Random(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x) + torch.randn(4)


@pytest.mark.parametrize(
    "error, words, model, inputs, options",
    [
        (TypeError, "model must be a torch.nn.Module, got function", lambda: 1, X, {}),
        (TypeError, "inputs must be a tensor.*got ndarray: use torch.from_numpy", LINEAR, X.numpy(), {}),
        (TypeError, r"inputs\[1\] must be a tensor.*got int", LINEAR, [X, 3], {}),
        (TypeError, "names as keys", LINEAR, {1: X}, {}),
        (ValueError, "inputs is an empty list", LINEAR, [], {}),
        (ValueError, "nothing to quantize: Linear, LSTM.* wanted, and the model has torch.nn.*ReLU", nn.Sequential(nn.ReLU()), X, {}),
        (ValueError, r"Linear are wanted \(left out: 0\), and", nn.Sequential(LINEAR), X, {"qconfig_spec": {nn.Linear: "qint8", "0": None}}),
        (ValueError, r"no modules are wanted \(left out: Linear, ''\), and", LINEAR, X, {"qconfig_spec": {nn.Linear: None, "": None}}),
        (ValueError, "no module named 'hed'; did you mean", Tagger(), X, {"qconfig_spec": {"hed"}}),
        (ValueError, "returned no float tensor but a tensor of torch.int64", Calls(lambda y: y.argmax()), X, {}),
        (ValueError, "returned no float tensor but str 'yes'", Calls(lambda y: "yes"), X, {}),
        (ValueError, "call none of the layers to quantize: 0", nn.Sequential(LINEAR), X, {"skip": True}),
        (RuntimeError, r"model \(float\) failed on inputs: RuntimeError: mat1 and mat2", LINEAR, X[:, :3], {}),
        (RuntimeError, r"failed on inputs\[1\]", LINEAR, [X, X[:, :3]], {}),
        (RuntimeError, "returns something else each time", Random(), X, {}),
        (ValueError, "zero, not finite, or empty", Calls(lambda y: y * 0), X, {}),
        (ValueError, "zero, not finite, or empty", LINEAR, X * float("nan"), {}),
        (ValueError, "zero, not finite, or empty", LINEAR, X[:0], {}),
        (ValueError, "the model has fourfold.nn._linear.Linear", fourfold.nn.Linear(4, 4), X, {}),
        (TypeError, "metric must be a function of the model, got int", LINEAR, X, {"metric": 3}),
        (RuntimeError, "metric must return a finite number, got dict", LINEAR, X, {"metric": lambda m: {"f1": 1}}),
        (RuntimeError, r"got a tensor of torch.float32 \(3, 4\)", LINEAR, X, {"metric": lambda m: m(X)}),
        (RuntimeError, "got str '3'", LINEAR, X, {"metric": lambda m: "3"}),
        (RuntimeError, "got float nan", LINEAR, X, {"metric": lambda m: float("nan")}),
        (RuntimeError, r"metric failed on the model \(float\): KeyError: 'x'", LINEAR, X, {"metric": lambda m: {}["x"]}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(error, words, model, inputs, options):
    if options.get("skip"):  # a forward that goes past its layer
        model = copy.deepcopy(model)
        model.forward = lambda x: x
        options = {}
    with pytest.raises(error, match=f"(?s)^(analyze|quantize_dynamic): .*{words}"):
        fourfold.analyze(model, inputs, **options, **QUICK)


@pytest.mark.parametrize(
    "error, seconds, words",
    [
        (ValueError, math.inf, "above 0 and finite, got inf"),
        (ValueError, math.nan, "above 0 and finite, got nan"),
        (ValueError, -1, "above 0 and finite, got -1"),
        (ValueError, 0, "above 0 and finite, got 0"),
        (TypeError, "abc", "a number, got str 'abc'"),
        (TypeError, None, "a number, got NoneType None"),
    ],
)
def test_seconds_are_checked_before_the_work(error, seconds, words):
    with pytest.raises(error, match=f"^analyze: seconds must be {words}$"):
        fourfold.analyze(Calls(lambda y: pytest.fail("it was called")), X, seconds=seconds)


def test_a_shape_that_depends_on_values_is_said():
    x = torch.linspace(-1, 1, 400)[:, None].repeat(1, 4)
    model = Calls(lambda y: y[y > 0])
    with pytest.raises(
        RuntimeError, match="'output' is .* in float and .* quantized: outputs can be compared"
    ):
        fourfold.analyze(model, x, **QUICK)


def test_weights_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight[1, 2] = float("inf")
    with pytest.raises(fourfold.Error, match="0.weight"):
        fourfold.analyze(model, X.abs() * 0, **QUICK)


def test_what_is_exact_has_no_error():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        for layer in model:
            layer.weight.fill_(1)
            layer.bias.fill_(0)
    report = fourfold.analyze(model, torch.ones(3, 4), **QUICK)
    assert report.difference.relative == 0 and report.advice.leave == []
    assert json.loads(report.to_json())["difference"]["snr_db"] is None
    assert "<svg" in report.to_html() and "0.00 %" in str(report)


def test_layers_of_a_transformer_are_called_though_pytorch_has_a_fast_path():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    kinds = {nn.Linear, nn.MultiheadAttention}
    report = fourfold.analyze(model, torch.randn(2, 5, 32), qconfig_spec=kinds, **QUICK)
    assert [layer.calls for layer in report.layers] == [1] * 6
    with pytest.warns(UserWarning, match="these stay float, as their projections are no nn.Linear"):
        report = fourfold.analyze(model, torch.randn(2, 5, 32), **QUICK)
    assert [layer.name for layer in report.layers] == [
        f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)
    ]


# ---- The command line ----

SOURCE = """
import torch
from torch import nn

torch.manual_seed(0)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(16, 32), nn.Linear(32, 4)

    def forward(self, x):
        return {"logits": self.head(self.lstm(x)[0])}

model = Net()
inputs = torch.randn(20, 2, 16)
count = 3

def batches():
    return [torch.randn(20, 2, 16), torch.randn(10, 1, 16)]

def metric(model):
    return model(inputs)["logits"].abs().mean()

def broken():
    raise KeyError("here")

def words(model):
    return "good"

def leave():
    raise SystemExit("no weights")

def leave_quietly(model):
    raise SystemExit
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "my_model.py"
    path.write_text(SOURCE)
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    return path


def command(*arguments, cwd=None, code=None, **variables):
    run = ["-c", code] if code else ["-m", "fourfold.analyze"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [sys.executable, *run, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment
    )


def test_the_command_prints_tables_without_colour_or_bar(source):
    done = command(source, "--metric", f"{source}:metric", "--lower-is-better", "--seconds", "0.01")
    assert done.returncode == 0
    assert re.fullmatch("(warning: analyze: the latency is no measure: .*\n)?", done.stderr)
    assert "\x1b" not in done.stdout and "times smaller" in done.stdout
    assert re.search(r"^lstm +LSTM +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^metric .* (better|worse|same)$", done.stdout, re.MULTILINE)
    assert "fourfold.quantize_dynamic(model, {" in done.stdout


def test_the_command_takes_modules_classes_and_functions_and_writes_json(source):
    done = command(
        "my_model:Net", "--inputs", "my_model.py:batches", "--only", "LSTM", "--threads", "1", "--json",
        "--seconds", "0.01", cwd=source.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [layer["name"] for layer in report["layers"]] == ["lstm"] and report["threads"] == 1
    assert report["layers"][0]["calls"] == 2 and report["size_bytes"]["times_smaller"] > 2.9
    assert report["advice"]["leave"] == [] and report["advice"]["code"].startswith(
        "fourfold.quantize_dynamic("
    )


def test_a_layer_left_is_not_in_the_report(source):
    done = command(source, "--leave", "head", "--json", "--seconds", "0.01")
    assert [layer["name"] for layer in json.loads(done.stdout)["layers"]] == ["lstm"]


def test_an_instruction_set_that_is_none_is_bad_usage(source):
    done = command(source, FOURFOLD_ISA="foo")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch("error: FOURFOLD_ISA: no instruction set 'foo'; this build has .*\n", done.stderr)


def test_help_has_examples():
    done = command("--help")
    assert done.returncode == 0 and "examples:" in done.stdout and "exit codes: 0" in done.stdout


@pytest.mark.parametrize(
    "code, words, arguments",
    [
        (2, "the following arguments are required: MODEL", []),
        (2, "no such file: nothing.py", ["nothing.py"]),
        (2, "no module named 'nothing'; a file ends in .py", ["nothing"]),
        (2, "has no 'modell'; it has: torch, nn, Net, model", ["{}:modell"]),
        (2, "model must be a torch.nn.Module, got int", ["{}:count"]),
        (2, "inputs must be a tensor.* got int", ["{}", "--inputs", "{}:count"]),
        (2, "my_model.py' is not FILE.py:NAME or MODULE:NAME", ["{}", "--metric", "{}"]),
        (2, "'nosuch' is not FILE.py:NAME or MODULE:NAME: a file", ["{}", "--metric", "nosuch"]),
        (
            2,
            r"'../x/m.safetensors' is not FILE.py\[:NAME\] or MODULE\[:NAME\]: a file",
            ["../x/m.safetensors"],
        ),
        (2, "'./my_model' is not FILE.py", ["./my_model"]),
        (2, "'' is not FILE.py", [""]),
        (2, "':model' is not FILE.py", [":model"]),
        (2, "'.my_model:model' is not FILE.py", [".my_model:model"]),
        (2, "'my_model.py:' is not FILE.py", ["my_model.py:"]),
        (2, "--lower-is-better is said of a metric: give --metric", ["{}", "--lower-is-better"]),
        (1, "leaves.py: it ended the program: SystemExit: 3", ["leaves.py"]),
        (1, "{}:leave: it ended the program: SystemExit: no weights", ["{}:leave"]),
        (
            1,
            "the model or the metric: it ended the program: SystemExit: ",
            ["{}", "--metric", "{}:leave_quietly"],
        ),
        (2, "no module named 'hed'; did you mean 'head'", ["{}", "--leave", "hed"]),
        (
            2,
            r"RNNCell are wanted \(left out: lstm, head\), and the model has",
            ["{}", "--leave", "lstm", "head"],
        ),
        (2, r"\(left out: lstm, head\)", ["{}", "--leave", "lstm", "--leave", "head"]),
        (2, "GRU, RNN, GRUCell are wanted", ["{}", "--only", "GRU", "RNN", "--only", "GRUCell"]),
        (2, "--threads must be from 1", ["{}", "--threads", "0"]),
        (2, "--seconds must be above 0", ["{}", "--seconds", "0"]),
        (2, "--seconds must be above 0 and finite, got inf", ["{}", "--seconds", "inf"]),
        (2, "--html: no such folder: /no/such", ["{}", "--html", "/no/such/page.html"]),
        (2, "--html: a folder, not a file: /", ["{}", "--html", "/"]),
        (2, "invalid choice: 'Conv'", ["{}", "--only", "Conv"]),
        (1, "KeyError: 'here'", ["{}:broken"]),
        (1, "metric must return a finite number, got str 'good'", ["{}", "--metric", "{}:words"]),
    ],
)
def test_exit_codes(source, code, words, arguments):
    done = command(*(argument.replace("{}", str(source)) for argument in arguments), cwd=source.parent)
    assert done.returncode == code, done.stderr
    assert (
        re.search(words.replace("{}", str(source)), done.stderr)
        and "Traceback" not in done.stderr
        and not done.stdout
    )


WITHOUT = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
hidden = sys.argv.pop(1)
importlib.util.find_spec = lambda name, *rest: None if name == hidden else find(name, *rest)
sys.modules[hidden] = None
runpy.run_module("fourfold.analyze", run_name="__main__", alter_sys=True)
"""


def test_a_missing_library_is_named_before_the_work(source, tmp_path):
    done = command("matplotlib", source, "--html", tmp_path / "page.html", code=WITHOUT)
    assert done.returncode == 1 and not (tmp_path / "page.html").exists()
    assert "--html needs matplotlib: pip install 'fourfold[analyze]'" in done.stderr


def test_the_command_says_that_it_needs_pytorch(source):
    done = command("torch", source, code=WITHOUT)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: fourfold.analyze needs PyTorch: pip install torch\n"


def test_the_bar_needs_tqdm_and_nothing_else_does(monkeypatch, capsys):
    fourfold.analyze(LINEAR, X, progress=True, **QUICK)
    assert "run" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fourfold.analyze(LINEAR, X, progress=True, **QUICK)
    assert "no progress bar without tqdm: pip install 'fourfold[analyze]'" in capsys.readouterr().err
    fourfold.analyze(LINEAR, X, **QUICK)
    assert capsys.readouterr().err == ""


def test_an_import_of_the_command_says_what_it_is():
    with pytest.raises(ImportError, match="is a function: from fourfold import analyze"):
        importlib.import_module("fourfold.analyze")
    assert callable(fourfold.analyze)


# ---- The page ----


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.a_module_of_a_rather_long_name_that_would_not_fit = nn.ModuleDict(
                {f"part_{i}_of_this_network": nn.Linear(24, 24) for i in range(14)}
            )
            self.lstm, self.unused = nn.LSTM(24, 24), nn.Linear(2, 2)

        def forward(self, x):
            x = self.lstm(x)[0]
            for part in self.a_module_of_a_rather_long_name_that_would_not_fit.values():
                x = x + torch.relu(part(x))
            return {"hidden_state_of_the_last_layer": x, "<b>escaped</b>": x[0]}

    torch.manual_seed(1)
    model, x = Deep().eval(), torch.randn(12, 2, 24)
    with pytest.warns(UserWarning, match="never call"):
        report = fourfold.analyze(model, x, lambda m: sum(t.abs().mean() for t in m(x).values()), **QUICK)
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.save_html(path)
    return path


def test_the_page_needs_nothing_but_itself(page):
    text = page.read_text()
    assert "&lt;b&gt;escaped&lt;/b&gt;" in text and "<b>escaped" not in text
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text) and "@import" not in text
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not fetched
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert "var(--error)" in text and "#0a0b0" not in text  # the pictures have the page's colours
    assert [entry.name for entry in page.parent.iterdir()] == [page.name]  # no temporary file is left


# Puts the page into a frame as wide as a screen, and writes down what a script sees in it.
FRAME = """<!doctype html><body style="margin:0"><iframe id="page" style="border:0;width:%dpx;height:3000px" srcdoc="%s"></iframe>
<script>
document.getElementById("page").onload = (event) => {
  const inside = event.target.contentDocument, root = inside.documentElement;
  const pictures = [...inside.querySelectorAll("svg")];
  const wide = [...inside.querySelectorAll("main *")].filter(
    (e) => !e.closest(".scroll table, svg") && e.getBoundingClientRect().right > root.clientWidth + 0.5);
  const seen = {
    width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight, wide: wide.map((e) => e.outerHTML),
    pictures: pictures.length, flat: pictures.filter((e) => e.getBoundingClientRect().height < 20).length,
    paper: getComputedStyle(inside.body).backgroundColor,
    text: getComputedStyle(pictures[0].querySelector("text")).fill,
    fills: [...pictures[0].querySelectorAll("path")].map((e) => getComputedStyle(e).fill),
    error: getComputedStyle(root).getPropertyValue("--error").trim(),
  };
  document.title = JSON.stringify(seen);
};
</script>"""


def brightness(colour):
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_in_a_browser(page, tmp_path, width, dark):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here: apt-get install chromium")
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME % (width, html.escape(page.read_text())))
    options = [
        "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=4000",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--user-data-dir={tmp_path / 'profile'}",
    ]  # fmt: skip
    # Without the sanitizers that `make python-sanitize` loads before all else.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    shown = subprocess.run(
        [browser, *options, "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr, shown.stderr
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", shown.stdout, re.DOTALL)[1]))
    assert seen["width"] == width and seen["scroll"] == width and not seen["wide"], seen
    assert seen["pictures"] == 4 + 2 * 12 and seen["flat"] == 0 and seen["height"] > 1500
    assert (brightness(seen["paper"]) < 60) == dark and (brightness(seen["text"]) > 180) == dark
    red, green, blue = bytes.fromhex(seen["error"].lstrip("#"))
    assert f"rgb({red}, {green}, {blue})" in seen["fills"]
    picture = tmp_path / "page.png"
    subprocess.run(
        [browser, *options, f"--window-size={max(width, 500)},1600", f"--screenshot={picture}", frame.as_uri()],
        check=True, capture_output=True, timeout=120, env=environment,
    )  # fmt: skip
    assert picture.stat().st_size > 20_000
