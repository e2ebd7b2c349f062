"""The same jobs in this process, over processes and on a Ray cluster give the same results in the same order."""

import math
import os
import signal

import pytest

from trace_il.errors import UserError
from trace_il.parallel import parallel_map


def fail(number: int) -> int:
    if number == 3:
        raise ArithmeticError("job 3")
    return os.getpid()


def test_processes():
    assert list(parallel_map(math.sqrt, range(20), workers=1)) == list(parallel_map(math.sqrt, range(20), workers=2))
    assert os.getpid() not in set(parallel_map(fail, range(3), workers=2))
    with pytest.raises(ArithmeticError, match="job 3"):
        list(parallel_map(fail, range(5), workers=2))


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_an_error_and_nobody_waits_for_ever():
    with pytest.raises(UserError, match="was killed"):
        list(parallel_map(die, range(4), workers=2))


def test_ray_cluster():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        assert list(parallel_map(math.sqrt, range(20), workers=2, ray_address="auto")) == [
            math.sqrt(n) for n in range(20)
        ]
    finally:
        ray.shutdown()
