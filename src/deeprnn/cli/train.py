"""`deeprnn train`: from a configuration to a trained network, its checkpoints and its summary."""

from __future__ import annotations

import contextlib
import math
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from jsonargparse import Namespace
from tqdm import tqdm

from .._util.files import write_json_atomic, write_text_atomic
from .._util.machine import machine, versions
from ..config import RunConfig
from ..generation import Sampler
from ..train.reports import EventWriter, append_metrics, append_row, curves, read_metrics
from .console import failed, reason, say, typed
from .options import in_yaml, resolve
from .runs import (
    context,
    holds_a_run,
    language_model,
    parameter_count,
    prefix_ids,
    saved_vocabulary,
    use_threads,
    write,
)

if TYPE_CHECKING:
    import mxnet as mx

    from ..data.batches import Batches
    from ..data.text import Corpus
    from ..models.language_model import LanguageModel
    from ..train.checkpoint import Checkpoint
    from ..train.loop import EpochReport, StepReport

__all__ = ["build_train"]


@dataclass(frozen=True, eq=False)
class Training:
    """A run that is ready to go, and what is kept and shown of it."""

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
        """Train; then measure the best network on the test part."""
        from ..nn.diagnostics import Watched
        from ..train.loop import Diverged, fit

        again = f"go on with: {typed('train', '--out', str(self.folder), '--resume')}"
        progress = Progress(self.run.train.epochs, len(self.train), self.start.epoch if self.start else 0)

        train = Watched(self.net, self.train) if self.run.train.diagnose else self.train

        def on_epoch(report: EpochReport) -> None:
            self.keep(report)
            progress.epoch(report)
            if isinstance(train, Watched):
                self.look(report.epoch, train.before)
            if self.samples_are_due(report.epoch):
                say(self.samples(report.epoch))

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
                        say(f"stopped: no better validation loss for {self.run.train.patience} epochs")
            self.finish()
        except Diverged as error:
            return failed(error, 1)
        except OSError as error:
            return failed(f"{reason(error)}; {again}", 1)
        except KeyboardInterrupt:
            if not progress.epochs_done:
                return failed("interrupted before the end of the first epoch: nothing is saved", 130)
            return failed(f"interrupted; epoch {progress.epochs_done} is saved; {again}", 130)
        return 0

    def keep(self, report: EpochReport) -> None:
        """Write down what an epoch came to, and the network as it is now."""
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
        """Diagnose the network on the text's first batch, write down what is seen, and say what is wrong."""
        from ..nn.diagnostics import diagnose
        from ..train.loop import token_losses

        data, target = (array.as_in_context(self.ctx) for array in next(self.train.epoch(epoch)))
        states = self.net.begin_state(data.shape[1], ctx=self.ctx)
        seen = diagnose(self.net, data, states, lambda logits: token_losses(logits, target), before=before)
        sentences = seen.sentences()
        layers = [asdict(layer) for layer in seen.layers]
        append_row(self.folder / "diagnosis.jsonl", {"epoch": epoch, "layers": layers, "sentences": sentences})
        if epoch in (0, self.run.train.epochs):
            say(textwrap.indent(seen.table(), "    "))
        for sentence in sentences or ["nothing is wrong with the layers"]:
            say(f"    {sentence}")

    def finish(self) -> None:
        """Measure the best network on the test part, write the summary and the picture, and show what came of it."""
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
            say(self.samples(best["epoch"]))
        part, loss = ("train", best["train_loss"]) if test_loss is None else ("test", test_loss)
        say(f"{part} loss {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}")
        say(f"{seconds:.0f} s of training, {shape(self.run)}; the run is in {self.folder}")
        say("write more: " + typed("generate", str(self.folder)))

    def samples_are_due(self, epoch: int) -> bool:
        every = self.run.train.sample_every
        return every > 0 and epoch % every == 0

    def samples(self, epoch: int) -> str:
        """A text for each prefix, the same for the same network, seed and epoch."""
        import numpy as np

        config = self.run.train
        rng = np.random.default_rng((config.seed, epoch))
        sampler = Sampler(greedy=config.sample_greedy)
        texts = [
            write(self.net, self.corpus.vocab, self.run.data.unit, prefix, config.sample_length, sampler, rng, self.ctx)
            for prefix in config.sample_prefix.split("|")
        ]
        return "\n".join(f"\n{textwrap.indent(text, '    ')}" for text in texts) + "\n"


