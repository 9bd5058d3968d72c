"""`deeprnn train`: trains a network as configured, and writes checkpoints, metrics and a summary."""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._util.files import write_json_atomic, write_text_atomic
from .._util.machine import machine, versions
from .._util.wording import counted
from ..config import RunConfig, as_yaml, origin, resolve
from ..sampling import Sampler
from ..train.reports import EventWriter, append_metrics, append_row, curves, read_metrics
from .console import ProgressLine, command, failed, one_line, show
from .options import advice_in_flags, in_flags
from .runs import (
    corpus_of,
    device,
    generated,
    holds_a_run,
    language_model,
    parameter_count,
    prefix_ids,
    saved_vocabulary,
    try_plugin,
    use_threads,
)

if TYPE_CHECKING:
    import gluonnlp
    import mxnet as mx

    from ..data.batches import Batches
    from ..data.text import Corpus
    from ..models.language_model import LanguageModel
    from ..train.checkpoint import Checkpoint
    from ..train.progress import EpochReport

__all__ = ["build_train"]

STATE = "state.json"
"""In the folder of a run that diverged: ``{"state": "diverged", "reason": ...}``, for programs that start trainings."""


@dataclass(frozen=True, eq=False)
class Training:
    """A run that is ready to start; saves and shows its results."""

    run: RunConfig
    folder: Path
    corpus: Corpus
    train: Batches
    valid: Batches
    test: Batches
    net: LanguageModel
    trainer: mx.gluon.Trainer
    ctx: mx.Context
    start: Optional[Checkpoint]
    events: Optional[EventWriter]

    def work(self) -> int:
        """Train, then evaluate the best network on the test part; returns the exit code."""
        from ..nn.diagnostics import Watched
        from ..train.loop import Diverged, fit

        again = f"continue with: {command('train', '--out', str(self.folder), '--resume', *self.plugin_flags)}"
        progress = ProgressLine(self.run.train.epochs, len(self.train), self.start.epoch if self.start else 0)

        train = Watched(self.net, self.train) if self.run.train.diagnose else self.train

        def on_epoch(report: EpochReport) -> None:
            self.keep(report)
            progress.epoch(report)
            if isinstance(train, Watched):
                self.look(report.epoch, train.before)
            if self.samples_are_due(report.epoch):
                show(self.samples(report.epoch))

        try:
            with self.events or contextlib.nullcontext(), progress:
                if self.run.train.diagnose and not self.start:
                    self.look(0, before=None)
                if progress.epochs_done < self.run.train.epochs:
                    history = fit(
                        self.net,
                        train,
                        self.valid,
                        self.run.train,
                        ctx=self.ctx,
                        trainer=self.trainer,
                        start=self.start,
                        on_step=progress.step,
                        on_epoch=on_epoch,
                        report_every=progress.report_every,
                    )
                    if history.stopped_early:
                        show(f"stopped: no better validation loss for {counted(self.run.train.patience, 'epoch')}")
            self.finish()
        except Diverged as error:
            write_json_atomic(self.folder / STATE, {"state": "diverged", "reason": str(error)})
            return failed(in_flags(str(error)), 1)
        except OSError as error:
            return failed(f"{one_line(error)}; {again}", 1)
        except KeyboardInterrupt:
            if not progress.epochs_done:
                return failed("interrupted before the end of the first epoch: nothing is saved", 130)
            return failed(f"interrupted; epoch {progress.epochs_done} is saved; {again}", 130)
        return 0

    def keep(self, report: EpochReport) -> None:
        """Save the metrics of an epoch, and a checkpoint."""
        from ..train import checkpoint

        append_metrics(self.folder / "metrics.jsonl", report)
        if self.events:
            self.events.add(report)
        state = {
            "epoch": report.epoch,
            "step": report.step,
            "best_epoch": report.best_epoch,
            "best_loss": report.best_loss,
            "seed": self.run.train.seed,
            "config": self.run.to_mapping(),
            "vocabulary": self.corpus.vocab.idx_to_token,
            "corpus_sha256": self.corpus.sha256,
            "versions": versions(),
        }
        if report.is_best:
            checkpoint.save(self.folder / "checkpoints", "best", self.net, None, state)
        checkpoint.save(self.folder / "checkpoints", "last", self.net, self.trainer, state)

    def look(self, epoch: int, before: Optional[Mapping[str, mx.nd.NDArray]]) -> None:
        """Diagnose the network on the first batch of the text; save the measurements and show what is wrong."""
        from ..nn.diagnostics import diagnose
        from ..train.loop import token_losses

        data, target = (array.as_in_context(self.ctx) for array in next(self.train.epoch(epoch)))
        states = self.net.begin_state(data.shape[1], ctx=self.ctx)
        seen = diagnose(self.net, data, states, lambda logits: token_losses(logits, target), before=before)
        sentences = seen.sentences(followed=[f"init={self.run.model.init}", f"cell={self.run.model.cell}"])
        layers = [asdict(layer) for layer in seen.layers]
        append_row(self.folder / "diagnosis.jsonl", {"epoch": epoch, "layers": layers, "sentences": sentences})
        if epoch in (0, self.run.train.epochs):
            show(textwrap.indent(seen.table(), "    "))
        for sentence in sentences or ["nothing is wrong with the layers"]:
            show(f"    {advice_in_flags(sentence)}")

    def finish(self) -> None:
        """Evaluate the best network on the test part, write summary and curves, and show the results."""
        from ..train import checkpoint
        from ..train.loop import evaluate, perplexity

        metrics = read_metrics(self.folder / "metrics.jsonl")
        best = next(row for row in metrics if row["epoch"] == metrics[-1]["best_epoch"])
        checkpoint.load(self.folder / "checkpoints", "best").restore(self.net)
        test_loss = evaluate(self.net, self.test, self.ctx)
        test_perplexity = math.inf if test_loss is None else perplexity(test_loss)
        seconds = sum(row["seconds"] for row in metrics)
        packages = versions()
        summary = {
            "test_loss": test_loss,
            "test_perplexity": test_perplexity if math.isfinite(test_perplexity) else None,
            **{name: best[name] for name in ("valid_loss", "valid_perplexity", "train_loss", "train_perplexity")},
            "best_epoch": best["epoch"],
            "epochs": metrics[-1]["epoch"],
            "parameters": parameter_count(self.net),
            "seconds": seconds,
            "corpus": self.corpus.name,
            "corpus_sha256": self.corpus.sha256,
            "versions": packages,
            "machine": {name: value for name, value in machine().items() if name not in packages},
        }
        write_json_atomic(self.folder / "summary.json", summary)
        curves(metrics, self.folder / "curves.png", title=f"{self.corpus.name}, {shape(self.run)}")
        if best["epoch"] < metrics[-1]["epoch"] or not self.samples_are_due(best["epoch"]):
            show(self.samples(best["epoch"]))
        part, loss = ("running train", best["train_loss"]) if test_loss is None else ("test", test_loss)
        show(f"{part} loss {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}")
        show(f"{seconds:.0f} s of training, {shape(self.run)}; the run is in {self.folder}")
        show("generate more: " + command("generate", str(self.folder), *self.plugin_flags))

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
        texts = [
            generated(
                self.net, self.corpus.vocab, self.run.data.unit, prefix, config.sample_length, sampler, rng, self.ctx
            )
            for prefix in config.sample_prefix.split("|")
        ]
        return "\n".join(f"\n{textwrap.indent(text, '    ')}" for text in texts) + "\n"


