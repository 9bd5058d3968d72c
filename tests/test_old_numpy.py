"""Today's Python: mxnet has the numpy of its time, the user's is untouched, and numpy 2 changes no result."""

from __future__ import annotations

import ast
import configparser
import math
import re
import subprocess
import sys
import warnings
from pathlib import Path

import mxnet as mx
import numpy as np
import pytest
from mxnet import gluon

from deeprnn._util import old_numpy

PROJECT = Path(__file__).resolve().parents[1]
NEEDED = sys.version_info >= (3, 12) or tuple(map(int, np.__version__.split(".")[:2])) >= (1, 24)
NUMPY_2 = int(np.__version__.partition(".")[0]) >= 2
needed = pytest.mark.skipif(not NEEDED, reason="mxnet is left as it is where Python and numpy are of its time")


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python that has not loaded mxnet, without what an installed package adds at its start."""
    alone = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Deeprnn' not in str(f)]\n"
    path = f"sys.path.insert(0, {str(PROJECT / 'src')!r})\n"
    command = [sys.executable, "-W", "ignore", "-c", alone + path + program]
    return subprocess.run(command, capture_output=True, text=True)


def printed(program: str) -> str:
    done = python(program)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- what is imported, in which order


def test_the_users_numpy_is_the_same_with_the_same_names():
    """But for the modules of numpy that become attributes of it when they are loaded."""
    program = """
import numpy, types
before = dict(vars(numpy))
import deeprnn, mxnet
assert sys.modules["numpy"] is numpy
after = vars(numpy)
new = {name for name in after if name not in before and not isinstance(after[name], types.ModuleType)}
print(sorted(new), [name for name in before if after.get(name, numpy) is not before[name]])
"""
    assert printed(program) == "[] []"


def test_importing_the_package_loads_neither_mxnet_nor_numpy():
    assert printed("import deeprnn; print({'mxnet', 'numpy'} & set(sys.modules))") == "set()"


@needed
def test_mxnet_loads_after_an_import_of_it_has_failed():
    program = """
try:
    import mxnet
except Exception as error:
    print(type(error).__name__)
import deeprnn, mxnet as mx
print(mx.nd.ones((2, 3)).sum().asscalar(), mx.np.bool)
import numpy
print([name for name, module in sys.modules.items() if name[:6] == "mxnet." and getattr(module, "np", 0) is numpy])
"""
    assert printed(program).splitlines()[1:] == ["6.0 <class 'bool'>", "[]"]


def test_mxnet_loads_first_where_the_package_is_installed():
    start = (PROJECT / "src" / "deeprnn" / "mxnet.pth").read_text()
    assert start.count("\n") == 1 and start.startswith("import ")  # Python runs such lines alone
    program = f"""
exec({start!r})
import json
print('deeprnn' in sys.modules)
import mxnet as mx
import deeprnn
print(mx.nd.ones((2, 3)).sum().asscalar(), deeprnn.DeepRNN(3).__class__.__name__)
"""
    assert printed(program).splitlines() == ["False", "6.0 DeepRNN"]


def test_an_mxnet_imported_by_other_means_under_numpy_2_is_refused_in_one_line():
    program = """
import types, numpy
numpy.__version__ = "2.0.0"
sys.modules["mxnet"] = types.ModuleType("mxnet")
import deeprnn
"""
    done = python(program)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("ImportError: mxnet was imported before deeprnn, under numpy 2")
    assert printed(program.replace("2.0.0", "1.26.4") + "print('fine')") == "fine"


@pytest.mark.parametrize("version", ["1.23.5", "1.24.0", "1.26.4", "2.5.5"])
def test_mxnet_is_left_as_it_is_where_python_and_numpy_are_of_its_time(version):
    program = f"""
