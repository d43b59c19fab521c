#!/usr/bin/env python3
"""examples/charlm as a user meets it: charlm_test.py [EMULATOR OPTIONS...] PATH_TO_CHARLM"""

import json
import struct
import unittest

from program import (
    BAD_USAGE,
    FAILED,
    PROGRAM,
    Test,
    floats,
    lstm_tensors,
    run,
    with_int8_weights,
    write_safetensors,
)


class Trained(Test):
    """The character model of crazydonkey200/tensorflow-char-rnn on the text that it was validated on."""

    def setUp(self):
        super().setUp()
        self.model = self.model_folder("charrnn_shakespeare")

    def needs_a_cpu(self):
        """The whole text takes a second, and a quarter of an hour under an emulator."""
        if len(PROGRAM) > 1:
            self.skipTest("an emulator takes too long for the whole text")

    def test_figures(self):
        self.needs_a_cpu()
        result = json.loads(self.ok(self.model, "--json"))
        print(result["perplexity"], result["file_bytes"], result["seconds"], result["isa"])
        self.assertEqual(result["characters"], 55769)
        # PyTorch's float perplexity is 4.3368; torch.ao's int8 4.3520.
        self.assertAlmostEqual(result["perplexity"]["float32"], 4.3368, delta=0.0005)
        self.assertLessEqual(result["perplexity"]["qint8"], 4.3385)
        self.assertEqual(result["perplexity"]["published"]["value"], 4.3353)
        self.assertIn("result.json", result["perplexity"]["published"]["source"])
        self.assertGreaterEqual(result["file_bytes"]["times_smaller"], 3.7)
        self.assertGreater(result["seconds"]["qint8"], 0)

    def test_table(self):
        self.needs_a_cpu()
        text = self.ok(self.model)
        for line in ("DynamicQuantizedLSTM(65, 128", "ROMEO:", "published: best_valid_ppl", "times smaller"):
            self.assertIn(line, text)

    def test_text_is_seeded(self):
        def written(*options):
            return json.loads(self.ok(self.model, "--json", "--text", self.text, *options))["text"]

        self.text = self.folder / "text"
        self.text.write_text("To be, or not to be, that is the question.\n")
        text = written("--seed", 7, "--prompt", "JULIET:")
        self.assertEqual(len(text), 300)
        self.assertEqual(text, written("--seed", 7, "--prompt", "JULIET:"))
        self.assertNotEqual(text, written("--seed", 8, "--prompt", "JULIET:"))
        self.assertNotEqual(text, written("--seed", 7, "--prompt", "ROMEO:"))
        self.assertEqual(written("--length", 0), "")
        # Near zero the likeliest character always wins, whatever is drawn.
        cold = [written("--temperature", 0.01, "--seed", seed, "--length", 50) for seed in (1, 2)]
        self.assertEqual(cold[0], cold[1])

    def test_text_of_ones_own(self):
        text = self.folder / "text"
        text.write_text("To be, or not to be, that is the question.\n")
        result = json.loads(self.ok(self.model, "--json", "--text", text))
        self.assertEqual(result["characters"], text.stat().st_size)
        self.assertNotIn("published", result["perplexity"])
        self.assertNotIn("published", self.ok(self.model, "--text", text))