def build_train(given: Namespace) -> Callable[[], int]:
    """Everything from the flags to a network and its batches; the run's folder is made when all the rest stands."""
    resume = given.get("resume", False)
    if resume and not given.get("out"):
        raise ValueError("--resume needs --out, the folder of the run to go on with")
    if resume and not holds_a_run(given.out):
        raise ValueError(f"--resume: there is no run to go on with in {given.out}")
    if resume and given.get("init_from"):
        raise ValueError("--resume goes on with the run's own weights: leave --init-from out")
    run = resolve(given)
    assert run.out is not None
    folder = Path(run.out)
    if holds_a_run(folder) and not resume:
        raise ValueError(f"--out {folder} holds a run already: choose another folder, or go on with it by --resume")
    say(in_yaml(run.to_mapping(), flow=True).strip())

    use_threads(run.train.threads)
    import mxnet as mx

    from ..data.batches import Batches
    from ..data.text import load_corpus
    from ..nn.initializers import initializer
    from ..train import checkpoint
    from ..train.loop import make_trainer

    ctx = context(run.train.ctx)
    data = run.data
    start = checkpoint.load(folder / "checkpoints", "last") if resume else None
    earlier = start
    if given.get("init_from"):
        earlier = checkpoint.load(Path(given.init_from) / "checkpoints", "best")
        if earlier.state["config"]["unit"] != data.unit:
            raise ValueError(f"--init-from {given.init_from} reads text by --unit {earlier.state['config']['unit']}")
    corpus = load_corpus(
        data.corpus,
        max_chars=data.max_chars,
        split=data.split,
        unit=data.unit,
        unknown=data.unknown,
        vocab=saved_vocabulary(earlier) if earlier else None,
    )
    if start and start.state["corpus_sha256"] != corpus.sha256:
        raise ValueError(f"--resume: the text {corpus.name} is not what it was when the run in {folder} began")
    for prefix in run.train.sample_prefix.split("|"):
        prefix_ids(corpus.vocab, data.unit, prefix, "--sample-prefix")
    train = Batches(corpus.train, data.batch_size, data.seq_len, data.sampling, run.train.seed)
    valid, test = (Batches(ids, data.batch_size, data.seq_len, keep_last=True) for ids in (corpus.valid, corpus.test))

    mx.random.seed(run.train.seed)
    net = language_model(run.model, len(corpus.vocab))
    net.initialize(initializer(run.model.init, run.model.activation, run.model.residual), ctx=ctx)
    net.hybridize(static_alloc=True, static_shape=True)
    trainer = make_trainer(net, run.train, run.train.epochs * len(train))
    if earlier:
        earlier.restore(net, trainer if start else None)
    say(described(corpus))
    say(f"{parameter_count(net):,} parameters, {len(train):,} updates an epoch; the run is in {folder}")

    try:
        events = EventWriter(folder) if run.train.tensorboard else None
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomic(folder / "config.yaml", in_yaml(run.to_mapping()))
    except OSError as error:
        raise ValueError(f"--out {folder} cannot be written: {reason(error)}") from error
    return Training(run, folder, corpus, train, valid, test, net, trainer, ctx, start, events).work


class Progress:
    """A live line on a terminal, elsewhere a plain one now and then; and for each epoch a line that stays."""

    def __init__(self, epochs: int, updates: int, epochs_done: int) -> None:
        self.epochs = epochs
        self.epochs_done = epochs_done
        self._bar = tqdm(
            total=epochs * updates,
            initial=epochs_done * updates,
            disable=not sys.stderr.isatty(),
            leave=False,
            bar_format="{desc} |{bar}| {percentage:.0f} %",
        )
        self.report_every = 10.0 if self._bar.disable else 1.0  # seconds

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def step(self, report: StepReport) -> None:
        line = (
            f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.4f} nats, perplexity {report.perplexity:.4g}, "
            f"{report.tokens_per_second:,.0f} tokens/s, {tqdm.format_interval(report.seconds_left)} left"
        )
        if self._bar.disable:
            say(line)
        else:
            self._bar.n = report.step
            self._bar.set_description_str(line)

    def epoch(self, report: EpochReport) -> None:
        self.epochs_done = report.epoch
        line = f"epoch {report.epoch}/{self.epochs}"
        for part, loss, perplexity in (
            ("train", report.train_loss, report.train_perplexity),
            ("valid", report.valid_loss, report.valid_perplexity),
        ):
            if loss is not None:
                line += f"  {part} {loss:.4f} nats, perplexity {perplexity:.4g}"
        say(f"{line}  {report.tokens_per_second:,.0f} tokens/s, {report.seconds:.1f} s")


def shape(run: RunConfig) -> str:
    """A model and its optimizer in few words."""
    return f"{run.model.cell} {run.model.layers} x {run.model.hidden_size}, {run.train.optimizer} {run.train.lr:g}"


def described(corpus: Corpus) -> str:
    """A text in a line, and what was done to it."""
    sizes = ", ".join(f"{part} {len(getattr(corpus, part)):,}" for part in ("train", "valid", "test"))
    return "\n".join([f"{corpus.name}: {sizes} symbols, vocabulary {len(corpus.vocab):,}", *corpus.notes])
