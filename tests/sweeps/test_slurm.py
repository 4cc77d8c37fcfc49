"""Jobs of SLURM: what is submitted."""

from __future__ import annotations

import sys

from sparsespike.cli.units import tables
from sparsespike.sweeps.executors import QUIET, slurm_cluster
from sparsespike.sweeps.experiment import parse_experiment

EXPERIMENT = """
name = "small"
[slurm]
jobs = 3
cores = 4
processes = 2
memory = "16GB"
walltime = "12:00:00"
queue = "gpu"
account = "lab"
job_extra_directives = ["--gres=gpu:1"]
job_script_prologue = ["module load python"]
[[study]]
name = "snm"
data = "digits"
convert = { method = "snm" }
"""


def test_the_job_script_has_what_the_experiment_says() -> None:
    settings = parse_experiment(EXPERIMENT, "small.toml", *tables()).slurm.settings()
    assert settings.pop("jobs") == 3
    with slurm_cluster(settings) as cluster:
        script = cluster.job_script()
    lines = script.splitlines()
    assert lines[0].startswith("#!")
    directives = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert {"-p gpu", "-A lab", "-n 1", "--cpus-per-task=4", "--mem=15G", "-t 12:00:00", "--gres=gpu:1"} <= directives
    (worker,) = (line for line in lines if "distributed.cli.dask_worker" in line or "dask worker" in line)
    assert worker.startswith(sys.executable)
    assert "--nworkers 2" in worker
    assert "--nthreads 2" in worker
    before = lines[: lines.index(worker)]
    assert "module load python" in before
    # Sums in one order on every machine: the libraries get one thread.
    assert {f"export {name}={value}" for name, value in QUIET.items()} <= set(before)


def test_a_job_has_a_worker_for_each_core_unless_said_otherwise() -> None:
    with slurm_cluster({"cores": 3, "memory": "6GB", "walltime": "01:00:00"}) as cluster:
        script = cluster.job_script()
    assert "--nworkers 3" in script
    assert "--nthreads 1" in script
