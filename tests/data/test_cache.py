"""Ids of large texts in files: the same ids as in memory, made once, and never wrong ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import deeprnn
from deeprnn.data import cache as caching
from deeprnn.data import encoded as encoding
from deeprnn.data import text as texts
from deeprnn.data import unpacking
from deeprnn.data.batches import Batches
from deeprnn.data.cache import Cache
from deeprnn.data.encoded import Encoded, Ids
from deeprnn.data.reading import Reading
from deeprnn.data.text import encode, load_corpus

ENGLISH = "the cat sat on the mat\nand the dog sat on the log, caf\u00e9\r\n" * 100
CHINESE = "".join(chr(0x4E00 + i * 7919 % 3000) + ("\n" if i % 40 == 39 else "") for i in range(9000))
SOURCES = str(Path(deeprnn.__file__).parents[1])
PARTS = ("train", "valid", "test")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Texts of a thousand characters are large here; returns the folder of the cache."""
    monkeypatch.setattr(unpacking, "CHUNK", 700)
    monkeypatch.setattr(encoding, "CHUNK", 100)
    monkeypatch.setattr(texts, "LARGE", 1000)
    monkeypatch.setattr(caching, "STEP", 1500)
    folder = tmp_path / "cache"
    monkeypatch.setenv("DEEPRNN_CACHE", str(folder))
    return folder / "corpora"


@pytest.fixture
def path(small, write):
    """A text that has been encoded."""
    path = write("a.txt", ENGLISH.encode())
    load_corpus(path)
    return path


def in_memory(monkeypatch, *args, **options):
    with monkeypatch.context() as patched:
        patched.setattr(texts, "LARGE", 1 << 40)
        patched.setenv("DEEPRNN_CACHE", "/nowhere")
        return load_corpus(*args, **options)


def same(corpus, other):
    for part in PARTS:
        np.testing.assert_array_equal(getattr(corpus, part), getattr(other, part))
    assert corpus.vocab.idx_to_token == other.vocab.idx_to_token
    fields = ("name", "sha256", "unknown", "path", "text")
    assert [getattr(corpus, field) for field in fields] == [getattr(other, field) for field in fields]
    assert without_origin(corpus.notes) == without_origin(other.notes)


def without_origin(notes):
    return [note for note in notes if "encoded" not in note]


def pending(folder):
    """What has been begun and not finished. (Before Python 3.11, ``*/`` is any file.)"""
    return [path for path in folder.glob("pending/*") if path.is_dir()]


def is_kept(corpus):
    """Whether the ids are those of a file."""
    return isinstance(corpus.train, Ids) or not corpus.train.flags.writeable


def codes_of(small):
    [path] = small.glob("*/codes")
    return path


def counted_parts(monkeypatch, name="add"):
    """The parts of texts that are encoded from now on."""
    parts, add = [], Encoded.add

    def counting(self, part):
        if not self.behind:
            parts.append(part)
        add(self, part)

    monkeypatch.setattr(Encoded, "add", counting)
    return parts


# -- the same ids


@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize(
    "text, options",
    [
        (ENGLISH, {}),
        (ENGLISH, {"split": (1, 0, 0), "unknown": False}),
        (ENGLISH, {"max_chars": 2222, "encoding": "utf-16"}),
        (CHINESE, {"encoding": "gb18030", "split": (0.5, 0.2, 0.3)}),
        (ENGLISH + CHINESE, {}),
    ],
)
def test_kept_ids_are_those_in_memory(small, write, monkeypatch, unit, text, options):
    path = write("a.txt", text.encode(options.get("encoding", "utf-8")))
    kept = load_corpus(path, unit=unit, **options)
    plain = in_memory(monkeypatch, path, unit=unit, **options)
    assert is_kept(kept) and not is_kept(plain)
    same(kept, plain)
    ids = np.concatenate([getattr(plain, part) for part in PARTS])
    read = text.replace("\r", "")[: options.get("max_chars")]
    np.testing.assert_array_equal(ids, encode(plain.vocab, read, unit, unknown="token"))
    assert kept.train.dtype == (np.uint8 if len(kept.vocab) < 128 else np.uint16)  # nothing is looked up
    again = load_corpus(path, unit=unit, **options)
    same(again, plain)
    assert not pending(small) and not list(small.glob("*.tmp"))