def build_train(given: Mapping[str, Any]) -> Callable[[], int]:
    """Check the arguments, load the text, build the network and create the run's folder; the result trains.

    Raises
    ------
    ValueError, TypeError, OSError
        For everything that the user can correct. Nothing has been written then.
    """
    resume = given.get("resume", False)
    if resume and not given.get("out"):
        raise ValueError("resume needs out=FOLDER, that of the run to be continued")
    if resume and not holds_a_run(given["out"]):
        raise ValueError(f"resume: there is no run in {given['out']}")
    if resume and given.get("init_from"):
        raise ValueError("resume continues with the run's own weights: omit init_from")
    run = resolve(given)
    assert run.out is not None
    folder = Path(run.out)
    if holds_a_run(folder) and not resume:
        raise ValueError(f"out {folder} holds a run already: choose another folder, or continue that run by --resume")

    use_threads(run.train.threads)
    import mxnet as mx

    from ..data.batches import Batches
    from ..nn.initializers import initializer
    from ..train import checkpoint
    from ..train.loop import make_trainer

    ctx = device(run.train.ctx)
    data = run.data
    start = checkpoint.load(folder / "checkpoints", "last") if resume else None
    earlier = start
    if given.get("init_from"):
        earlier = checkpoint.load(Path(given["init_from"]) / "checkpoints", "best")
        if earlier.state["config"]["unit"] != data.unit:
            raise ValueError(
                f"init_from {given['init_from']} was trained with unit={earlier.state['config']['unit']!r}"
            )
    corpus = corpus_of(data, saved_vocabulary(earlier) if earlier else None)
    if start and start.state["corpus_sha256"] != corpus.sha256:
        raise ValueError(f"resume: the text {corpus.name} is not what it was when the run in {folder} began")
    run, notes = with_known_prefixes(run, corpus.vocab, replaceable=origin("sample_prefix", given) == "preset")
    train = Batches(corpus.train, data.batch_size, data.seq_len, data.sampling, run.train.seed)
    valid, test = (Batches(ids, data.batch_size, data.seq_len, keep_last=True) for ids in (corpus.valid, corpus.test))

    mx.random.seed(run.train.seed)
    net = language_model(run.model, len(corpus.vocab), run.model.plugin)
    net.initialize(initializer(run.model.init, run.model.activation, run.model.residual), ctx=ctx)
    if run.model.plugin:
        try_plugin(net, run.model.plugin, ctx)
    net.hybridize(static_alloc=True, static_shape=True)
    trainer = make_trainer(net, run.train, run.train.epochs * len(train))
    if earlier:
        earlier.restore(net, trainer if start else None)

    try:
        events = EventWriter(folder) if run.train.tensorboard else None
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(folder / "config.yaml", as_yaml(run.to_mapping()))
        (folder / STATE).unlink(missing_ok=True)  # of an earlier attempt
    except OSError as error:
        raise ValueError(f"out {folder} cannot be written: {one_line(error)}") from error
    show(as_yaml(run.to_mapping(), flow=True).strip())
    show("\n".join([described(corpus), *notes]))
    sizes = f"{counted(parameter_count(net), 'parameter')}, {counted(len(train), 'update')} per epoch"
    show(f"{sizes}; the run is in {folder}")
    return Training(run, folder, corpus, train, valid, test, net, trainer, ctx, start, events).work


