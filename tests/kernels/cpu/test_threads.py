"""The CPU kernel with threads: concurrent callers, forks, affinity, and the thread sanitizer.

The problems are large enough for several threads; the caller computes a small one alone.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kernels import mf_loss_and_grads
from kernels.cpu import build
from kernels.cpu.threads import UNLIMITED, quota_in, threads_from
from tests.kernels.cpu.test_build import needs_kernel, run_python, runtime_library

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def random_arguments(m, n, rank):
    mask = torch.rand(m, n) < 0.8
    return (
        torch.randn(m, rank),
        torch.randn(n, rank),
        torch.randn(m),
        torch.randn(n),
        torch.randn(()),
        torch.rand(m, n),
        mask,
    )


@needs_kernel
def test_calls_from_several_threads_do_not_disturb_each_other():
    cases = [random_arguments(100 + 37 * index, 400 - 41 * index, 3 + 9 * index) for index in range(6)]
    alone = [mf_loss_and_grads(*case, backend="native") for case in cases]

    def repeat(index):
        return [mf_loss_and_grads(*cases[index], backend="native") for _ in range(30)]

    with ThreadPoolExecutor(len(cases)) as pool:
        for (loss, grads), runs in zip(alone, pool.map(repeat, range(len(cases))), strict=True):
            for other_loss, other_grads in runs:
                assert torch.equal(loss, other_loss)
                assert all(map(torch.equal, grads, other_grads))


@needs_kernel
def test_a_call_from_many_threads_at_once_takes_what_threads_there_are():
    run = run_python(
        """
        import threading, torch
        from kernels import mf_loss_and_grads
        torch.manual_seed(0)
        torch.set_num_threads(64)  # more than there are cores; the pool starts one thread per core
        arguments = [torch.randn(900, 8), torch.randn(800, 8), torch.randn(900), torch.randn(800), torch.randn(()),
                     torch.rand(900, 800)]
        alone = mf_loss_and_grads(*arguments, backend="native")
        started, differing = threading.Barrier(8), []

        def repeat():
            started.wait()
            for _ in range(50):
                loss, grads = mf_loss_and_grads(*arguments, backend="native")
                if not (torch.equal(loss, alone[0]) and all(map(torch.equal, grads, alone[1]))):
                    differing.append(loss)

        callers = [threading.Thread(target=repeat) for _ in range(8)]
        for caller in callers: caller.start()
        for caller in callers: caller.join()
        print(len(differing))
        """
    )
    assert run.stdout.strip() == "0", run.stderr


@needs_kernel
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_other_threads_compute_gets_the_same_result():
    run = run_python(
        """
        import os, threading, torch
        from kernels import mf_loss_and_grads
        torch.manual_seed(0)
        torch.set_num_threads(2)
        arguments = [torch.randn(700, 16), torch.randn(800, 16), torch.randn(700), torch.randn(800), torch.randn(()),
                     torch.rand(700, 800)]
        loss, grads = mf_loss_and_grads(*arguments, backend="native")
        done = threading.Event()

        def repeat():
            while not done.is_set():
                mf_loss_and_grads(*arguments, backend="native")

        caller = threading.Thread(target=repeat)
        caller.start()
        codes = []
        for _ in range(20):  # some forks happen while the pool is at work
            child = os.fork()
            if child == 0:
                again = [mf_loss_and_grads(*arguments, backend="native") for _ in range(3)]
                os._exit(any(l != loss or not all(map(torch.equal, g, grads)) for l, g in again))
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        done.set()
        caller.join()
        print(codes == [0] * 20)
        """
    )
    assert run.stdout.strip() == "True", run.stderr


@needs_kernel
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_computes_too():
    run = run_python(
        """
        import os, torch
        from kernels import mf_loss_and_grads
        torch.set_num_threads(2)
        arguments = [torch.rand(600, 16), torch.rand(800, 16), torch.rand(600), torch.rand(800), torch.rand(()),
                     torch.rand(600, 800)]
        loss, _ = mf_loss_and_grads(*arguments, backend="native")
        child = os.fork()
        if child == 0:
            again, _ = mf_loss_and_grads(*arguments, backend="native")
            os._exit(0 if again == loss else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert run.stdout.strip() == "0", run.stderr


@needs_kernel
@pytest.mark.compilers
@pytest.mark.skipif(shutil.which("setarch") is None, reason="the thread sanitizer needs fixed addresses (setarch)")
def test_the_thread_sanitizer_finds_nothing():
    library = runtime_library(build.find_compiler(), "tsan")
    if library is None:
        pytest.skip("the compiler has no thread sanitizer")
    run = run_python(
        """
        import threading, torch
        from kernels import encode_ratings, mf_loss_and_grads
        torch.set_num_threads(2)

        def repeat(m):
            parameters = [torch.randn(m, 16), torch.randn(800, 16), torch.randn(m), torch.randn(800), torch.randn(())]
            ratings = torch.rand(m, 800)
            for density in (0.5, 0.1):  # with a copy of the items' gradients for every thread, and taking turns
                sparse = encode_ratings(ratings, ratings < density, layout="sparse")
                raw = torch.sparse_csr_tensor(sparse.rows, sparse.columns.long(), sparse.values, (m, 800))
                for _ in range(10):
                    mf_loss_and_grads(*parameters, sparse, backend="native")
                    mf_loss_and_grads(*parameters, raw, backend="native")
            for _ in range(20):
                mf_loss_and_grads(*parameters, ratings, backend="native")

        callers = [threading.Thread(target=repeat, args=(600 + index,)) for index in range(2)]
        for caller in callers: caller.start()
        for caller in callers: caller.join()
        print("clean")
        """,
        MFBENCH_SANITIZE="thread", LD_PRELOAD=library,
        TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1", before=("setarch", "-R"),
    )  # fmt: skip
    assert run.stdout.strip() == "clean", run.stderr[-4000:]


@needs_kernel
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of cores on this system")
def test_threads_stay_on_the_cores_that_the_user_chooses():
    run = run_python(
        """
        import os, torch
        from kernels import mf_loss_and_grads
        torch.set_num_threads(2)
        arguments = [torch.rand(600, 16), torch.rand(800, 16), torch.rand(600), torch.rand(800), torch.rand(()),
                     torch.rand(600, 800)]
        first, _ = mf_loss_and_grads(*arguments, backend="native")
        chosen = {min(os.sched_getaffinity(0))}
        threads = [int(name) for name in os.listdir("/proc/self/task")]
        for thread in threads: os.sched_setaffinity(thread, chosen)
        losses = [mf_loss_and_grads(*arguments, backend="native")[0] for _ in range(300)]
        print(all(loss == first for loss in losses), {os.sched_getaffinity(thread) == chosen for thread in threads})
        """
    )
    assert run.stdout.strip() == "True {True}", run.stderr


@needs_kernel
@pytest.mark.skipif(CORES < 2, reason="no helper thread on a single core")
def test_helpers_leave_the_core_of_their_caller():
    run = run_python(
        """
        import os, torch
        from kernels import mf_loss_and_grads
        torch.set_num_threads(2)
        arguments = [torch.rand(600, 16), torch.rand(800, 16), torch.rand(600), torch.rand(800), torch.rand(()),
                     torch.rand(600, 800)]
        before = set(os.listdir("/proc/self/task"))
        mf_loss_and_grads(*arguments, backend="native")
        (helper,) = map(int, set(os.listdir("/proc/self/task")) - before)
        cores, helpers = os.sched_getaffinity(0), []
        for core in sorted(cores)[:2] * 3:
            pair = {core, max(cores - {core})}
            os.sched_setaffinity(0, {core})
            os.sched_setaffinity(0, pair)  # may migrate now, but a running thread does not do so at once
            mf_loss_and_grads(*arguments, backend="native")
            helpers.append(os.sched_getaffinity(helper) == pair - {core})
        print(helpers.count(True))
        """
    )
    assert int(run.stdout) >= 4, run.stderr


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("environment", "threads"),
    [
        ({}, 0),
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "2"}, 0),  # not started by torchrun
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "1"}, 0),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "2"}, 8),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "3"}, 5),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "64"}, 1),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "3"}, 0),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "2", "MFBENCH_THREADS": "1"}, 1),
        ({"MFBENCH_THREADS": "5"}, 5),
    ],
)
def test_threads_that_an_environment_asks_for(environment, threads):
    assert threads_from(environment, cores=16) == threads