def test_archives_and_several_files(small, write, monkeypatch, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("c.txt", "without end" * 300)
    write("b1.txt.gz", gzip.compress(ENGLISH.encode()))
    write("b2.zip", buffer.getvalue())
    write("b3.txt", b"\xef\xbb\xbfend")
    listed = ",".join(str(tmp_path / name) for name in ("b1.txt.gz", "b2.zip", "b3.txt"))
    kept = load_corpus(str(tmp_path / "b*"))
    same(kept, in_memory(monkeypatch, str(tmp_path / "b*")))
    assert kept.name == "b1.txt.gz and 2 more"
    text = ENGLISH.replace("\r", "") + "without end" * 300 + "\nend"
    assert kept.sha256 == load_corpus(listed).sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert kept.notes[:2] == [
        "b1.txt.gz: 100 carriage returns (CR LF or CR) read as newlines",
        "b3.txt: byte-order mark removed",
    ]
    cut = len(ENGLISH) - 100 + 3300 + 1  # the end of the second text, and the newline between
    for limit in (10, cut - 1, cut, cut + 1):
        assert "".join(Reading(str(tmp_path / "b*"), max_chars=limit)) == text[:limit]


def test_batches_of_kept_ids(path, monkeypatch):
    kept, plain = load_corpus(path), in_memory(monkeypatch, path)
    for part in PARTS:
        for options in ({}, {"sampling": "random"}, {"keep_last": True}):
            pairs = [list(Batches(getattr(c, part), 4, 7, **options).epoch(1)) for c in (kept, plain)]
            for (data, target), (other, other_target) in zip(*pairs):
                np.testing.assert_array_equal(data.asnumpy(), other.asnumpy())
                np.testing.assert_array_equal(target.asnumpy(), other_target.asnumpy())
                assert data.dtype == target.dtype == np.int32


# -- once


def test_a_text_is_encoded_once(small, path, monkeypatch):
    first = load_corpus(path)
    monkeypatch.setattr(Reading, "__iter__", None)  # it is not read at all
    same(load_corpus(path), first)
    same(load_corpus(path, vocab=first.vocab), first)  # as a resumed run does
    assert first.notes[-1] == "encoded earlier, and size, time and inode of the text are the same"
    assert load_corpus(path, vocab=first.vocab).vocab is first.vocab


def test_other_options_are_other_ids(small, path, monkeypatch):
    same(load_corpus(path, split=(0.5, 0.25, 0.25)), in_memory(monkeypatch, path, split=(0.5, 0.25, 0.25)))
    load_corpus(path, unit="word")
    load_corpus(path, max_chars=2000)
    assert len(list(small.glob("*/codes"))) == 3  # the split is a matter of the vocabulary


def test_a_file_that_was_touched_is_read_but_not_encoded(path, monkeypatch):
    first = load_corpus(path)
    os.utime(path)
    parts = counted_parts(monkeypatch)
    again = load_corpus(path)
    same(again, first)
    assert not parts
    assert again.notes[-1] == "encoded earlier, and the SHA-256 of the text is the same"
    monkeypatch.setattr(Reading, "__iter__", None)
    same(load_corpus(path), first)  # its new time is known


def test_a_text_that_was_changed_is_encoded_anew(small, path, monkeypatch):
    before = codes_of(small)
    time_before = os.stat(path).st_mtime_ns
    Path(path).write_bytes(ENGLISH.replace("dog", "god").encode())
    os.utime(path, ns=(time_before, time_before))
    with monkeypatch.context() as patched:  # the file is as large, as old, in the same place: hashes alone tell
        patched.setattr(Reading, "__iter__", None)
        load_corpus(path)
    corpus = load_corpus(path, check_cache=True)
    same(corpus, in_memory(monkeypatch, path))
    assert corpus.notes[-1] == "the text has changed since it was encoded; encoded again"
    assert not before.exists() and codes_of(small)
    Path(path).write_bytes(ENGLISH.encode())
    same(load_corpus(path), in_memory(monkeypatch, path))


# -- damage


def flip(path, at=-10):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
@pytest.mark.parametrize("name", ["*/codes", "*/codes.json", "*/[!c]*.json", "sources/*.json"])
def test_a_damaged_cache_is_made_anew(small, path, monkeypatch, damage, name):
    for file in small.glob(name):
        damage(file)
    same(load_corpus(path), in_memory(monkeypatch, path))
    same(load_corpus(path), in_memory(monkeypatch, path))
    assert len(list(small.glob("*/codes"))) == 1


def test_a_bit_that_flips_on_the_disk_is_found_where_asked(small, path, monkeypatch):
    file = codes_of(small)
    before = file.stat().st_mtime_ns
    flip(file)
    os.utime(file, ns=(before, before))
    corpus = load_corpus(path, check_cache=True)
    same(corpus, in_memory(monkeypatch, path))
    assert corpus.notes[-1] == "the codes in the cache were damaged; encoded again"


def test_a_cache_that_was_copied_is_checked_once(small, path, monkeypatch):
    first = load_corpus(path)
    shutil.copytree(small, small.with_name("copy"))
    shutil.rmtree(small)
    small.with_name("copy").rename(small)
    hashed = []
    monkeypatch.setattr(caching, "_file_sha256", lambda path: hashed.append(path) or json.loads(
        path.with_name("codes.json").read_text())["content"]["codes_sha256"])  # fmt: skip
    for _ in range(2):
        same(load_corpus(path), first)
    assert len(hashed) == 1


# -- interruptions


def interrupted(path, monkeypatch, after, **options):
    """Encode a text up to some part; returns the parts."""
    with monkeypatch.context() as patched:
        parts = counted_parts(patched)
        add = Encoded.add

        def stopping(self, part):
            if len(parts) >= after:
                raise KeyboardInterrupt
            add(self, part)

        patched.setattr(Encoded, "add", stopping)
        with pytest.raises(KeyboardInterrupt):
            load_corpus(path, **options)
    return parts


@pytest.mark.parametrize("unit", ["char", "word"])
def test_what_was_encoded_is_not_encoded_again(small, write, monkeypatch, unit):
    path = write("a.txt", (ENGLISH + CHINESE).encode())
    interrupted(path, monkeypatch, 30, unit=unit)
    assert not list(small.glob("*/codes"))
    [state] = small.glob("pending/*/state.json")
    done = json.loads(state.read_text())["content"]["characters"]
    parts = counted_parts(monkeypatch)
    corpus = load_corpus(path, unit=unit)
    assert done > 1400
    assert len("".join(parts)) == len(ENGLISH + CHINESE) - 100 - done
    same(corpus, in_memory(monkeypatch, path, unit=unit))
    assert not pending(small)


@pytest.mark.parametrize("name, damage", [("codes", flip), ("codes", cut), ("state.json", flip), ("state.json", cut)])
def test_a_damaged_beginning_is_encoded_again(small, write, monkeypatch, name, damage):
    path = write("a.txt", ENGLISH.encode())
    interrupted(path, monkeypatch, 8)
    [file] = small.glob(f"pending/*/{name}")
    if name == "codes":
        os.truncate(file, json.loads(file.with_name("state.json").read_text())["content"]["count"])
    damage(file)
    same(load_corpus(path), in_memory(monkeypatch, path))


@pytest.mark.parametrize("text", [ENGLISH.replace("cat", "tac"), ENGLISH[:1200], ENGLISH[:-500]])
def test_another_text_does_not_continue_an_interrupted_one(small, write, monkeypatch, text):
    path = write("a.txt", ENGLISH.encode())
    interrupted(path, monkeypatch, 8)
    write("a.txt", text.encode())
    same(load_corpus(path), in_memory(monkeypatch, path))


def test_a_text_that_changes_while_it_is_read_is_refused(small, write, monkeypatch):
    path = write("a.txt", ENGLISH.encode())
    state = Encoded.state

    def changing(self):
        os.utime(path)
        return state(self)

    monkeypatch.setattr(Encoded, "state", changing)
    with pytest.raises(ValueError, match=r"corpus a\.txt has changed while it was read: run the command again"):
        load_corpus(path)
    assert not list(small.glob("sources/*.json"))


def test_two_that_find_another_text_both_encode_it(small, path, monkeypatch):
    """What was made of the old text is deleted by the one that makes the new one, not under the other's hands."""
    before = codes_of(small)
    Path(path).write_bytes(ENGLISH.replace("dog", "god").encode() + b"!")
    first, second = (Cache(small, Reading(path), "char") for _ in range(2))
    assert first.find() is None and second.find() is None
    assert before.exists()
    same(load_corpus(path), in_memory(monkeypatch, path))
    assert not before.exists()
    kept = second.find()
    assert kept and kept.folder == codes_of(small).parent


def test_two_at_once_encode_a_text_once(small, write, monkeypatch, capsys):
    path = write("a.txt", ENGLISH.encode())
    encoded, waiting = Cache._encoded, threading.Event()

    def slow(*args):
        waiting.set()
        time.sleep(0.3)
        return encoded(*args)

    monkeypatch.setattr(Cache, "_encoded", slow)

    def number(codes, symbols):
        return texts._numbering(codes, symbols, "a.txt", (0.8, 0.1, 0.1), "char", True, None)

    first = threading.Thread(target=lambda: Cache(small, Reading(path), "char").make(number))
    first.start()
    waiting.wait()
    monkeypatch.setattr(Cache, "_encoded", None)  # the second one never gets there
    corpus = load_corpus(path)
    first.join()
    same(corpus, in_memory(monkeypatch, path))
    assert capsys.readouterr().err == "waiting for another process, which encodes a.txt\n"


# -- the disk


def test_a_full_disk_is_reported_before(small, write, monkeypatch):
    usage = namedtuple("usage", "total used free")
    path = write("a.txt", ENGLISH.encode())
    for free in (0, len(ENGLISH) - 1000):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, free=free: usage(0, 0, free))
        with pytest.raises(
            OSError,
            match=r"corpus a\.txt: its codes need 0\.0 GB more in .*; set the environment variable DEEPRNN_CACHE",
        ):
            load_corpus(path)
        assert sum(file.stat().st_size for file in small.glob("**/*") if file.is_file()) <= 1500
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 2 * len(ENGLISH)))
    assert is_kept(load_corpus(path))


