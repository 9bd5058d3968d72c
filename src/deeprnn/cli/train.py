"""`deeprnn train`: checks the arguments, loads the text, builds the network, and prepares the run's folder."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from .._util.extras import extra
from .._util.files import remove_temporary, write_text_atomic
from .._util.machine import machine, versions
from .._util.wording import counted
from ..config import RunConfig, as_yaml, check_resumed, flag, origin, resolve
from ..distributed.role import Role
from ..train.lock import RunLock
from ..train.reports import EventWriter, trim_metrics
from .console import log, one_line
from .processes import join, serving
from .runs import (
    COPY,
    check_size_of,
    corpus_of,
    devices,
    holds_a_run,
    language_model,
    parameter_count,
    prefix_ids,
    saved_corpus,
    saved_vocabulary,
    try_plugin,
)
from .training import STATE, Training

if TYPE_CHECKING:
    import gluonnlp

    from ..data.text import Corpus
    from ..distributed.workers import Alone
    from ..train.checkpoint import Checkpoint

__all__ = ["build_train"]

OF_EACH = ("out", "corpus", "plugin", "threads", "ctx", "kvstore")
"""Options that may differ among the workers of a run; the text is compared by its content."""


def build_train(given: Mapping[str, Any]) -> Callable[[], int]:
    """Check the arguments, load the text, build the network and create the run's folder; the result trains.

    Raises
    ------
    ValueError, TypeError, OSError
        For everything that the user can correct. Nothing has been written then.
    """
    role = Role.from_environment()
    if role and role.kind != "worker":
        return serving(role, resolve({**given, "resume": False}).train.timeout)
    resume = given.get("resume", False)
    if resume and not given.get("out"):
        raise ValueError("resume needs out=FOLDER, that of the run to be continued")
    if resume and not holds_a_run(given["out"]):
        raise ValueError(f"resume: there is no run in {given['out']}")
    if resume and given.get("init_from"):
        raise ValueError("resume continues with the run's own weights: omit init_from")
    run = resolve(given)
    assert run.out is not None
    if role and run.train.on_nan == "rollback" and origin("out", given) == "default":
        raise ValueError("on_nan='rollback' has every worker read the checkpoints: give all the same out=FOLDER")
    folder = Path(run.out)
    if holds_a_run(folder) and not resume:
        raise ValueError(f"out {folder} holds a run already: choose another folder, or continue that run by --resume")
    workers = join(role, run)
    if run.train.tensorboard and not workers.number:  # worker 0 writes them
        extra("tensorboardX", "tensorboard")
    with contextlib.ExitStack() as held:
        taken_over = hold_lock(folder, held) if resume and not workers.number else []
        training, notes = prepared(run, given, workers)
        if workers.number:
            return training.work
        if not resume:
            taken_over = hold_lock(folder, held)
            if holds_a_run(folder):
                raise ValueError(f"out {folder} now holds a run of another process: choose another folder")
        begin(training)
        training.held.push(held.pop_all())
    log(as_yaml(training.run.to_mapping(), flow=True).strip())
    log("\n".join([described(training.corpus), *taken_over, *notes]))
    sizes = f"{counted(parameter_count(training.net), 'parameter')}, {counted(len(training.train), 'update')} per epoch"
    log(f"{sizes}; the run is in {folder}")
    return training.work


def prepared(run: RunConfig, given: Mapping[str, Any], workers: Alone) -> tuple[Training, list[str]]:
    """The training of a run, new or resumed, and notes about it for the user. Nothing is written."""
    import mxnet as mx

    from ..data.batches import Batches
    from ..models.sampled import SampledLoss
    from ..nn.initializers import initializer
    from ..train import checkpoint
    from ..train.loop import make_trainer
    from ..train.saving import Checkpoints

    assert run.out is not None
    folder, data = Path(run.out), run.data
    contexts = devices(run.train.ctx)
    start = checkpoint.load(folder / "checkpoints") if given.get("resume") else None
    earlier = start
    if given.get("init_from"):
        earlier = checkpoint.load(Path(given["init_from"]) / "checkpoints", "best")
        unit = earlier.state["config"].get("unit")
        if unit != data.unit:
            raise ValueError(f"init_from {given['init_from']} was trained with unit={unit!r}")
    vocab = saved_vocabulary(earlier) if earlier else None
    corpus = saved_corpus(folder, data, start.state, vocab) if start else corpus_of(data, vocab)
    run, notes = with_known_prefixes(run, corpus.vocab, replaceable=origin("sample_prefix", given) == "preset")
    how = (data.batch_size, data.seq_len, data.sampling, run.train.seed)
    train = Batches(corpus.train, *how, share=workers.share)
    valid, test = (Batches(ids, data.batch_size, data.seq_len, keep_last=True) for ids in (corpus.valid, corpus.test))

    mx.random.seed(run.train.seed)
    if earlier:
        check_size_of(run.model, earlier)
    net = language_model(run.model, len(corpus.vocab), run.model.plugin)
    net.initialize(initializer(run.model.init, run.model.activation, run.model.residual), ctx=contexts)
    if run.model.plugin:
        try_plugin(net, run.model.plugin, contexts[0])
    net.hybridize(static_alloc=True, static_shape=True)
    rollbacks = saved_rollbacks(start) if start else []
    config = replace(run.train, lr=rollbacks[-1]["lr"]) if rollbacks else run.train
    trainer = make_trainer(net, config, run.train.epochs * len(train), workers.kvstore)
    if earlier:
        earlier.restore(net, trainer if start else None)
    sampled = None
    if config.loss != "full":
        sampled = SampledLoss(net, config.loss, config.samples, config.seed, lambda: trainer.optimizer.num_update)
    facts = saved_facts(run, corpus)
    if start:
        check_resumed(run, start.state["config"])  # the folder's config.yaml may have been edited
        notes += differences(start, facts)
    workers.compare(comparable(facts, start))
    if workers.number:  # worker 0 reports
        run = replace(run, train=replace(run.train, diagnose=False, sample_every=0, tensorboard=False))
    checkpoints = Checkpoints(folder / "checkpoints", start, workers)
    rest: tuple[Any, ...] = (start, checkpoints, facts, rollbacks, sampled)
    training = Training(run, folder, corpus, train, valid, test, net, trainer, contexts, workers, *rest)
    return training, notes


def saved_facts(run: RunConfig, corpus: Corpus) -> dict[str, Any]:
    """What a checkpoint holds besides weights and position."""
    from ..nn import native

    machine_now = machine()
    return {
        "seed": run.train.seed,
        "config": run.to_mapping(),
        "vocabulary": corpus.vocab.idx_to_token,
        "unk_token": corpus.vocab.unknown_token,
        "corpus_sha256": corpus.sha256,
        "corpus_symbols": len(corpus.train) + len(corpus.valid) + len(corpus.test),
        "corpus_path": None if corpus.path is None else str(corpus.path),
        "versions": versions(),
        "machine": {
            **{name: machine_now[name] for name in ("processor", "instruction_set", "threads")},
            "native": native.status().instruction_set or "none",
        },
    }


def comparable(facts: Mapping[str, Any], start: Optional[Checkpoint]) -> dict[str, Any]:
    """What must be the same for all workers of a run."""
    options = {flag(name): value for name, value in facts["config"].items() if name not in OF_EACH}
    packages = {f"version of {name}": facts["versions"][name] for name in ("deeprnn", "mxnet")}
    text = {"a text of SHA-256": facts["corpus_sha256"][:12], "step": start.step if start else 0}
    return {**packages, **text, **options}


def saved_rollbacks(start: Checkpoint) -> list[dict[str, Any]]:
    """The rollbacks of a run; raises ValueError if the checkpoint has malformed ones."""
    rollbacks = start.state.get("rollbacks", [])
    fine = isinstance(rollbacks, list) and all(
        isinstance(each, dict) and type(each.get("lr")) is float and each["lr"] > 0 for each in rollbacks
    )
    if not fine:
        raise ValueError(f"{start.path} is damaged: its rollbacks are {str(rollbacks)[:100]}")
    return list(rollbacks)


def differences(start: Checkpoint, facts: Mapping[str, Any]) -> list[str]:
    """Notes for the user who resumes a run: where it continues, and what may change its results."""
    position = start.position
    notes = [f"{damaged}; the checkpoint before it is used" for damaged in start.damaged]
    notes.append(f"continuing after step {position.step:,} ({counted(position.epoch, 'epoch')} done)")
    now, then = facts["config"], start.state["config"]
    if now["epochs"] != then.get("epochs") and now["schedule"] != "constant":
        notes.append(
            f"the run began with --epochs {then.get('epochs')}; the learning rate now follows the schedule of "
            f"{counted(now['epochs'], 'epoch')} (--schedule {now['schedule']})"
        )
    for kind in ("versions", "machine"):
        before = start.state.get(kind)
        for name, value in facts[kind].items():
            if isinstance(before, dict) and name in before and before[name] != value:
                notes.append(
                    f"{name} was {before[name]} and is {value} now: the results may differ in their last digits from "
                    "those of a run that was not stopped"
                )
    return notes


def hold_lock(folder: Path, held: contextlib.ExitStack) -> list[str]:
    """Make the folder of a run and hold its lock until `held` is closed; returns a note if its last owner died."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = held.enter_context(RunLock(folder))
    except OSError as error:
        raise ValueError(f"out {folder} cannot be written: {one_line(error)}") from error
    return [f"process {lock.died}, which trained this run, has died: its lock is taken over"] if lock.died else []


def begin(training: Training) -> None:
    """Write the first files of a run to its folder, whose lock is held."""
    folder = training.folder
    try:
        if training.run.train.tensorboard:
            training.events = EventWriter(folder)
        remove_temporary(folder)
        write_text_atomic(folder / "config.yaml", as_yaml(training.run.to_mapping()))
        (folder / STATE).unlink(missing_ok=True)  # of an earlier attempt
        if training.start:
            trim_metrics(folder / "metrics.jsonl", training.start.epoch)
        if training.corpus.text is not None:
            write_text_atomic(folder / COPY, training.corpus.text)
    except OSError as error:
        raise ValueError(f"out {folder} cannot be written: {one_line(error)}") from error


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


def described(corpus: Corpus) -> str:
    """Sizes of a text and its vocabulary, and the notes about it, one per line."""
    sizes = ", ".join(f"{part} {len(getattr(corpus, part)):,}" for part in ("train", "valid", "test"))
    return "\n".join([f"{corpus.name}: {sizes} symbols, vocabulary {len(corpus.vocab):,}", *corpus.notes])
