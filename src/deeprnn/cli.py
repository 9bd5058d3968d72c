"""From flags to the rooms: every command parses, builds, calls.

    train       configuration -> text -> ids -> batches -> network -> fit -> checkpoints -> summary
    generate    run -> network -> text
    evaluate    run -> network -> loss

What is wrong with the arguments is told in one line before any work begins, exit code 2; a failure at work gives 1,
Ctrl-C 130. mxnet is loaded after the arguments have been found right, so that help and mistakes are told at once.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader
from jsonargparse.typing import register_type
from tqdm import tqdm

from . import __version__
from .checks import check_choice
from .config import (
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    ModelConfig,
    RunConfig,
    Split,
    TrainConfig,
    chosen,
    flag,
)
from .files import write_json_atomic, write_text_atomic
from .generation import Sampler, generate
from .machine import cores, keep_freed_memory, machine, versions
from .report import EventWriter, append_metrics, append_row, beside_one_layer, curves, read_metrics

if TYPE_CHECKING:
    import gluonnlp
    import mxnet as mx
    import numpy as np

    from .batches import Batches
    from .checkpoint import Checkpoint
    from .corpus import Corpus
    from .language_model import LanguageModel
    from .training import EpochReport, StepReport

__all__ = ["main"]

PRESETS = Path(__file__).parent / "configs"

ONE_LAYER = Path(__file__).parent / "one_layer.json"
"""A recorded run on the built-in text, for comparing."""

ACTS = ("preset", "config", "resume", "init_from")
"""Flags that say what to do, not what the run is: they are not saved with it."""

OPTIONS = (RunConfig, DataConfig, ModelConfig, TrainConfig, GenerateConfig, Sampler, EvaluateConfig)
"""Where the flags come from."""

MAY_CHANGE = (
    *("out", "corpus", "epochs", "patience", "threads", "ctx", "tensorboard"),
    *("sample_every", "sample_length", "sample_prefix", "sample_greedy", "diagnose"),
)
"""Options that need not be what they were when a run is taken up again; of the text, its SHA-256 is compared."""

Work = Callable[[], int]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line `argv`, by default the process's own; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a text may hold what the terminal cannot show
    try:
        try:
            work = build(argv)
        except (ValueError, TypeError, OSError) as error:
            return failed(error, 2)
        return work()
    except KeyboardInterrupt:
        return failed("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read us is gone: nothing to flush to
        return 1


def build(argv: Optional[Sequence[str]]) -> Work:
    """Everything that can go wrong by the user's mistake; what comes back does the work, and returns the exit code."""
    parser = command_line()
    try:
        given = parser.parse_args(argv, defaults=False)
    except ArgumentError as error:
        raise ValueError(told(error)) from error
    builders = {"train": build_train, "generate": build_generate, "evaluate": build_evaluate}
    return builders[given.command](given[given.command])


def failed(error: object, code: int) -> int:
    """Say in one line what went wrong, and return the exit code."""
    print("deeprnn: error:", reason(error), file=sys.stderr)
    return code


# The flags


