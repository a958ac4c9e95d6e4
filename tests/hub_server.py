"""A local stand-in of the Hugging Face Hub's HTTP interface, with repositories in memory."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    def handle(self):
        if not self.server.is_down:
            super().handle()

    def log_message(self, *_args):
        pass

    def _reply(self, status, body=b"", **headers):
        self.send_response(status)
        headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, contents, status=200, **headers):
        self._reply(
            status, json.dumps(contents).encode(), Content_Type="application/json", **headers
        )

    def _missing(self):
        self._json({"error": "not found"}, 404, X_Error_Code="RepoNotFound")

    def _file(self):
        """A file at a revision, by GET or HEAD."""
        path = unquote(urlsplit(self.path).path).strip("/")
        name, _, rest = path.partition("/resolve/")
        files = self.server.repositories.get(name)
        if files is None:
            return self._missing()
        content = files.get(rest.partition("/")[2])
        if content is None:
            return self._json({}, 404, X_Error_Code="EntryNotFound")
        digest = hashlib.sha1(content).hexdigest()
        self._reply(200, content, ETag=f'"{digest}"', X_Repo_Commit=COMMIT)

    def do_HEAD(self):
        self._file()

    def do_GET(self):
        self.server.requests.append(("GET", self.path))
        path = unquote(urlsplit(self.path).path).strip("/")
        if not path.startswith("api/models/"):
            return self._file()
        name = "/".join(path.split("/")[2:4])
        files = self.server.repositories.get(name)
        if files is None:
            return self._missing()
        if "/tree/" in path:
            entries = [
                {
                    "type": "file",
                    "path": key,
                    "size": len(value),
                    "oid": hashlib.sha1(value).hexdigest(),
                }
                for key, value in files.items()
            ]
            return self._json(entries)
        siblings = [{"rfilename": key} for key in files]
        self._json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False})

    def do_POST(self):
        self.server.requests.append(("POST", self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path).strip("/")
        if not self.headers.get("Authorization"):
            return self._json({"error": "Invalid username or password."}, 401)
        if path == "api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            self.server.repositories.setdefault(name, {})
            return self._json({"url": f"{self.server.address}/{name}"})
        if path == "api/validate-yaml":
            header = json.loads(body)["content"].split("---")[1]
            is_valid = isinstance(yaml.safe_load(header), dict)
            errors = [] if is_valid else [{"message": "no header"}]
            return self._json({"errors": errors, "warnings": []})
        name = "/".join(path.split("/")[2:4])
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in files
            ]
            return self._json({"files": modes})
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "deletedFile":
                    del self.server.repositories[name][line["value"]["path"]]
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[name][line["value"]["path"]] = content
            url = f"{self.server.address}/{name}/commit/{COMMIT}"
            return self._json({"commitUrl": url, "commitOid": COMMIT})
        return self._missing()


@contextmanager
def hub_server():
    """Yields the server, with its ``address``, ``repositories`` and ``requests``; ``is_down`` makes
    it close connections without an answer.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.repositories, server.requests, server.is_down = {}, [], False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
