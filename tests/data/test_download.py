import contextlib
import dataclasses
import hashlib
import http.server
import importlib.util
import os
import pty
import select
import socket
import sys
import termios
import threading
import urllib.request
from pathlib import Path

import pytest

from dropjax.data import DataError, download, load

CONTENT = {"a.gz": b"a" * 100_000, "b.gz": bytes(range(256)) * 1000}


class Server(http.server.BaseHTTPRequestHandler):
    """Sends CONTENT; `misbehave` names what it does with b.gz instead."""

    misbehave, asked, gave_up = "", [], []
    stop = threading.Event()

    def do_GET(self):
        name = self.path.strip("/")
        self.asked.append(name)
        content, wrong = CONTENT[name], self.misbehave if name == "b.gz" else ""
        if wrong == "404":
            return self.send_error(404)
        if wrong == "late":
            return self.hang()
        if wrong == "other":
            content = content[:-1] + b"!"
        if wrong == "endless":
            content *= 10
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content[: len(content) // 2] if wrong in ("stall", "cut") else content)
            if wrong == "stall":
                self.wfile.flush()
                self.hang()
        return None

    def hang(self):
        if not self.stop.wait(60):
            self.gave_up.append(self.path)

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def online(monkeypatch):
    monkeypatch.delenv("DROPJAX_OFFLINE")
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server(monkeypatch, online):
    """Registers two files of a server here, as "toy"; returns the handler."""

    class Handler(Server):
        asked, gave_up, stop = [], [], threading.Event()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = False  # joined at the end: no socket is left open
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        register(monkeypatch, f"http://127.0.0.1:{running.server_port}")
        yield Handler
        Handler.stop.set()
        running.shutdown()
        thread.join()


def register(monkeypatch, root):
    files = [
        download.File(name, f"{root}/{name}", len(data), hashlib.sha256(data).hexdigest())
        for name, data in CONTENT.items()
    ]
    monkeypatch.setattr(download, "registered", lambda name: files)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("where", ["folder", "cache", "home"])
def test_files_are_fetched_and_then_used_without_a_network(
    tmp_path, monkeypatch, own_home, server, where
):
    expected = {
        "folder": tmp_path,
        "cache": tmp_path / "x" / "dropjax/data/toy",
        "home": own_home / ".cache/dropjax/data/toy",
    }[where]
    if where == "cache":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    folder = tmp_path if where == "folder" else None
    said = []
    assert download.fetch("toy", folder, say=said.append) == expected
    assert {path.name: path.read_bytes() for path in expected.iterdir()} == CONTENT
    assert said == [f"downloading toy, 0 MB, into {expected}"]
    monkeypatch.setenv("DROPJAX_OFFLINE", "1")
    assert download.fetch("toy", folder, say=pytest.fail) == expected
    assert server.asked == ["a.gz", "b.gz"]


def test_only_what_is_missing_is_fetched(tmp_path, server):
    (tmp_path / "a.gz").write_bytes(b"is checked when read")
    download.fetch("toy", tmp_path, say=lambda line: None)
    assert server.asked == ["b.gz"] and left_in(tmp_path) == ["a.gz", "b.gz"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("404", "127.0.0.1: HTTP Error 404"),
        ("other", "b.gz sent 256000 bytes that are not the original file's 256000"),
        ("cut", "b.gz sent 128000 bytes that are not the original file's 256000"),
        ("endless", "that are not the original file's 256000"),
        ("stall", "b.gz sent nothing for 0.5 s after 128000 bytes"),
        ("late", "127.0.0.1: no answer within 0.5 s"),
    ],
)
def test_a_download_that_fails_leaves_nothing_and_says_why(
    tmp_path, monkeypatch, server, wrong, reason
):
    server.misbehave = wrong
    monkeypatch.setattr(download, "STALL_SECONDS", 5.0 if wrong == "late" else 0.5)
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.5 if wrong == "late" else 5.0)
    with pytest.raises(download.Unavailable) as caught:
        download.fetch("toy", tmp_path, say=lambda line: None)
    assert server.gave_up == [], "the server still hangs"
    assert reason in caught.value.reason and reason in str(caught.value)
    if wrong == "endless":  # it was not read to its end
        assert 256_000 < int(caught.value.reason.split(" sent ")[1].split()[0]) < 400_000
    assert left_in(tmp_path) == []  # not even the first file: it was whole
    for file in download.registered("toy"):
        assert f"{file.name}  sha256 {file.sha256}\n    {file.url}" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch, server):
    def interrupted(file, answer, path):
        assert path.name.startswith(".a.gz.") and path.suffix == ".part"
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.fetch("toy", tmp_path, say=lambda line: None)
    assert left_in(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(download.Unavailable, match=r"Not a directory.*file"):
        download.fetch("toy", None, say=lambda line: None)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_refused_connection_is_not_tried_again(tmp_path, monkeypatch, online, closed_port):
    register(monkeypatch, f"http://127.0.0.1:{closed_port}")
    tried, urlopen = [], urllib.request.urlopen

    def opened(request, *, timeout):
        tried.append(timeout)
        return urlopen(request, timeout=timeout)

    monkeypatch.setattr(urllib.request, "urlopen", opened)
    with pytest.raises(download.Unavailable, match=r"127.0.0.1: .*refused"):
        download.fetch("toy", tmp_path, say=pytest.fail)
    assert tried == [download.STALL_SECONDS]
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("then", ["fails", "answers"])
def test_a_name_look_up_that_hangs_is_given_up(tmp_path, monkeypatch, server, then):
    finish, gave_up = threading.Event(), []
    real = socket.getaddrinfo

    def slow(*arguments, **options):
        if not finish.wait(60):
            gave_up.append(arguments)
        if then == "fails":
            raise socket.gaierror(-3, "Temporary failure")
        return real(*arguments, **options)

    opened, urlopen = [], urllib.request.urlopen
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda *a, **k: opened.append(urlopen(*a, **k)) or opened[0]
    )
    before = set(threading.enumerate())
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    assert download.ANSWER_SECONDS < 8  # so that all of a run's start takes less than ten
    monkeypatch.setattr(download, "ANSWER_SECONDS", 0.2)
    with pytest.raises(download.Unavailable, match=r"no answer within 0.2 s"):
        download.fetch("toy", tmp_path, say=pytest.fail)
    assert gave_up == [], "the look-up still hangs"
    hanging = [t for t in set(threading.enumerate()) - before if t.name.startswith("Thread")]
    assert all(thread.daemon for thread in hanging)  # the process can end
    finish.set()
    for thread in hanging:
        thread.join(5)
    assert [answer.closed for answer in opened] == ([True] if then == "answers" else [])
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("given", [False, True])
def test_auto_without_a_network_is_the_digits(tmp_path, monkeypatch, online, closed_port, given):
    url = f"http://127.0.0.1:{closed_port}/"
    real = download.registered
    monkeypatch.setattr(
        download,
        "registered",
        lambda name: [dataclasses.replace(file, url=url) for file in real(name)],
    )
    said = []
    assert load("auto", tmp_path if given else None, say=said.append).name == "digits"
    (line,) = said
    assert line.startswith("NOT MNIST: ") and "refused" in line
    with pytest.raises(DataError, match="refused"):
        load("mnist", tmp_path if given else None, say=pytest.fail)
    assert left_in(tmp_path) == []


