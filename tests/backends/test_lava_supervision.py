"""However a Lava run ends, no process and no shared memory of it stays, and nobody else's is touched.

A run's processes are told by a mark in the environment, which all descendants inherit; its shared memory by the prefix that its
worker was given; its files by a folder for temporary files of its own. All are looked up in /proc, /dev/shm and that folder.
"""

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sparsespike.backends.lava import LavaBackend, job
from sparsespike.backends.lava.environment import lava_python
from sparsespike.backends.lava.worker import PREFIX_VARIABLE
from sparsespike.backends.testing import CASES, assert_equal, reference
from sparsespike.common.errors import BackendError, BackendTimeoutError

MARK = "SPARSESPIKE_TEST_MARK"
SHARED_MEMORY = Path("/dev/shm")
STEPS = 1_000_000  # half an hour and more
WORKER_PROCESSES = 1 + 3 + 2 + 1 + 2  # worker, populations, projections, runtime service, Python's two for shared memory
PATIENCE = 60  # seconds; everything here takes a few on an idle machine

CALLER = f"""
import os, signal, sys, threading, time
from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.testing import CASES

def fork_when_told():
    if sys.stdin.readline() and os.fork() == 0:
        time.sleep(600)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so would this
threading.Thread(target=fork_when_told, daemon=True).start()
graph, inputs, _ = CASES["single_neuron"]()
LavaBackend(time_limit=None).run(graph, inputs[:1], {STEPS})
"""


def until(condition, what):
    """Wait until ``condition()`` is true, and give back its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain: {what}"
        time.sleep(0.02)
    return value


def environment(pid):
    """Environment that a process was started with; empty if it is gone, or dead and not yet reaped."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(pair.decode(errors="replace").split("=", 1) for pair in pairs if b"=" in pair)


class Trace:
    """What a run leaves in the system."""

    def __init__(self, folder):
        self.mark = secrets.token_hex(8)
        self.temporary = folder / ("long-" * 20)  # Lava puts a socket there, and the path of a socket is limited to 107 bytes
        self.temporary.mkdir()
        self.foreign = SHARED_MEMORY / f"psm_{secrets.token_hex(8)}_{secrets.token_hex(4)}"
        self.foreign.write_bytes(b"somebody else's")
        self.prefix = None

    @property
    def environment(self):
        return {MARK: self.mark, "TMPDIR": str(self.temporary)}

    def processes(self, session=None):
        """Process ids of supervisor, worker and Lava, which are those with the mark outside the caller's session."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (variables := environment(entry.name)).get(MARK) == self.mark:
                self.prefix = variables.get(PREFIX_VARIABLE, self.prefix)
                try:
                    if os.getsid(int(entry.name)) != (session or os.getsid(0)):
                        found.append(int(entry.name))
                except ProcessLookupError:
                    continue
        return found

    def worker_processes(self):
        return [pid for pid in self.processes() if PREFIX_VARIABLE in environment(pid)]

    def segments(self):
        return [path.name for path in SHARED_MEMORY.iterdir() if self.prefix and self.prefix in path.name]

    def running(self, session=None):
        """Whether all of Lava's processes are there, and its shared memory."""
        return len(self.processes(session)) >= 1 + WORKER_PROCESSES and len(self.segments()) > 0

    def assert_nothing_left(self, session=None):
        until(lambda: not self.processes(session), f"processes {self.processes(session)} are to end")
        until(lambda: not self.segments(), f"segments {self.segments()} are to be unlinked")
        until(lambda: not list(self.temporary.iterdir()), f"files {list(self.temporary.iterdir())} are to be removed")
        assert self.foreign.read_bytes() == b"somebody else's"


@pytest.fixture
def trace(tmp_path):
    trace = Trace(tmp_path)
    yield trace
    for pid in trace.processes(session=-1):
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
    for name in (trace.foreign.name, *trace.segments()):
        (SHARED_MEMORY / name).unlink()


@pytest.fixture
def caller(trace):
    """A process in a session of its own that runs Lava for half an hour."""
    with subprocess.Popen(
        [sys.executable, "-c", CALLER],
        env={**os.environ, **trace.environment},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def supervisor_of(caller, trace):
    (pid,) = (pid for pid in trace.processes(caller.pid) if PREFIX_VARIABLE not in environment(pid))
    return pid


def sigkill(caller, trace):
    caller.kill()
    return -signal.SIGKILL, ""


def sigterm(caller, trace):
    caller.terminate()
    return -signal.SIGTERM, ""


def ctrl_c(caller, trace):
    os.killpg(caller.pid, signal.SIGINT)
    return -signal.SIGINT, "KeyboardInterrupt"


def sigterm_to_supervisor(caller, trace):
    os.kill(supervisor_of(caller, trace), signal.SIGTERM)
    return 1, "BackendError: backend 'lava': the run's supervisor was told to end"


def sigkill_to_supervisor(caller, trace):
    os.kill(supervisor_of(caller, trace), signal.SIGKILL)
    return 1, "BackendError: backend 'lava': the run's supervisor ended with exit code -9"


@pytest.mark.parametrize("end", [sigkill, sigterm, ctrl_c, sigterm_to_supervisor, sigkill_to_supervisor])
def test_ending_a_run(caller, trace, end):
    until(lambda: trace.running(caller.pid), "Lava runs")
    code, message = end(caller, trace)
    _, output = caller.communicate(timeout=PATIENCE)
    assert caller.returncode == code
    assert message in output
    trace.assert_nothing_left(caller.pid)


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.0])
def test_killing_the_caller_while_the_run_starts(caller, trace, seconds):
    until(lambda: trace.processes(caller.pid), "the supervisor starts")
    time.sleep(seconds)
    trace.processes(caller.pid)  # learns the prefix, if there is one by now
    caller.kill()
    trace.assert_nothing_left(caller.pid)