import numpy
numpy.__version__ = "{version}"
from deeprnn._util import old_numpy
old_numpy._make_ready()
print(bool(old_numpy._builtins))
"""
    assert printed(program) == str(sys.version_info >= (3, 12) or version != "1.23.5")


# --- the names


def read_by_mxnet() -> set[str]:
    """The names, with their dots, that the modules of mxnet read of numpy."""
    names = set()
    for file in Path(mx.__file__).parent.rglob("*.py"):
        if "gen_" in file.name or "numpy" not in (text := file.read_text(encoding="utf-8")):
            continue
        tree = ast.parse(text)
        imported = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        aliases = {alias.asname or alias.name for alias in imported if alias.name == "numpy"}
        for node in ast.walk(tree):
            parts = []
            while isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            if parts and isinstance(node, ast.Name) and node.id in aliases:
                names.add(".".join(reversed(parts[-3:])))
    return names


@needed
def test_mxnet_has_every_name_that_it_reads_of_numpy():
    its_numpy = sys.modules["mxnet.ndarray.ndarray"].np
    assert its_numpy is not np
    names = read_by_mxnet()
    assert {"bool", "float32", "core.numeric.normalize_axis_tuple"} <= names
    missing = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in names:
            owner = its_numpy
            for part in name.split("."):
                if owner is not its_numpy and not isinstance(owner, (type(np), old_numpy.SimpleNamespace)):
                    break  # a function or a type: its own attributes are as they were
                owner = getattr(owner, part, missing)
                if owner is missing:
                    missing.append(name)
                    break
    assert not missing


def test_the_functions_that_numpy_removed_work_in_mxnet():
    x = mx.np.array([[3.0, 0.0], [1.0, 2.0]])
    assert not mx.np.alltrue(x)
    assert mx.np.in1d(x, mx.np.array([1.0, 3.0])).tolist() == [True, False, True, False]
    assert mx.np.msort(x).tolist() == [[1, 0], [3, 2]]
    assert mx.np.trapz(mx.np.array([1.0, 2.0, 3.0])) == 4
    assert mx.np.pad(x, ((1, 0), (0, 0))).shape == (3, 2)
    assert mx.nd.moveaxis(mx.nd.zeros((2, 3, 4)), 0, -1).shape == (3, 4, 2)
    assert math.isinf(mx.np.PINF) and math.isnan(mx.np.NaN) and math.copysign(1, mx.np.NZERO) == -1
    with pytest.raises(RuntimeError, match=r"numpy_financial|NEP 32"):
        mx.np.npv(0.1, x)


def test_numpys_functions_reach_mxnets_as_before():
    x = mx.np.array([[3.0, 0.0], [1.0, 2.0]])
    with mx.util.np_shape():
        for value in (np.mean(x), np.sum(x), np.any(x), np.all(x), np.prod(x), np.around(x), np.concatenate([x, x])):
            assert isinstance(value, mx.np.ndarray)
        assert np.any(x) and not np.all(x) and np.prod(x) == 0


# --- what numpy 2 changes in silence


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((np.int64(2), 3), "(2, 3)"),
        ([np.float64(0.1), np.float32(0.1), np.float16(0.1)], "[0.1, 0.1, 0.1]"),
        ((np.float32(1e-5),), "(1e-05,)"),
        (((np.int32(1), None), [np.bool_(True)]), "((1, None), [True])"),
        ((np.str_("a"), "b"), "('a', 'b')"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.1), "0.1"),
        ((), "()"),
        ("a", "a"),
        (None, "None"),
    ],
)
def test_parameters_are_sent_as_numpy_1_printed_them(value, text):
    assert old_numpy._Text(value) == text
    assert isinstance(text, old_numpy._Text) and not isinstance(value if text != "a" else 1, old_numpy._Text)


def test_scalars_of_numpy_serve_as_parameters():
    two, three, tenth = np.int64(2), np.int32(3), np.float64(0.1)
    x = mx.nd.arange(6).reshape((two, three))
    assert x.shape == (2, 3)
    assert mx.nd.zeros((two, 3)).shape == (2, 3)
    assert mx.nd.slice(x, begin=(np.int64(0), np.int64(1)), end=(two, three)).shape == (2, 2)
    assert x[np.int64(1), np.int64(1) : three].asnumpy().tolist() == [4, 5]
    assert mx.nd.transpose(x, axes=(np.int64(1), np.int64(0))).shape == (3, 2)
    assert mx.nd.sum(x, axis=(np.int64(0), np.int64(1))).asscalar() == 15
    assert mx.np.zeros((two, three)).shape == (2, 3)

    data = mx.sym.var("data", shape=(two, three), lr_mult=tenth)
    assert data.attr("__shape__") == "(2, 3)" and data.attr("__lr_mult__") == "0.1"
    reshaped = mx.sym.reshape(data, shape=(three, two))
    assert reshaped.infer_shape(data=(2, 3))[1] == [(3, 2)]
    assert "np." not in reshaped.tojson()


def test_scalars_of_numpy_serve_in_layers_and_initializers():
    layer = gluon.nn.Dense(np.int64(2), weight_initializer=mx.init.Uniform(np.float64(0.5)), in_units=np.int64(3))
    layer.initialize()
    assert layer(mx.nd.ones((np.int64(4), 3))).shape == (4, 2)
    convolution = gluon.nn.Conv2D(2, (np.int64(3), np.int64(3)), in_channels=1)
    convolution.initialize(mx.init.Xavier(magnitude=np.float64(2)))
    convolution.hybridize()
    assert convolution(mx.nd.ones((1, 1, 5, 5))).shape == (1, 2, 3, 3)


def test_a_rate_of_numpy_trains_as_a_python_one():
    def trained(rate):
        layer = gluon.nn.Dense(2, in_units=3)
        layer.initialize(mx.init.One())
        trainer = gluon.Trainer(layer.collect_params(), "sgd", {"learning_rate": rate, "momentum": rate})
        for _ in range(3):
            with mx.autograd.record():
                loss = (layer(mx.nd.arange(6).reshape((2, 3))) ** 2).sum()
            loss.backward()
            trainer.step(2)
        return layer.weight.data().asnumpy()

    expected = trained(0.001)
    assert np.ptp(expected) > 0.01
    for kind in (np.float64, lambda rate: np.array([rate])[0]):
        np.testing.assert_array_equal(trained(kind(0.001)), expected)


def test_an_iterator_takes_shapes_of_numpy(tmp_path):
    (tmp_path / "data.csv").write_text("1,2,3\n4,5,6\n")
    batches = mx.io.CSVIter(data_csv=str(tmp_path / "data.csv"), data_shape=(np.int64(3),), batch_size=np.int64(2))
    assert next(batches).data[0].asnumpy().tolist() == [[1, 2, 3], [4, 5, 6]]


@needed
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)])
def test_asscalar_gives_a_scalar_for_any_number_of_axes(shape):
    with mx.util.np_shape():
        value = mx.nd.full(shape, 2.5).asscalar()
    assert isinstance(value, np.float32) and float(value) == 2.5
    with pytest.raises(ValueError, match="not a scalar"):
        mx.nd.ones((1, 2)).asscalar()


class Own(mx.metric.EvalMetric):
    """A user's metric, which sums in its own way."""

    def reset(self):
        self.num_inst, self.sum_metric = 0, 0
        self.global_num_inst, self.global_sum_metric = 0, 0.0

    def update(self, labels, preds):
        for pred in preds:
            self.sum_metric += pred.sum().asscalar()
            self.global_sum_metric += pred.sum().asscalar()
            self.num_inst += pred.size
            self.global_num_inst += pred.size


