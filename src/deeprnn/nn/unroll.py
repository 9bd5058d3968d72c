"""Cells carried through time.

One cell and a sequence ``(T, N, C)`` in, the outputs ``(T, N, H)`` and the last states out. Three ways to write time:

- `native.recurrence`: all steps are one C++ operator, for the built-in cells on a CPU.
- `static`: the step is repeated in the graph, T times. T has to be known when the graph is traced.
- `dynamic`: the loop is one operator (`foreach`), and the graph is good for any T.

All take the input projection out of the loop (`project` over all steps at once), and all follow one rule for what a
sequence carries from step to step (`carry`).
"""

from __future__ import annotations

from typing import Callable, Optional

from .._util.types import Operators, Params, Tensor
from . import native
from .cells import RecurrentCell
from .context import in_a_foreign_graph, trace
from .operators import apart, join, masked, split

__all__ = ["carry", "dynamic", "static", "unroll"]

Step = Callable[[Tensor, list[Tensor], Optional[Tensor]], tuple[Tensor, list[Tensor]]]
"""From the projected input of one step, the states before it, and who is alive, to the output and the states after."""


def unroll(
    F: Operators,
    cell: RecurrentCell,
    params: Params,
    inputs: Tensor,
    states: list[Tensor],
    *,
    length: Optional[int] = None,
    reverse: bool = False,
    zoneout: float = 0.0,
    sequence_length: Optional[Tensor] = None,
) -> tuple[Tensor, list[Tensor]]:
    """Carry `cell` over `inputs`, ``(T, N, C)``, from `states`.

    Parameters
    ----------
    F
        ``mx.nd`` or ``mx.sym``.
    cell, params
        The cell and its parameters by their short names.
    length : int, optional
        T where it is known. Without it, the graph is good for any.
    reverse : bool
        From the last step to the first; outputs stay at the steps that they belong to.
    zoneout : float
        Probability with which a unit keeps its state, see `carry`.
    sequence_length : Tensor, optional
        ``(N,)``: the steps of each sequence that count. Outputs past them are zero, and nothing that is past them, not
        even a NaN, is seen or learnt.

    Returns
    -------
    outputs, states
        ``(T, N, H)``, and the states as they are after the last step taken.
    """
    if not zoneout and native.serves(cell, trace(inputs)):
        return native.recurrence(F, cell, params, inputs, states, reverse, sequence_length)
    if length is None and in_a_foreign_graph(inputs):  # all else is an operator's result, and used once
        params = {name: apart(F, parameter) for name, parameter in params.items()}
    alive = None
    if sequence_length is not None:
        sequence_length = F.maximum(sequence_length, 0)  # MXNet's masks write before the array's beginning below it
        inputs = masked(F, inputs, sequence_length)
        alive = _alive(F, inputs, sequence_length)  # (T, N)
    projected = cell.project(F, inputs, params)

    def advance(projected: Tensor, states: list[Tensor], alive: Optional[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return carry(F, cell.step(F, projected, states, params), states, zoneout, alive)

    if length is None:
        outputs, states = dynamic(F, advance, projected, states, alive, reverse)
    else:
        outputs, states = static(F, advance, projected, states, alive, reverse, length)
    return (outputs if sequence_length is None else masked(F, outputs, sequence_length)), states


def static(
    F: Operators,
    advance: Step,
    projected: Tensor,
    states: list[Tensor],
    alive: Optional[Tensor],
    reverse: bool,
    length: int,
) -> tuple[Tensor, list[Tensor]]:
    """`unroll` with the step repeated `length` times."""
    steps = split(F, projected, length)
    living = [None] * length if alive is None else split(F, alive, length)
    outputs = []
    for t in reversed(range(length)) if reverse else range(length):
        output, states = advance(steps[t], states, living[t])
        outputs.append(output)
    if reverse:
        outputs.reverse()
    return join(F, outputs), states


def dynamic(
    F: Operators, advance: Step, projected: Tensor, states: list[Tensor], alive: Optional[Tensor], reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    """`unroll` with the step in a loop operator."""
    sequences = [projected] if alive is None else [projected, alive]
    if reverse:
        sequences = [F.reverse(sequence, axis=0) for sequence in sequences]

    def body(slices: list[Tensor], states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        return advance(slices[0], states, None if alive is None else slices[1])

    outputs, states = F.contrib.foreach(body, sequences, states)
    return (F.reverse(outputs, axis=0) if reverse else outputs), states


def carry(
    F: Operators, new: list[Tensor], old: list[Tensor], zoneout: float, alive: Optional[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The output of a step and the states that go on, from the states before and after it.

    With zoneout z (Krueger et al. 2016, arXiv:1606.01305) each unit keeps what it had with that probability; in
    inference every unit takes the expectation. Both are ``s + (1 - z) * dropout(s' - s, z)``, as dropout scales what it
    leaves by ``1 / (1 - z)`` in training and does nothing in inference.

    A sequence that is not alive at this step, ``alive`` of ``(N,)``, keeps all that it had. So a sequence of length T'
    ends with its states at T', and one that is read backwards starts at its own end, because until then it carries its
    initial state.
    """
    if zoneout:
        new = [s + (1 - zoneout) * F.Dropout(after - s, p=zoneout) for after, s in zip(new, old)]
    output = new[0]  # what a cell puts out is its first state
    if alive is not None:
        new = [F.where(alive, after, before) for after, before in zip(new, old)]
    return output, new


def _alive(F: Operators, x: Tensor, sequence_length: Tensor) -> Tensor:
    """``(T, N)``: one where the sequence has not ended, else zero."""
    ones = F.ones_like(F.slice_axis(x, axis=2, begin=0, end=1))
    return F.squeeze(masked(F, ones, sequence_length), axis=2)
