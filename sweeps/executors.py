"""Where units are computed: processes of this machine (joblib's loky), or a Dask cluster."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require

R = TypeVar("R")

QUIET = {"TERM": "dumb", **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}}
"""Environment of a worker: no bars on the terminal, and sums in one order, whatever the machine."""

ANY_PORT = ":0"
"""For the dashboard: its usual port may be another cluster's."""

PROTOCOLS = ("tcp", "tls")
"""In which a scheduler of Dask is reached."""

PARENT_SECONDS = 0.5
"""How often a worker looks whether the sweep is still there."""


class LocalWorkers:
    """Processes of this machine, one unit each at a time. If one is killed, only its unit is lost, and it is replaced.

    Parameters
    ----------
    jobs : int
    """

    attempts = 3

    def __init__(self, jobs: int) -> None:
        if jobs < 1:
            raise ConfigError(f"sweep: found {jobs} jobs, expected at least 1")
        self.slots = jobs
        self._all = [_new_pool() for _ in range(jobs)]
        self._free: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for pool in self._all:
            self._free.put(pool)

    def submit(self, function: Callable[..., R], /, *arguments: object) -> Future[R]:
        """Call ``function(*arguments)`` in a free process; wait for one if there is none."""
        pool = self._free.get()
        future: Future[R] = pool.submit(function, *arguments)
        future.add_done_callback(lambda ended: self._free.put(self._renewed(pool, ended)))
        return future

    def _renewed(self, pool: ProcessPoolExecutor, ended: Future[Any]) -> ProcessPoolExecutor:
        if ended.cancelled() or not isinstance(ended.exception(), BrokenProcessPool):
            return pool
        new = _new_pool()
        self._all.append(new)
        return new

    def close(self) -> None:
        """End all processes, at once."""
        for pool in self._all:
            pool.shutdown(wait=True, kill_workers=True)


def _new_pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=1, env=QUIET, initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, were it by a kill: its unit is taken up again by the next run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


@contextmanager
def local(jobs: int) -> Iterator[LocalWorkers]:
    """Processes of this machine, ended when the body ends."""
    workers = LocalWorkers(jobs)
    try:
        with warnings.catch_warnings():
            # loky replaces a worker whose memory has grown, as importing torch makes it grow; no unit is lost by that.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
            yield workers
    finally:
        workers.close()


class DaskWorkers:
    """The workers of a Dask cluster. A unit whose worker is lost is given to another one, by Dask.

    Parameters
    ----------
    client : distributed.Client
    """

    slots = 10_000
    """All that are ready: the scheduler knows how many workers there are, and their number may change."""
    attempts = 1
    """Dask itself has tried several workers before it gives up."""

    def __init__(self, client: Any) -> None:
        self._executor = client.get_executor(pure=False)

    def submit(self, function: Callable[..., R], /, *arguments: object) -> Future[R]:
        """Call ``function(*arguments)`` on the cluster."""
        future: Future[R] = self._executor.submit(function, *arguments)
        return future


@contextmanager
def dask(where: str, slurm: Mapping[str, Any] | None = None) -> Iterator[DaskWorkers]:
    """A Dask cluster.

    Parameters
    ----------
    where : str
        ``local:N`` starts N worker processes here, ``slurm`` submits jobs to SLURM, else the address of a scheduler.
    slurm : mapping
        Settings of the jobs, for ``slurm``; see :func:`slurm_cluster`.

    Raises
    ------
    ConfigError
        If the address is malformed, or no scheduler answers there.
    MissingExtraError
        If Dask is not installed.
    """
    distributed = require("distributed", extra="dask")
    kind, _, count = where.partition(":")
    forms = "its address, such as tcp://host:8786, local:N or slurm"
    if kind != "local" and where != "slurm" and not _is_address(where):
        # Dask finds that out, and the next, when it has made a client, which then takes a minute to end.
        raise ConfigError(f"Dask cluster {where!r}: found no address of a scheduler, expected {forms}")
    if where.startswith("tls:") and distributed.Security().get_connection_args("client")["ssl_context"] is None:
        raise ConfigError(f"Dask cluster {where!r}: found no certificate, expected one in Dask's settings distributed.comm.tls")
    if kind == "local":
        if not count.isdecimal() or int(count) < 1:
            raise ConfigError(f"Dask cluster {where!r}: expected local:N with N worker processes, at least 1")
        cluster: Any = distributed.LocalCluster(n_workers=int(count), threads_per_worker=1, dashboard_address=ANY_PORT, env=QUIET)
    elif where == "slurm":
        settings = dict(slurm or {})
        jobs = settings.pop("jobs", 1)
        cluster = slurm_cluster(settings)
        cluster.scale(jobs=jobs)
    else:
        cluster = None
    try:
        try:
            client = distributed.Client(where if cluster is None else cluster, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"Dask cluster {where!r}: no scheduler answers ({error}); expected {forms}") from error
        with client:
            yield DaskWorkers(client)
    finally:
        if cluster is not None:
            cluster.close()


def _is_address(text: str) -> bool:
    """Whether a text has the form of a scheduler's address: a protocol, which may be left out, host and port."""
    try:
        parts = urlsplit(text if "://" in text else f"tcp://{text}")
        return parts.scheme in PROTOCOLS and bool(parts.hostname and parts.port) and parts.geturl().endswith(f":{parts.port}")
    except ValueError:  # a port that is no number, or too large
        return False


def slurm_cluster(settings: Mapping[str, Any]) -> Any:
    """Jobs of SLURM as a Dask cluster of ``processes`` workers a job; none is submitted yet.

    Parameters
    ----------
    settings : mapping
        Of ``dask_jobqueue.SLURMCluster``: ``queue``, ``account``, ``cores``, ``processes``, ``memory``, ``walltime`` ...

    Raises
    ------
    MissingExtraError
        If dask-jobqueue is not installed.
    """
    jobqueue = require("dask_jobqueue", extra="dask")
    cores = settings.get("cores", 1)
    environment = [f"export {name}={value}" for name, value in QUIET.items()]
    prologue = [*environment, *settings.get("job_script_prologue", [])]
    scheduler = {"dashboard_address": ANY_PORT}
    return jobqueue.SLURMCluster(
        **{"cores": cores, "processes": cores, "scheduler_options": scheduler, **settings, "job_script_prologue": prologue}
    )
