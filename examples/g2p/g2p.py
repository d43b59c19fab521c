"""English spelling to phonemes: g2p_en's network on int8 GRU cells.

g2p_en looks words up in a dictionary, and asks a small network for those that are not in it. That network runs on
NumPy in float there; here the same class runs it on fourfold.
"""

import argparse
import json
import math
import os
import random
import re
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

import fourfold
from fourfold.timing import time_in_turns

EXAMPLES = """
examples:
  python g2p.py quantizable recurrentness
      the phonemes of words, as the network spells them out
  python g2p.py --measure 5000
      how many of so many dictionary words come out as in float, and the time of one
  python g2p.py --measure 500 --json
"""
ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FOURFOLD_MODELS", ROOT.parent / "shared" / "models"))
DICTIONARY = MODELS / "g2p_en" / "cmudict.dict"


def import_g2p_en():
    """g2p_en's class. Its module downloads nltk's data when it is imported without them; here it does not."""
    try:
        import nltk

        download, nltk.download = nltk.download, lambda *_: False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an escape in its source
                from g2p_en.g2p import G2p
        finally:
            nltk.download = download
    except ImportError as error:
        raise SystemExit(
            f"g2p: {error.name} is missing: pip install --no-deps g2p-en && pip install nltk inflect"
        ) from None
    return G2p


class Network(nn.Module):
    """A GRU cell reads the letters, another one writes phonemes until it writes the end."""

    def __init__(self, variables) -> None:
        super().__init__()
        tensors = {name: torch.from_numpy(variables[name]) for name in variables.files}
        self.letters = nn.Embedding.from_pretrained(tensors["enc_emb"])
        self.phonemes = nn.Embedding.from_pretrained(tensors["dec_emb"])
        hidden, size = tensors["enc_w_hh"].shape[1], tensors["enc_emb"].shape[1]
        self.encoder, self.decoder = nn.GRUCell(size, hidden), nn.GRUCell(size, hidden)
        self.scores = nn.Linear(hidden, len(tensors["fc_w"]))
        for cell, prefix in ((self.encoder, "enc"), (self.decoder, "dec")):
            names = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
            cell.load_state_dict({name: tensors[f"{prefix}_{theirs}"] for name, theirs in names.items()})
        self.scores.load_state_dict({"weight": tensors["fc_w"], "bias": tensors["fc_b"]})

    def forward(self, letters: torch.Tensor, start: int, end: int, most: int) -> list[int]:
        """Letters' numbers [length] -> at most `most` phonemes' numbers."""
        h = None
        for letter in self.letters(letters):
            h = self.encoder(letter, h)
        written, phoneme = [], start
        while len(written) < most:
            h = self.decoder(self.phonemes.weight[phoneme], h)
            phoneme = int(self.scores(h).argmax())
            if phoneme == end:
                break
            written.append(phoneme)
        return written


def make_g2p(quantize=None):
    """g2p_en's G2p; with `quantize`, it runs its network as a module that `quantize` has changed.

    Without nltk's data it knows no sentences: predict(word) works, and a call does not.
    """

    class G2p(import_g2p_en()):
        def __init__(self) -> None:
            try:
                super().__init__()
            except LookupError:  # there are no data of nltk's
                self.load_variables()
            network = Network(self.variables).eval()
            self.variables.close()
            self.network = quantize(network) if quantize else network

        def predict(self, word: str) -> list[str]:
            if quantize is None:
                return super().predict(word)
            unknown = self.g2idx["<unk>"]
            letters = torch.tensor([self.g2idx.get(c, unknown) for c in word] + [self.g2idx["</s>"]])
            with torch.no_grad():
                written = self.network(letters, self.p2idx["<s>"], self.p2idx["</s>"], 20)
            return [self.idx2p[phoneme] for phoneme in written]

    return G2p()


def quantized(network: Network) -> nn.Module:
    return fourfold.quantize_dynamic(network, {nn.GRUCell, nn.Linear}, dtype=torch.qint8)


# ---- What is measured ----