def with_known_prefixes(run: RunConfig, vocab: gluonnlp.Vocab, replaceable: bool) -> tuple[RunConfig, list[str]]:
    """Check the prefixes of the generated texts.

    Parameters
    ----------
    replaceable
        Drop a prefix that has unknown symbols, as those of a preset may have in the user's own text.

    Returns
    -------
    run, notes
        The run without these prefixes, and what was changed.

    Raises
    ------
    ValueError
        For a prefix with unknown symbols that is not replaceable.
    """
    prefixes, lacking = run.train.sample_prefix.split("|"), []
    for prefix in prefixes:
        try:
            prefix_ids(vocab, run.data.unit, prefix, f"sample_prefix {prefix!r}")
        except ValueError:
            if not replaceable:
                raise
            lacking.append(prefix)
    if not lacking:
        return run, []
    kept = "|".join(prefix for prefix in prefixes if prefix not in lacking)
    instead = "" if kept else "; generated texts start from the most frequent symbol instead"
    listed = ", ".join(map(repr, lacking))
    note = f"preset's --sample-prefix {listed} left out, as it has symbols that the text lacks{instead}"
    return replace(run, train=replace(run.train, sample_prefix=kept)), [note]


def shape(run: RunConfig) -> str:
    """A short description of model and optimizer, such as ``rnn 2 x 256, adam 0.005``."""
    return f"{run.model.cell} {run.model.layers} x {run.model.hidden_size}, {run.train.optimizer} {run.train.lr:g}"


def described(corpus: Corpus) -> str:
    """Sizes of a text and its vocabulary, and the notes about it, one per line."""
    sizes = ", ".join(f"{part} {len(getattr(corpus, part)):,}" for part in ("train", "valid", "test"))
    return "\n".join([f"{corpus.name}: {sizes} symbols, vocabulary {len(corpus.vocab):,}", *corpus.notes])
