"""The page as ``jvae explore`` serves it."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "explore.py"

pytestmark = pytest.mark.long


def explore(reference, *flags):
    command = [sys.executable, str(SCRIPT), f"--workdir={reference[0].workdir}", *flags]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.fixture(scope="module")
def url(reference, tmp_path_factory):
    """Serves the page of a run in another process, as a user starts it."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with log.open("wb") as stream:
        command = [sys.executable, SCRIPT, f"--workdir={reference[0].workdir}"]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=os.environ)
    while not (match := re.search(r"http://\S+:\d+", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield match.group()
    process.terminate()
    process.wait()


def test_page_is_served(url):
    with urllib.request.urlopen(url) as response:
        assert response.headers.get_content_type() == "text/html"
        assert response.read().decode().startswith("<!doctype html>")


def test_nothing_else_is_served(url):
    for path in ("/index.html", "/../pyproject.toml", "//etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url + path)
    for method in ("POST", "PUT", "DELETE"):
        with pytest.raises(urllib.error.HTTPError, match="501"):
            urllib.request.urlopen(urllib.request.Request(url, b"1", method=method))


@pytest.mark.fault("page", "port in use", "error in one line")
def test_port_in_use(url, reference):
    port = url.rsplit(":", 1)[1]
    completed = explore(reference, f"--port={port}")
    assert completed.returncode == 1
    assert completed.stderr == f"error: port {port} isn't free at 127.0.0.1; choose another one\n"


@pytest.mark.fault("page", "address of another computer", "error in one line, at once")
@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid"])
def test_address_of_another_computer(reference, host):
    completed = explore(reference, f"--host={host}")
    assert completed.returncode == 1
    assert completed.stderr == f"error: {host} isn't an address of this computer\n"


@pytest.mark.fault("page", "port out of range", "error in one line")
def test_port_out_of_range(reference):
    completed = explore(reference, "--port=65536")
    assert completed.returncode == 2
    assert completed.stderr == "error: port must be between 1 and 65535, got 65536\n"