def dictionary_words(path: Path, count: int) -> list[str]:
    """Words of CMUdict, shuffled, always alike."""
    if not path.exists():
        raise SystemExit(f"g2p: no such file: {path}; --dictionary names a cmudict.dict")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text in UTF-8"
        raise SystemExit(f"g2p: {path}: {reason}; --dictionary names a cmudict.dict") from None
    words = [
        word for word in dict.fromkeys(line.split(" ")[0] for line in lines) if re.fullmatch("[a-z]+", word)
    ]
    if not words:
        raise SystemExit(f"g2p: {path} has no words of the letters a to z; --dictionary names a cmudict.dict")
    random.Random(0).shuffle(words)
    return words[:count]


def state_bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())


def measure(words: list[str], seconds: float) -> dict:
    engines = {
        "g2p_en (NumPy)": make_g2p(),
        "torch float32": make_g2p(lambda network: network),
        "fourfold int8": make_g2p(quantized),
    }
    expected = [engines["g2p_en (NumPy)"].predict(word) for word in words]
    some = words[:20]
    times = time_in_turns(
        {name: lambda e=engine: [e.predict(word) for word in some] for name, engine in engines.items()},
        seconds,
        calls=1,
    )
    results = {}
    for name, engine in engines.items():
        got = [engine.predict(word) for word in words]
        results[name] = {
            "network_bytes": state_bytes(engine.network),
            "same_words": sum(a == b for a, b in zip(got, expected)),
            "microseconds_per_word": times[name] / len(some),
        }
    return {"words": len(words), "threads": torch.get_num_threads(), "engines": results}


def print_table(found: dict) -> None:
    threads = found["threads"]
    print(f"{found['words']} words of CMUdict, {threads} thread{'s' if threads > 1 else ''}\n")
    print(f"{'':14}  {'network':>10}  {'same phonemes as g2p_en':>24}  {'time of a word':>14}")
    for name, result in found["engines"].items():
        same = f"{result['same_words']} ({100 * result['same_words'] / found['words']:.2f} %)"
        print(
            f"{name:14}  {result['network_bytes'] / 1e6:7.2f} MB  {same:>24}  "
            f"{result['microseconds_per_word']:11.0f} µs"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="words to spell in phonemes")
    parser.add_argument(
        "--measure", type=int, metavar="N", help="compare with g2p_en on N words of the dictionary"
    )
    parser.add_argument("--dictionary", type=Path, help="a cmudict.dict, for --measure")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="of timing, for --measure (default: 10)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    if bool(arguments.words) == (arguments.measure is not None):
        parser.error("give words, or --measure N")
    if arguments.measure is None:
        for name in ("dictionary", "seconds"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name} is for --measure N")
    elif arguments.measure < 1:
        parser.error(f"--measure must be at least 1, got {arguments.measure}")
    if not 1 <= arguments.threads <= 1024:
        parser.error(f"--threads must be from 1 to 1024, got {arguments.threads}")
    seconds = 10.0 if arguments.seconds is None else arguments.seconds
    if not 0 < seconds < math.inf:
        parser.error(f"--seconds must be above 0 and finite, got {seconds:g}")
    try:
        fourfold.current_isa()
    except ValueError as error:  # the environment names none
        parser.exit(2, f"g2p: {error}\n")
    torch.set_num_threads(arguments.threads)
    if arguments.measure:
        found = measure(dictionary_words(arguments.dictionary or DICTIONARY, arguments.measure), seconds)
        print(json.dumps(found, indent=2)) if arguments.json else print_table(found)
        return 0
    for word in arguments.words:
        if not (word.isascii() and word.isalpha()):
            parser.error(
                f"'{word}': a word must be of the letters a to z, which are all that the network has seen"
            )
    g2p = make_g2p(quantized)
    spelled = {word: g2p.predict(word.lower()) for word in arguments.words}
    if arguments.json:
        print(json.dumps(spelled, indent=2))
    else:
        width = max(map(len, spelled))
        for word, phonemes in spelled.items():
            print(f"{word:{width}}  {' '.join(phonemes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
