"""Makes mxnet 1.9.1 work under current versions of numpy and Python, without changing numpy for anybody else.

mxnet 1.9.1 reads names that numpy has since removed (`np.bool`, for example, in 1.24), and `distutils`, which Python
3.12 removed. `install`, which ``import deeprnn`` calls, puts a finder before Python's own. It gives the modules of
mxnet an import statement of their own, for which ``import numpy`` is a module with numpy's names and the removed ones.
The user's numpy is never changed or replaced. Where this package is installed, deeprnn-mxnet.pth (setup.py) has Python
do the same when mxnet is imported first.

Three changes that numpy 2 makes without an error are compensated, too:

- mxnet passes the parameters of an operator as text, and ``str((np.int64(2), 3))`` is no longer ``(2, 3)``;
- a Python number plus an `np.float32` is an `np.float32`, so `mx.metric` would sum and count in float32;
- `float` and `int` no longer take an array with an axis, which `NDArray.asscalar` returns for more than one axis.

With numpy below 1.24 and Python below 3.12, mxnet is left as it is. All knowledge of mxnet's internals for this is in
this file.
"""

from __future__ import annotations

import builtins
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType, SimpleNamespace

TYPE_CHECKING = False  # as type checkers know it; typing itself would take a third of the time of `import deeprnn`
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Optional

__all__ = ["find_spec", "install"]

# The modules that pass parameters to the engine as text.
TEXT = {"mxnet._ctypes.ndarray", "mxnet._ctypes.symbol", "mxnet.io.io", "mxnet.kvstore.base", "mxnet.symbol.symbol"}
# The functions that numpy 1.20 moved to numpy_financial; mxnet.numpy re-exports them.
FINANCIAL = ("mirr", "npv", "pmt", "ppmt", "pv", "rate")

# Types whose text has not changed, which nearly all parameters have: a shortcut, for speed.
SAME_TEXT = {int, float, bool, str, type(None)}

# The built-in names of mxnet's modules; empty until mxnet is imported.
_builtins: dict[str, Any] = {}


def install() -> None:
    """From now on, import mxnet with the names of numpy that it needs.

    Raises
    ------
    ImportError
        If mxnet has already been imported under numpy 2 by other means.
    """
    if _builtins or _Finder in sys.meta_path:
        return
    if "mxnet" in sys.modules and int(sys.modules["numpy"].__version__.partition(".")[0]) >= 2:
        raise ImportError(
            "mxnet was imported before deeprnn, under numpy 2, with which it computes wrongly: import deeprnn first"
        )
    sys.meta_path.insert(0, _Finder)


def find_spec(name: str, path: Optional[Sequence[str]] = None) -> Optional[ModuleSpec]:
    """The spec of a module of mxnet, with a loader that gives it the old names of numpy where they are needed."""
    spec = PathFinder.find_spec(name, path)
    if spec and spec.loader:
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            if name == "mxnet":
                _make_ready()
            if _builtins:
                vars(module)["__builtins__"] = _builtins
                if name in TEXT and repr(sys.modules["numpy"].int64(2)) != "2":
                    vars(module)["str"] = _Text
            execute(module)
            if _builtins and name in _MENDED:
                _MENDED[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]  # wrapped for this module alone
    return spec


def _make_ready() -> None:
    """Before mxnet is executed: prepare its import statement if it needs the old names."""
    import numpy

    if sys.version_info < (3, 12) and tuple(map(int, numpy.__version__.split(".")[:2])) < (1, 24):
        return
    # Modules that an earlier, failed import left behind have the wrong numpy.
    for left in [name for name in sys.modules if name.startswith("mxnet.")]:
        del sys.modules[left]
    _builtins.update(vars(builtins), __import__=_importer(numpy))


