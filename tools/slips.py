"""The mutations of `scripts/mutations.py`, in the formulas, in the layers and in the C++ of the native operator.

Over 350 lines, as it is one list.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KERNELS", "MUTATIONS", "SUITES", "Mutation"]

PARITY = ("tests/test_testing.py::test_pairwise", "tests/nn/test_laws.py")
KERNEL_TESTS = ("tests/nn/test_native.py", "tests/models/test_packed.py", *PARITY)

KERNELS = "nn/kernels"


class Mutation(NamedTuple):
    """In `file`, the one place that reads `old` reads `new`."""

    name: str
    file: str
    old: str
    new: str

    @property
    def compiled(self) -> bool:
        """Whether the library has to be built again."""
        return self.file.startswith(KERNELS)

    @property
    def suite(self) -> str:
        """Which of `SUITES` has to notice it."""
        if self.compiled:
            return "kernels"
        return "layers" if self.file in ("nn/stack.py", "nn/native.py") else "formulas"


SUITES = {"formulas": PARITY, "layers": (*PARITY, "tests/nn/test_many_uses.py"), "kernels": KERNEL_TESTS}


def _cell(name: str, old: str, new: str) -> Mutation:
    return Mutation(name, "nn/cells.py", old, new)


def _unroll(name: str, old: str, new: str) -> Mutation:
    return Mutation(name, "nn/unroll.py", old, new)


def _stack(name: str, old: str, new: str) -> Mutation:
    return Mutation(name, "nn/stack.py", old, new)


def _native(name: str, old: str, new: str) -> Mutation:
    return Mutation(name, "nn/native.py", old, new)


def _kernel(name: str, file: str, old: str, new: str) -> Mutation:
    return Mutation(f"kernel: {name}", f"{KERNELS}/{file}", old, new)


def _gate(name: str, old: str, new: str) -> Mutation:
    return Mutation(f"kernel: {name}", "nn/kernels/cells.h", old, new)


def _product(name: str, old: str, new: str) -> Mutation:
    return Mutation(f"kernel: {name}", "nn/kernels/products.h", old, new)


def _time(name: str, old: str, new: str) -> Mutation:
    return Mutation(f"kernel: {name}", "nn/kernels/recurrence.h", old, new)


def _network(name: str, old: str, new: str) -> Mutation:
    return Mutation(f"network: {name}", "nn/kernels/inference.h", old, new)


ELMAN_RECUR = 'recurrent = self.dense(F, hidden, "h2h", params)'
ELMAN_SUM = "projected + recurrent"
ELMAN_ACTIVATED = "F.Activation(preactivation, act_type=self.activation)"
GRU_RECUR = 'self.dense(F, hidden, "h2h", params), 3'
GRU_LAST = "candidate + update * (hidden - candidate)"
LSTM_RECUR = 'projected + self.dense(F, hidden, "h2h", params)'
LSTM_CELL = "cell = self._clipped(F, sigmoid(F, f) * cell + sigmoid(F, i) * tanh(F, c))"
LSTM_SPLIT = "i, f, c, o = split_gates("
LSTM_OUTPUT = "hidden = sigmoid(F, o) * tanh(F, seen)"
LSTM_PROJECTED = 'hidden = affine(F, hidden, params["h2r_weight"], None, self.projection_size)'
BIAS_ROW = 'F.broadcast_like(F.expand_dims(params["h2h_bias"], axis=0), projected)'
TRANSPOSED = (
    '{**params, "h2h_weight": F.reshape(F.transpose(F.reshape(params["h2h_weight"], '
    "shape=(-4, %d, -1, 0)), axes=(0, 2, 1)), shape=(-3, 0))}"
)  # each gate's square block by itself

MUTATIONS = (
    _cell("elman: always tanh", ELMAN_ACTIVATED, ELMAN_ACTIVATED.replace("self.activation", '"tanh"')),
    _cell("elman: recurrent weight transposed", ELMAN_RECUR, ELMAN_RECUR.replace("params)", f"{TRANSPOSED % 1})")),
    _cell("elman: recurrent product forgotten", ELMAN_SUM, "projected + 0 * recurrent"),
    _cell("elman: recurrent product subtracted", ELMAN_SUM, "projected - recurrent"),
    _cell("elman: recurrent bias added again", ELMAN_SUM, f"{ELMAN_SUM} + {BIAS_ROW}"),
    _cell("elman: activated twice", ELMAN_ACTIVATED, ELMAN_ACTIVATED.replace("preactivation", f"{ELMAN_ACTIVATED}")),
    _cell("elman: not activated", ELMAN_ACTIVATED, "preactivation"),
    _cell("elman: old state handed on", f"return [{ELMAN_ACTIVATED}]", "return states"),
    _cell("elman: gradient cut at the state", ELMAN_RECUR, ELMAN_RECUR.replace("hidden", "F.BlockGrad(hidden)")),
    _cell("elman: state added to the output", ELMAN_ACTIVATED, f"states[0] + {ELMAN_ACTIVATED}"),
    _cell(
        "gru: reset and update exchanged in the inputs", "input_r, input_z, input_h =", "input_z, input_r, input_h ="
    ),
    _cell(
        "gru: reset and update exchanged in the states", "state_r, state_z, state_h =", "state_z, state_r, state_h ="
    ),
    _cell("gru: candidate's rows first", "state_r, state_z, state_h =", "state_h, state_r, state_z ="),
    _cell(
        "gru: reset before the product",
        "reset * state_h",
        'split_gates(F, self.dense(F, reset * hidden, "h2h", params), 3, self.hidden_size)[2]',
    ),
    _cell("gru: reset gate forgotten", "reset * state_h", "state_h + 0 * reset"),
    _cell("gru: update gate the other way round", GRU_LAST, "hidden + update * (candidate - hidden)"),
    _cell(
        "gru: recurrent bias forgotten",
        GRU_RECUR,
        GRU_RECUR.replace("params)", '{**params, "h2h_bias": 0 * params["h2h_bias"]})'),
    ),
    _cell("gru: recurrent bias added again", GRU_RECUR, GRU_RECUR.replace("params)", f"params) + {BIAS_ROW}")),
    _cell(
        "gru: recurrent bias outside the reset gate",
        "reset * state_h",
        (
            'reset * split_gates(F, self.dense(F, hidden, "h2h", {**params, "h2h_bias": 0 * params["h2h_bias"]}), 3, '
            "self.hidden_size)[2] + F.broadcast_add(F.zeros_like(input_h), "
            'F.slice_axis(F.expand_dims(params["h2h_bias"], axis=0), axis=1, begin=2 * self.hidden_size, end=None))'
        ),
    ),
    _cell("gru: recurrent weight transposed", GRU_RECUR, GRU_RECUR.replace("params)", f"{TRANSPOSED % 3})")),
    _cell("gru: candidate a sigmoid", "tanh(F, input_h", "sigmoid(F, input_h"),
    _cell("gru: old state left out of the sum", GRU_LAST, "candidate - update * candidate"),
    _cell("lstm: input and forget exchanged", LSTM_SPLIT, "f, i, c, o = split_gates("),
    _cell("lstm: forget and output exchanged", LSTM_SPLIT, "i, o, c, f = split_gates("),
    _cell("lstm: candidate a sigmoid", LSTM_CELL, LSTM_CELL.replace("tanh(F, c)", "sigmoid(F, c)")),
    _cell("lstm: recurrent weight transposed", LSTM_RECUR, LSTM_RECUR.replace("params)", f"{TRANSPOSED % 4})")),
    _cell("lstm: recurrent bias added again", LSTM_RECUR, f"{LSTM_RECUR} + {BIAS_ROW}"),
    _cell("lstm: forget bias of one added", LSTM_CELL, LSTM_CELL.replace("sigmoid(F, f)", "sigmoid(F, f + 1)")),
    _cell("lstm: cell not squashed", LSTM_OUTPUT, "hidden = sigmoid(F, o) * seen"),
    _cell("lstm: cell of the step before put out", LSTM_OUTPUT, "hidden = sigmoid(F, o) * tanh(F, states[1])"),
    _cell("lstm: old cell state handed on", "return [hidden, cell]\n", "return [hidden, states[1]]\n"),
    _cell("lstm: hidden and cell exchanged", "return [hidden, cell]\n", "return [cell, hidden]\n"),
    _cell("lstm: clip dropped", LSTM_CELL, LSTM_CELL.replace("self._clipped(F, ", "(")),
    _cell(
        "lstm: clip of the handed-on state alone",
        LSTM_OUTPUT,
        "unclipped = sigmoid(F, f) * states[1] + sigmoid(F, i) * tanh(F, c)\n"
        "        hidden = sigmoid(F, o) * tanh(F, seen if self.layer_norm else unclipped)",
    ),
    _cell(
        "lstm: clip of the candidate alone",
        LSTM_CELL,
        "cell = sigmoid(F, f) * cell + self._clipped(F, sigmoid(F, i) * tanh(F, c))",
    ),
    _cell(
        "lstm: projection forgotten",
        LSTM_PROJECTED,
        "hidden = F.slice_axis(hidden, axis=-1, begin=0, end=self.projection_size)",
    ),
    _cell(
        "lstm: projection of the squashed output",
        LSTM_PROJECTED,
        LSTM_PROJECTED.replace("F, hidden", "F, F.tanh(hidden)"),
    ),
    _cell(
        "dense: recurrent bias forgotten",
        "return affine(F, x, weight, bias, rows, frozen)",
        'return affine(F, x, weight, bias if part == "i2h" else None, rows, frozen)',
    ),
    _cell(
        "dense: input bias taken twice",
        'params[f"{part}_weight"], params[f"{part}_bias"]',
        'params[f"{part}_weight"], params["i2h_bias"]',
    ),
    _unroll("static: backward outputs not turned round", "        outputs.reverse()", "        pass"),
    _unroll(
        "static: backward direction reads forwards",
        "reversed(range(length)) if reverse else range(length)",
        "range(length)",
    ),
    _unroll("static: mask of the step before", "living[t])", "living[t - 1])"),
    _unroll(
        "static: every step from the first state",
        "    outputs = []\n    for t in reversed(range(length)) if reverse else range(length):\n"
        "        output, states = advance(steps[t], states, living[t])",
        "    outputs, first = [], states\n    for t in reversed(range(length)) if reverse else range(length):\n"
        "        output, states = advance(steps[t], first, living[t])",
    ),
    _unroll(
        "dynamic: backward outputs not turned round", "(F.reverse(outputs, axis=0) if reverse else outputs)", "outputs"
    ),
    _unroll(
        "dynamic: mask not turned round",
        "[F.reverse(sequence, axis=0) for sequence in sequences]",
        "[F.reverse(projected, axis=0), *sequences[1:]]",
    ),
    _unroll(
        "dynamic: gradient cut at the state",
        "advance(slices[0], states, ",
        "advance(slices[0], [F.BlockGrad(state) for state in states], ",
    ),
    _unroll("carry: old state put out", "output = new[0]", "output = old[0]"),
    _unroll("carry: alive and ended exchanged", "F.where(alive, after, before)", "F.where(alive, before, after)"),
    _unroll("carry: ended sequences go on", "F.where(alive, after, before)", "after"),
    _unroll(
        "carry: ended sequences lose their state",
        "F.where(alive, after, before)",
        "F.where(alive, after, F.zeros_like(after))",
    ),
    _unroll("mask: off by one", "masked(F, ones, sequence_length)", "masked(F, ones, sequence_length - 1)"),
    _unroll(
        "mask: outputs past the end kept",
        "(outputs if sequence_length is None else masked(F, outputs, sequence_length))",
        "outputs",
    ),
    _unroll("mask: inputs past the end seen", "inputs = masked(F, inputs, sequence_length)", "pass"),
    _stack("stack: directions joined backward first", "side_by_side(F, outputs)", "side_by_side(F, outputs[::-1])"),
    _stack("stack: last states backward first", "last.append(end)", "last.insert(layer * len(cells), end)"),
    _stack(
        "stack: first states of the wrong layer",
        "split(F, state, self.num_layers * len(self.directions)) for state",
        "reversed(split(F, state, self.num_layers * len(self.directions))) for state",
    ),
    _stack(
        "stack: one first state for all layers",
        "split(F, state, self.num_layers * len(self.directions)) for state",
        (
            "[split(F, state, self.num_layers * len(self.directions))[0]] * (self.num_layers * len(self.directions))"
            " for state"
        ),
    ),
    _stack(
        "stack: backward direction with forward weights",
        "classic(params[parameter_name(direction, layer, name)])",
        'classic(params[parameter_name("l", layer, name)])',
    ),
    _stack("stack: backward direction reads forwards", 'reverse=direction == "r",', "reverse=False,"),
    _stack("stack: outputs left time-major", "as_given(self._time_major(F, x)), [", "as_given(x), ["),
    _stack(
        "stack: given states ignored",
        "map(classic, (inputs, *states))",
        "map(classic, (inputs, *(0 * state for state in states)))",
    ),
    _stack(
        "stack: last layer's state for all", "for state in zip(*last)]", "for state in zip(*[last[-1]] * len(last))]"
    ),
    _stack("stack: inputs that others read, too, are not set apart", "elif not traced_here():", "elif False:"),
    _native("native: parameters that are used again are not set apart", "parameters = [apart(F, x)", "parameters = [x"),
    _native("native: every layer reads forwards", "    if reverse:\n", "    if False:\n"),
    _native("native: lengths dropped", 'attributes["lengths"] = 1', "sequence_length = None"),
    _native(
        "native: biases exchanged", '"i2h_bias", "h2h_bias", "h2r_weight"]', '"h2h_bias", "i2h_bias", "h2r_weight"]'
    ),
    _native(
        "native: clip's bounds exchanged",
        "clip_min=repr(low), clip_max=repr(high)",
        "clip_min=repr(high), clip_max=repr(low)",
    ),
    Mutation(
        "graphs: one static graph for all lengths",
        "nn/graphs.py",
        "key = (current.for_length(length), backend)",
        "key = (current.for_length(next((k[0].length for k in self._graphs._by_key if k[0].length), length)), backend)",
    ),
    # The operator's C++: what MXNet hands over, and elementary functions.
    _kernel(
        "lengths rounded up", "operator.cc", "static_cast<long>(length) : 0;", "static_cast<long>(length + 0.5) : 0;"
    ),
    _kernel(
        "both of clip's bounds the lower one",
        "operator.cc",
        "clip_max = number(value);",
        "clip_max = to->options.clip_min;",
    ),
    _kernel("sigmoid of the negative", "vectors.h", "C::kLargest, negative<T>(x))", "C::kLargest, x)"),
    _kernel("a plain weight packed as a transposed one", "factor.h", "if (form == Form::kTransposed)\n", "if (true)\n"),
    # Products.
    _product(
        "a panel's edge of one column too few is packed",
        "const int rows = width - i < kSquare ? width - i : kSquare;",
        "const int rows = width - i < kSquare ? width - i - 1 : kSquare;",
    ),
    _product(
        "a panel's last rows not packed",
        "const int depth = static_cast<int>(k - p < kSquare ? k - p : kSquare);",
        "const int depth = static_cast<int>(k - p < kSquare ? 0 : kSquare);",
    ),
    _kernel(
        "a square of a weight packed with two columns exchanged",
        "vectors.h",
        "_mm_storeu_ps(to, a), _mm_storeu_ps(to + to_stride, b);",
        "_mm_storeu_ps(to, b), _mm_storeu_ps(to + to_stride, a);",
    ),
    _product(
        "the first block of rows for all blocks",
        "multiply_block(end - begin, cols, k, a + begin * stride",
        "multiply_block(end - begin, cols, k, a",
    ),
    _product(
        "part of a tile's last vector not written",
        "else if (left > 0)",
        "else if (left > 1)",
    ),
    _product(
        "rows that are no multiple of the block forgotten",
        "size = rows * (block + 1) / blocks - first;",
        "size = rows / blocks;",
    ),
    _product(
        "bias added with every slab",
        "p == 0 ? into.bias : nullptr, into.add || p > 0};",
        "into.bias, into.add || p > 0};",
    ),
    _product("bias not added", "if (into.bias) sum += lanes.load(into.bias + v * kWidth<T>);", ""),
    _product("bias not added to few rows", "if (into.bias) sum += into.bias[i];", ""),
    _product(
        "sum of a later slab replaces the first",
        "p == 0 ? into.bias : nullptr, into.add || p > 0};",
        "p == 0 ? into.bias : nullptr, into.add};",
    ),
    _product(
        "weight's gradient: rows beyond the block taken from the next one",
        "r < size ? a[(p + q) * a_stride + i + r] : T(0)",
        "r + 1 < size ? a[(p + q) * a_stride + i + r] : T(0)",
    ),
    _product(
        "weight's gradient: a later block of rows written over the first",
        "{into.c + i * into.stride + j, into.stride, nullptr, into.add || p > 0}",
        "{into.c + (i - begin) * into.stride + j, into.stride, nullptr, into.add || p > 0}",
    ),
    _time(
        "several threads: the rows of the chunk's first step for all",
        "work(Team{}, t * batch + begin, end - begin);",
        "work(Team{}, begin, end - begin);",
    ),
    _time(
        "forward: input part of the first chunk for all",
        "write_input_part(by, low * N + first, size",
        "write_input_part(by, first, size",
    ),
    _time(
        "backward: gradient of the first chunk's inputs alone",
        "{of.x + (low * N + first) * C, C, nullptr, false});",
        "{of.x + first * C, C, nullptr, false});",
    ),
    _product("few rows: the third one dropped", "dots_of<T, kFewRows, M>(k", "dots_of<T, 2, M>(k"),
    _product("few rows: the last one dropped", "if (rows == 1) dots_of", "if (rows == 3) dots_of"),
    _product(
        "few rows: the first three for all",
        ", into.c += kFewRows * into.stride)\n    combine_of",
        ")\n    combine_of",
    ),
    _product("few rows: the end of a sum left out", "each_vector<T>(k - p, [", "each_vector<T>(k - p - 1, ["),
    _product(
        "few rows: last terms of a sum left out",
        "for (; p < k; ++p) add_rows_of<T, R, 1>",
        "for (; false; ++p) add_rows_of<T, R, 1>",
    ),
    _product(
        "packed few rows: every panel is the first",
        "panel + v / kVectors * apart + v % kVectors * kWidth<T>",
        "panel + v % kVectors * kWidth<T>",
    ),
    _product(
        "packed few rows: bias of the first panels for all",
        "into.bias ? into.bias + j : nullptr, into.add},\n",
        "into.bias, into.add},\n",
    ),
    # Its steps.
    _time(
        "first state of a reversed sequence at the end of the batch's longest",
        "t + 1 >= (call.lengths ? call.lengths[n] : call.steps)",
        "t + 1 >= call.steps",
    ),
    _time(
        "last state of a reversed sequence at its end",
        "call.outputs + ((call.options.reverse ? 0 : length - 1) * N + n) * S;",
        "call.outputs + ((length - 1) * N + n) * S;",
    ),
    _time(
        "last state of a sequence of another length",
        "call.outputs + ((call.options.reverse ? 0 : length - 1) * N + n) * S;",
        "call.outputs + ((call.options.reverse ? 0 : T_ - 1) * N + n) * S;",
    ),
    _time(
        "state before a reversed step from the wrong side",
        "(call.options.reverse ? t + 1 : t - 1) * call.batch",
        "(call.options.reverse ? t : t - 1) * call.batch",
    ),
    _time(
        "outputs past the end kept",
        "          clear(call.outputs + (t * N + n) * S, S);\n",
        "",
    ),
    _time(
        "cell state goes on past the end",
        "if constexpr (has_cell) copy(alive_cells + n * H, call.last_cell + n * H, H);",
        "",
    ),
    _time(
        "input part of a later chunk at the wrong steps",
        "const long low = call.options.reverse ? T_ - done - count : done;  // the chunk's first step in memory",
        "const long low = done;  // the chunk's first step in memory",
    ),
    _time(
        "recurrent bias forgotten",
        "to[j] = CellOf::kSeparate ? i2h_bias[j] : i2h_bias[j] + h2h_bias[j];",
        "to[j] = i2h_bias[j];",
    ),
    _time(
        "backward: gradient of an output past the end counted",
        "          if (!time.alive(t, n)) continue;\n          T* to = of.first_hidden",
        "          T* to = of.first_hidden",
    ),
    _time(
        "backward: lengths ignored",
        "        if (!call.lengths) {\n          back(step, 0);",
        "        if (true) {\n          back(step, 0);",
    ),
    _time(
        "backward: inputs past the end in the weight's gradient",
        "alive ? call.x + (t * N + begin + n) * C : nothing",
        "call.x + (t * N + begin + n) * C",
    ),
    _time(
        "backward: input weight's gradient of the first chunk alone",
        "{of.i2h_weight + begin * C, C, nullptr, !first_chunk}, block);",
        "{of.i2h_weight + begin * C, C, nullptr, false}, block);",
    ),
    _time(
        "backward: recurrent weight's gradient of the first chunk alone",
        "{of.h2h_weight + begin * S, S, nullptr, !first_chunk}, block);",
        "{of.h2h_weight + begin * S, S, nullptr, false}, block);",
    ),
    _time(
        "backward: bias's gradient of the first chunk alone",
        "sums + begin, of.i2h_bias + begin, !first_chunk);",
        "sums + begin, of.i2h_bias + begin, false);",
    ),
    _time(
        "backward: gradient of the last hidden state forgotten",
        "copy(of.last_hidden, of.first_hidden, N * S);",
        "clear(of.first_hidden, N * S);",
    ),
    _time(
        "backward: gradient of the last cell state forgotten",
        "copy(of.last_cell, of.first_cell, N * H);",
        "clear(of.first_cell, N * H);",
    ),
    _time(
        "backward: projection's carried gradient not cleared",
        "          clear(carried + first * S, part_of.rows * S);\n",
        "",
    ),
    _time(
        "backward: what goes past the product forgotten",
        "h2h.multiply(rows, of_recurrent_part + at * G, G, {carried, S, nullptr, true});",
        "h2h.multiply(rows, of_recurrent_part + at * G, G, {carried, S, nullptr, false});",
    ),
    # A whole language model.
    _network("residual of a later layer alone", "if (sizes_.residual && l > 0)", "if (sizes_.residual && l > 1)"),
    _network("first layer's state for all", "of.first_hidden + l * N * H", "of.first_hidden"),
    _network(
        "recurrent bias of a gru forgotten",
        "copy(weights[3], layer.h2h.bias.get(), G);",
        "clear(layer.h2h.bias.get(), G);",
    ),
    _network("embedding not scaled", "static_cast<T>(sizes.scale) * embedding[i]", "embedding[i]"),
    _network("symbols of the first chunk for all", "ids += first;", ""),
    # Its gates.
    _gate("tanh's derivative of the first order", "g * (T(1) - h * h)", "g * (T(1) - h)"),
    _gate("relu's derivative below zero", "where_positive<T>(h, g)", "g"),
    _gate(
        "gru: update gate the other way round",
        "candidate + update * (lanes.load(before + j) - candidate)",
        "lanes.load(before + j) + update * (candidate - lanes.load(before + j))",
    ),
    _gate(
        "gru: reset takes the update's rows",
        "sigmoid<T>(lanes.load(x + j) + lanes.load(h + j));",
        "sigmoid<T>(lanes.load(x + H + j) + lanes.load(h + j));",
    ),
    _gate(
        "gru back: derivative of the update gate", "- candidate) * update * (T(1) - update);", "- candidate) * update;"
    ),
    _gate("gru back: candidate's share", "g * (T(1) - update) * (T(1) - candidate", "g * update * (T(1) - candidate"),
    _gate("gru back: recurrent part of the reset gate", "of_candidate * state * reset", "of_candidate * reset * reset"),
    _gate("gru back: reset left out of the recurrent part", "of_candidate * reset);", "of_candidate);"),
    _gate(
        "gru back: old state's share forgotten",
        "lanes.store(of_hidden + j, g * update);",
        "lanes.store(of_hidden + j, g);",
    ),
    _gate(
        "lstm: input and forget exchanged",
        "clip(forget * lanes.load(cell + j) + input * candidate",
        "clip(input * lanes.load(cell + j) + forget * candidate",
    ),
    _gate(
        "lstm: clip of the put-out state alone",
        "lanes.store(cell + j, c);",
        "lanes.store(cell + j, forget * lanes.load(cell + j) + input * candidate);",
    ),
    _gate(
        "lstm back: input gate's derivative",
        "of_c * candidate * input * (T(1) - input)",
        "of_c * candidate * (T(1) - input)",
    ),
    _gate(
        "lstm back: forget gate sees the new cell", "of_c * c * forget", "of_c * lanes.load(kept + 4 * H + j) * forget"
    ),
    _gate(
        "lstm back: candidate's derivative",
        "of_c * input * (T(1) - candidate * candidate)",
        "of_c * input * (T(1) - candidate)",
    ),
    _gate("lstm back: output gate's derivative", "g * seen * output * (T(1) - output)", "g * seen * output"),
    _gate("lstm back: cell not carried", "lanes.store(of_cell + j, of_c * forget);", "lanes.store(of_cell + j, of_c);"),
    _gate("lstm back: derivative of the squashed cell", "g * output * (T(1) - seen * seen)", "g * output"),
    _gate(
        "lstm back: clip lets everything through",
        "if (s.options->clip) of_c = through_clip(forget * c + input * candidate, *s.options, of_c);",
        "",
    ),
    _gate("lstm: NaN clipped to the upper bound", "instead_of_nan<T>(low, c)", "instead_of_nan<T>(high, c)"),
)
