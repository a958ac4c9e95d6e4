"""Downloads from servers that break off, know no ranges, or have other files."""

import contextlib
import http.server
import logging
import os
import threading
import time
from dataclasses import dataclass, field, replace

import pytest
from helpers import make_release

from jvae_jax.data import download
from jvae_jax.data.idx import RELEASES

RELEASE, CONTENTS, _ = make_release(RELEASES["kmnist"])
NAME, CONTENT = next(iter(CONTENTS.items()))


@dataclass
class Server:
    """What a server has and does, and the requests that it got.

    Attributes:
        contents: files by name.
        breaks_after: bytes after which the first connections end, one number each.
        knows_ranges: whether a part of a file can be asked for.
    """

    contents: dict
    breaks_after: list = field(default_factory=list)
    knows_ranges: bool = True
    ranges: list = field(default_factory=list)


@contextlib.contextmanager
def serve(server):
    """Yields the address of the folder of a server on localhost."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = server.contents.get(self.path[1:])
            if content is None:
                self.send_error(404)
                return
            asked = self.headers.get("Range")
            server.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if not server.knows_ranges:
                start = 0
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}"
                )
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            rest = content[start:]
            self.wfile.write(rest[: server.breaks_after.pop(0)] if server.breaks_after else rest)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http_server.server_port}/"
        http_server.shutdown()


def fetch(folder, *servers):
    """Downloads the release from servers; they are started and stopped here."""
    with contextlib.ExitStack() as stack:
        mirrors = tuple(stack.enter_context(serve(server)) for server in servers)
        source = replace(RELEASE, mirrors=mirrors)
        paths = download.download(source, folder)
    assert {name: path.read_bytes() for name, path in paths.items()} == CONTENTS
    assert {path.name for path in folder.iterdir()} == {*CONTENTS}


@pytest.mark.fault("data files", "download that breaks off", "resumed where it ended")
def test_resumes_broken_connections(tmp_path):
    server = Server(CONTENTS, breaks_after=[100, 50])
    fetch(tmp_path, server)
    assert server.ranges[:3] == [None, "bytes=100-", "bytes=150-"]
    assert server.ranges[3:] == [None] * 3


def test_resumes_what_a_killed_process_left(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:70])
    server = Server(CONTENTS)
    fetch(tmp_path, server)
    assert server.ranges[0] == "bytes=70-"


def test_starts_again_where_ranges_are_unknown(tmp_path):
    server = Server(CONTENTS, breaks_after=[100], knows_ranges=False)
    fetch(tmp_path, server)
    assert server.ranges[:2] == [None, "bytes=100-"]


def test_starts_again_if_the_part_is_too_long(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    server = Server(CONTENTS)
    fetch(tmp_path, server)
    assert server.ranges[:2] == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_complete_part_is_the_file(tmp_path):
    """Of a process that was killed before it renamed it."""
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    server = Server(CONTENTS)
    fetch(tmp_path, server)
    assert server.ranges[:2] == [f"bytes={len(CONTENT)}-", None]
    assert len(server.ranges) == len(CONTENTS)


def test_a_full_disk_is_no_fault_of_the_network(tmp_path, monkeypatch):
    monkeypatch.setattr(download.tqdm, "update", lambda *_: os.write(os.open("/dev/full", 1), b"x"))
    with pytest.raises(OSError, match="No space left") as error:
        fetch(tmp_path, Server(CONTENTS))
    assert not isinstance(error.value, ConnectionError)
    assert error.value.filename == str(tmp_path / f"{NAME}.part")


@pytest.mark.fault(
    "data files", "address that is gone, or has another file", "one line; the next one is tried"
)
def test_tries_the_addresses_in_turn(tmp_path, caplog):
    gone, other, good = Server({}), Server(dict.fromkeys(CONTENTS, b"other")), Server(CONTENTS)
    with caplog.at_level(logging.WARNING, logger="jvae_jax"):
        fetch(tmp_path, gone, other, good)
    assert len(caplog.messages) == 2 * len(CONTENTS)
    first, second = caplog.messages[:2]
    assert first.endswith(f"{NAME}: Not Found; trying the next address")
    assert second.endswith(f"{NAME} isn't the released file; trying the next address")
    assert other.ranges == good.ranges == [None] * len(CONTENTS)


def test_a_server_that_always_refuses_the_range_is_left(tmp_path):
    """The server refuses an empty file."""
    with pytest.raises(ConnectionError, match="Range Not Satisfiable"):
        fetch(tmp_path, Server(dict.fromkeys(CONTENTS, b"")))
    (tmp_path / f"{NAME}.part").write_bytes(b"other")
    with pytest.raises(ConnectionError, match="Range Not Satisfiable"):
        fetch(tmp_path, Server(dict.fromkeys(CONTENTS, b"")))
    fetch(tmp_path, Server(CONTENTS))


def test_a_part_of_another_file_is_discarded(tmp_path):
    """Its end comes from the second address, after that of the first didn't suit."""
    (tmp_path / f"{NAME}.part").write_bytes(b"other")
    servers = Server(CONTENTS), Server(CONTENTS)
    fetch(tmp_path, *servers)
    assert [server.ranges[0] for server in servers] == ["bytes=5-", None]


def test_reports_all_addresses(tmp_path):
    gone, broken = Server({}), Server(CONTENTS, breaks_after=[10] + [0] * 9)
    size = f"{len(CONTENT):,} bytes"
    message = rf"downloading kmnist failed: .*: Not Found; .*: it ended after 10 of {size}$"
    with pytest.raises(ConnectionError, match=message):
        fetch(tmp_path, gone, broken)
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}.part"]
    fetch(tmp_path, Server(CONTENTS))


def test_connection_failure_needs_one_address(monkeypatch):
    with serve(Server({})) as url:
        assert download.connection_failure([url]) == "Unsupported method ('HEAD')"

    def answer(request, **_):
        if request.host == "silent":
            time.sleep(5)
        if request.host != "there":
            raise OSError("refused")
        return contextlib.nullcontext()

    monkeypatch.setattr(download.urllib.request, "urlopen", answer)
    assert download.connection_failure(["http://gone/", "http://there/"]) is None
    assert download.connection_failure(["http://gone/", "http://away/"]) == "refused"
    monkeypatch.setattr(download, "_CONNECTION_SECONDS", 0.1)
    assert download.connection_failure(["http://silent/"]) == "no answer within 0.1 seconds"
