"""`deeprnn serve`: a page and an API for one trained model, or for two to be compared."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Callable

from .._util.extras import extra
from ..config import ServeConfig, select
from .console import show, silence
from .runs import use_threads

__all__ = ["build_serve"]

LOCAL = ("127.0.0.1", "localhost", "::1")


def build_serve(given: Mapping[str, Any]) -> Callable[[], int]:
    """Check the arguments, load the models and take the port; the result serves until a signal comes."""
    config = select(ServeConfig, given)
    local = is_loopback(config.host)
    if not local and not config.allow_remote:
        raise ValueError(
            f"host={config.host!r} can be reached from other machines: add allow_remote=True if you mean it"
        )
    if not local and not config.token_file:
        raise ValueError("allow_remote=True needs token_file=FILE, so that only those who have the token get in")
    token = read_token(config.token_file) if config.token_file else None
    for module in ("fastapi", "prometheus_client", "uvicorn"):
        extra(module, "serve")
    # One thread for each model; the other cores are for the connections, and for who asks.
    use_threads(0 if os.environ.get("OMP_NUM_THREADS") else 1)
    from ..serve.served import Limits, Served
    from ..serve.server import serve
    from .models import open_model

    limits = Limits(**{each.name: getattr(config, each.name) for each in fields(Limits)})
    models: list[Served] = []
    for source in filter(None, (given["model"], given.get("second"))):
        opened = open_model(Path(source), config.runtime, given.get("plugin"))
        name = Path(source).resolve().name
        if any(name == each.name for each in models):
            name += "-2"
        models.append(Served(name, opened.model, opened.vocab, opened.unit, opened.runtime, limits))
    listening = listen(config.host, config.port)
    host, port = listening.getsockname()[:2]
    named = [each.strip() for each in (config.hosts or "").split(",") if each.strip()]
    origins = [each.strip() for each in (config.cors or "").split(",") if each.strip()]
    address = f"[{host}]" if ":" in host else host

    def begun() -> None:
        try:
            show(f"serving {' and '.join(each.name for each in models)} at http://{address}:{port}/")
        except OSError:  # nobody reads standard output
            silence()

    def work() -> int:
        return serve(
            models,
            listening,
            limits=limits,
            hosts=[*LOCAL, host, config.host, *names_of_this_machine(host), *named],
            origins=origins,
            token=token,
            grace=config.grace,
            log_text=config.log_text,
            begun=begun,
        )

    return work


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of_this_machine(host: str) -> list[str]:
    """What others may call this machine, where the service listens at all of its addresses; else nothing."""
    if not ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        return []
    name = socket.gethostname()
    found = [name, socket.getfqdn(name)]
    with contextlib.suppress(OSError):  # no name of its own
        found += [str(address[0]) for *_, address in socket.getaddrinfo(name, None)]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # nothing is sent: it says by which address others are reached
        found.append(sock.getsockname()[0])
    return found


def read_token(path: str) -> str:
    """The token in a file, without white space around it.

    Raises
    ------
    OSError, ValueError
        For a file that cannot be read, and for a token that is too short or no printable ASCII.
    """
    token = Path(path).read_text(encoding="utf-8", errors="replace").strip()
    if len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"token_file={path!r} must have a token of at least 16 letters and digits")
    return token


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address.

    Raises
    ------
    ValueError
        If the address is in use, or does not belong to this machine.
    """
    sock = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1024)  # where two services begin at once, it is here that the second one fails
        return sock
    except OSError as error:
        if sock is not None:
            sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port={port} is in use on {host}: choose another, or port=0 for any that is free"
            ) from error
        if error.errno == errno.EACCES:
            raise ValueError(f"port={port} needs more rights than this user has: choose one from 1024 on") from error
        raise ValueError(f"host={host!r} cannot be used: {error.strerror or error}") from error