def test_offline_asks_nobody(monkeypatch):
    monkeypatch.setattr(download, "_answer", lambda url: pytest.fail(url))
    with pytest.raises(download.Unavailable, match="DROPJAX_OFFLINE"):
        download.fetch("mnist", None, say=pytest.fail)


def test_a_progress_bar_is_for_terminals_only(tmp_path, monkeypatch, server, capfd):
    download.fetch("toy", tmp_path / "one", say=lambda line: None)
    assert capfd.readouterr().err == ""
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with os.fdopen(terminal, "w") as stream, os.fdopen(controller, "rb") as seen:
        monkeypatch.setattr(sys, "stderr", stream)
        download.fetch("toy", tmp_path / "two", say=lambda line: None)
        stream.flush()
        shown = b""
        while b"b.gz: 100%" not in shown:  # it comes in pieces
            assert select.select([seen], [], [], 5)[0], shown
            shown += os.read(seen.fileno(), 10_000)


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    file = download.File("x.gz", "http://x/", 1, "0" * 64)
    (tmp_path / "x.gz").mkdir()
    with pytest.raises(DataError, match=r"x.gz cannot be read: .*directory"):
        file.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [("mnist", 4, 11594722), ("fashion_mnist", 4, 30878645), ("cifar10", 1, 170052171)],
)
def test_what_is_registered(name, count, size):
    files = download.registered(name)
    assert len(files) == count and sum(file.size for file in files) == size
    if name != "cifar10":  # whose address has the name of the set
        assert all(file.url.endswith("/" + file.name) for file in files)
        return
    assert files[0].name == "cifar-10-binary.tar.gz"
    assert files[0].sha256 == "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def test_without_a_list_of_checksums_nothing_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"")
    with pytest.raises(DataError, match="tensorflow-datasets is not installed"):
        load("mnist", tmp_path, say=pytest.fail)