class _Finder:
    """Finds the modules of mxnet only."""

    @staticmethod
    def find_spec(
        name: str, path: Optional[Sequence[str]] = None, target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        return find_spec(name, path) if name == "mxnet" or name.startswith("mxnet.") else None


# --- the names that are gone


def _importer(numpy: ModuleType) -> Callable[..., ModuleType]:
    """The import statement of mxnet's modules: Python's, except for numpy itself and `distutils.version`."""
    old = ModuleType("numpy")
    vars(old).update(vars(numpy), **_removed(numpy))  # with `__getattr__`, which loads numpy's submodules
    versions = SimpleNamespace(LooseVersion=_Version, StrictVersion=_Version)

    def import_(name: str, *arguments: Any, **named: Any) -> Any:
        if name == "distutils.version":
            return versions
        module = builtins.__import__(name, *arguments, **named)
        return old if module is numpy else module

    return import_


def _removed(numpy: Any) -> dict[str, Any]:
    """The names that mxnet reads and some version of numpy has removed. Each function is an object of its own, not an
    alias: mxnet.numpy uses them as keys of its registry."""
    names: dict[str, Any] = dict(bool=bool, int=int, NAN=numpy.nan, NaN=numpy.nan, Inf=numpy.inf, PINF=numpy.inf)
    names.update(NINF=-numpy.inf, PZERO=0.0, NZERO=-0.0, compat=SimpleNamespace(basestring=str))
    if hasattr(numpy.lib, "array_utils"):  # from 2.0 on, where `core` warns
        tuples = SimpleNamespace(normalize_axis_tuple=numpy.lib.array_utils.normalize_axis_tuple)
        names["core"] = SimpleNamespace(numeric=tuples)
    trapezoid = getattr(numpy, "trapezoid", None) or numpy.trapz
    names.update(
        alltrue=lambda *arguments, **named: numpy.all(*arguments, **named),
        sometrue=lambda *arguments, **named: numpy.any(*arguments, **named),
        product=lambda *arguments, **named: numpy.prod(*arguments, **named),
        round_=lambda *arguments, **named: numpy.round(*arguments, **named),
        trapz=lambda *arguments, **named: trapezoid(*arguments, **named),
        in1d=lambda first, second, **named: numpy.isin(numpy.ravel(first), second, **named),
        msort=lambda array: numpy.sort(array, axis=0),
    )
    names.update((name, _refused(name)) for name in FINANCIAL)
    return names


def _refused(name: str) -> Callable[..., Any]:
    def refused(*arguments: Any, **named: Any) -> Any:
        raise RuntimeError(f"numpy has no {name} since 1.20: it is in the package numpy_financial")

    return refused


class _Version:
    """A version as `distutils.version` compared them, as far as mxnet does."""

    def __init__(self, text: str) -> None:
        self.numbers = [int(part) for part in text.split(".")[:2]]

    def __ge__(self, other: _Version) -> bool:
        return self.numbers >= other.numbers


# --- what numpy 2 changes without an error


class _AnyStr(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, str)


class _Text(metaclass=_AnyStr):
    """Replaces `str` in the modules that pass parameters as text."""

    def __new__(cls, value: object) -> str:  # type: ignore[misc]  # it returns a str, as str() does
        if isinstance(value, (tuple, list)) and not SAME_TEXT.issuperset(map(type, value)):
            value = _plain(value)
        return str(value)


def _plain(value: Any) -> Any:
    """A value with Python's scalars in place of numpy's, which numpy 1 printed in the same way."""
    if isinstance(value, (tuple, list)):
        return (tuple if isinstance(value, tuple) else list)(map(_plain, value))
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.floating):
        return float(str(value))  # the digits of its own precision
    return value.item() if isinstance(value, numpy.generic) else value


class _Double:
    """An attribute that keeps floats in double precision, so that sums are in double precision."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if self.name not in vars(instance):
            raise AttributeError(f"{owner.__name__} has no {self.name}: it is set by reset()")
        return vars(instance)[self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        numpy = sys.modules["numpy"]
        vars(instance)[self.name] = numpy.float64(value) if isinstance(value, (float, numpy.floating)) else value


def _mend_metric(module: Any) -> None:
    for name in ("sum_metric", "global_sum_metric", "num_inst", "global_num_inst"):
        setattr(module.EvalMetric, name, _Double(name))


def _mend_asscalar(module: Any) -> None:
    original = module.NDArray.asscalar

    def asscalar(self: Any) -> Any:
        value = original(self)
        return value.reshape(-1)[0] if value.ndim else value

    asscalar.__doc__ = original.__doc__
    module.NDArray.asscalar = asscalar


_MENDED: dict[str, Callable[[Any], None]] = {
    "mxnet.metric": _mend_metric,
    "mxnet.ndarray.ndarray": _mend_asscalar,
}