def test_killing_a_caller_whose_child_holds_the_pipe_open(caller, trace):
    until(lambda: trace.running(caller.pid), "Lava runs")
    everybody = len(trace.processes(session=-1))
    caller.stdin.write("fork\n")
    caller.stdin.flush()
    until(lambda: len(trace.processes(session=-1)) > everybody, "the caller forks")
    caller.kill()
    trace.assert_nothing_left(caller.pid)
    assert len(trace.processes(session=-1)) == 1  # the caller's child is none of our business


@pytest.fixture
def marked(trace, monkeypatch):
    """Runs of this very process carry the mark; their worker's prefix is learnt while they run."""
    for name, value in trace.environment.items():
        monkeypatch.setenv(name, value)
    done = threading.Event()

    def learn():
        while not done.wait(0.05):
            trace.processes()

    thread = threading.Thread(target=learn)
    thread.start()
    yield trace
    done.set()
    thread.join()


def endless(time_limit=None):
    graph, inputs, _ = CASES["single_neuron"]()
    LavaBackend(time_limit=time_limit).run(graph, inputs[:1], STEPS)


def test_time_limit(marked):
    with pytest.raises(
        BackendTimeoutError,
        match=r"longer than its time limit of 5 s .* --time-limit SECONDS, or LavaBackend\(time_limit=seconds\)",
    ):
        endless(time_limit=5)
    marked.assert_nothing_left()
    assert marked.prefix is not None


@pytest.mark.parametrize(
    ("array", "broken", "message"),
    [
        ("population/1/bias", np.ones(7), r"population 'hidden', Lava time step 2 failed: ValueError"),
        ("projection/1/indices", np.zeros(1, np.int64), r"projection 'hidden' -> 'readout', Lava time step 2 failed: TypeError"),
        ("population/2/v_init", np.zeros(7), r"population 'readout', Lava time step 3 failed: ValueError"),
        ("projection/0/pointers", None, r"the worker failed: KeyError: 'pointers'"),
    ],
)
def test_exception_inside_lava_reaches_the_caller(marked, array, broken, message):
    graph, inputs, steps = CASES["single_neuron"]()
    whole = job.describe(graph, inputs, steps, frozenset(), "events")
    arrays = {**whole.arrays, array: broken}
    if broken is None:
        del arrays[array]
    with pytest.raises(BackendError, match=f"backend 'lava': {message}") as caught:
        LavaBackend().execute([replace(whole, arrays=arrays)])
    assert "Traceback (most recent call last)" in str(caught.value)
    assert "backends/lava/processes/" in str(caught.value)
    marked.assert_nothing_left()


def limited(folder, limit):
    """An interpreter with a limit on its processes."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nulimit {limit}\nexec {lava_python()} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_out_of_memory_says_what_to_do_and_fewer_images_run(marked, tmp_path):
    graph, inputs, steps = CASES["single_neuron"]()
    images = np.resize(inputs, (2**20, 1))
    backend = LavaBackend(python=limited(tmp_path, f"-v {4 * 2**20}"))  # KiB of addresses, several times what a small run takes
    with pytest.raises(BackendError) as caught:
        backend.run(graph, images, 2000)  # the readout alone takes 16 GiB
    assert str(caught.value) == (
        "backend 'lava': the worker failed: out of memory ([Errno 12] Cannot allocate memory); run fewer images at once "
        "(simulate --block, run_blocks(block=...)), or fewer steps"
    )
    marked.assert_nothing_left()
    assert_equal(backend.run(graph, images[:2], steps), reference(graph, inputs[:2], steps))


def test_out_of_memory_in_a_lava_process(marked):
    """One that is asked for more images side by side than any machine has addresses for."""
    graph, inputs, steps = CASES["no_hidden"]()
    whole = job.describe(graph, inputs, steps, frozenset(), "current")
    with pytest.raises(
        BackendError, match=r"failed: out of memory \(Unable to allocate 8\.00 PiB .*; run fewer images"
    ) as caught:
        LavaBackend().execute([replace(whole, block=2**50)])
    assert "\n" not in str(caught.value)
    marked.assert_nothing_left()


def test_no_room_for_results_says_what_to_do(marked, tmp_path):
    """The system refuses files beyond 20 KiB, as it does on a full disk."""
    graph, inputs, steps = CASES["single_neuron"]()
    with pytest.raises(BackendError, match=r"the worker failed: no room for its files \(.* File too large.*TMPDIR$") as caught:
        LavaBackend(python=limited(tmp_path, "-f 40")).run(graph, np.resize(inputs, (200, 1)), steps)
    assert "\n" not in str(caught.value)
    marked.assert_nothing_left()


def children(pid):
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()]


def worker_of(trace):
    (worker,) = [pid for pid in trace.worker_processes() if children(pid)]
    return worker


def kill_worker(trace):
    os.kill(worker_of(trace), signal.SIGKILL)


def kill_a_lava_process(trace):
    os.kill(max(children(worker_of(trace))), signal.SIGKILL)


@pytest.mark.parametrize(
    ("victim", "message"),
    [
        (kill_worker, "the worker ended with exit code -9"),
        (kill_a_lava_process, "a Lava process failed: it died with exit code -9"),
    ],
)
def test_death_inside_lava_reaches_the_caller(marked, victim, message):
    def kill():
        until(marked.running, "Lava runs")
        time.sleep(0.3)
        victim(marked)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(BackendError, match=message):
        endless()
    thread.join()
    marked.assert_nothing_left()
