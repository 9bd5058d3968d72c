"""Text to ids: reading, downloading (from a server on loopback), splitting, vocabulary, and the ways to go wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeprnn.data import download as downloads
from deeprnn.data.decoding import suggested_encoding
from deeprnn.data.download import Download, fetch
from deeprnn.data.reading import load_text
from deeprnn.data.symbols import split_symbols
from deeprnn.data.text import (
    count_vocabulary,
    decode,
    encode,
    load_corpus,
    split_sizes,
    vocabulary,
)

CHUNK = 1 << 13  # of a download
TEXT = "the cat sat on the mat\nand the dog sat on the log\n" * 20
BODY = (TEXT * 60).encode()  # several chunks
DATA = Path(os.environ.get("DEEPRNN_DATA_DIR", ""))

needs_data = pytest.mark.skipif(Path() == DATA, reason="needs DEEPRNN_DATA_DIR, the folder of the texts")


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    message = str(error.value)
    assert message and "\n" not in message
    return message


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# Reading


def test_pydoc_is_cpythons_own_documentation_in_key_order():
    from pydoc_data.topics import topics

    text, name, notes = load_text("pydoc")
    assert text == "".join(text for _, text in sorted(topics.items())) and len(text) > 100_000
    assert name == "pydoc"
    assert "CPython" in notes[0]
    assert load_corpus("pydoc").sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_plain_gz_and_zip_hold_the_same_text(write):
    data = TEXT.encode()
    finder = {"a.txt": data, "__MACOSX/._a.txt": b"\x00\x05\x16\x07"}
    for path in (
        write("a.txt", data),
        write("a.md", data),
        write("a.txt.gz", gzip.compress(data)),
        write("a.zip", zipped(**{"folder/": b"", "folder/a.txt": data})),
        write("b.ZIP", zipped(**finder)),
    ):
        assert load_text(path) == (TEXT, Path(path).name, [])


def test_max_chars_cuts_before_the_split(write):
    path = write("a.txt", TEXT.encode())
    assert load_text(path, max_chars=7)[0] == TEXT[:7]
    corpus = load_corpus(path, max_chars=100, split=(0.5, 0.25, 0.25))
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (50, 25, 25)
    assert corpus.sha256 == hashlib.sha256(TEXT[:100].encode()).hexdigest()
    assert load_text(path, max_chars=10**9)[0] == TEXT
    with pytest.raises(ValueError, match="max_chars must be at least 1, got 0"):
        load_text(path, max_chars=0)


def test_byte_order_mark_and_carriage_returns_are_handled_and_noted(write):
    text, _, notes = load_text(write("a.txt", b"\xef\xbb\xbfone\r\ntwo\rthree\n"))
    assert text == "one\ntwo\nthree\n"
    assert notes == ["byte-order mark removed", "2 carriage returns (CR LF or CR) read as newlines"]


def test_a_name_goes_before_a_file(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("pydoc", b"mine")
    assert load_text("pydoc")[0] != "mine"
    assert load_text("./pydoc")[0] == "mine"


def test_a_file_called_like_a_corpus_is_not_that_corpus(write):
    assert load_text(write("jaychou", b"a\nb"))[:2] == ("a\nb", "./jaychou")


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\xef\xbb\xbf", "is empty"),
        ("a.txt.gz", gzip.compress(b""), "is empty"),
        ("a.txt", b"abc\xffdef", r"not UTF-8 \(byte 0xFF at offset 3\)"),
        ("a.txt", b"abc\xe4\xbd", r"not UTF-8 \(byte 0xE4 at offset 3\)"),
        ("a.txt", "abc".encode("utf-16-le"), r"not a text in UTF-8 \(byte 0x00 at offset 1\)"),
        ("a.txt.gz", gzip.compress(BODY)[:100], "damaged"),
        ("a.txt.gz", b"plain", "damaged, or not a .gz archive"),
        ("a.zip", b"plain", "damaged, or not a .zip archive"),
        ("a.zip", zipped(**{"a.txt": BODY})[:-40], "damaged"),
        ("a.zip", zipped(), "found none"),
        ("a.zip", zipped(**{"a.txt": b"a", "b.txt": b"b"}), "found 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # archives hold the time
)
def test_a_text_that_cannot_be_used_says_why(write, name, data, expected):
    path = write(name, data)
    with pytest.raises(ValueError, match=expected) as error:
        load_text(path)
    assert f"corpus {path}" in one_line(error)


def test_an_encrypted_archive_is_named_as_such(write):
    data = bytearray(zipped(**{"a.txt": b"secret"}))
    data[6] |= 1  # the flag, in the member's header and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ValueError, match="encrypted; unpack it"):
        load_text(write("a.zip", bytes(data)))


def test_a_damaged_member_is_an_error_not_a_text(write):
    data = bytearray(zipped(**{"a.txt": BODY}))
    data[len(data) // 3] ^= 0xFF
    with pytest.raises(ValueError, match="damaged"):
        load_text(write("a.zip", bytes(data)))


def test_missing_files_folders_and_unknown_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such file; give") as error:
        load_text(str(tmp_path / "none.txt"))
    one_line(error)
    with pytest.raises(IsADirectoryError, match="is a folder") as error:
        load_text(str(tmp_path))
    one_line(error)
    with pytest.raises(ValueError, match="did you mean 'timemachine'") as error:
        load_text("timemachin")
    one_line(error)
    with pytest.raises(ValueError, match="one of pydoc, timemachine, tinyshakespeare, jaychou") as error:
        load_text("xyzzy")
    one_line(error)


def test_a_python_without_its_documentation_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match="no pydoc_data"):
        load_text("pydoc")


# Downloading


class Server:
    """An HTTP server on loopback that hands out one body, and can be made to behave badly."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.ranges = True  # answer Range requests
        self.cuts: list[int] = []  # for each coming request: bytes to send before the line is cut
        self.status = 0  # answer with this status instead
        self.asked: list[str] = []  # Range header of each request
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                server.asked.append(wanted)
                start = int(re.findall(r"\d+", wanted)[0]) if wanted and server.ranges else 0
                if server.status or start >= len(server.body):
                    self.send_error(server.status or 416)
                    return
                body = server.body[start:]
                self.send_response(206 if wanted and server.ranges else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

            def log_message(self, *args: object) -> None:
                """Tests are quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}/novel.txt"


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    """A server, and 'novel' as a named corpus that lies there."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    server = Server(BODY)
    novel = Download("novel.txt", (server.address,), {"sha256": hashlib.sha256(BODY).hexdigest()})
    monkeypatch.setitem(downloads.DOWNLOADS, "novel", novel)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_named_corpus_is_downloaded_once(server, cache):
    assert load_text("novel", cache=cache) == (BODY.decode(), "novel", [])
    assert load_text("novel", cache=cache)[0] == BODY.decode()
    assert server.asked == [""]
    assert files(cache) == ["novel.txt"]


def test_two_at_once_download_a_text_once(server, cache, monkeypatch, capsys):
    download, begun = downloads._download, threading.Event()

    def slow(*args: object) -> bool:
        begun.set()
        time.sleep(0.2)
        return download(*args)

    monkeypatch.setattr(downloads, "_download", slow)
    first = threading.Thread(target=fetch, args=("novel", cache))
    first.start()
    begun.wait()
    path, notes = fetch("novel", cache)
    first.join()
    assert path.read_bytes() == BODY and notes == []
    assert server.asked == [""] and files(cache) == ["novel.txt"]
    assert "waiting for another process, which downloads a text\n" in capsys.readouterr().err


def test_a_cut_download_goes_on_where_it_stopped(server, cache):
    server.cuts = [3 * CHUNK, 2 * CHUNK]
    text, _, notes = load_text("novel", cache=cache)
    assert text == BODY.decode() and notes == []
    assert server.asked == ["", f"bytes={3 * CHUNK}-", f"bytes={5 * CHUNK}-"]
    assert files(cache) == ["novel.txt"]


def test_a_cut_that_the_library_does_not_notice(server, cache, monkeypatch):
    get = downloads.requests.get

    def lenient(*args: object, **options: object) -> object:
        answer = get(*args, **options)
        answer.raw.enforce_content_length = False  # as urllib3 before 2
        return answer

    monkeypatch.setattr(downloads.requests, "get", lenient)
    server.cuts = [3 * CHUNK + 5]
    text, _, notes = load_text("novel", cache=cache)
    assert text == BODY.decode() and notes == []
    assert server.asked == ["", f"bytes={3 * CHUNK + 5}-"]


def test_the_next_call_goes_on_where_the_last_one_gave_up(server, cache):
    server.cuts = [3 * CHUNK, 0]
    with pytest.raises(OSError, match="24,576 bytes kept for the next try") as error:
        load_text("novel", cache=cache)
    one_line(error)
    assert files(cache) == ["novel.txt.part"]
    assert load_text("novel", cache=cache)[0] == BODY.decode()
    assert server.asked[-1] == f"bytes={3 * CHUNK}-"
    assert files(cache) == ["novel.txt"]


def test_a_whole_part_needs_nothing_more(server, cache):
    cache.mkdir()
    (cache / "novel.txt.part").write_bytes(BODY)
    assert load_text("novel", cache=cache)[0] == BODY.decode()
    assert server.asked == [f"bytes={len(BODY)}-"]  # 416: nothing after it


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * (len(BODY) + 1)], ids=["short", "long"])
def test_a_wrong_part_is_deleted_and_the_download_begins_again(server, cache, left):
    cache.mkdir()
    (cache / "novel.txt.part").write_bytes(left)
    text, _, notes = load_text("novel", cache=cache)
    assert text == BODY.decode()
    assert notes == [f"{server.address}: wrong checksum, deleted"]
    assert server.asked == [f"bytes={len(left)}-", ""]


