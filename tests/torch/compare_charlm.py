#!/usr/bin/env python3
"""Compares build/examples/charlm with PyTorch on the trained character model.

Size of the file, perplexity of the validation text, and seconds that the network takes for it on one
thread, each the median of some rounds in which the engines take turns: PyTorch in float, torch.ao's
dynamic quantization, and fourfold in both.

Exit status: 0; 1 where fourfold's float perplexity is not PyTorch's within 0.0005 or its int8
perplexity is above torch.ao's; 2 where nothing could be compared.
"""

import argparse
import io
import json
import math
import statistics
import sys
import time
import warnings

try:
    import torch
    from safetensors.torch import load_file
except ImportError as error:  # --help works without them
    missing_module = error
else:
    missing_module = None

from comparing import CannotCompare, add_arguments, load_evaluate, run_json

STREAMS, STEPS = 20, 500


def torch_models(evaluate, folder):
    """PyTorch's network and torch.ao's."""
    model = evaluate.CharRNN()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    model.eval()
    with warnings.catch_warnings():  # torch.ao is deprecated
        warnings.simplefilter("ignore")
        quantized = torch.ao.quantization.quantize_dynamic(
            model, {torch.nn.LSTM, torch.nn.Linear}, dtype=torch.qint8
        )
    return {"torch float": model, "torch.ao int8": quantized}


def validation_ids(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    text = (folder / "tiny_shakespeare.txt").read_text()
    start = int(0.9 * len(text))
    return torch.tensor([vocabulary[c] for c in text[start : start + int(0.05 * len(text))]])


def measure(model, ids):
    """Perplexity, and the seconds in the network alone, as charlm counts them."""
    length = (len(ids) - 1) // STREAMS
    inputs = ids[: length * STREAMS].view(STREAMS, length).t()
    wanted = ids[1 : length * STREAMS + 1].view(STREAMS, length).t()
    state, loss, seconds = None, 0.0, 0.0
    for t in range(0, length, STEPS):
        one_hot = torch.nn.functional.one_hot(inputs[t : t + STEPS], 65).float()
        start = time.perf_counter()
        output, state = model.lstm(one_hot, state)
        logits = model.decoder(output)
        seconds += time.perf_counter() - start
        loss += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted[t : t + STEPS].flatten(), reduction="sum"
        ).item()
    return math.exp(loss / (length * STREAMS)), seconds


def saved_bytes(model):
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()


def compare(args):
    """Engine -> bytes, perplexity, seconds."""
    folder = args.models / "charrnn_shakespeare"
    theirs = torch_models(load_evaluate(args.models), folder)
    ids = validation_ids(folder)
    seconds, rows = {}, {}
    for _ in range(args.rounds):
        for name, model in theirs.items():
            perplexity, taken = measure(model, ids)
            rows[name] = {"bytes": saved_bytes(model), "perplexity": perplexity}
            seconds.setdefault(name, []).append(taken)
        ours = run_json([args.binary, folder, "--json", "--length", 0])
        for name, dtype in (("fourfold float", "float32"), ("fourfold int8", "qint8")):
            rows[name] = {"bytes": ours["file_bytes"][dtype], "perplexity": ours["perplexity"][dtype]}
            seconds.setdefault(name, []).append(ours["seconds"][dtype])
    for name, row in rows.items():
        row["seconds"] = statistics.median(seconds[name])
    return rows, ours["isa"], len(ids)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, "build/examples/charlm")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    args = parser.parse_args()
    if missing_module is not None:
        print(f"compare_charlm: needs PyTorch 2.13 and safetensors: {missing_module}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            rows, isa, characters = compare(args)
    except CannotCompare as error:
        print(f"compare_charlm: {error}", file=sys.stderr)
        return 2

    passed = (
        abs(rows["fourfold float"]["perplexity"] - rows["torch float"]["perplexity"]) <= 0.0005
        and rows["fourfold int8"]["perplexity"] <= rows["torch.ao int8"]["perplexity"]
    )
    if args.json:
        report = {"torch": torch.__version__, "isa": isa, "characters": characters, "engines": rows}
        print(json.dumps({**report, "passed": passed}, indent=2))
    else:
        print(f"PyTorch {torch.__version__}, fourfold on {isa}, one thread, {characters} characters")
        print(f"{'':15} {'bytes':>8} {'perplexity':>10} {'seconds':>8}")
        for name, row in rows.items():
            print(f"{name:15} {row['bytes']:>8} {row['perplexity']:>10.4f} {row['seconds']:>8.3f}")
        print("passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
