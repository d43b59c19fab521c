"""What the comparisons share: running a program of ours, and where the trained models are."""

import importlib.util
import json
import os
import pathlib
import subprocess


class CannotCompare(Exception):
    """There is nothing to compare: the message says why."""


def add_models(parser):
    beside = pathlib.Path(__file__).resolve().parents[3] / "shared" / "models"
    models = pathlib.Path(os.environ.get("FOURFOLD_MODELS", beside))
    parser.add_argument(
        "--models",
        type=pathlib.Path,
        default=models,
        help="folder of the trained models (default: FOURFOLD_MODELS, else ../shared/models)",
    )


def add_arguments(parser, binary):
    add_models(parser)
    parser.add_argument(
        "--binary", type=pathlib.Path, default=pathlib.Path(binary), help="default: %(default)s"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def load_evaluate(models):
    """The module evaluate.py of the models' folder, with the networks."""
    path = models / "evaluate.py"
    if not path.exists():
        raise CannotCompare(f"{path} is not there: --models names the folder of the trained models")
    spec = importlib.util.spec_from_file_location("evaluate", path)
    evaluate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(evaluate)
    return evaluate


def run(command):
    """What a program of ours prints."""
    command = [str(part) for part in command]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise CannotCompare(f"{command[0]} does not exist: build it, or give --binary") from error
    except subprocess.CalledProcessError as error:
        shown = " ".join(command)[:200]
        raise CannotCompare(f"{shown}: exit {error.returncode}: {error.stderr}") from error


def run_json(command):
    return json.loads(run(command))
