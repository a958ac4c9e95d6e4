"""Attacks on a served page, by raw HTTP requests."""

import asyncio
import base64
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from helpers import encode_image, stroke_image

ROOT = Path(__file__).parents[2]
SECRET = "what nobody may read"
PREDICT = "/gradio_api/run/predict"
JSON = {"Content-Type": "application/json"}

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]


class Client:
    """Sends requests exactly as they are written, unlike browsers and urllib."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.port = int(server.url.rsplit(":", 1)[1])
        self.home_page = self.request("GET", "/")[1]
        config = re.search(r"window\.gradio_config = (.*?);</script>", self.home_page)[1]
        self.events = {
            event["api_name"]: event["id"] for event in json.loads(config)["dependencies"]
        }

    def connect(self):
        return closing(HTTPConnection("127.0.0.1", self.port, timeout=120))

    def request(self, method, path, body=None, headers=JSON):
        with self.connect() as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")

    def call(self, event, data, event_data=None, **fields):
        """Triggers an event as the page's JavaScript does."""
        body = {"fn_index": self.events.get(event), "data": data, "event_data": event_data}
        return self.request("POST", PREDICT, json.dumps(body | {"session_hash": "one"} | fields))

    def move_sliders(self, *values, selected=(0, 1, 2), **fields):
        return self.call("update_grid", [*values, list(selected)], **fields)

    def submit(self, image):
        """Submits an image; returns the text that the page shows."""
        encoded = f"data:image/png;base64,{base64.b64encode(image).decode()}"
        status, answer = self.call("encode", [], {"image": encoded})
        assert status == 200
        return json.loads(answer)["data"][0].get("value")

    def assert_works(self):
        status, answer = self.move_sliders(0.5, -0.5)
        assert status == 200
        assert json.loads(answer)["data"][0].startswith('<img src="data:image/png;base64,')
        assert "Traceback" not in self.server.output

    def memory(self):
        """Resident memory of the server, in MiB."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


@pytest.fixture(scope="module")
def client(serve, reference, tmp_path_factory):
    """A served page, on a computer that holds files of other Gradio applications."""
    folder = tmp_path_factory.mktemp("temporary")
    for name in ("hash/image.txt", "deep_links/link/state.json"):
        file = folder / "gradio" / name
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps([{"id": 1, "props": {"value": SECRET}}]))
    (folder / "gradio" / "link.txt").symlink_to(folder / "gradio" / "hash" / "image.txt")
    client = Client(serve(reference[0].workdir, TMPDIR=str(folder)), folder)
    client.assert_works()
    return client


@pytest.fixture(autouse=True)
def survives(client):
    """After each attack the page works, and the server has printed no traceback."""
    yield
    client.assert_works()


LIST_ROUTES = """
import gradio, re
from gradio.routes import App
app = App.create_app(gradio.Blocks(analytics_enabled=False))
for path, methods in app.openapi()["paths"].items():
    for method in methods:
        print(method.upper(), re.sub("{.*?}", "1", path))
