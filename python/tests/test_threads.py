"""Any number of threads, from any thread, and after fork: the same bits."""

import concurrent.futures
import os
import threading
import time

import pytest
import torch
from conftest import CELLS, SEQUENCES, Tagger

import fourfold

BIG = 384  # large enough for a team of threads


def modules():
    for kind, ours, options in SEQUENCES:
        yield ours.from_float(kind(BIG, BIG, **options)), torch.randn(3, 4, BIG)
    for kind, ours, options in CELLS:
        yield ours.from_float(kind(BIG, BIG, **options)), torch.randn(4, BIG)
    yield fourfold.nn.Linear(BIG, BIG), torch.randn(64, BIG)


def flat(result):
    return (
        [result] if isinstance(result, torch.Tensor) else [tensor for part in result for tensor in flat(part)]
    )


def same(actual, expected):
    return all(torch.equal(a, e) for a, e in zip(flat(actual), flat(expected)))


def test_one_thread_and_two_give_the_same_bits():
    for module, x in modules():
        torch.set_num_threads(1)
        expected = module(x)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert same(module(x), expected)
            assert fourfold.get_num_threads() == threads


def test_from_eight_threads_at_once():
    torch.set_num_threads(2)
    for module, _ in modules():
        size = getattr(module, "input_size", BIG)
        inputs = [torch.randn(3, size) for _ in range(8)]
        expected = [module(x) for x in inputs]
        module.__dict__["_packed"] = None  # and packed by whoever comes first
        start = threading.Barrier(8)

        def work(index, module=module, inputs=inputs, expected=expected, start=start):
            start.wait()
            return all(same(module(inputs[index]), expected[index]) for _ in range(10))

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(8)))


def test_other_threads_run_during_a_long_call():
    """The GIL is released where there is work: a thread that counts goes on counting."""
    module, x = fourfold.nn.LSTM(512, 512), torch.randn(200, 8, 512)
    torch.set_num_threads(1)
    stop, longest = threading.Event(), [0.0]

    def count():
        last = time.perf_counter()
        while not stop.is_set():
            now = time.perf_counter()
            longest[0] = max(longest[0], now - last)
            last = now

    counter = threading.Thread(target=count)
    module(x)
    counter.start()
    start = time.perf_counter()
    module(x)
    elapsed = time.perf_counter() - start
    stop.set()
    counter.join()
    assert longest[0] < max(0.7 * elapsed, 0.05)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_in_a_forked_child():
    torch.set_num_threads(2)
    cases = [(module, x, module(x)) for module, x in modules()]
    child = os.fork()
    if child == 0:  # nothing of pytest's may run here
        code = 1
        try:
            code = 0 if all(same(module(x), expected) for module, x, expected in cases) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(same(module(x), expected) for module, x, expected in cases)


def test_in_worker_processes(indices):
    quantized = fourfold.quantize_dynamic(Tagger())
    expected = quantized(indices)
    context = torch.multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert torch.equal(pool.submit(quantized, indices).result(), expected)


@pytest.mark.parametrize("threads", [0, -1, 100000])
def test_bad_numbers_of_threads(threads):
    with pytest.raises(ValueError, match="set_num_threads"):
        fourfold.set_num_threads(threads)


def test_bad_instruction_sets():
    with pytest.raises(ValueError, match="mmx"):
        fourfold.set_isa("mmx")
    assert fourfold.current_isa() == fourfold.supported_isas()[0] or "FOURFOLD_ISA" in os.environ
