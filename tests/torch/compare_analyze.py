#!/usr/bin/env python3
"""Analyzes the five trained models on inputs of their own evaluation, and carries out what is advised.

The inputs are those that the models' evaluation calls them with. For each choice that fourfold.analyze measured, and for
its advice, the error is computed again from quantize_dynamic alone, of the code that the report prints.

Exit status: 0; 1 where an error is not the one that the report says, or advised layers left in float do not
lower it; 2 where nothing could be analyzed.
"""

import argparse
import json
import sys
import warnings

try:
    import torch
    from torch import nn

    import fourfold
except ImportError as error:  # --help works without them
    missing_module = error
else:
    missing_module = None

from comparing import CannotCompare, add_models, load_evaluate

# Of the evaluation's calls every so many-th: about as many seconds for each model.
TASKS = {"charrnn": 20, "g2pm": 10, "g2p_en": 10, "silero": 4, "nnsplit": 3}


def spelled(network):
    """g2p_en's network, which has no forward of its own: scores of the phonemes, fed those that the evaluation fed it."""

    class Spelled(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, letters, phonemes):  # [steps, batch] both -> [steps, batch, 74]
            h = torch.zeros(letters.shape[1], 256)
            for letter in letters:
                h = self.network.encoder(self.network.enc_emb(letter), h)
            scores = []
            for phoneme in phonemes:
                h = self.network.decoder(self.network.dec_emb(phoneme), h)
                scores.append(self.network.fc(h))
            return torch.stack(scores)

    return Spelled().eval()


def model_and_calls(evaluate, task):
    """A model, and what its evaluation calls it with."""
    seen = {}

    def record(model):
        seen["model"], seen["calls"] = model, []
        model.register_forward_pre_hook(lambda _, args: seen["calls"].append(args))
        return model

    def record_spelling(model):
        seen["model"], seen["calls"] = spelled(model), []
        model.enc_emb.register_forward_pre_hook(lambda _, args: note(0, args[0]))
        model.dec_emb.register_forward_pre_hook(lambda _, args: note(1, args[0]))
        return model

    def note(which, ids):  # a batch begins with the first letters after phonemes
        if not seen["calls"] or (which == 0 and seen["calls"][-1][1]):
            seen["calls"].append(([], []))
        seen["calls"][-1][which].append(ids)

    getattr(evaluate, task)(record_spelling if task == "g2p_en" else record)
    calls = seen["calls"]
    if task == "g2p_en":
        calls = [(torch.stack(letters), torch.stack(phonemes)) for letters, phonemes in calls]
    for module in seen["model"].modules():
        module._forward_pre_hooks.clear()
    return seen["model"], calls[:: TASKS[task]]


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value.flatten().double()] if value.is_floating_point() else []
    return [tensor for part in value for tensor in tensors_of(part)]


def error_of(model, changed, calls):
    """Mean distance over mean magnitude of all that they return."""
    expected, actual = (
        torch.cat([t for call in calls for t in tensors_of(m(*call))]) for m in (model, changed)
    )
    return ((actual - expected).abs().mean() / expected.abs().mean()).item()


def analyze(evaluate, task, seconds):
    """A row of the table."""
    model, calls = model_and_calls(evaluate, task)
    report = fourfold.analyze(model, calls, seconds=seconds)
    names = [layer.name for layer in report.layers]
    wrong = []
    for choice in report.choices:
        kept = {name for name in names if name not in choice.leave}
        again = error_of(model, fourfold.quantize_dynamic(model, kept), calls)
        if abs(again - choice.error) > 1e-3 * choice.error:
            wrong.append(f"without {choice.leave}: {again:.6f}, not {choice.error:.6f}")
    advised = eval(report.code, {"fourfold": fourfold, "torch": torch, "nn": nn, "model": model})
    carried_out = error_of(model, advised, calls)
    if report.advice.leave and carried_out >= report.difference.relative:
        wrong.append("what is advised does not lower the error")
    return {
        "model": task,
        "calls": len(calls),
        "layers": len(names),
        "times_smaller": report.bytes.ratio,
        "error": report.difference.relative,
        "costliest": report.by_error()[0].name,
        "leave": report.advice.leave,
        "error_said": report.advice.error,
        "error_measured": carried_out,
        "choices": len(report.choices),
        "wrong": wrong,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_models(parser)
    parser.add_argument("--only", choices=list(TASKS), nargs="+", default=list(TASKS), help="(default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    if missing_module is not None:
        print(
            f"compare_analyze: needs PyTorch 2.13, safetensors and fourfold: {missing_module}",
            file=sys.stderr,
        )
        return 2
    warnings.filterwarnings("ignore", "analyze: the latency is no measure")  # it is not looked at
    rows = []
    try:
        evaluate = load_evaluate(args.models)
        with torch.no_grad():
            for task in args.only:
                rows.append(analyze(evaluate, task, seconds=0.1))
                if not args.json:
                    print_row(rows[-1])
    except CannotCompare as error:
        print(f"compare_analyze: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows, indent=2))
    return 1 if any(row["wrong"] for row in rows) else 0


def print_row(row):
    advice = f"leave {', '.join(row['leave'])}" if row["leave"] else "quantize everything"
    print(
        f"{row['model']:8} {row['calls']:3} calls, {row['layers']} layers, {row['times_smaller']:.2f} times smaller, "
        f"error {100 * row['error']:.3f} %, costliest {row['costliest']}; {advice}: said {100 * row['error_said']:.3f} %, "
        f"measured {100 * row['error_measured']:.3f} %; {row['choices']} choices: {'; '.join(row['wrong']) or 'all as said'}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