def two_classes(probability):
    """Scores of two classes, for one label."""
    return mx.nd.array([[1 - probability, probability]])


TENTH = mx.nd.array([[0.1]])


@pytest.mark.parametrize(
    ("metric", "label", "prediction"),
    [
        (mx.metric.Loss(), TENTH, TENTH),
        (Own("own"), TENTH, TENTH),
        (mx.metric.MAE(), TENTH, mx.nd.array([[0.4]])),
        (mx.metric.MSE(), TENTH, mx.nd.array([[0.4]])),
        (mx.metric.RMSE(), TENTH, mx.nd.array([[0.4]])),
        (mx.metric.CrossEntropy(), mx.nd.array([1]), two_classes(0.3)),
        (mx.metric.NegativeLogLikelihood(), mx.nd.array([1]), two_classes(0.3)),
        (mx.metric.Perplexity(ignore_label=None), mx.nd.array([1]), two_classes(0.3)),
        (mx.metric.Perplexity(ignore_label=0), mx.nd.array([1]), two_classes(0.3)),
        (mx.metric.CustomMetric(lambda label, pred: np.abs(label - pred).sum()), TENTH, mx.nd.array([[0.4]])),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_metrics_are_summed_in_double_precision(metric, label, prediction):
    metric.reset()
    metric.update([label], [prediction])
    once = metric.get()[1]
    for _ in range(299):
        metric.update([label], [prediction])
    # In float32 the sum of 300 is wrong in the sixth digit.
    assert abs(metric.get()[1] / once - 1) < 1e-9
    assert isinstance(metric.sum_metric, float)
    assert isinstance(metric.num_inst, (int, float))


def test_a_metric_counts_beyond_what_float32_can():
    metric = mx.metric.Perplexity(ignore_label=0)
    metric.num_inst = np.float32(2**24)
    metric.update([mx.nd.array([1])], [two_classes(0.3)])
    assert int(metric.num_inst) == 2**24 + 1


# --- what the project says of its Pythons


def test_metadata_and_set_up_name_the_same_pythons():
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    classified = re.findall(r"Python :: 3\.(\d+)", setup["metadata"]["classifiers"])
    least, beyond = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", setup["options"]["python_requires"]).groups()
    assert classified == [str(minor) for minor in range(int(least), int(beyond))]
    tried = re.search(r"for minor in ([\d ]+);", (PROJECT / "scripts" / "setup.sh").read_text())[1].split()
    assert tried == classified[::-1]