@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_a_number_of_threads_that_is_none(value):
    with pytest.raises(ValueError, match=rf"^MFBENCH_THREADS: expected a positive number, got '{value}'"):
        threads_from({"MFBENCH_THREADS": value}, cores=16)


@needs_kernel
@pytest.mark.skipif(CORES < 2, reason="one core")
def test_a_process_of_torchrun_starts_helpers_on_its_share_of_the_cores():
    code = """
        import os, torch
        os.environ["LOCAL_WORLD_SIZE"] = "2"
        os.sched_getaffinity = lambda pid: set(range(4))
        from kernels import mf_loss_and_grads
        assert torch.get_num_threads() == 1
        arguments = [torch.randn(900, 8), torch.randn(800, 8), torch.randn(900), torch.randn(800), torch.randn(())]
        before = len(os.listdir("/proc/self/task"))
        mf_loss_and_grads(*arguments, torch.rand(900, 800), backend="native")
        assert len(os.listdir("/proc/self/task")) == before + 1
    """
    run = run_python(code, **TORCHRUN)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "max 100000\n"}, UNLIMITED),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu.max": "\n"}, UNLIMITED),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, UNLIMITED),
        ({"cpu/cpu.cfs_quota_us": "350000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "350000\n"}, UNLIMITED),
        ({}, UNLIMITED),
    ],
)
def test_the_quota_of_either_version_of_control_groups(tmp_path, files, cpus):
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert quota_in(tmp_path) == cpus