class Parser(ArgumentParser):
    """Spells options with dashes and takes a switch alone for true; raises what is wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exit_on_error=False, allow_abbrev=False, **options)
        self.add_argument("--version", action="version", version=f"deeprnn {__version__}", help="Print the version.")

    def add_argument(self, *names: str, **options: Any) -> Any:
        if options.get("type") is bool:
            options.update(nargs="?", const=True)
        return super().add_argument(*(flag(name[2:]) if name.startswith("--") else name for name in names), **options)


def command_line() -> Parser:
    """The flags of all commands; what one means, and may be, is said by the dataclass field that it sets."""
    register_type(Split, serializer=list, deserializer=Split.parse)
    parser = Parser(prog="deeprnn", description="Deep recurrent networks for MXNet Gluon.")
    commands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands")

    train = Parser(description="Train a language model on a text.", usage="deeprnn train [options]")
    train.add_argument("--preset", metavar="NAME", help=f"Take the options of a preset: {', '.join(presets())}.")
    train.add_argument("--config", metavar="FILE", help="Take the options in a YAML file; they go before a preset's.")
    train.add_class_arguments(RunConfig, as_group=False, skip={"data", "model", "train"})
    train.add_argument("--resume", action="store_true", help="Go on with the run in --out.")
    train.add_argument("--init-from", metavar="RUN", help="Begin with another run's weights and vocabulary.")
    for part in (DataConfig, ModelConfig, TrainConfig):
        train.add_class_arguments(part)
    commands.add_subcommand("train", train, help=train.description)

    generate = Parser(description="Write text with a trained model.", usage="deeprnn generate RUN [options]")
    generate.add_argument("run", metavar="RUN", help="Folder of the run.")
    generate.add_class_arguments(GenerateConfig)
    generate.add_class_arguments(Sampler)
    commands.add_subcommand("generate", generate, help=generate.description)

    evaluate = Parser(description="Measure a trained model.", usage="deeprnn evaluate RUN [options]")
    evaluate.add_argument("run", metavar="RUN", help="Folder of the run.")
    evaluate.add_class_arguments(EvaluateConfig)
    commands.add_subcommand("evaluate", evaluate, help=evaluate.description)
    return parser


def told(error: ArgumentError) -> str:
    """The parser's error: in the configuration's words if it has any, and with the flag that may have been meant."""
    text = " ".join(str(error).split())
    wrong = re.match(r'Parser key "(\w+)": .*[Vv]alue: (.*)', text)
    stray = re.match(r"unrecognized arguments: (--[\w-]+)", text)
    if wrong:
        for part in OPTIONS:
            try:
                chosen(part, {wrong[1]: wrong[2]})
            except (TypeError, ValueError) as ours:
                return str(ours)
    if stray:
        known = [*ACTS, *(field.name for part in OPTIONS for field in fields(part))]
        close = difflib.get_close_matches(stray[1], map(flag, known), n=1)
        return f"{text} (did you mean {close[0]}?)" if close else text
    return re.sub(r'^Parser key "\w+": Not of type \w+: |\b\w+\.(?=run$)', "", text)


def presets() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_options(path: Path) -> dict[str, Any]:
    """The options in a YAML file, each one checked, so that the error can say which file it is in."""
    try:
        options = get_loader("yaml")(path.read_text(encoding="utf-8"))
        if options is None:
            return {}
        if not isinstance(options, dict):
            raise ValueError(f"expected options such as layers: 2, one a line, got {options!r}")
        RunConfig.from_mapping(options)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return options


def resolve(given: Namespace) -> RunConfig:
    """The defaults, what the run began with (--resume), --preset, --config, the flags: the last of them counts."""
    begun = read_options(Path(given.out) / "config.yaml") if given.get("resume") else {}
    options = dict(begun)
    if given.get("preset"):
        options |= read_options(PRESETS / f"{check_choice('--preset', given.preset, presets())}.yaml")
    if given.get("config"):
        options |= read_options(Path(given.config))
    options |= {name: value for name, value in vars(given).items() if name not in ACTS}
    run = RunConfig.from_mapping(options)
    now, then = run.to_mapping(), RunConfig.from_mapping(begun).to_mapping()
    for name in begun:
        if name not in MAY_CHANGE and now[name] != then[name]:
            raise ValueError(f"--resume: the run in {run.out} has {flag(name)} {then[name]}, got {now[name]}")
    return run if run.out else replace(run, out=default_folder(run))


def default_folder(run: RunConfig) -> str:
    """What tells runs apart: text, model, time."""
    text = re.sub(r"[^\w-]+", "-", Path(run.data.corpus).name.split(".")[0]) or "text"
    model = f"{run.model.cell}-{run.model.layers}x{run.model.hidden_size}"
    return f"runs/{text}-{model}-{time.strftime('%Y%m%d-%H%M%S')}"


def in_yaml(options: Mapping[str, Any], flow: bool = False) -> str:
    """Options as --config reads them, one a line or many; without the folder, so that another run can have them."""
    options = {name: value for name, value in options.items() if name != "out"}
    return yaml.safe_dump(
        options, default_flow_style=flow or None, width=110 if flow else 80, sort_keys=False, allow_unicode=True
    )


# Train


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
        from .depth import Watched
        from .training import Diverged, fit

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
        from . import checkpoint

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
        from .depth import diagnose
        from .training import token_losses

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
        from . import checkpoint
        from .corpus import BUILT_IN
        from .training import evaluate, perplexity

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
        if self.run.model.layers > 1 and self.corpus.name == BUILT_IN and best["valid_loss"] is not None:
            one_layer = json.loads(ONE_LAYER.read_text(encoding="utf-8"))
            say(f"validation loss {best['valid_loss']:.4f} nats per token, {self.run.model.layers} layers")
            say(beside_one_layer(one_layer, seconds, self.corpus.sha256))
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


def build_train(given: Namespace) -> Work:
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

    from . import checkpoint
    from .batches import Batches
    from .corpus import load_corpus
    from .initializers import initializer
    from .training import make_trainer

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


def holds_a_run(folder: Union[str, Path]) -> bool:
    """Whether an epoch is saved there."""
    return (Path(folder) / "checkpoints" / "last.json").exists()


# Generate, evaluate


def build_generate(given: Namespace) -> Work:
    """Write a text to standard output, and nothing else."""
    config, sampler = chosen(GenerateConfig, vars(given)), chosen(Sampler, vars(given))
    use_threads(0)
    import mxnet as mx
    import numpy as np

    net, vocab, run, _ = open_run(Path(given.run))
    prefix_ids(vocab, run.data.unit, config.prefix, "--prefix")
    rng = np.random.default_rng(config.seed)

    def work() -> int:
        print(write(net, vocab, run.data.unit, config.prefix, config.length, sampler, rng, mx.cpu()), flush=True)
        return 0

    return work


def build_evaluate(given: Namespace) -> Work:
    """Print loss and perplexity on a part of the run's text."""
    config = chosen(EvaluateConfig, vars(given))
    use_threads(0)
    import mxnet as mx

    from .batches import Batches
    from .corpus import load_corpus
    from .training import evaluate, perplexity

    net, vocab, run, checkpoint = open_run(Path(given.run))
    data = run.data
    corpus = load_corpus(data.corpus, max_chars=data.max_chars, split=data.split, unit=data.unit, vocab=vocab)
    if corpus.sha256 != checkpoint.state["corpus_sha256"]:
        raise ValueError(f"the text {corpus.name} is not what it was when the run in {given.run} began")
    batches = Batches(getattr(corpus, config.part), data.batch_size, data.seq_len, keep_last=True)
    if not len(batches):
        raise ValueError(f"--part {config.part} has no text: the run has --split {data.split}")

    def work() -> int:
        loss = evaluate(net, batches, mx.cpu())
        assert loss is not None
        tokens = f"{batches.scored:,} tokens"
        say(f"{config.part} loss {loss:.4f} nats per token, perplexity {perplexity(loss):.4g}, {tokens}")
        return 0

    return work


