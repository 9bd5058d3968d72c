"""The work of `deeprnn train`: training, checkpoints, rollbacks, results."""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from .._util.files import write_json_atomic
from .._util.machine import machine, versions
from .._util.wording import counted
from ..config import RunConfig
from ..distributed.role import Role
from ..sampling import Sampler
from ..train.reports import EventWriter, append_metrics, append_row, curves, read_metrics
from .console import ProgressLine, argument, command, failed, log, one_line
from .options import advice_in_flags, in_flags
from .runs import generated, parameter_count

if TYPE_CHECKING:
    import mxnet as mx

    from ..data.batches import Batches
    from ..data.text import Corpus
    from ..distributed.workers import Alone
    from ..models.language_model import LanguageModel
    from ..models.sampled import SampledLoss
    from ..train.checkpoint import Checkpoint
    from ..train.loop import Diverged, EpochReport, Position
    from ..train.saving import Checkpoints
    from ..train.signals import Signals

__all__ = ["ROLLBACKS", "STATE", "Training", "shape"]

STATE = "state.json"
"""In the folder of a run that diverged: ``{"state": "diverged", "reason": ...}``, for programs that start runs."""

ROLLBACKS = 3
"""How often a run may go back to a checkpoint because its loss is not finite."""


@dataclass(eq=False)
class Training:
    """A run that is ready to start; saves and shows its results.

    `facts` are saved with each checkpoint: seed, configuration, vocabulary, text, versions. `held` has the lock of the
    run and is closed at the end. `reports` are those of the epochs that were trained here.
    """

    run: RunConfig
    folder: Path
    corpus: Corpus
    train: Batches
    valid: Batches
    test: Batches
    net: LanguageModel
    trainer: mx.gluon.Trainer
    contexts: list[mx.Context]
    workers: Alone
    start: Optional[Checkpoint]
    checkpoints: Checkpoints
    facts: Mapping[str, Any]
    rollbacks: list[dict[str, Any]]
    sampled: Optional[SampledLoss] = None
    events: Optional[EventWriter] = None
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    reports: list[EpochReport] = field(default_factory=list)

    def work(self) -> int:
        """Train, then evaluate the best network on the test part; returns the exit code."""
        from ..train.keeping import Keeper, SharedKeeper
        from ..train.loop import Diverged, Stopped
        from ..train.signals import Signals

        config = self.run.train
        again = (
            f"continue with: {command(*self.command, '--out', argument(self.folder), '--resume', *self.plugin_flags)}"
        )
        position = self.start.position if self.start else None
        try:
            with self.held, self.events or contextlib.nullcontext(), Signals() as signals:
                when: dict[str, Any] = {"minutes": config.checkpoint_minutes, "steps": config.checkpoint_steps}
                keeper = Keeper(self.write, **when, signals=signals)
                if self.workers.count > 1:
                    keeper = SharedKeeper(self.write, self.workers, **when, signals=signals)
                if config.on_nan == "rollback" and not position:
                    self.save_the_beginning()
                while True:
                    try:
                        self.fit(position, keeper)
                        break
                    except Diverged as error:
                        position = self.roll_back(error)
                self.workers.end_together()
                if self.is_first:
                    self.finish(signals)
        except Diverged as error:
            self.workers.end_together()
            if self.is_first:
                write_json_atomic(self.folder / STATE, {"state": "diverged", "reason": str(error)})
                failed(in_flags(str(error)), 1)
            return 1
        except OSError as error:
            return failed(f"{one_line(error)}; {again}", 1)
        except Stopped as error:
            self.workers.end_together()
            if self.is_first:
                failed(f"{error}; {self.reached()} is saved; {again}", 128 + error.number)
            return 128 + error.number
        return 0

    @property
    def is_first(self) -> bool:
        """Whether this process is the one of several that writes the run and reports on it."""
        return self.workers.number == 0

    @property
    def command(self) -> list[str]:
        """The command that has started this training, without options."""
        role = Role.from_environment()
        counts = ["launch", f"--workers={role.workers}", f"--servers={role.servers}", "--"] if role else []
        return [*counts, "train"]

    def fit(self, position: Optional[Position], keeper: Any) -> None:
        """Train from `position` to the end."""
        from ..nn.diagnostics import Watched
        from ..train.loop import fit

        config = replace(self.run.train, lr=self.learning_rate)
        progress = ProgressLine(config.epochs, len(self.train), position.epoch if position else 0)
        train = Watched(self.net, self.train) if config.diagnose else self.train

        def on_epoch(report: EpochReport) -> None:
            progress.epoch(report)
            if isinstance(train, Watched):
                self.look(report.epoch, train.before)
            if self.samples_are_due(report.epoch):
                log(self.samples(report.epoch))

        with progress:
            if config.diagnose and not position:
                self.look(0, before=None)
            if progress.epochs_done >= config.epochs:
                return
            history = fit(
                self.net,
                train,
                self.valid,
                config,
                ctx=self.contexts,
                trainer=self.trainer,
                workers=self.workers,
                sampled=self.sampled,
                start=position,
                keeper=keeper,
                on_step=progress.step,
                on_epoch=on_epoch,
                report_every=progress.report_every,
            )
            if history.stopped_early:
                log(f"stopped: no better validation loss for {counted(config.patience, 'epoch')}")

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, lowered by each rollback."""
        return float(self.rollbacks[-1]["lr"]) if self.rollbacks else self.run.train.lr

    def write(self, position: Position, report: Optional[EpochReport]) -> None:
        """Save a checkpoint of `position`, and before it the metrics of the epoch that ends there."""
        if report and self.is_first:
            self.reports.append(report)
            with best_effort("metrics.jsonl"):
                append_metrics(self.folder / "metrics.jsonl", report)
            if self.events:
                with best_effort("TensorBoard events"):
                    self.events.add(report)
        state = {**self.facts, "rollbacks": self.rollbacks}
        self.checkpoints.save(self.net, self.trainer, position, state, is_best=bool(report and report.is_best))

    def save_the_beginning(self) -> None:
        """Save a checkpoint before the first step, so that there is one to go back to."""
        from ..train.position import Position

        self.write(Position(), None)

    def roll_back(self, error: Diverged) -> Position:
        """Go back to the last checkpoint, with half the learning rate; raises `error` if no rollback is allowed."""
        from ..train import checkpoint
        from ..train.schedule import learning_rate_schedule

        if self.run.train.on_nan != "rollback" or len(self.rollbacks) == ROLLBACKS:
            raise error
        last = checkpoint.load(self.folder / "checkpoints")
        lr = self.learning_rate / 2
        self.rollbacks = [*self.rollbacks, {"to_step": last.step, "lr": lr, "reason": str(error)}]
        last.restore(self.net, self.trainer)
        self.workers.wait_for_all()  # before worker 0 writes there
        steps = self.run.train.epochs * len(self.train)
        self.trainer.optimizer.lr_scheduler = learning_rate_schedule(replace(self.run.train, lr=lr), steps)
        self.write(last.position, None)
        reason = str(error).partition(":")[0]
        log(f"{reason}: returning to step {last.step}, with lr={lr:g} (rollback {len(self.rollbacks)} of {ROLLBACKS})")
        return last.position

    def reached(self) -> str:
        """The step and epoch of the last checkpoint."""
        from ..train import checkpoint

        last = checkpoint.load(self.folder / "checkpoints").position
        return f"step {last.step:,} ({counted(last.epoch, 'epoch')} done)"

    def look(self, epoch: int, before: Optional[Mapping[str, mx.nd.NDArray]]) -> None:
        """Diagnose the network on the first batch of the text; save the measurements and show what is wrong."""
        from ..nn.diagnostics import diagnose
        from ..train.loop import token_losses

        data, target = (array.as_in_context(self.contexts[0]) for array in next(self.train.epoch(epoch)))
        states = self.net.begin_state(data.shape[1], ctx=self.contexts[0])
        seen = diagnose(self.net, data, states, lambda logits: token_losses(logits, target), before=before)
        sentences = seen.sentences(followed=[f"init={self.run.model.init}", f"cell={self.run.model.cell}"])
        layers = [asdict(layer) for layer in seen.layers]
        with best_effort("diagnosis.jsonl"):
            append_row(self.folder / "diagnosis.jsonl", {"epoch": epoch, "layers": layers, "sentences": sentences})
        if epoch in (0, self.run.train.epochs):
            log(textwrap.indent(seen.table(), "    "))
        for sentence in sentences or ["no problem found in the layers"]:
            log(f"    {advice_in_flags(sentence)}")

    def finish(self, signals: Signals) -> None:
        """Evaluate the best network on the test part, write summary and curves, and show the results."""
        from ..train import checkpoint
        from ..train.loop import evaluate, perplexity

        metrics = self.metrics()
        best_epoch = metrics[-1]["best_epoch"]
        # The file may lack the row of an epoch that an earlier process trained: the last row has to do then.
        best = next((row for row in metrics if row["epoch"] == best_epoch), metrics[-1])
        checkpoint.load(self.folder / "checkpoints", "best").restore(self.net)
        test_loss = evaluate(self.net, self.test, self.contexts[0], signals)
        test_perplexity = math.inf if test_loss is None else perplexity(test_loss)
        seconds = sum(row["seconds"] for row in metrics)
        packages = versions()
        summary = {
            "test_loss": test_loss,
            "test_perplexity": test_perplexity if math.isfinite(test_perplexity) else None,
            **{name: best[name] for name in ("valid_loss", "valid_perplexity", "train_loss", "train_perplexity")},
            "best_epoch": best_epoch,
            "epochs": metrics[-1]["epoch"],
            "rollbacks": self.rollbacks,
            "parameters": parameter_count(self.net),
            "seconds": seconds,
            "corpus": self.corpus.name,
            "corpus_sha256": self.corpus.sha256,
            "versions": packages,
            "machine": {name: value for name, value in machine().items() if name not in packages},
        }
        write_json_atomic(self.folder / "summary.json", summary)
        with best_effort("curves.png"):
            curves(metrics, self.folder / "curves.png", title=f"{self.corpus.name}, {shape(self.run)}")
        if best_epoch < metrics[-1]["epoch"] or not self.samples_are_due(best_epoch):
            log(self.samples(best_epoch))
        losses = {"test": test_loss, "running train": best["train_loss"], "valid": best["valid_loss"]}
        part, loss = next((part, loss) for part, loss in losses.items() if loss is not None)
        log(f"{part} loss {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}")
        log(f"{seconds:.0f} s of training, {shape(self.run)}; the run is in {self.folder}")
        log("generate more: " + command("generate", argument(self.folder), *self.plugin_flags))

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of all epochs; those of this process are there even where the file is not."""
        own = {report.epoch: asdict(report) for report in self.reports}
        rows: list[dict[str, Any]] = []
        with contextlib.suppress(OSError, ValueError):
            rows = read_metrics(self.folder / "metrics.jsonl")
        return list({**{row["epoch"]: row for row in rows}, **own}.values()) or [self.row_of_checkpoint()]

    def row_of_checkpoint(self) -> dict[str, Any]:
        """What the last checkpoint knows of the metrics, for a run whose file of them is lost."""
        from ..train import checkpoint
        from ..train.loop import perplexity

        position = checkpoint.load(self.folder / "checkpoints").position
        row: dict[str, Any] = {"epoch": position.epoch, "best_epoch": position.best_epoch, "seconds": position.seconds}
        for part, known in (("train", not len(self.valid)), ("valid", len(self.valid) > 0)):
            row[f"{part}_loss"] = position.best_loss if known else None
            row[f"{part}_perplexity"] = perplexity(position.best_loss) if known else None
        return row

    @property
    def plugin_flags(self) -> list[str]:
        """The flags that load the run's plugin again, if it has one."""
        return ["--plugin", self.run.model.plugin] if self.run.model.plugin else []

    def samples_are_due(self, epoch: int) -> bool:
        """Whether texts are generated after this epoch."""
        every = self.run.train.sample_every
        return every > 0 and epoch % every == 0

    def samples(self, epoch: int) -> str:
        """A generated text for each prefix; a function of network, seed and epoch."""
        import numpy as np

        config = self.run.train
        rng = np.random.default_rng((config.seed, epoch))
        sampler = Sampler(greedy=config.sample_greedy)
        how = (config.sample_length, sampler, rng, self.contexts[0])
        texts = [
            generated(self.net, self.corpus.vocab, self.run.data.unit, prefix, *how)
            for prefix in config.sample_prefix.split("|")
        ]
        return "\n".join(f"\n{textwrap.indent(text, '    ')}" for text in texts) + "\n"


@contextlib.contextmanager
def best_effort(what: str) -> Iterator[None]:
    """A context for optional output: an error is logged, and the run continues."""
    try:
        yield
    except Exception as error:  # whatever the drawing library raises
        log(f"{what}: not written, as {type(error).__name__}: {one_line(error)}")


def shape(run: RunConfig) -> str:
    """A short description of model and optimizer, such as ``rnn 2 x 256, adam 0.005``."""
    return f"{run.model.cell} {run.model.layers} x {run.model.hidden_size}, {run.train.optimizer} {run.train.lr:g}"
