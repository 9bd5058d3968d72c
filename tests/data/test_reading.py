"""Texts of all kinds of origin: streams, devices, archives made to harm, large ones, other encodings."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import deeprnn
from deeprnn.data import reading, unpacking
from deeprnn.data.reading import load_text
from deeprnn.data.symbols import split_symbols
from deeprnn.data.text import encode, load_corpus

TEXT = "the cat sat on the mat\nand the dog sat on the log\n" * 20
SOURCES = str(Path(deeprnn.__file__).parents[1])


def zipped(*members, **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members:
            archive.writestr(member, data, **options)
    return buffer.getvalue()


def refused(path, message):
    with pytest.raises((ValueError, OSError), match=message) as error:
        load_text(path)
    assert path in str(error.value) and "\n" not in str(error.value)


# -- archives


@pytest.mark.parametrize("behind, size", [(b"x", 1), (b"\0" * 700, 700), (b"\x1f", 1), (b"hidden" * 1000, 6000)])
def test_what_is_behind_the_end_of_a_gz_file_is_left_out_and_reported(write, behind, size):
    text, _, notes = load_text(write("a.gz", gzip.compress(TEXT.encode()) + behind))
    assert text == TEXT
    assert notes == [f"a.gz: {size:,} byte{'s'[: size > 1]} after the end of the text ignored"]


def test_a_gz_file_of_several_members_is_one_text(write):
    parts = [gzip.compress(part.encode()) for part in ("one ", "", "two " * 300_000, "three")]
    assert load_text(write("a.gz", b"".join(parts)))[::2] == ("one " + "two " * 300_000 + "three", [])


def test_a_member_may_end_anywhere(write, monkeypatch):
    """Also within a character, and where a chunk of the file has no text: inside the head or the end of a member."""
    monkeypatch.setattr(unpacking, "CHUNK", 4)
    text = "né\r\n一二\n"
    data = text.encode()
    for cut in range(1, len(data)):
        path = write("a.gz", gzip.compress(data[:cut]) + gzip.compress(data[cut:]))
        assert load_text(path)[0] == "né\n一二\n", cut


def test_files_of_macos_are_no_texts(write):
    files = [("a.txt", TEXT), (".DS_Store", b"\0\1"), ("deep/.DS_Store", b"\0"), ("__MACOSX/._a.txt", b"\0\5")]
    assert load_text(write("a.zip", zipped(*files)))[0] == TEXT


def test_bombs_are_not_unpacked(write, monkeypatch):
    monkeypatch.setattr(unpacking, "MODEST", 1 << 20)
    message = "it unpacks to more than 200 times its size"
    zeros = b"0" * (8 << 20)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(write("a.zip", zipped(("a.txt", zeros), compress_type=method)), message)
    refused(write("a.gz", gzip.compress(zeros)), message)
    lying = bytearray(zipped(("a.txt", zeros)))
    place = lying.index(b"PK\x01\x02") + 24
    lying[place : place + 4] = struct.pack("<I", 1000)  # the size that the directory claims
    with pytest.raises(ValueError, match=r"a\.zip"):
        load_text(write("a.zip", bytes(lying)))


def test_a_text_has_a_largest_size(write, monkeypatch):
    monkeypatch.setattr(reading, "LARGEST", 4 << 20)
    path = write("a.txt", b"abc " * (2 << 20))
    refused(path, "more than 4 MiB of text; give max_chars")
    assert load_text(path, max_chars=10)[0] == "abc abc ab"


@pytest.mark.parametrize("name", ["b.zip", "b.tar", "b.txt.gz", "B.ZIP"])
def test_an_archive_in_an_archive_is_refused(write, name):
    refused(write("a.zip", zipped((name, b"x"))), "is an archive; unpack it")


def test_a_link_in_an_archive_is_refused(write):
    link = zipfile.ZipInfo("a.txt")
    link.external_attr = 0o120777 << 16
    refused(write("a.zip", zipped((link, "/etc/passwd"))), "is a symbolic link")


def test_names_in_an_archive_lead_nowhere(write, tmp_path):
    assert load_text(write("a.zip", zipped(("../../outside.txt", TEXT))))[0] == TEXT
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


# -- what is no file


def test_devices_pipes_and_sockets_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", "/dev/null", "/dev/random", str(tmp_path / "pipe")):
        refused(path, "is a device or a pipe; give a file, or - and the text on standard input")


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="no /proc")
def test_files_of_the_system_are_texts(write):
    assert load_text("/proc/version")[0] == Path("/proc/version").read_text()


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    corpus = load_corpus("-")
    assert (corpus.name, corpus.text, corpus.path) == ("standard input", TEXT, None)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(ValueError, match="corpus standard input: the file is empty"):
        load_text("-")
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(OSError, match="standard input is closed"):
        load_text("-")


def test_a_pipe_that_a_shell_opened(write):
    path = write("a.txt", TEXT.encode())
    code = "import sys; from deeprnn.data.text import load_corpus; print(len(load_corpus(sys.argv[1]).text))"
    command = f'"{sys.executable}" -W ignore -c "{code}" <(cat {path})'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SOURCES}, timeout=300
    )
    assert (done.stdout, done.stderr) == (f"{len(TEXT)}\n", "")


def test_a_file_called_like_the_built_in_text(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("pydoc", TEXT.encode())
    assert load_text("./pydoc")[:2] == (TEXT, "./pydoc")
    text, name, notes = load_text("pydoc", max_chars=100)
    assert (len(text), name) == (100, "pydoc")
    assert notes[0] == "the text pydoc is read, not the file of that name, which would be ./pydoc"


def test_a_name_with_a_zero_byte():
    with pytest.raises(ValueError, match="zero byte"):
        load_text("a\0b.txt")


# -- encodings


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-be", "utf-32-be"])
def test_a_byte_order_mark_names_the_encoding(write, encoding):
    data = TEXT.encode(encoding) if not encoding.endswith("be") else ("\ufeff" + TEXT).encode(encoding)
    text, _, notes = load_text(write("a.txt", data))
    title = encoding[:6].upper()
    assert text == TEXT
    assert notes == [f"read as {title}, by its byte-order mark"]


def test_characters_and_line_ends_across_chunks(write, monkeypatch):
    monkeypatch.setattr(unpacking, "CHUNK", 7)
    text = "é分\r\n𝄞\r\rabc" * 50
    for encoding in ("utf-8", "utf-16", "gb18030"):
        got, _, notes = load_text(write("a.txt", text.encode(encoding)), encoding=encoding)
        assert got == text.replace("\r\n", "\n").replace("\r", "\n")
        assert notes[-1] == "150 carriage returns (CR LF or CR) read as newlines"


def test_the_place_of_a_wrong_byte_is_that_in_the_file(write, monkeypatch):
    monkeypatch.setattr(unpacking, "CHUNK", 15)
    for at in (0, 14, 15, 16, 31, 100):
        data = bytearray("é" * 60, "utf-8")
        data[at : at + 1] = b"\xff"
        refused(write("a.txt", bytes(data)), rf"byte 0x.. at offset {at - at % 2}\)")


# -- memory and numbers


def test_ids_are_those_of_the_symbols_one_by_one(write):
    text = "é分a\n" * 50 + "z𝄞 " * 9
    for unit in ("char", "word"):
        corpus = load_corpus(write("a.txt", text.encode()), unit=unit, split=(0.9, 0.05, 0.05))
        ids = np.concatenate([corpus.train, corpus.valid, corpus.test])
        assert ids.tolist() == encode(corpus.vocab, text, unit, unknown="token").tolist()
        assert len(ids) == len(split_symbols(text, unit))


def test_a_text_takes_a_few_times_its_size_in_memory(write):
    path = write("a.txt", TEXT.encode() * 4000)  # 4 MB
    size = os.path.getsize(path)
    load_corpus(path, max_chars=10)  # what is loaded at the first call
    peaks = []
    for limit in (None, 1000):
        tracemalloc.start()
        load_corpus(path, max_chars=limit)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] < 8 * size + (16 << 20)  # the chunks besides
    assert peaks[1] < 10 << 20


def test_only_white_space_has_no_words(write):
    with pytest.raises(ValueError, match=r"the training part of .* is empty"):
        load_corpus(write("a.txt", b"   "), unit="word")


def test_a_text_that_does_not_fit_in_memory_is_refused(write):
    """Below a limit, in a process of its own."""
    bomb = write("a.gz", gzip.compress(b"0" * (20 << 20)) * 40)
    code = (
        "import resource, sys; from deeprnn.data.reading import load_text\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: load_text(sys.argv[1])\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, bomb],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCES},
        timeout=300,
    )
    assert re.search(r"a\.gz: it unpacks to", done.stdout), done.stderr
