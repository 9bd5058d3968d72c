"""Writing of checkpoints: `storage` describes the files, `checkpoint` reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from mxnet import gluon

from ..distributed.workers import Alone
from .checkpoint import REQUIRED_STATE, Checkpoint
from .optimizer_state import named_parameters, optimizer_state
from .position import Position
from .progress import Diverged
from .random_state import random_arrays
from .storage import write_checkpoint

__all__ = ["Checkpoints"]

PathLike = Union[str, "os.PathLike[str]"]


class Checkpoints:
    """Writes the checkpoints of one run; nobody else may write to the folder meanwhile.

    Parameters
    ----------
    folder
        Created with the first checkpoint.
    start
        The checkpoint that training continues from, if any; those of later steps will be removed.
    workers
        The processes that train together, where there are several: all save at the same time, and worker 0 writes.
    """

    def __init__(self, folder: PathLike, start: Optional[Checkpoint] = None, workers: Optional[Alone] = None) -> None:
        self._folder, self._workers = Path(folder), workers or Alone()
        self._best = start.best if start else None

    def save(
        self,
        net: gluon.Block,
        trainer: gluon.Trainer,
        position: Position,
        state: Mapping[str, Any],
        *,
        is_best: bool = False,
    ) -> None:
        """Write a checkpoint, see `storage.write_checkpoint`.

        Parameters
        ----------
        net
            The network; all devices have the same parameters.
        trainer
            Its optimizer's state is saved.
        position
            How far the training has come.
        state
            Plain values that JSON can represent; `REQUIRED_STATE` lists the required keys.
        is_best
            This is the best network so far.

        Raises
        ------
        ValueError
            If a required key is missing.
        Diverged
            If a value is not finite; nothing is written then.
        OSError
            If a file cannot be written. The previous checkpoint stays valid.
        """
        missing = [key for key in REQUIRED_STATE if key not in state]
        if missing:
            raise ValueError(f"state must have the keys {', '.join(missing)}")
        parameters = named_parameters(net)
        arrays = {name: parameter.list_data()[0].asnumpy() for name, parameter in parameters.items()}
        optimizer, optimizer_arrays = optimizer_state(parameters, trainer)
        states = self._workers.joined(position.joined_states())
        training = {
            **{f"optimizer/{name}": array for name, array in optimizer_arrays.items()},
            **{f"states/{index}": array for index, array in enumerate(states)},
            **{f"random/{name}": array for name, array in random_arrays().items()},
        }
        for name, array in {**arrays, **training}.items():
            if not np.isfinite(array).all():
                raise Diverged(f"{name} has values that are not finite after step {position.step}")
        if self._workers.number:
            return
        best = {"epoch": position.epoch, "step": position.step, "parameters": None} if is_best else self._best
        content = {"state": {**state, **position.to_mapping()}, "optimizer": optimizer}
        manifest = write_checkpoint(self._folder, position.step, arrays, training, content, best)
        self._best = manifest["best"]
