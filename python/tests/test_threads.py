"""Any number of threads, from any thread, and after fork: the same bits."""

import concurrent.futures
import ctypes
import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import CELLS, SEQUENCES, Tagger

import fourfold
from fourfold import _core, _threads

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


@pytest.fixture(params=["OpenMP's threads", "own threads"])
def teams(request):
    """Both kinds of threads that teams run on."""
    wanted = request.param == "OpenMP's threads"
    if _core.use_openmp(wanted) != wanted:
        pytest.skip("PyTorch has no OpenMP here, or none whose threads others can use")
    yield wanted
    _threads.share_torch_threads()


# What a script in a process of its own begins with.
PREPARE = """
import os, sys
import torch, fourfold
torch.set_grad_enabled(False)
module, x = fourfold.nn.LSTM(384, 384), torch.randn(20, 8, 384)
linear, rows = fourfold.nn.Linear(384, 384), torch.randn(64, 384)
def run():  # bytes, since operators of PyTorch would use its threads
    return module(x)[0].numpy().tobytes() + linear(rows).numpy().tobytes()
def threads():
    return len(os.listdir("/proc/self/task"))
torch.set_num_threads(1)
expected = run()
"""


def run_script(script, **environment):
    result = subprocess.run(
        [sys.executable, "-c", PREPARE + script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.usefixtures("teams")
def test_one_thread_and_two_give_the_same_bits():
    for module, x in modules():
        torch.set_num_threads(1)
        expected = module(x)
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert same(module(x), expected)
            assert fourfold.get_num_threads() == threads


@pytest.mark.usefixtures("teams")
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
@pytest.mark.usefixtures("teams")
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


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP's threads are used on Linux")
def test_a_forked_child_imports_fourfold():
    """Its parent has used OpenMP, whose threads are not in the child and would be waited for."""
    script = """
torch.set_num_threads(2)
torch.randn(1_000_000).exp_()
child = os.fork()
if child == 0:
    fourfold._threads.share_torch_threads()
    os._exit(0 if run() == expected and threads() == 2 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run_script(script)


@pytest.mark.skipif(sys.platform != "linux", reason="OpenMP's threads are used on Linux")
def test_no_threads_beside_those_of_torch(teams):
    script = f"""
fourfold._core.use_openmp({teams})
torch.set_num_threads(2)
torch.randn(1_000_000).exp_()
before = threads()
for _ in range(3):
    assert run() == expected
print(threads() - before)
fourfold.set_num_threads(3)  # more than PyTorch's
assert run() == expected
"""
    assert int(run_script(script)) == (0 if teams else 1)


@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "4"},
        {"OMP_THREAD_LIMIT": "1"},
        {"OMP_DYNAMIC": "true"},
        {"OMP_WAIT_POLICY": "passive"},
    ],
    ids=lambda environment: "=".join(*environment.items()),
)
def test_settings_of_openmp(environment):
    script = """
for _ in range(10):
    for threads in (2, 3):
        fourfold.set_num_threads(threads)
        assert run() == expected
        torch.set_num_threads(threads)
        assert run() == expected
"""
    run_script(script, **environment)


@pytest.mark.skipif(sys.platform != "linux", reason="its limits are Linux's")
def test_no_memory_for_threads():
    """OpenMP would end the process; fourfold goes on with one thread."""
    script = """
import resource
torch.set_num_threads(2)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (4 << 20), -1))
before = threads()
assert run() == expected
assert threads() == before
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
assert run() == expected
assert threads() == before + 1
"""
    run_script(script)


def test_inside_a_parallel_region(teams):
    if not teams:
        pytest.skip("there is a region where there is OpenMP")
    module, x = fourfold.nn.LSTM(BIG, BIG), torch.randn(20, 8, BIG)
    torch.set_num_threads(2)
    expected, results = module(x), []
    runtime = ctypes.CDLL(None)

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def region(_):
        results.append(same(module(x), expected))

    for _ in range(5):
        runtime.GOMP_parallel(region, None, 2, 0)
    assert results == [True] * 10


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