def test_a_server_without_ranges_sends_it_all_again(server, cache):
    server.ranges = False
    server.cuts = [3 * CHUNK]
    assert load_text("novel", cache=cache)[0] == BODY.decode()
    assert server.asked == ["", f"bytes={3 * CHUNK}-"]
    assert files(cache) == ["novel.txt"]


def test_a_wrong_download_is_deleted_and_reported(server, cache):
    server.body = b"another text"
    with pytest.raises(OSError, match="wrong checksum, deleted") as error:
        load_text("novel", cache=cache)
    assert str(cache / "novel.txt") in one_line(error)
    assert server.asked == [""]
    assert files(cache) == []


def test_every_checksum_must_fit(server, cache, monkeypatch):
    sums = {**downloads.DOWNLOADS["novel"].sums, "sha1": "0" * 40}
    monkeypatch.setitem(downloads.DOWNLOADS, "novel", Download("novel.txt", (server.address,), sums))
    with pytest.raises(OSError, match="wrong checksum"):
        load_text("novel", cache=cache)


def test_offline_says_which_file_to_put_where(cache, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    novel = Download("novel.txt", ("http://127.0.0.1:1/novel.txt",), {"sha256": hashlib.sha256(BODY).hexdigest()})
    monkeypatch.setitem(downloads.DOWNLOADS, "novel", novel)
    with pytest.raises(OSError, match="ConnectionError") as error:
        load_text("novel", cache=cache)
    message = one_line(error)
    assert f"put the file at {cache / 'novel.txt'} (SHA-256 {novel.sums['sha256']})" in message
    (cache / "novel.txt").write_bytes(BODY)
    assert load_text("novel", cache=cache)[0] == BODY.decode()


def test_the_second_address_serves_where_the_first_does_not(server, cache, monkeypatch):
    sums = downloads.DOWNLOADS["novel"].sums
    gone = "http://127.0.0.1:1/novel.txt"
    monkeypatch.setitem(downloads.DOWNLOADS, "novel", Download("novel.txt", (gone, server.address), sums))
    text, _, notes = load_text("novel", cache=cache)
    assert text == BODY.decode() and notes == [f"{gone}: ConnectionError"]
    server.status = 404
    (cache / "novel.txt").unlink()
    with pytest.raises(OSError, match=r"ConnectionError; http.*: HTTP 404"):
        load_text("novel", cache=cache)


def test_a_wrong_file_in_the_cache_is_kept_until_the_right_one_is_there(server, cache):
    cache.mkdir()
    (cache / "novel.txt").write_bytes(b"wrong")
    server.status = 503
    with pytest.raises(OSError, match=r"novel\.txt: wrong checksum, not used; .*HTTP 503"):
        load_text("novel", cache=cache)
    assert (cache / "novel.txt").read_bytes() == b"wrong"
    server.status = 0
    assert load_text("novel", cache=cache)[0] == BODY.decode()
    assert (cache / "novel.txt").read_bytes() == BODY


def test_a_progress_bar_counts_the_bytes(server, cache, monkeypatch):
    bars = []

    class Bar(downloads.tqdm):
        def __init__(self, **options: object) -> None:
            super().__init__(**{**options, "disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(downloads, "tqdm", Bar)
    server.cuts = [3 * CHUNK]
    load_text("novel", cache=cache)
    assert [(bar.n, bar.total, bar.unit) for bar in bars] == [(3 * CHUNK, len(BODY), "B"), (len(BODY), len(BODY), "B")]


def test_where_the_cache_is(monkeypatch, tmp_path):
    for name in ("DEEPRNN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert downloads.cache_folder() == tmp_path / ".cache" / "deeprnn"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert downloads.cache_folder() == tmp_path / "xdg" / "deeprnn"
    monkeypatch.setenv("DEEPRNN_CACHE", str(tmp_path / "mine"))
    assert downloads.cache_folder() == tmp_path / "mine"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "novel.txt").write_bytes(BODY)
    novel = Download("novel.txt", (), {"sha256": hashlib.sha256(BODY).hexdigest()})
    monkeypatch.setitem(downloads.DOWNLOADS, "novel", novel)
    assert load_text("novel")[0] == BODY.decode()


def test_a_copy_of_a_named_corpus_is_read_like_it(write, monkeypatch):
    data = zipped(**{"song.txt": b"one\r\ntwo\n"})
    song = Download("song.zip", (), {"sha256": hashlib.sha256(data).hexdigest()}, newlines_to_spaces=True)
    monkeypatch.setitem(downloads.DOWNLOADS, "song", song)
    text, name, notes = load_text(write("copy.zip", data))
    assert (text, name) == ("one two ", "song")
    assert notes[-1] == "newlines of song read as spaces"
    assert load_text(write("other.zip", zipped(**{"song.txt": b"one\ntwo\n!"})))[:2] == ("one\ntwo\n!", "other.zip")


def test_every_named_corpus_has_addresses_and_sums():
    for download in downloads.DOWNLOADS.values():
        assert all(address.startswith("https://") for address in download.addresses) and download.addresses
        assert re.fullmatch("[0-9a-f]{64}", download.sums["sha256"])


@needs_data
def test_the_published_texts_fit_their_checksums(tmp_path):
    shapes = {"timemachine": (178_979, 70), "tinyshakespeare": (1_115_394, 65), "jaychou": (63_282, 2582)}
    for name, shape in shapes.items():
        text, named, _ = load_text(name, cache=DATA)
        assert (len(text), len(set(text)), named) == (*shape, name)


@needs_data
def test_the_books_vocabulary():
    for source in ("jaychou", str(DATA / "jaychou_lyrics.txt.zip")):
        corpus = load_corpus(source, max_chars=10_000, split=(1, 0, 0), unknown=False, cache=DATA)
        assert (len(corpus.vocab), len(corpus.train), len(corpus.valid), len(corpus.test)) == (1027, 10_000, 0, 0)


# Symbols, vocabulary, split


def test_the_vocabulary_is_that_of_the_training_part(write):
    corpus = load_corpus(write("a.txt", b"abbcccxyzz"), split=(0.6, 0.2, 0.2))
    assert corpus.vocab.idx_to_token == ["<unk>", "c", "b", "a"]  # by count
    assert corpus.train.tolist() == [3, 2, 2, 1, 1, 1]
    assert corpus.unknown == {"train": 0, "valid": 2, "test": 2}
    assert corpus.notes == [
        "valid: 2 of 2 symbols not in the vocabulary: 'x' (U+0078), 'y' (U+0079); read as <unk>",
        "warning: most of the valid part (100%) is unknown: is it in the same language?",
        "test: 2 of 2 symbols not in the vocabulary: 'z' (U+007A); read as <unk>",
        "warning: most of the test part (100%) is unknown: is it in the same language?",
    ]
    assert corpus.valid.tolist() == [0, 0]
    assert corpus.train.dtype == corpus.valid.dtype == corpus.test.dtype == np.int32


def test_without_an_unknown_token_the_symbols_are_alone(write):
    path = write("a.txt", b"abbcccxyzz")
    corpus = load_corpus(path, split=(1, 0, 0), unknown=False)
    assert corpus.vocab.idx_to_token == ["c", "b", "z", "a", "x", "y"]  # by count, then by code point
    assert corpus.vocab.unknown_token is None
    with pytest.raises(
        ValueError,
        match=r"valid: 2 of 2 .* 'x' \(U\+0078\), 'y' \(U\+0079\); give unknown=True or train on the whole text",
    ) as error:
        load_corpus(path, split=(0.6, 0.2, 0.2), unknown=False)
    one_line(error)


def test_an_earlier_vocabulary_is_used_as_it_is(write):
    vocab = vocabulary(["<unk>", "b", "a"])
    corpus = load_corpus(write("a.txt", b"abcab"), split=(0.6, 0.2, 0.2), vocab=vocab)
    assert corpus.vocab is vocab
    assert corpus.train.tolist() == [2, 1, 0]
    assert corpus.unknown == {"train": 1, "valid": 0, "test": 0}


def test_parts_may_be_empty_but_not_the_training_part(write):
    path = write("a.txt", TEXT.encode())
    corpus = load_corpus(path, split=(1, 0, 0))
    assert (len(corpus.train), corpus.valid.shape, corpus.test.shape) == (len(TEXT), (0,), (0,))
    assert corpus.valid.dtype == np.int32
    corpus = load_corpus(path, split=(0.5, 0, 0.5))
    assert (len(corpus.valid), len(corpus.test)) == (0, len(TEXT) // 2)
    with pytest.raises(ValueError, match="split: the training part"):
        load_corpus(path, split=(0, 0.5, 0.5))
    vocab = load_corpus(path).vocab
    assert len(load_corpus(path, split=(0, 0, 1), vocab=vocab).test) == len(TEXT)


@pytest.mark.parametrize("split", [(0.5, 0.5), (0.5, 0.4, 0.2), (1.5, -0.5, 0), (float("nan"), 0.5, 0.5), (0, 0, 0)])
def test_fractions_that_are_none_are_refused(write, split):
    with pytest.raises(ValueError, match="split must be three fractions") as error:
        load_corpus(write("a.txt", TEXT.encode()), split=split)
    one_line(error)


def test_words_and_newlines(write):
    corpus = load_corpus(write("a.txt", b"the cat\n\nsat  on\tthe mat \n"), unit="word", split=(1, 0, 0))
    assert corpus.vocab.idx_to_token == ["<unk>", "\n", "the", "cat", "mat", "on", "sat"]
    assert decode(corpus.vocab, corpus.train, "word") == "the cat\n\nsat on the mat\n"
    with pytest.raises(ValueError, match="unit must be one of 'char', 'word', got 'byte'"):
        load_corpus(write("a.txt", b"abc"), unit="byte")


def test_an_unknown_token_in_the_text_is_itself(write):
    corpus = load_corpus(write("ptb.txt", b"the <unk> sat the <unk> sat"), unit="word", split=(0.5, 0.5, 0))
    assert corpus.vocab.idx_to_token == ["<unk>", "sat", "the"]
    assert corpus.valid.tolist() == [2, 0, 1] and corpus.unknown["valid"] == 0


def test_a_prefix_with_unknown_characters_names_them():
    vocab = vocabulary(["<unk>", "a", "b"])
    assert encode(vocab, "abba").tolist() == [1, 2, 2, 1]
    assert encode(vocab, "").shape == (0,) and encode(vocab, "").dtype == np.int32
    with pytest.raises(ValueError, match=r"of 3 symbols: 'é' \(U\+00E9\), '\\n' \(U\+000A\)$") as error:
        encode(vocab, "aé\néb")
    one_line(error)
    with pytest.raises(ValueError, match=r"'l' \(U\+006C\) and 1 more$"):
        encode(vocab, "cdefghijklm")
    assert encode(vocab, "axb", unknown="token").tolist() == [1, 0, 2]
    with pytest.raises(ValueError, match=r"'x' \(U\+0078\)"):
        encode(vocabulary(["a", "b"], None), "axb", unknown="token")
    with pytest.raises(ValueError, match="unknown must be one of 'error', 'token', got 'drop'"):
        encode(vocab, "a", unknown="drop")
    with pytest.raises(ValueError, match="symbols: 'dog', 'x'"):
        encode(vocab, "a dog x", "word")


def test_a_saved_vocabulary_must_be_whole():
    with pytest.raises(ValueError, match="3 tokens, but only 2 distinct"):
        vocabulary(["<unk>", "a", "a"])
    with pytest.raises(ValueError, match="unknown token '<unk>' is not among its 2 tokens"):
        vocabulary(["a", "b"])


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(texts, st.booleans())
def test_a_vocabulary_survives_saving(text, unknown):
    vocab = count_vocabulary(Counter(text), "<unk>" if unknown else None)
    again = vocabulary(list(vocab.idx_to_token), vocab.unknown_token)
    assert again.idx_to_token == vocab.idx_to_token and dict(again.token_to_idx) == dict(vocab.token_to_idx)
    assert len(vocab) == len(set(text)) + unknown
    shuffled = vocabulary(sorted(vocab.idx_to_token), vocab.unknown_token)
    assert shuffled.idx_to_token == sorted(vocab.idx_to_token)
    assert decode(shuffled, encode(shuffled, text)) == text
    if unknown:
        assert shuffled["no such token"] == shuffled["<unk>"]


@given(texts)
def test_characters_come_back(text):
    vocab = count_vocabulary(Counter(text), None)
    assert decode(vocab, encode(vocab, text)) == text


@given(texts)
def test_words_come_back_but_for_their_spacing(text):
    tokens = split_symbols(text, "word")
    vocab = count_vocabulary(Counter(tokens), "<unk>")
    once = decode(vocab, encode(vocab, text, "word"), "word")
    assert split_symbols(once, "word") == tokens
    assert decode(vocab, encode(vocab, once, "word"), "word") == once


@given(st.text("ab", max_size=50), st.lists(st.integers(0, 10), min_size=3, max_size=3).filter(any))
def test_the_parts_are_the_text(text, shares):
    fractions = [share / sum(shares) for share in shares]
    sizes = split_sizes(len(text), fractions)
    assert sum(sizes) == len(text)
    for size, fraction in zip(sizes, fractions):
        assert abs(size - fraction * len(text)) <= 1
        assert fraction or not size


# Encodings

CHINESE = "想要有直升机\n想要和你飞到宇宙去\n想要和你融化在一起\n融化在银河里\n" * 30
JAPANESE = "これは日本語のテキストです。\n" * 30


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "utf-16", "big5"])
def test_a_text_in_another_encoding_is_read_and_has_the_same_hash(write, encoding):
    plain = "天地玄黃\n宇宙洪荒\n" * 30 if encoding == "big5" else CHINESE
    path = write(f"{encoding}.txt", plain.encode(encoding))
    assert load_text(path, encoding=encoding)[0] == plain
    corpus = load_corpus(path, encoding=encoding)
    assert corpus.sha256 == load_corpus(write("utf-8.txt", plain.encode())).sha256


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        (CHINESE, "gb18030", "gb18030"),
        (CHINESE, "gbk", "gb18030"),
        ("<b>deeprnn</b> 是 MXNet 的循环神经网络, see README.md\n" * 30, "gb18030", "gb18030"),
        (CHINESE * 100, "gb18030", "gb18030"),  # longer than the sample
        (CHINESE, "utf-16-le", "utf_16_le"),
        (JAPANESE, "shift_jis", "cp932"),
        (JAPANESE, "euc_jp", "euc_jp"),
    ],
)
def test_the_encoding_is_named_if_it_can_be_found(write, text, encoding, named):
    with pytest.raises(ValueError, match="it looks like") as error:
        load_text(write("a.txt", text.encode(encoding)))
    assert f"give encoding={named!r}" in one_line(error)


