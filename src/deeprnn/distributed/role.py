"""What a process is among those that train together, by MXNet's own environment variables."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

__all__ = ["Role"]


@dataclass(frozen=True)
class Role:
    """A process of a run of several.

    Parameters
    ----------
    kind : {'scheduler', 'server', 'worker'}
        ``DMLC_ROLE``. Workers train, servers add up their gradients, the scheduler introduces all to each other.
    address, port
        ``DMLC_PS_ROOT_URI`` and ``DMLC_PS_ROOT_PORT``: where the scheduler listens; at the port after it for `hub`.
    workers, servers : int
        ``DMLC_NUM_WORKER`` and ``DMLC_NUM_SERVER``: how many there are in all.
    number : int, optional
        ``DMLC_WORKER_ID`` of a worker, ``DMLC_SERVER_ID`` of a server, from 0; by default they are numbered as they
        come. Worker 0 writes the run.
    """

    kind: str
    address: str
    port: int
    workers: int
    servers: int
    number: Optional[int] = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Optional[Role]:
        """The role of this process; None if it is on its own.

        Raises
        ------
        ValueError
            For a variable that is missing or wrong, by its name.
        """
        kind = environment.get("DMLC_ROLE")
        if not kind:
            return None
        if kind not in ("scheduler", "server", "worker"):
            raise ValueError(f"DMLC_ROLE must be scheduler, server or worker, got {kind!r}")
        address = environment.get("DMLC_PS_ROOT_URI")
        if not address:
            raise ValueError("DMLC_PS_ROOT_URI is not set: it must be the address of the scheduler")
        port = _number(environment, "DMLC_PS_ROOT_PORT", 1, 65534)
        workers, servers = (_number(environment, f"DMLC_NUM_{each}", 1, 10_000) for each in ("WORKER", "SERVER"))
        interface = environment.get("DMLC_INTERFACE")
        if interface and interface not in (name for _, name in socket.if_nameindex()):
            raise ValueError(f"DMLC_INTERFACE={interface} is not a network interface of this machine")
        name, count = f"DMLC_{kind.upper()}_ID", {"worker": workers, "server": servers}.get(kind, 0)
        number = _number(environment, name, 0, count - 1) if count and environment.get(name) else None
        return cls(kind, address, port, workers, servers, number)

    @property
    def expected(self) -> list[str]:
        """The names of the workers and servers."""
        counts = (("worker", self.workers), ("server", self.servers))
        return [f"{kind} {number}" for kind, count in counts for number in range(count)]


def _number(environment: Mapping[str, str], name: str, least: int, most: int) -> int:
    value = environment.get(name, "")
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return int(value)
