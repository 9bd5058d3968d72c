"""What a process is, by its environment."""

from __future__ import annotations

import pytest

from deeprnn.distributed.role import Role

FINE = {
    "DMLC_ROLE": "worker",
    "DMLC_PS_ROOT_URI": "10.0.0.1",
    "DMLC_PS_ROOT_PORT": "9091",
    "DMLC_NUM_WORKER": "4",
    "DMLC_NUM_SERVER": "2",
}


def test_roles():
    assert Role.from_environment({}) is None
    role = Role.from_environment(FINE)
    assert role == Role("worker", "10.0.0.1", 9091, 4, 2)
    assert role.expected == ["worker 0", "worker 1", "worker 2", "worker 3", "server 0", "server 1"]
    assert Role.from_environment({**FINE, "DMLC_WORKER_ID": "3", "DMLC_SERVER_ID": "9"}).number == 3
    assert Role.from_environment({**FINE, "DMLC_ROLE": "server", "DMLC_SERVER_ID": "1"}).number == 1
    assert Role.from_environment({**FINE, "DMLC_ROLE": "scheduler", "DMLC_WORKER_ID": "1"}).number is None


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("DMLC_ROLE", "boss", "must be scheduler, server or worker, got 'boss'"),
        ("DMLC_PS_ROOT_URI", "", "is not set"),
        ("DMLC_PS_ROOT_PORT", "65535", "must be a whole number from 1 to 65534, got '65535'"),
        ("DMLC_PS_ROOT_PORT", "", "must be a whole number"),
        ("DMLC_NUM_WORKER", "0", "must be a whole number from 1 to"),
        ("DMLC_NUM_SERVER", "two", "must be a whole number"),
        ("DMLC_WORKER_ID", "4", "must be a whole number from 0 to 3, got '4'"),
        ("DMLC_INTERFACE", "nowhere0", "is not a network interface of this machine"),
    ],
)
def test_mistakes(name, value, expected):
    with pytest.raises(ValueError, match=f"^{name}.*{expected}"):
        Role.from_environment({**FINE, name: value})
