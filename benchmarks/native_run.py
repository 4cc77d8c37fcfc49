"""All images of a file on the native backend, in a process that imports nothing else: prints seconds and memory as JSON.

python benchmarks/native_run.py GRAPH IMAGES.npy STEPS PREDICTIONS.npy
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.export.graphfile import load_graph


def peak_mib() -> float:
    """Peak resident memory of this process. (``getrusage`` would count what the parent held when it started this one.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def main(graph_file: str, images_file: str, steps: str, predictions_file: str) -> None:
    """Run them."""
    graph, images = load_graph(graph_file), np.load(images_file, mmap_mode="r")
    backend = NativeBackend(counting="computed")
    run_blocks(backend, graph, images[:64], 1)  # compiles what is compiled
    record = {"peak_MiB_before": peak_mib()}
    began, began_cpu = time.perf_counter(), time.process_time()
    result = run_blocks(backend, graph, images, int(steps))
    record |= {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu, "peak_MiB": peak_mib()}
    np.save(predictions_file, result.predictions)
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:])