def open_run(folder: Path) -> tuple[LanguageModel, gluonnlp.Vocab, RunConfig, Checkpoint]:
    """The best network of a run, with its vocabulary and configuration."""
    import mxnet as mx

    from . import checkpoint

    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of a run")
    best = checkpoint.load(folder / "checkpoints", "best")
    run = RunConfig.from_mapping(best.state["config"])
    vocab = saved_vocabulary(best)
    net = language_model(run.model, len(vocab))
    best.restore(net, ctx=mx.cpu())
    net.hybridize(static_alloc=True, static_shape=True)
    return net, vocab, run, best


# What the commands share


def use_threads(threads: int) -> None:
    """Settle how many threads mxnet computes with, before it is imported: left alone it takes half of the cores."""
    if threads or "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads or cores())
    keep_freed_memory()


def context(name: str) -> mx.Context:
    import mxnet as mx

    if name == "gpu" and not mx.context.num_gpus():
        raise ValueError("--ctx gpu: mxnet finds no GPU here; use --ctx cpu")
    return mx.Context(name)


def language_model(config: ModelConfig, vocab_size: int) -> LanguageModel:
    from .language_model import LanguageModel

    return LanguageModel(
        vocab_size,
        config.hidden_size,
        config.layers,
        cell=config.cell,
        activation=config.activation,
        embedding_size=config.embedding_size,
        dropout=config.dropout,
        residual=config.residual,
        layer_norm=config.layer_norm,
        zoneout=config.zoneout,
        tied=config.tied,
        backend=config.backend,
    )


