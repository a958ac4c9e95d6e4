"""Pages served by experiments/explore.py in other processes, as a user starts them."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "explore.py"


class Server:
    """A served page; ``output`` is what the process has printed."""

    def __init__(self, log, workdir, *flags, **environment):
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, SCRIPT, f"--workdir={workdir}", *flags],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
            )
        while not (match := re.search(r"http://\S+:\d+", self.output)):
            assert self.process.poll() is None, self.output
            time.sleep(0.1)
        self.url = match.group()

    @property
    def output(self):
        return self.log.read_text()


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Serves the page of a run until the module's last test."""
    pytest.importorskip("gradio", reason="Gradio isn't installed: pip install -e '.[explore]'")
    servers = []

    def start(workdir, *flags, **environment):
        log = tmp_path_factory.mktemp("server") / "log.txt"
        servers.append(Server(log, workdir, *flags, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.process.terminate()
        server.process.wait()