class Refused(Test):
    def setUp(self):
        super().setUp()
        self.model, self.vocabulary = self.folder / "model.safetensors", self.folder / "vocab.json"
        self.text = self.folder / "tiny_shakespeare.txt"
        self.tensors = {
            **lstm_tensors("lstm.", 3, 128),
            **lstm_tensors("lstm.", 128, 128, "_l1"),
            "decoder.weight": floats(1, 3, 128),
            "decoder.bias": floats(2, 3),
        }
        write_safetensors(self.model, self.tensors)
        self.vocabulary.write_text('{"a": 0, "b": 1, "\\n": 2}')
        self.text.write_text("ab\nba\n" * 400)
        self.prompt = ("--prompt", "ab")

    def test_what_is_refused_below_is_right_but_for_one_thing(self):
        self.assertEqual(json.loads(self.ok(self.folder, "--json", *self.prompt))["characters"], 120)

    def test_options(self):
        self.refused(BAD_USAGE, "FOLDER")
        self.refused(BAD_USAGE, "--nonsense", self.folder, "--nonsense")
        self.refused(BAD_USAGE, "lacks '#', character 2 of it", self.folder, "--prompt", "a#")
        self.refused(BAD_USAGE, "lacks the byte 0xc3, character 2", self.folder, "--prompt", "aé")
        self.refused(BAD_USAGE, "must not be empty", self.folder, "--prompt", "")
        for value in ("0", "-1", "nan", "inf", "x", "1e9", ""):
            self.refused(BAD_USAGE, "--temperature", self.folder, *self.prompt, "--temperature", value)
        for value in ("-1", "1.5", "x", "99999999999"):
            self.refused(BAD_USAGE, "--length", self.folder, *self.prompt, "--length", value)
        self.refused(BAD_USAGE, "--seed", self.folder, *self.prompt, "--seed", "x")

    def test_missing_files(self):
        self.refused(FAILED, "nowhere/vocab.json: No such file", self.folder / "nowhere", *self.prompt)
        self.refused(FAILED, "Is a directory", self.folder, *self.prompt, "--text", self.folder)
        for path in (self.model, self.vocabulary, self.text):
            with self.subTest(path.name):
                content = path.read_bytes()
                path.unlink()
                self.refused(FAILED, path.name, self.folder, *self.prompt)
                path.write_bytes(content)

    def test_a_vocabulary_of_another_model(self):
        self.vocabulary.write_text('{"a": 0, "b": 1}')
        message = "vocab.json has 2 characters and model.safetensors is for 3"
        self.refused(FAILED, message, self.folder, *self.prompt)

    def test_texts(self):
        text = self.folder / "text"
        for content, message in (
            (b"", "0 characters to measure on; 20 streams need at least 21"),
            (b"ab" * 10, "20 characters to measure on"),
            (b"ab" * 20 + b"c", "lacks 'c', character 41 of it"),
            (b"ab\x00" * 20, "lacks the byte 0x00, character 3 of it"),
        ):
            text.write_bytes(content)
            self.refused(FAILED, message, self.folder, *self.prompt, "--text", text)

    def test_vocabularies(self):
        for content, message in (
            ("", "not a JSON object"),
            ("[1, 2]", "not a JSON object"),
            ("{}", "not a JSON object"),
            ("[" * 100_000, "not a JSON object"),
            ('{"a": 0, "b": 0, "c": 1}', "the numbers are not"),
            ('{"a": 0, "b": 1, "c": 3}', "the numbers are not"),
            ('{"a": 0, "b": 1, "c": -1}', "the numbers are not"),
            ('{"a": 0, "b": 1, "c": "2"}', "the numbers are not"),
            ('{"a": 0, "b": 1, "é": 2}', "a key is not one ASCII character"),
            ('{"a": 0, "b": 1, "": 2}', "a key is not one ASCII character"),
            ('{"a": 0, "b": 1}', "model.safetensors"),  # the model has three
        ):
            with self.subTest(content[:40]):
                self.vocabulary.write_text(content)
                self.refused(FAILED, message, self.folder, *self.prompt)

    def test_models(self):
        whole = self.model.read_bytes()
        for content in (b"", whole[:-1], struct.pack("<Q", 1 << 40), b"PK\x03\x04" + whole):
            self.model.write_bytes(content)
            self.refused(FAILED, "model.safetensors", self.folder, *self.prompt)
        write_safetensors(self.model, with_int8_weights(self.tensors))
        self.refused(FAILED, "model.safetensors: is quantized already", self.folder, *self.prompt)

    def test_help_and_full_disk(self):
        self.assertIn("Examples:", self.ok("--help"))
        for json_or_table in ((), ("--json",)):
            with open("/dev/full", "w") as full:
                result = run(self.folder, *self.prompt, *json_or_table, stdout=full)
            self.assertEqual(result.returncode, FAILED)
            self.assertIn("standard output", result.stderr)


if __name__ == "__main__":
    unittest.main()