"""


@pytest.mark.fault("page", "each route of Gradio", "only those that the page needs exist")
def test_only_needed_routes_exist(client):
    script = [sys.executable, "-c", LIST_ROUTES]
    listed = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    routes = {tuple(line.split()) for line in listed.splitlines()}
    assert ("GET", "/gradio_api/file=1") in routes
    routes |= {("GET", "/openapi.json"), ("POST", PREDICT)}
    assert {route for route in routes if client.request(*route, body="{}")[0] != 404} == {
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/theme.css"),
        ("GET", "/favicon.ico"),
        ("GET", "/gradio_api/startup-events"),
        ("POST", PREDICT),
    }


@pytest.mark.fault("page", "URL of a file outside Gradio's own ones", "not found")
@pytest.mark.parametrize(
    "path",
    [
        *(
            f"{route}{file}"
            for route in (
                "/gradio_api/file=",
                "/file=",
                "/gradio_api/file/",
                "/static/",
                "/assets/",
            )
            for file in (
                "/etc/passwd",
                "{run}/config.json",
                "pyproject.toml",
                "{temporary}/hash/image.txt",
                "{temporary}/link.txt",
            )
        ),
        "/static/../routes.py",
        "/static/%2e%2e/routes.py",
        "/static/%252e%252e/routes.py",
        "/static/..%2froutes.py",
        "/static/..%5croutes.py",
        "/static/..\\routes.py",
        "/static//etc/passwd",
        "/static/img/%00/../../../routes.py",
        "/assets/../../../routes.py",
        "/assets/%2e%2e/%2e%2e/%2e%2e/routes.py",
        "/gradio_api/file//etc/passwd",
        "//etc/passwd",
        "/../../etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/custom_component/1/client/../routes.py",
        "/config",
        "/gradio_api/info",
    ],
)
def test_no_file_is_served(client, reference, path):
    path = path.format(run=reference[0].workdir, temporary=client.folder / "gradio")
    status, body = client.request("GET", path)
    assert status == 404
    assert len(body) < 100


def test_own_files_are_served(client):
    assets = re.findall(r'(?:src|href)="\.(/(?:assets|static)/[^"]+)"', client.home_page)
    assert assets
    assert [client.request("GET", path)[0] for path in assets] == [200] * len(assets)


@pytest.mark.fault("page", "link to a session that another application saved", "ignored")
def test_saved_sessions_are_ignored(client):
    for query in ("?deep_link=link", "?deep_link=../hash/image.txt%23"):
        status, page = client.request("GET", f"/{query}")
        assert status == 200
        assert SECRET not in page


def test_page_reveals_no_path(client, reference):
    theme = client.request("GET", "/theme.css")[1]
    for path in (reference[0].workdir, client.folder, ROOT, sys.prefix, Path.home()):
        assert f"{path}/" not in client.home_page + theme
        assert f'{path}"' not in client.home_page + theme


@pytest.fixture
def listener():
    """Port of this computer, and the connections that it received."""
    received = []

    def accept(server):
        while True:
            try:
                received.append(server.accept()[0].recv(1000))
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, args=[server])
        thread.start()
        yield server.getsockname()[1], received
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.fault("page", "file or URL where numbers are expected", "neither read nor requested")
@pytest.mark.parametrize("event", ["update_grid", "encode", "lambda", "sample_style"])
@pytest.mark.parametrize("nest", [lambda file: file, lambda file: [file]], ids=["plain", "list"])
def test_inputs_name_no_files(client, listener, event, nest):
    port, received = listener
    for path in (client.folder / "gradio" / "hash" / "image.txt", f"http://127.0.0.1:{port}/"):
        file = {"path": str(path), "url": str(path), "meta": {"_type": "gradio.FileData"}}
        status, answer = client.call(event, [nest(file)] * 3, file)
        assert status == 500
        assert json.loads(answer)["error"] == "The request failed."
    assert received == []


OTHER_SITES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Host": "evil.example:{port}"},
    {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
    {"Host": "localhost.evil.example:{port}"},
    {"Host": "localhost@evil.example:{port}"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "[::1"},
    {"Host": ""},
]


@pytest.mark.fault("page", "request of another site, or under another host name", "refused")
@pytest.mark.parametrize("headers", OTHER_SITES, ids=str)
def test_other_sites_are_refused(client, headers):
    headers = {name: value.format(port=client.port) for name, value in headers.items()}
    body = json.dumps({"fn_index": client.events["lambda"], "data": []})
    for method, path in (("GET", "/"), ("GET", "/theme.css"), ("POST", PREDICT)):
        with client.connect() as connection:
            connection.request(method, path, body, JSON | headers)
            response = connection.getresponse()
            assert response.status == 403
            assert json.load(response) == {"error": "This page doesn't answer other sites."}


@pytest.mark.fault("page", "permission asked for a request of another site", "not granted")
def test_preflight_of_other_sites(client):
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    with client.connect() as connection:
        connection.request("OPTIONS", PREDICT, headers=headers)
        assert connection.getresponse().headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    "host", ["localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "10.0.0.7"]
)
def test_own_names_are_accepted(client, host):
    host = host.format(port=client.port)
    headers = JSON | {"Host": host, "Origin": f"http://{host}"}
    body = json.dumps({"fn_index": client.events["lambda"], "data": []})
    assert client.request("POST", PREDICT, body, headers)[0] == 200


@pytest.mark.parametrize(
    ("listens_on", "host", "origin", "status"),
    [
        ("Box.lan", "box.lan:7860", "http://box.lan:7860", 200),
        ("box.lan", "evil.example", None, 403),
        ("10.0.0.7", "box.lan", None, 403),
        ("0.0.0.0", "box.lan:7860", "http://box.lan:7860", 200),
        ("::", "box.lan", None, 200),
        ("0.0.0.0", "box.lan", "http://evil.example", 403),
        (None, "localhost:7860", "https://notebook.example", 200),
    ],
)
def test_names_of_other_addresses(listens_on, host, origin, status):
    from jvae_jax.app.request_filter import RequestFilter

    sent = []

    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode())] if origin else [])
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(RequestFilter(app, listens_on)(scope, None, send))
    assert sent[0]["status"] == status


@pytest.mark.fault("page", "request of 1 GB", "refused after 27 MB, not kept in memory")
@pytest.mark.parametrize("length", [10**9, None], ids=["declared", "chunked"])
@pytest.mark.parametrize("start", ['{"fn_index": 0, "data": ["', '{"event_data": {"image": "', "["])
def test_large_requests_are_refused(client, length, start):
    before = client.memory()
    framing = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
    head = (
        f"POST {PREDICT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{framing}"
    )
    block = start.encode().ljust(2**20, b"a")
    if not length:
        block = f"{len(block):x}\r\n".encode() + block + b"\r\n"
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        sent = 0
        try:
            while sent < 1000 and b"413" not in _received(connection):
                connection.sendall(block)
                sent += 1
        except OSError:  # closed by the server
            pass
    assert 20 < sent < 60
    assert client.memory() < before + 100


def _received(connection):
    connection.setblocking(False)
    try:
        return connection.recv(10_000)
    except BlockingIOError:
        return b""
    finally:
        connection.setblocking(True)


def png(width, height):
    """A PNG file whose header announces a size and whose pixels are missing."""

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(10)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.fault("page", "file that is no image, or a huge one", "explained in the page")
@pytest.mark.parametrize(
    ("file", "explanation"),
    [
        (b"", "not an image"),
        (b"no image", "not an image"),
        (png(60_000, 60_000), "decompression bomb"),
        (png(10, 10), "not an image"),
        (encode_image(stroke_image(ink=255)), "nothing is drawn"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
    ],
    ids=["empty", "text", "bomb", "truncated", "blank", "svg"],
)
def test_bad_images(client, file, explanation):
    assert explanation in client.submit(file)


def test_image_of_the_maximum_size(client):
    image = encode_image(stroke_image((64, 64)))
    assert client.submit(image.ljust(20 * 2**20, b"\0")) is None
    page = client.call("encode", [], {"is_too_large": True})[1]
    assert "the file is larger than 20 MB" in page


@pytest.mark.fault("page", "drawing in another form", "an answer, no traceback")
@pytest.mark.parametrize(
    "drawing",
    [None, 1, "", "text", [], ["image"], {}, {"image": None}, {"image": 1}, {"image": []}]
    + [{"image": text} for text in ("", "data:", "data:image/png;base64,é", "/etc/passwd")],
    ids=str,
)
def test_malformed_drawings(client, drawing):
    status, answer = client.call("encode", [], drawing)
    assert "can&#x27;t be encoded (the event contains no image)" in answer or status == 500


@pytest.mark.fault("page", "values in another form", "an answer, no traceback")
@pytest.mark.parametrize(
    "data",
    [
        [],
        [0, 0],
        [float("nan"), 0, [0]],
        [float("inf"), 0, [0]],
        [1e308, 0, [0]],
        [10**400, 0, [0]],
        [-3.01, 0, [0]],
        ["1", 0, [0]],
        [None, 0, [0]],
        [[1], 0, [0]],
        [{"value": 1}, 0, [0]],
        [0, 0, 0],
        [0, 0, "0"],
        [0, 0, ["0"]],
        [0, 0, [3]],
        [0, 0, [-1]],
        [0, 0, [[0]]],
        [0, 0, [None]],
        [0, 0, {"0": 0}],
    ],
    ids=str,
)
def test_malformed_values(client, data):
    status, answer = client.call("update_grid", data)
    assert status == 500
    assert json.loads(answer)["error"] == "The request failed."


@pytest.mark.fault("page", "request in another form", "an answer, no traceback")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 1_000_000,
        b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data": 1}',
        b'{"data": []}',
        b'{"data": [], "fn_index": 1000}',
        b'{"data": [], "fn_index": -1}',
        b'{"data": [], "fn_index": 1}',
        b'{"data": [], "fn_index": "x"}',
        b'{"data": [], "fn_index": 3, "batched": true, "session_hash": "x"}',
        b'{"data": [], "fn_index": 3, "session_hash": {}, "trigger_id": "x"}',
        b'{"data": [], "fn_index": 3, "event_id": "x", "trigger_id": 1000, "session_hash": "x"}',
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_malformed_requests(client, body):
    assert 400 <= client.request("POST", PREDICT, body)[0] <= 500


@pytest.mark.fault("page", "one class selected millions of times", "drawn once")
def test_repeated_class(client):
    once = client.move_sliders(0.5, 0.5, selected=[1])[1]
    many = client.move_sliders(0.5, 0.5, selected=[1] * 1_000_000)[1]
    assert json.loads(many)["data"] == json.loads(once)["data"]


def files(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.fault(
    "page", "50 requests at once and 500 in a row", "all answered; memory and files as before"
)
def test_many_requests(serve, reference, tmp_path):
    # A new server, since one that freed the memory of large requests could hide a leak in it.
    client = Client(serve(reference[0].workdir, TMPDIR=str(tmp_path)), tmp_path)
    drawing = encode_image(stroke_image((280, 280)))

    def request(number):
        if number % 2:
            return client.submit(drawing)
        status, _ = client.move_sliders(
            number % 100 / 50, 0, session_hash=str(number).ljust(200_000)
        )
        assert status == 200
        return None

    def fifty(start):
        with ThreadPoolExecutor(50) as threads:
            assert list(threads.map(request, range(start, start + 50))) == [None] * 50

    fifty(0)
    memory, stored = client.memory(), files(client.folder)
    fifty(50)
    for number in range(500):
        request(number)
    assert client.memory() < memory + 30
    assert files(client.folder) == stored
