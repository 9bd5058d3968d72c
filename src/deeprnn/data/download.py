"""Public texts by name: fetched once, checked, and kept in a cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import requests
from tqdm import tqdm

__all__ = ["DOWNLOADS", "Download", "fetch"]


@dataclass(frozen=True)
class Download:
    """A public text that is fetched once and kept.

    Attributes
    ----------
    file : str
        Its name in the cache.
    addresses : tuple of str
        Where to get it, tried in this order.
    sums : mapping of str to str
        Checksums of the file, hashlib's name of the function -> hexadecimal digest; all must fit. 'sha256' is required.
    newlines_to_spaces : bool
        Whether the text is one line, as its book reads it.
    """

    file: str
    addresses: tuple[str, ...]
    sums: Mapping[str, str]
    newlines_to_spaces: bool = False

    def fits(self, data: bytes) -> bool:
        """Whether `data` is the file that was meant."""
        return all(hashlib.new(name, data).hexdigest() == digest for name, digest in self.sums.items())


DOWNLOADS = {
    # The Time Machine, H. G. Wells; the SHA-1 is the one that the English book publishes.
    "timemachine": Download(
        "timemachine.txt",
        ("https://d2l-data.s3-accelerate.amazonaws.com/timemachine.txt",),
        {
            "sha256": "8424dbd9532ac81f7e5f0b6add90e6952baea29158309d7d1bf3884f4e12c516",
            "sha1": "090b5e7e70c295757f55df93cb0a180b9691891a",
        },
    ),
    # char-rnn's corpus.
    "tinyshakespeare": Download(
        "tinyshakespeare.txt",
        ("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        {"sha256": "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"},
    ),
    # The Chinese book's corpus. The second address is a fixed commit, should the branch drop its data folder.
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
    """Get a named corpus: from the cache if it is there, else by download.

    A download goes to a `.part` file beside its place, is taken up again where it was cut (if the server can), checked,
    and renamed. A file that was put into the cache by hand is as good, if its checksums fit.

    Parameters
    ----------
    name : str
        A key of `DOWNLOADS`.
    cache : path, optional
        Folder of the downloads; by default $DEEPRNN_CACHE, else $XDG_CACHE_HOME/deeprnn, else ~/.cache/deeprnn.

    Returns
    -------
    path : Path
    notes : list of str
        What went wrong on the way.

    Raises
    ------
    OSError
        No address gave the file: says why, and which file to put where.
    """
    download = DOWNLOADS[name]
    path = (Path(cache) if cache else _cache()) / download.file
    notes: list[str] = []
    if path.is_file():
        if download.fits(path.read_bytes()):
            return path, notes
        notes.append(f"{path}: wrong checksum, not used")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    for address in download.addresses:
        while True:
            before = _size(part)
            try:
                resumed = _download(address, part)
            except requests.RequestException as error:
                if _size(part) > before:  # cut, but further than last time
                    continue
                kept = f", {_size(part):,} bytes kept for the next try" if _size(part) else ""
                notes.append(f"{address}: {_reason(error)}{kept}")
                break
            if download.fits(part.read_bytes()):
                os.replace(part, path)
                return path, notes
            part.unlink()
            notes.append(f"{address}: wrong checksum, deleted")
            if not resumed:  # otherwise the fault may lie in the older bytes: once more, from the beginning
                break
    raise OSError(
        f"--corpus {name}: not downloaded ({'; '.join(notes)}); "
        f"put the file at {path} (SHA-256 {download.sums['sha256']}) or give a path to a text of yours"
    )


def _cache() -> Path:
    if os.environ.get("DEEPRNN_CACHE"):
        return Path(os.environ["DEEPRNN_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deeprnn"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _download(address: str, part: Path) -> bool:
    """Bring `part` to its full length; returns whether its first bytes are those of an earlier call.

    Raises requests.RequestException, with what had come left in `part`.
    """
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # a range counts bytes of the file, not of its compressed form
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(address, headers=headers, stream=True, timeout=30) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return True  # nothing comes after what is here: it is whole, or wrong
        answer.raise_for_status()
        resumed = have > 0 and answer.status_code == requests.codes.partial_content
        have = have if resumed else 0
        total = have + int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        bar = tqdm(desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=None)
        with bar, part.open("ab" if resumed else "wb") as file:
            for chunk in answer.iter_content(1 << 13):  # what a cut can lose: an unfinished chunk
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:  # urllib3 before 2 ends a cut body without a word
        raise requests.ConnectionError("cut")
    return resumed


def _reason(error: requests.RequestException) -> str:
    return f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
