#!/usr/bin/env python3
"""Make torch.safetensors: what PyTorch's own modules compute, for the C++ tests to compare with (README.md).

Each case is one module with its options, its float32 weights, an input, and the outputs. All of a case is
drawn after torch.manual_seed(case number), so a case does not depend on those before it, and the same PyTorch
on the same kind of CPU gives the same bytes.
"""

import argparse
import collections
import itertools
import json
import os
import pathlib
import struct
import sys
import warnings

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

# How many cases of each recurrent module.
RECURRENT_COUNTS = {("LSTM", None): 54, ("GRU", None): 40, ("RNN", "tanh"): 30, ("RNN", "relu"): 30}

# hidden_size, by the number of cells (layers times directions), as the file must stay small. Each list is
# used in turn; the large ones pass one and two vectors of 16 floats, with tails.
HIDDEN_SIZES = {
    1: (33, 4, 17, 35, 16, 20, 9, 32),
    2: (7, 17, 3, 12, 20, 5, 33, 8),
    3: (5, 11, 2, 18, 9),
    4: (3, 10, 6, 17, 4),
    6: (4, 7, 2, 9, 3),
}
SMALLEST = (
    1,
    1,
)  # input_size and hidden_size of the first case of each recurrent module, where it has no projection
INPUT_SIZES = (5, 1, 8, 20, 3, 13, 17, 10)
CELL_SIZES = (
    (3, 5),
    (8, 33),
    (1, 1),
    (20, 16),
    (7, 17),
    (16, 8),
    (5, 20),
    (11, 35),
)  # input_size, hidden_size
SATURATING = 4.0  # factor of the weights in every third recurrent case

RECURRENT_FACTORS = {
    "layout": ("batched", "unbatched", "sorted lengths", "unsorted lengths", "equal lengths"),
    "num_layers": (1, 2, 3),
    "bidirectional": (False, True),
    "state": (False, True),
    "batch_first": (False, True),
    "bias": (True, False),
    "dropout": (0.0, 0.25),
    "projection": (False, True),
}

DTYPES = {torch.float32: "F32", torch.int64: "I64"}

# One case: its entry in the list of cases without "name", and its tensors by name.
Case = collections.namedtuple("Case", "entry tensors")


def covering_rows(factors, count):
    """`count` different choices of one value a factor: every pair of values occurs, and most triples.

    Takes the row that adds most triples, again and again; rows that add equally many are taken in a scattered
    order. Returns a list of dictionaries.
    """
    rows = list(itertools.product(*factors.values()))
    scatter = sorted(range(len(rows)), key=lambda i: i * 2654435761 % 2**32)
    groups = {i: set(itertools.combinations(enumerate(rows[i]), 3)) for i in scatter}
    covered, chosen = set(), []
    for _ in range(count):
        best = max(groups, key=lambda i: len(groups[i] - covered))
        covered |= groups.pop(best)
        chosen.append(dict(zip(factors, rows[best])))

    pairs = {pair for row in rows for pair in itertools.combinations(enumerate(row), 2)}
    found = {pair for row in chosen for pair in itertools.combinations(enumerate(row.values()), 2)}
    if found != pairs:
        raise ValueError(f"{count} rows leave out {len(pairs - found)} pairs")
    return chosen


def build(kind, options, scale=1.0):
    """A module in evaluation mode, its weights as PyTorch draws them, times `scale`. Needs torch.no_grad."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="dropout option adds dropout after all but last")
        module = getattr(torch.nn, kind)(**options).eval()
    for parameter in module.parameters():
        parameter.mul_(scale)
    return module


def make_case(kind, options, module, tensors, *, state=False, lengths=False, unbatched=False):
    """Puts a case together; the module's parameters come first, under "weight/"."""
    entry = {"kind": kind, "options": options, "state": state, "lengths": lengths, "unbatched": unbatched}
    weights = {f"weight/{name}": parameter for name, parameter in module.named_parameters()}
    return Case(entry, {**weights, **tensors})


def weight_scale(number, nonlinearity):
    """Weights that saturate gates, in every third case of a gated kind.

    Not of a plain RNN: with ReLU its values would grow with time, and with tanh it would be chaotic and multiply
    every rounding on the way, PyTorch's own too.
    """
    return SATURATING if number % 3 == 2 and nonlinearity is None else 1.0


def draw_lengths(layout, time, batch):
    """Lengths int64 [batch], the longest `time`; None where the layout gives none, as all have that."""
    if not layout.endswith("lengths"):
        return None
    if layout == "equal lengths":
        return torch.full((batch,), time)
    lengths = torch.randint(1, time + 1, (batch,))
    lengths[0] = time
    lengths = lengths.sort(descending=True).values
    if layout == "unsorted lengths":
        lengths[-1] = 1
        lengths = lengths.roll(1)  # the shortest first, then the longest
    return lengths


