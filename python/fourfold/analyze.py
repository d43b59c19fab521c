"""The command line of fourfold.analyze: python -m fourfold.analyze --help."""

from __future__ import annotations

if __name__ != "__main__":
    # An import of this module would put it in the place of the function.
    raise ImportError("fourfold.analyze is a function: from fourfold import analyze")

import argparse
import importlib
import importlib.util
import math
import os
import pathlib
import sys
import types
import warnings
from typing import Any

from fourfold import Error, set_num_threads
from fourfold._analysis import extra
from fourfold._analysis.report import require_replaceable
from fourfold._require import require_torch

EXAMPLES = """
A name is a Python file or a module, a colon, and what is in it: my_model.py:make_model, my_package.tagger:Tagger.
The model is a torch.nn.Module, or a function (or class) that makes one when called without arguments; the same holds
for the inputs: a tensor, a tuple of arguments, a dict of named arguments, or a list of such calls. The metric is a
function of the model that returns a number.

examples:
  python -m fourfold.analyze my_model.py
      the file's `model`, called with its `inputs`
  python -m fourfold.analyze my_model.py:make_model --inputs my_data.py:inputs --html report.html
  python -m fourfold.analyze my_model.py --metric my_model.py:perplexity --lower-is-better
  python -m fourfold.analyze my_package.tagger:Tagger --inputs my_data.py:batches --only Linear --leave decoder --json

exit codes: 0 success, 1 failed, 2 bad usage
"""

KINDS = ("Linear", "LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell", "MultiheadAttention")


class BadUsage(Exception):
    """What the user asked wrongly."""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fourfold.analyze",
        description="What quantizing a PyTorch model brings and costs: size, latency and error of float against int8, "
        "the error of each layer alone, and which layers to leave in float.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="FILE.py[:NAME] or MODULE[:NAME]; NAME is 'model' if it is not given"
    )
    parser.add_argument(
        "--inputs", metavar="FILE:NAME", help="what to call it with (default: 'inputs' beside the model)"
    )
    parser.add_argument("--metric", metavar="FILE:NAME", help="a function of the model that returns a number")
    parser.add_argument("--lower-is-better", action="store_true", help="of the metric, such as a loss")
    parser.add_argument("--only", nargs="+", action="extend", metavar="KIND", choices=KINDS, help=f"classes to quantize: {', '.join(KINDS)} (default: all but the last)")  # fmt: skip
    parser.add_argument("--leave", nargs="+", action="extend", metavar="NAME", default=[], help="modules to leave in float, by their dotted names")  # fmt: skip
    parser.add_argument("--dtype", choices=("qint8", "float16"), default="qint8", help="of the weights (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--threads", type=int, metavar="N", help="for PyTorch and fourfold (default: PyTorch's)"
    )
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S", help="how long to measure latency (default: %(default)s)")  # fmt: skip
    parser.add_argument("--html", metavar="PATH", help="write a page with pictures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def load(reference: str, default: str | None = None) -> Any:
    """What a name such as my_model.py:make_model stands for."""
    source, _, name = reference.rpartition(":") if ":" in reference else (reference, "", default)
    is_file = source.endswith(".py")
    if not name or not (is_file or all(part.isidentifier() for part in source.split("."))):
        form = "FILE.py:NAME or MODULE:NAME" if default is None else "FILE.py[:NAME] or MODULE[:NAME]"
        raise BadUsage(f"'{reference}' is not {form}: a file ends in .py, a module is named as in an import")
    module = _import(source, is_file)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            there = ", ".join(key for key in vars(module) if not key.startswith("_"))
            raise BadUsage(f"{source} has no '{name}'; it has: {there or 'nothing'}")
        value = getattr(value, part)
    return value


def _import(source: str, is_file: bool) -> types.ModuleType:
    if is_file and not os.path.isfile(source):
        raise BadUsage(f"no such file: {source}")
    name = pathlib.Path(source).stem if is_file else source
    if is_file:
        sys.path.insert(0, str(pathlib.Path(source).resolve().parent))  # as for a script
    try:
        if not is_file:
            return importlib.import_module(name)
        known = sys.modules.get(name)
        if known is not None and getattr(known, "__file__", None) == os.path.abspath(source):
            return known
        spec = importlib.util.spec_from_file_location(name, os.path.abspath(source))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise BadUsage(f"no module named '{name}'; a file ends in .py") from None
        raise RuntimeError(f"{source}: {error}") from error
    except (Exception, SystemExit) as error:
        raise failure(source, error) from error


def failure(what: str, error: BaseException) -> RuntimeError:
    """That the user's code failed, or wanted to end the program."""
    ended = "it ended the program: " if isinstance(error, SystemExit) else ""
    return RuntimeError(f"{what}: {ended}{type(error).__name__}: {error}")


def made(what: str, value: Any, is_made: bool) -> Any:
    """The value, or what it makes where it is a function or a class."""
    if is_made or not callable(value):
        return value
    try:
        return value()
    except (Exception, SystemExit) as error:
        raise failure(what, error) from error


def run(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None and not 1 <= arguments.threads <= 1024:
        raise BadUsage(f"--threads must be from 1 to 1024, got {arguments.threads}")
    if not 0 < arguments.seconds < math.inf:
        raise BadUsage(f"--seconds must be above 0 and finite, got {arguments.seconds:g}")
    if arguments.lower_is_better and not arguments.metric:
        raise BadUsage("--lower-is-better is said of a metric: give --metric FILE:NAME too")
    if arguments.html:
        extra.require("--html")  # before, not after, minutes of work
        folder = os.path.dirname(os.path.abspath(arguments.html))
        if not os.path.isdir(folder):
            raise BadUsage(f"--html: no such folder: {folder}")
        if os.path.isdir(arguments.html):
            raise BadUsage(f"--html: a folder, not a file: {arguments.html}")
        require_replaceable(arguments.html)
    require_torch("analyze")
    import torch
    from torch import nn

    from fourfold import analyze

    source = arguments.model.rpartition(":")[0] or arguments.model
    model = load(arguments.model, "model")
    model = made(arguments.model, model, isinstance(model, nn.Module))
    inputs = load(arguments.inputs or f"{source}:inputs")
    inputs = made("--inputs", inputs, isinstance(inputs, torch.Tensor))
    metric = load(arguments.metric) if arguments.metric else None
    spec: Any = None
    if arguments.only or arguments.leave:
        kinds = arguments.only or KINDS[:-1]
        spec = {getattr(nn, kind): arguments.dtype for kind in kinds} | dict.fromkeys(arguments.leave)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
        set_num_threads(arguments.threads)
    try:
        report = analyze(
            model,
            inputs,
            metric,
            higher_is_better=not arguments.lower_is_better,
            qconfig_spec=spec,
            dtype=arguments.dtype,
            seconds=arguments.seconds,
        )
    except (TypeError, ValueError) as error:
        raise BadUsage(str(error)) from error
    except SystemExit as error:
        raise failure("the model or the metric", error) from error
    print(report.to_json() if arguments.json else report, flush=True)
    if arguments.html:
        report.save_html(arguments.html)
        print(f"wrote {arguments.html}", file=sys.stderr)


def main() -> int:
    arguments = make_parser().parse_args()
    warnings.showwarning = show_warning
    try:
        run(arguments)
    except BadUsage as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, ImportError, OSError, Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


sys.exit(main())