def parameter_count(net: LanguageModel) -> int:
    return sum(parameter.data().size for parameter in net.collect_params().values())


def saved_vocabulary(checkpoint: Checkpoint) -> gluonnlp.Vocab:
    from .corpus import UNKNOWN_TOKEN, vocabulary

    tokens = checkpoint.state["vocabulary"]
    return vocabulary(tokens, UNKNOWN_TOKEN if UNKNOWN_TOKEN in tokens else None)


def prefix_ids(vocab: gluonnlp.Vocab, unit: str, prefix: str, option: str = "prefix") -> list[int]:
    """The ids of a prefix; of an empty one the most frequent symbol, which in most texts a word can follow."""
    from .corpus import encode

    if not prefix:
        return [0 if vocab.unknown_token is None else 1]
    try:
        ids = encode(vocab, prefix, unit).tolist()
    except ValueError as error:
        raise ValueError(f"{option} {prefix!r}: {error}") from error
    if not ids:
        raise ValueError(f"{option} {prefix!r} has no {unit} in it")
    return ids


def write(
    net: LanguageModel,
    vocab: gluonnlp.Vocab,
    unit: str,
    prefix: str,
    length: int,
    sampler: Sampler,
    rng: np.random.Generator,
    ctx: mx.Context,
) -> str:
    """The prefix, and `length` symbols more."""
    from .corpus import decode

    ids = prefix_ids(vocab, unit, prefix)
    never = [] if vocab.unknown_token is None else [vocab[vocab.unknown_token]]  # it stands for no text
    added = generate(net, ids, length, sampler=sampler, rng=rng, never=never, ctx=ctx)
    return decode(vocab, ids + added if prefix else added, unit)


# What is shown


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


def say(text: str) -> None:
    """Show lines that stay, above the live one."""
    with tqdm.external_write_mode():
        print(text, flush=True)


def shape(run: RunConfig) -> str:
    """A model and its optimizer in few words."""
    return f"{run.model.cell} {run.model.layers} x {run.model.hidden_size}, {run.train.optimizer} {run.train.lr:g}"


def described(corpus: Corpus) -> str:
    """A text in a line, and what was done to it."""
    sizes = ", ".join(f"{part} {len(getattr(corpus, part)):,}" for part in ("train", "valid", "test"))
    return "\n".join([f"{corpus.name}: {sizes} symbols, vocabulary {len(corpus.vocab):,}", *corpus.notes])


def typed(*arguments: str) -> str:
    """What to type for a command of this program, in the environment that it is running in."""
    environment = Path(sys.executable).parent
    if shutil.which("deeprnn") == str(environment / "deeprnn"):
        program = ["deeprnn"]
    else:
        inside = Path.cwd() in environment.parents
        program = [os.path.relpath(sys.executable) if inside else sys.executable, "-m", "deeprnn"]
    return shlex.join([*program, *arguments])


def reason(error: object) -> str:
    """An error in one line."""
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return " ".join(line.strip() for line in text.splitlines())