def recurrent_case(number, index, kind, nonlinearity, row, hidden_size):
    """LSTM, GRU or RNN; `index` counts the cases of one kind, `row` is a choice of RECURRENT_FACTORS."""
    torch.manual_seed(number)
    layout = row["layout"]
    time, batch = 1 + 4 * index % 9, 1 + 3 * index % 5
    if layout in ("sorted lengths", "unsorted lengths"):
        time, batch = (size if size > 2 else size + 3 for size in (time, batch))
    input_size = INPUT_SIZES[index * 3 % len(INPUT_SIZES)]
    if index == 0 and not row["projection"]:
        input_size, hidden_size = SMALLEST

    options = {"input_size": input_size, "hidden_size": hidden_size}
    options |= {name: row[name] for name in ("num_layers", "bias", "batch_first", "dropout", "bidirectional")}
    if kind == "LSTM":
        options["proj_size"] = (hidden_size + 1) // 2 if row["projection"] else 0
    if kind == "RNN":
        options["nonlinearity"] = nonlinearity
    module = build(kind, options, weight_scale(number, nonlinearity))

    unbatched = layout == "unbatched"
    if unbatched:
        shape = [time]
    else:
        shape = [batch, time] if row["batch_first"] else [time, batch]
    tensors = {"input": torch.randn(*shape, input_size)}
    lengths = draw_lengths(layout, time, batch)
    if lengths is not None:
        tensors["lengths"] = lengths

    state = None
    if row["state"]:
        cells = row["num_layers"] * (1 + row["bidirectional"])
        leading = [cells] if unbatched else [cells, batch]
        tensors["h0"] = torch.randn(*leading, options.get("proj_size") or hidden_size)
        if kind == "LSTM":
            tensors["c0"] = torch.randn(*leading, hidden_size)
        state = (tensors["h0"], tensors["c0"]) if kind == "LSTM" else tensors["h0"]

    given = tensors["input"]
    if lengths is not None:
        given = pack_padded_sequence(given, lengths, batch_first=row["batch_first"], enforce_sorted=False)
    output, last = module(given, state)
    if lengths is not None:
        output, _ = pad_packed_sequence(output, batch_first=row["batch_first"], total_length=time)
    last = last if kind == "LSTM" else (last,)
    tensors |= {"output": output, **dict(zip(("h_n", "c_n"), last))}
    return make_case(
        kind, options, module, tensors, state=row["state"], lengths=lengths is not None, unbatched=unbatched
    )


def recurrent_cases(first):
    number = first
    for (kind, nonlinearity), count in RECURRENT_COUNTS.items():
        factors = dict(RECURRENT_FACTORS)
        if kind != "LSTM":
            factors["projection"] = (False,)
        hidden_sizes = {cells: itertools.cycle(sizes) for cells, sizes in HIDDEN_SIZES.items()}
        for index, row in enumerate(covering_rows(factors, count)):
            hidden_size = next(hidden_sizes[row["num_layers"] * (1 + row["bidirectional"])])
            yield recurrent_case(number, index, kind, nonlinearity, row, hidden_size)
            number += 1


def cell_case(number, index, kind, nonlinearity, bias, unbatched, has_state):
    """One step: the states are h_n (and c_n) alone, as a cell has no output besides."""
    torch.manual_seed(number)
    input_size, hidden_size = CELL_SIZES[index * 3 % len(CELL_SIZES)]
    options = {"input_size": input_size, "hidden_size": hidden_size, "bias": bias}
    if kind == "RNNCell":
        options["nonlinearity"] = nonlinearity
    module = build(kind, options, weight_scale(number, nonlinearity))

    leading = [] if unbatched else [1 + index % 5]
    tensors = {"input": torch.randn(*leading, input_size)}
    state = None
    if has_state:
        tensors["h0"] = torch.randn(*leading, hidden_size)
        if kind == "LSTMCell":
            tensors["c0"] = torch.randn(*leading, hidden_size)
        state = (tensors["h0"], tensors["c0"]) if kind == "LSTMCell" else tensors["h0"]
    last = module(tensors["input"], state)
    last = last if kind == "LSTMCell" else (last,)
    tensors |= dict(zip(("h_n", "c_n"), last))
    return make_case(kind, options, module, tensors, state=has_state, unbatched=unbatched)


def cell_cases(first):
    number = first
    for kind, nonlinearity in (
        ("LSTMCell", None),
        ("GRUCell", None),
        ("RNNCell", "tanh"),
        ("RNNCell", "relu"),
    ):
        choices = itertools.product(range(2), (True, False), (False, True), (False, True))
        for index, (turn, bias, unbatched, has_state) in enumerate(choices):
            # The second turn has the sizes in another order.
            yield cell_case(number, index + turn, kind, nonlinearity, bias, unbatched, has_state)
            number += 1


