"""One process of a distributed run: it trains as a worker, or serves as a server or the scheduler."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Callable, NoReturn, Optional

from .._util.checks import check_devices
from ..config import RunConfig
from ..data.reading import is_stream
from ..distributed.role import Role
from ..distributed.watch import watched
from .console import silence
from .runs import use_threads

if TYPE_CHECKING:
    from ..distributed.workers import Alone

__all__ = ["join", "serving"]


def join(role: Optional[Role], run: RunConfig) -> Alone:
    """Wait for all workers, and return them. From here on only worker 0 writes to standard output.

    Raises
    ------
    ValueError
        If the option kvstore and the environment contradict each other, or the scheduler cannot be reached.
    """
    config = run.train
    several = config.kvstore.startswith("dist")
    if several and not role:
        raise ValueError(
            f"kvstore={config.kvstore!r} is for several processes: deeprnn launch --workers 2 -- train ... starts them "
            "on one machine; any other launcher must set DMLC_ROLE and the related variables "
            "(docs/several_processes.md)"
        )
    if role and not several:
        raise ValueError(f"DMLC_ROLE={role.kind} is set, so kvstore={config.kvstore!r} must be 'dist_sync'")
    parts = (role.workers if role else 1) * len(check_devices("ctx", config.ctx))
    if run.data.batch_size < parts:
        raise ValueError(f"batch_size={run.data.batch_size} cannot be shared by the {parts} devices of all workers")
    if role and is_stream(run.data.corpus):
        raise ValueError(
            f"corpus={run.data.corpus!r} is standard input, which several workers cannot read: give a file"
        )
    use_threads(config.threads)
    if not role:
        from ..distributed.workers import Alone

        return Alone()
    stay_inside(role)
    watch = watched(role, config.timeout)
    if watch.number:
        silence()
    from ..distributed.workers import Workers

    return Workers(config.kvstore, watch)


def serving(role: Role, timeout: float) -> Callable[[], NoReturn]:
    """What a server or the scheduler does, until its watch ends the process."""
    stay_inside(role)
    watched(role, timeout)

    def work() -> NoReturn:
        import mxnet  # noqa: F401  # which serves, in these roles

        raise RuntimeError(f"MXNet has stopped serving as {role.kind}")

    return work


def stay_inside(role: Role) -> None:
    """Let MXNet listen at this machine's own address alone if that is where the scheduler is."""
    try:
        local = ipaddress.ip_address(role.address).is_loopback
    except ValueError:
        local = role.address == "localhost"
    if local:
        os.environ.setdefault("DMLC_INTERFACE", "lo")