def test_an_8_bit_encoding_is_a_guess(write):
    data = ("Größe, Übermut und Äußeres; café à la carte. " * 30).encode("latin-1")
    with pytest.raises(ValueError, match=r"perhaps encoding='.*' .*hard to tell apart") as error:
        load_text(write("a.txt", data))
    one_line(error)


@pytest.mark.parametrize("data", [b"abc\xffdef", bytes(range(128, 256)) * 40], ids=["short", "no text"])
def test_no_encoding_is_made_up(write, data):
    encoding, certain = suggested_encoding(data)
    assert not certain
    with pytest.raises(ValueError, match="not UTF-8") as error:
        load_text(write("a.txt", data))
    assert encoding or "convert it to UTF-8, or give its encoding=NAME" in one_line(error)


def test_a_wrong_encoding_is_an_error(write):
    with pytest.raises(ValueError, match=r"not ASCII \(byte 0x") as error:
        load_text(write("a.txt", CHINESE.encode("gb18030")), encoding="ascii")
    assert "encoding='gb18030'" in one_line(error)
    with pytest.raises(ValueError, match="encoding must be an encoding such as"):
        load_text(write("a.txt", b"abc"), encoding="utf9")


def test_a_named_text_is_utf_8_whatever_the_encoding(server, cache):
    assert load_text("novel", cache=cache, encoding="utf-16")[0] == BODY.decode()


def test_a_text_that_is_mostly_unknown_is_warned_of(write):
    vocab = load_corpus(write("a.txt", TEXT.encode())).vocab
    notes = load_corpus(write("b.txt", CHINESE.encode()), split=(0, 0, 1), vocab=vocab).notes
    assert re.match(r"900 of 1,020 symbols not in the vocabulary: .*; read as <unk>", notes[0])
    assert re.fullmatch(r"warning: most of the text \(\d+%\) is unknown: is it in the same language\?", notes[1])
    notes = load_corpus(write("c.txt", b"the cat sat on a \xc3\xa9"), split=(0, 0, 1), vocab=vocab).notes
    assert len(notes) == 1  # one symbol is not most of it


def test_an_encoding_that_gives_half_a_character(write):
    path = write("a.txt", rb"abc \ud800 def " * 20)
    with pytest.raises(ValueError, match=r"^encoding gives half a character, U\+D800: give the right one"):
        load_corpus(path, encoding="unicode_escape")


def test_a_part_of_a_large_text_is_never_negative():
    assert split_sizes(3_000_000, (0.5, 0.5000009, 0)) == (1_500_000, 1_500_000, 0)
