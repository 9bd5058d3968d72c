"""Whether this package's native operator is in use; tolerates versions of the package that have none."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Optional

__all__ = ["native_status"]

HOMES = ("deeprnn.native", "deeprnn.nn.native")


def native_status() -> dict[str, Any]:
    """The operator's status for a record: ``available``, ``reason`` if not, ``instruction_set`` and ``threads``."""
    module = _module()
    if module is None:
        reason = "this version of the package has no native operator"
        return {"available": False, "reason": reason, "instruction_set": None, "threads": None}
    status = module.status()
    return {
        "available": bool(status.available),
        "reason": status.reason or None,
        "instruction_set": status.instruction_set or None,
        "threads": status.threads,
    }


def _module() -> Optional[ModuleType]:
    for name in HOMES:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
        else:
            if hasattr(module, "status"):
                return module
    return None
