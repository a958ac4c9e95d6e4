"""Downloads of released files: from several addresses, resumed when broken, and verified."""

import contextlib
import http.client
import logging
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from jvae_jax.data.source import Source
from jvae_jax.files import naming

logger = logging.getLogger(__name__)

_CONNECTION_SECONDS = 5.0
"""Time within which an address must answer."""
_IDLE_SECONDS = 60.0
"""Time without any byte after which a connection counts as broken."""
_RESUMPTIONS = 5
"""How often a broken download from one address is resumed."""


def download(source: Source, folder: Path) -> dict[str, Path]:
    """Downloads the files of a source that a folder doesn't hold yet.

    The addresses of a file are tried in turn. A broken connection is resumed up to five times while
    bytes come; what it has left is kept for the next address and the next call.

    Args:
        source: where the files are, and how they are verified.
        folder: created if missing. Files that aren't complete end in ``.part``.

    Returns:
        Paths by file name.

    Raises:
        ConnectionError: if a file can't be downloaded from any address, or isn't the released one.
        OSError: if a file can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, urls in source.urls.items():
        if not (folder / name).exists():
            _download_file(source, name, urls, folder / name)
    return {name: folder / name for name in source.urls}


def connection_failure(urls: Sequence[str]) -> str | None:
    """Returns the reason why no address can be reached, or None if one can, within 5 seconds."""
    # In threads, because name resolution has no timeout.
    answers: queue.Queue[str | None] = queue.Queue()

    def request_head(url: str) -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with _of_network(), urllib.request.urlopen(request, timeout=_CONNECTION_SECONDS):
                answers.put(None)
        except ConnectionError as error:
            answers.put(str(error))

    for url in urls:
        threading.Thread(target=request_head, args=(url,), daemon=True).start()
    end = time.monotonic() + _CONNECTION_SECONDS
    reasons = []
    for _ in urls:
        try:
            reason = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            reason = f"no answer within {_CONNECTION_SECONDS:g} seconds"
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0]


def _download_file(source: Source, name: str, urls: Sequence[str], path: Path) -> None:
    partial = path.with_name(f"{name}.part")
    failures = []
    for number, url in enumerate(urls, 1):
        try:
            _fetch(url, partial)
            source.verify(name, partial)
        except (ConnectionError, ValueError) as error:
            reason = str(error)
            if isinstance(error, ValueError):  # the parts may be of different files
                partial.unlink()
                reason = f"{name} isn't the released file"
            failures.append(f"{url}: {reason}")
            if number < len(urls):
                logger.warning("%s; trying the next address", failures[-1])
        else:
            partial.replace(path)
            return
    raise ConnectionError(f"downloading {source.name} failed: {'; '.join(failures)}")


def _fetch(url: str, partial: Path) -> None:
    """Downloads the rest of a file, and resumes while something comes."""
    for _ in range(_RESUMPTIONS):
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _append(url, partial, before)
        except ConnectionError:
            if not partial.exists() or partial.stat().st_size <= before:
                raise
        else:
            return
    _append(url, partial, partial.stat().st_size)


def _append(url: str, partial: Path, position: int) -> None:
    """Downloads a file from a position on; from its start if the server can't do that."""
    headers = {"Range": f"bytes={position}-"} if position else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        with _of_network():
            response = urllib.request.urlopen(request, timeout=_IDLE_SECONDS)
    except ConnectionError as error:
        answer = error.__cause__
        is_answer = isinstance(answer, urllib.error.HTTPError)
        if not is_answer or answer.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if not position:  # no range was asked for
            raise
        # The part is longer than the file, or as long, which its checksum or format will show.
        if answer.headers.get("Content-Range") != f"bytes */{position}":
            partial.unlink()
            _append(url, partial, 0)
        return
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            position = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {position}-"):
            raise ConnectionError("it sent another part than was asked for")
        length = response.headers.get("Content-Length")
        total = None if length is None else position + int(length)
        bar = tqdm(
            desc=partial.stem,
            initial=position,
            total=total,
            unit="B",
            unit_scale=True,
            disable=None,
        )
        with naming(partial), partial.open("ab" if position else "wb") as file, bar:
            while chunk := _read(response):
                file.write(chunk)
                bar.update(len(chunk))
            if total not in (None, file.tell()):
                raise ConnectionError(f"it ended after {file.tell():,} of {total:,} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    with _of_network():
        return response.read(1 << 20)


@contextlib.contextmanager
def _of_network() -> Iterator[None]:
    """Turns errors of the network, of several types, into ConnectionErrors."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is an open response
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise ConnectionError(reason) from error