def linear_cases(first):
    sizes = ((7, 5), (33, 20), (16, 35))  # in_features, out_features
    shapes = ([], [4], [3, 2])
    for number, (size, bias, shape) in enumerate(itertools.product(sizes, (True, False), shapes), first):
        torch.manual_seed(number)
        options = {"in_features": size[0], "out_features": size[1], "bias": bias}
        module = build("Linear", options)
        values = torch.randn(*shape, size[0])
        yield make_case("Linear", options, module, {"input": values, "output": module(values)})


def embedding_options(num_embeddings, embedding_dim, padding_idx):
    return {
        "num_embeddings": num_embeddings,
        "embedding_dim": embedding_dim,
        "padding_idx": padding_idx,
        "max_norm": None,
        "norm_type": 2.0,
        "scale_grad_by_freq": False,
        "sparse": False,
    }


def build_embedding(kind, options):
    """The row of padding_idx is drawn too: PyTorch makes it zero, but training or loading may fill it."""
    module = build(kind, options)
    module.weight.normal_()
    return module


def draw_indices(shape, num_embeddings, padding_idx):
    """Indices int64; padding is in every third place, and it alone fills the last row of 2-D ones."""
    indices = torch.randint(num_embeddings, shape)
    if padding_idx is not None:
        indices.view(-1)[::3] = padding_idx % num_embeddings
        if indices.dim() == 2:
            indices[-1] = padding_idx % num_embeddings
    return indices


def embedding_cases(first):
    shapes = ([7], [3, 4])
    dims = itertools.cycle((5, 17, 33))
    for number, (padding_idx, shape, rows) in enumerate(
        itertools.product((None, 2, -1), shapes, (9, 12)), first
    ):
        torch.manual_seed(number)
        options = embedding_options(rows, next(dims), padding_idx)
        module = build_embedding("Embedding", options)
        indices = draw_indices(shape, rows, padding_idx)
        yield make_case("Embedding", options, module, {"input": indices, "output": module(indices)})


def embedding_bag_cases(first):
    modes = (("sum", False), ("sum", True), ("mean", False), ("max", False))  # mode, per_sample_weights
    layouts = ("2-D", "offsets", "include_last_offset")
    dims = itertools.cycle((6, 17, 3, 33, 20))
    choices = itertools.product(modes, layouts, (None, 2))
    for number, ((mode, weighted), layout, padding_idx) in enumerate(choices, first):
        torch.manual_seed(number)
        options = embedding_options(10, next(dims), padding_idx)
        options |= {"mode": mode, "include_last_offset": layout == "include_last_offset"}
        module = build_embedding("EmbeddingBag", options)
        indices = draw_indices([4, 5] if layout == "2-D" else [11], 10, padding_idx)
        tensors = {"input": indices}
        if layout != "2-D":
            offsets = [0, 3, 4, 4, 9]  # the second bag holds one index, the third none
            if layout == "include_last_offset":
                offsets += [11]
            elif number % 4 < 2:
                offsets += [11]  # here an empty bag at the end
            tensors["offsets"] = torch.tensor(offsets)
        if weighted:
            tensors["per_sample_weights"] = torch.randn(indices.shape)
        tensors["output"] = module(indices, tensors.get("offsets"), tensors.get("per_sample_weights"))
        yield make_case("EmbeddingBag", options, module, tensors)


def all_cases():
    cases = []
    for cases_of in (recurrent_cases, cell_cases, linear_cases, embedding_cases, embedding_bag_cases):
        cases += cases_of(len(cases))
    return cases


def serialize(tensors, metadata):
    """The bytes of a safetensors file. The safetensors package orders metadata anew in each run."""
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # so that all data is aligned
    header, data = {"__metadata__": metadata}, []
    begin = 0
    for name, tensor in ordered:
        data.append(tensor.detach().contiguous().numpy().tobytes())
        end = begin + len(data[-1])
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)


def write(path, content):
    """Writes the file under another name, then renames it, so that no half of it is ever at `path`."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path(__file__).with_name("torch.safetensors"),
        help="the file to write (default: torch.safetensors beside this script)",
    )
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False  # it has no projection: one implementation for all cases
    with torch.no_grad():
        cases = all_cases()

    entries, tensors = [], {}
    for number, case in enumerate(cases):
        name = f"{number:03}"
        entries.append({"name": name, **case.entry})
        for tensor_name, tensor in case.tensors.items():
            if not tensor.isfinite().all():
                raise ValueError(f"{name}/{tensor_name} is not finite")
            tensors[f"{name}/{tensor_name}"] = tensor
    metadata = {
        "fourfold_golden": json.dumps(entries, separators=(",", ":")),
        "torch": torch.__version__.split("+")[0],
    }
    content = serialize(tensors, metadata)
    write(arguments.output, content)

    counts = collections.Counter(case.entry["kind"] for case in cases)
    by_kind = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    print(f"{arguments.output}: {len(cases)} cases, {len(tensors)} tensors, {len(content)} bytes: {by_kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
