"""Plugins: cells in the user's own code, which registers them by name when it is loaded."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .language_model import cells, register_cell

__all__ = ["load_plugin"]


def load_plugin(plugin: str, cell: str) -> None:
    """Execute a plugin, so that `cell` is registered.

    Parameters
    ----------
    plugin
        A Python file or a module that calls `register_cell`, such as ``mgu.py`` or ``package.module``; or a class to be
        registered as `cell`, such as ``mgu.py:MGUCell`` or ``package.module:MGUCell``.
    cell
        Name of the cell.

    Raises
    ------
    ValueError
        If the plugin cannot be found or executed, lacks the class, or does not register the cell.
    """
    source, _, attribute = plugin.partition(":")
    module = _executed(source, plugin)
    if attribute:
        found = getattr(module, attribute, None)
        if found is None:
            raise ValueError(f"plugin {plugin}: {source} has no {attribute}")
        try:
            register_cell(cell, found)
        except (TypeError, ValueError) as error:
            raise ValueError(f"plugin {plugin}: {error}") from error
    if cell not in cells():
        raise ValueError(
            f"plugin {plugin} does not register the cell {cell!r}: call deeprnn.models.register_cell({cell!r}, Class) "
            f"in it, or name the class, as {source}:Class"
        )


def _executed(source: str, plugin: str) -> ModuleType:
    path = Path(source).expanduser()
    if path.suffix == ".py" and not path.is_file():
        raise ValueError(f"plugin {plugin}: no such file")
    try:
        if path.suffix != ".py":
            return importlib.import_module(source)
        spec = importlib.util.spec_from_file_location(f"deeprnn_plugin_{path.stem}", path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # as for an import: dataclasses, for example, look the module up
        spec.loader.exec_module(module)
        return module
    except ModuleNotFoundError as error:
        hint = "; the name of a file ends in .py" if error.name == source else ""
        raise ValueError(f"plugin {plugin} cannot be loaded: {error}{hint}") from error
    except Exception as error:  # whatever the user's code raises
        raise ValueError(f"plugin {plugin} cannot be loaded: {type(error).__name__}: {error}") from error