def test_a_folder_that_cannot_be_written(small, write, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match=r"its codes cannot be written to .*corpora .*environment variable DEEPRNN_CACHE"):
        load_corpus(write("a.txt", ENGLISH.encode()))


# -- no further than needed


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_the_beginning_of_a_text_needs_no_more_of_it(write, name):
    beginning = ENGLISH.encode() * 700  # 3 MB
    path = write(name, beginning if name == "a.txt" else gzip.compress(beginning, 1) + b"\0" * (1 << 20))
    os.truncate(path, 1 << 39)  # and 512 GB that nobody could read in time
    begun = time.monotonic()
    corpus = load_corpus(path, max_chars=100_000)
    assert time.monotonic() - begun < 5
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 100_000


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["char", "word"])
def test_memory_does_not_grow_with_the_text(tmp_path, unit):
    """Below a limit of the process's own memory, a text of twice its size."""
    path = tmp_path / "a.txt"
    words = np.random.default_rng(0).choice([f"word{i:x}" for i in range(30_000)], 1 << 20)
    block = " ".join(words).encode() + b"\n"
    with path.open("wb") as file:
        for _ in range((600 << 20) // len(block)):
            file.write(block)
    code = (
        "import resource, sys; from deeprnn.data.text import load_corpus; from deeprnn.data.batches import Batches\n"
        "own = int(open('/proc/self/statm').read().split()[5]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (own + (300 << 20),) * 2)\n"
        "corpus = load_corpus(sys.argv[1], unit=sys.argv[2])\n"
        "print(len(Batches(corpus.train, 32, 35)), len(Batches(corpus.valid, 32, 35, keep_last=True)))"
    )
    environment = {**os.environ, "PYTHONPATH": SOURCES, "DEEPRNN_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(path), unit], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path)
