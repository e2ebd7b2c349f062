"""Independent jobs over processes: the cores of this machine, or a Ray cluster."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from .errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
KILLED = (
    "a worker process was killed, perhaps since memory ran out; ask for fewer with parallel.workers; the same command "
    "goes on with what is missing"
)


def core_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)  # one process a core: more threads would fight for the same cores


def _worker(parent: int) -> None:
    """What a process of this machine begins with. It ends when its parent does: a parent that is killed cannot tell
    its workers, which would wait for work for ever."""
    _one_thread()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def connect(ray_address: str) -> None:
    """Join a Ray cluster, once.

    Raises:
        UserError: Ray is not installed, or no cluster is there.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("parallel.ray_address needs Ray: pip install 'trace-il[cluster]'") from error
    if not ray.is_initialized():
        try:
            host, _, port = ray_address.partition(":")
            if port.isdigit():  # Ray itself waits for minutes where nobody listens
                socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address=ray_address, log_to_driver=False)
        except (OSError, ValueError) as error:
            raise UserError(f"no Ray cluster at parallel.ray_address={ray_address}: {error}") from error


def parallel_map(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int = 0, ray_address: str | None = None
) -> Iterator[Result]:
    """Results in the order of the jobs, as they become ready.

    Args:
        function: a picklable function, free of side effects on shared state.
        jobs: its arguments.
        workers: processes; 0: one a core (of the cluster, if one is given); 1: in this process.
        ray_address: address of a Ray cluster ("auto" for the one this machine belongs to); the same jobs
            are then spread over its machines.
    Raises:
        UserError: a worker was killed, or as `connect`.
    """
    if ray_address is None:
        workers = workers or core_count()
    if ray_address is None and workers == 1:
        yield from map(function, jobs)
        return
    if ray_address is not None:
        connect(ray_address)
        from ray.util.multiprocessing import Pool

        with Pool(workers or None, initializer=_one_thread) as cluster:
            yield from cluster.imap(function, jobs)
        return
    # "spawn": OpenGL contexts and thread pools do not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn"), _worker, (os.getpid(),)) as pool:
        try:
            yield from pool.map(function, jobs)
        except BrokenProcessPool as error:
            raise UserError(KILLED) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
