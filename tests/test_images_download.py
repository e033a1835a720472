"""The download, against a server on this machine: verified, retried, from more than one mirror, never half-written."""

import hashlib
import io
import os
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pixeldefend import images as module
from pixeldefend import paths
from pixeldefend.images import DATA_SETS, load_images

ARCHIVE = "cifar-10-binary.tar.gz"
DOWN = "http://127.0.0.1:9/"  # the discard port: nobody listens


def archive(labels):
    """An archive of test images only, one for each label."""
    content = b"".join(bytes([label]) * 3073 for label in labels)
    member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    member.size = len(content)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


CONTENT = archive(range(6))


def refused(kind, call, *mentions):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for text in mentions:
        assert text in message


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """No other source, an own cache, no waiting between attempts."""
    monkeypatch.setattr(paths, "EMBEDDED", tmp_path / "embedded")
    monkeypatch.setattr(module, "SYSTEM", tmp_path / "system")
    monkeypatch.setattr(module, "PAUSE", 0.0)
    monkeypatch.delenv(module.ENVIRONMENT, raising=False)
    monkeypatch.setenv("PIXELDEFEND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class Handler(BaseHTTPRequestHandler):
    """/good/ serves the archive, /wrong/ other bytes, /cut/ breaks off half-way, /flaky/ does so only once."""

    def do_GET(self):
        self.server.asked.append(self.path)
        kind = self.path.split("/")[1]
        if kind == "gone":
            return self.send_error(404)
        body = b"not the archive" if kind == "wrong" else CONTENT
        cut = kind == "cut" or (kind == "flaky" and self.server.asked.count(self.path) == 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    pytest.importorskip("pooch")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def use(server, monkeypatch):
    """Make the data set's mirrors folders of the local server; "down" is one where nobody listens."""

    def set_mirrors(*kinds):
        here = f"http://127.0.0.1:{server.server_port}"
        mirrors = tuple(DOWN if kind == "down" else f"{here}/{kind}/" for kind in kinds)
        checksums = {ARCHIVE: hashlib.sha256(CONTENT).hexdigest()}
        monkeypatch.setitem(DATA_SETS, "cifar10", replace(DATA_SETS["cifar10"], mirrors=mirrors, checksums=checksums))

    return set_mirrors


@pytest.mark.parametrize(
    "mirrors, requests",
    [
        (("good",), ["good"]),
        (("down", "good"), ["good"]),
        (("gone", "good"), ["gone", "good"]),
        (("wrong", "good"), ["wrong", "good"]),
        (("cut", "good"), ["cut", "good"]),
        (("flaky",), ["flaky", "flaky"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_download(tmp_path, server, use, capfd, monkeypatch, mirrors, requests):
    log = io.StringIO()  # pooch's logger took hold of stderr before pytest did
    monkeypatch.setattr(pytest.importorskip("pooch").get_logger().handlers[0], "stream", log)
    use(*mirrors)
    data = load_images("cifar10", "test")
    assert (data.source, data.labels.tolist()) == ("download", [0, 1, 2, 3, 4, 5])
    assert [path.split("/")[1] for path in server.asked] == requests
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [ARCHIVE]
    printed = capfd.readouterr()
    assert printed.out == "" and "100%" in printed.err
    assert str(tmp_path) not in printed.err + log.getvalue()
    load_images("cifar10", "test")
    assert len(server.asked) == len(requests), "a verified copy in the cache is not fetched again"


@pytest.mark.parametrize(
    "mirrors, kind, requests, mention",
    [
        (("down",), ConnectionError, 0, "ConnectionError"),
        (("gone", "down"), ConnectionError, module.ATTEMPTS, "127.0.0.1"),
        (("gone",), ConnectionError, module.ATTEMPTS, "HTTP status 404"),
        (("cut",), ConnectionError, module.ATTEMPTS, "127.0.0.1"),
        (("wrong",), ValueError, 1, "wrong checksum"),
        (("wrong", "down"), ConnectionError, 1, "127.0.0.1"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_failed_download_leaves_nothing(tmp_path, server, use, mirrors, kind, requests, mention):
    use(*mirrors)
    refused(kind, lambda: load_images("cifar10", "test"), ARCHIVE, mention, "limit=1000", "root=")
    assert len(server.asked) == requests
    assert not (tmp_path / "cache").exists() or list((tmp_path / "cache").iterdir()) == []


def test_interrupted_download_leaves_nothing(tmp_path, use, monkeypatch):
    """Ctrl-C in the middle of the transfer: what was written so far is removed."""
    use("good")
    pooch = pytest.importorskip("pooch")
    written = []

    def interrupt(self, url, output_file, *_):
        with open(output_file, "wb") as file:
            file.write(CONTENT[:100])
        written.append(os.path.getsize(output_file))
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_images("cifar10", "test")
    assert written == [100]
    assert list((tmp_path / "cache").iterdir()) == []


def test_damaged_cache_is_replaced(tmp_path, server, use):
    use("good")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ARCHIVE).write_bytes(CONTENT[:100])
    assert len(load_images("cifar10", "test")) == 6
    assert (tmp_path / "cache" / ARCHIVE).read_bytes() == CONTENT
