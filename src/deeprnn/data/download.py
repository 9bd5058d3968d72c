"""Public texts by name: downloaded once, checked, and kept in a cache.

pooch was considered: it resumes no interrupted download, tries no second address, and leaves the wording of network
errors to the caller.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import requests
from platformdirs import user_cache_path
from tqdm import tqdm

from .._util.files import locked
from .._util.wording import counted

__all__ = ["DOWNLOADS", "Download", "cache_folder", "fetch"]


@dataclass(frozen=True)
class Download:
    """A public text: where it is and how it is checked.

    Attributes
    ----------
    file : str
        Name of the file in the cache.
    addresses : tuple of str
        URLs, tried in this order.
    sums : mapping of str to str
        Hexadecimal checksums of the file by hashlib's name of the algorithm. All must match; 'sha256' is required.
    newlines_to_spaces : bool
        Whether newlines are read as spaces, as in the book that uses this text.
    """

    file: str
    addresses: tuple[str, ...]
    sums: Mapping[str, str]
    newlines_to_spaces: bool = False

    def fits(self, data: bytes) -> bool:
        """Whether `data` has the expected checksums."""
        return self.has({name: hashlib.new(name, data).hexdigest() for name in self.sums})

    def has(self, sums: Mapping[str, str]) -> bool:
        """Whether this download has these checksums, by name of the algorithm."""
        return all(sums.get(name) == digest for name, digest in self.sums.items())


DOWNLOADS = {
    # H. G. Wells, The Time Machine; the SHA-1 is the one in the English book.
    "timemachine": Download(
        "timemachine.txt",
        ("https://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt",),
        {
            "sha256": "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516",
            "sha1": "090b5e7e70c295757f55df93cb0a180b9691891a",
        },
    ),
    # The corpus of char-rnn.
    "tinyshakespeare": Download(
        "tinyshakespeare.txt",
        ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        {"sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
    ),
    # The corpus of the Chinese book. The second address is a fixed commit, in case the branch drops its data folder.
    "jaychou": Download(
        "jaychou_lyrics.txt.zip",
        (
            "https://raw.githubusercontent.com/d2l-ai/d2l-zh/master/data/jaychou_lyrics.txt.zip",
            "https://raw.githubusercontent.com/d2l-ai/d2l-zh/89403b9792861d86a0f1735cdd4a3d60c423f5a2"
            "/data/jaychou_lyrics.txt.zip",
        ),
        {"sha256": "3cfedd7d174111cdad5a27eaffaa6a2432a2842cf2590a03dd8a97610ea07043"},
        newlines_to_spaces=True,
    ),
}


def fetch(name: str, cache: Optional[Union[str, Path]] = None) -> tuple[Path, list[str]]:
    """Return the path of a named text, which is downloaded unless it is in the cache.

    A download is written to a `.part` file next to its final path, resumed if it was interrupted (and the server
    supports that), checked, and renamed. A file that the user put into the cache is used if its checksums match.

    Parameters
    ----------
    name : str
        A key of `DOWNLOADS`.
    cache : path, optional
        Folder of the downloads; by default `cache_folder`.

    Returns
    -------
    path : Path
    notes : list of str
        Addresses and files that failed before one succeeded.

    Raises
    ------
    OSError
        If every download failed; the message says why, and where to put the file.
    """
    download = DOWNLOADS[name]
    path = (Path(cache) if cache else cache_folder()) / download.file
    if path.is_file() and download.fits(path.read_bytes()):
        return path, []
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent, "downloads a text"):
        return path, _fetched(name, path)


def _fetched(name: str, path: Path) -> list[str]:
    """Download a text unless another process has done so; returns the notes."""
    download = DOWNLOADS[name]
    notes: list[str] = []
    if path.is_file():
        if download.fits(path.read_bytes()):
            return notes
        notes.append(f"{path}: wrong checksum, not used")
    part = path.with_name(path.name + ".part")
    for address in download.addresses:
        while True:
            before = _size(part)
            try:
                resumed = _download(address, part)
            except requests.RequestException as error:
                if _size(part) > before:  # interrupted, but with progress
                    continue
                kept = f", {counted(_size(part), 'byte')} kept for the next try" if _size(part) else ""
                notes.append(f"{address}: {_reason(error)}{kept}")
                break
            if download.fits(part.read_bytes()):
                os.replace(part, path)
                return notes
            part.unlink()
            notes.append(f"{address}: wrong checksum, deleted")
            if not resumed:  # otherwise the bytes of before may be wrong: download all of it again
                break
    raise OSError(
        f"corpus {name}: not downloaded ({'; '.join(notes)}); "
        f"put the file at {path} (SHA-256 {download.sums['sha256']}) or give the path of another text"
    )


def cache_folder() -> Path:
    """Folder of the downloads: $DEEPRNN_CACHE, or this system's folder for caches (~/.cache/deeprnn on Linux)."""
    given = os.environ.get("DEEPRNN_CACHE")
    return Path(os.path.expanduser(given)) if given else user_cache_path("deeprnn")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download(address: str, part: Path) -> bool:
    """Download to `part`, after the bytes that it has already; returns whether the server continued them.

    Raises requests.RequestException if interrupted; `part` then has what was received.
    """
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # ranges count bytes of the file, not of its compressed form
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(address, headers=headers, stream=True, timeout=30) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return True  # there is nothing after these bytes: they are complete, or wrong
        answer.raise_for_status()
        resumed = have > 0 and answer.status_code == requests.codes.partial_content
        have = have if resumed else 0
        total = have + int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_content(1 << 13):  # an interruption loses at most one chunk
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:  # urllib3 before 2 reports no error here
        raise requests.ConnectionError("cut")
    return resumed


def _reason(error: requests.RequestException) -> str:
    return f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
