"""``mcfa-fast serve`` as a process of its own, on a digits run of one epoch."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cli_run import invoke
from http_service import NPY, Client, npy, read_answer

import mcfa_fast as mf

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def started():
    """Starts the command with some arguments; gives the process and a client."""
    processes = []

    def start(*arguments):
        command = [sys.executable, "-m", "mcfa_fast", "serve", *map(str, arguments)]
        process = subprocess.Popen(
            [*command, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        processes.append(process)
        line = process.stdout.readline()
        match = re.search(r"classes on http://[\d.]+:(\d+)", line)
        if not match:
            process.kill()
            pytest.fail(line + process.stderr.read())
        return process, Client(int(match[1]))

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_it_takes_the_head_of_the_saved_classifier(nearest_run, started):
    _, client = started(nearest_run)
    assert client.get("/health").content["head"] == "nearest"


def test_it_classifies_and_stops_when_told_after_what_it_has_begun(run_dir, started):
    process, client = started(run_dir, "--head", "nearest")
    digits = mf.data.load("digits").features[:50]
    classifier = mf.ZeroShotClassifier.load(run_dir / "classifier.pt").with_head("nearest")
    names = [[classifier.class_names_[c]] for c in classifier.predict(digits)]
    assert client.post("/classify", {"features": digits.tolist()}).content["classes"] == names

    body = npy(digits)
    head = "POST /classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: "
    head += f"{NPY['content-type']}\r\ncontent-length: {len(body)}\r\n\r\n"
    with client.open(head) as begun:
        begun.sendall(body[:100])
        client.get("/health")  # by now the server has seen the other request
        process.send_signal(signal.SIGTERM)
        begun.sendall(body[100:])
        assert read_answer(begun).content["classes"] == names
    assert process.wait(timeout=60) in (0, -signal.SIGTERM)
    assert process.stderr.read() == ""
    with pytest.raises(OSError):
        client.get("/health")


def test_ctrl_c_is_no_error(run_dir, started):
    process, client = started(run_dir)
    assert client.get("/health").status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""


def test_a_class_that_is_added_stays(run_dir, started, tmp_path):
    run = shutil.copytree(run_dir, tmp_path / "run")
    _, client = started(run, "--allow-add", "--persist")
    vector = np.linspace(0, 1, 26).tolist()
    assert client.post("/classes", {"name": "new", "vector": vector}).status == 201
    assert mf.ZeroShotClassifier.load(run / "classifier.pt").class_names_[-1] == "new"
    assert (run / "classifier.previous.pt").read_bytes() == (run_dir / "classifier.pt").read_bytes()


def test_slow_clients_take_neither_its_descriptors_nor_its_log(run_dir, started):
    """In a process of few descriptors: far more connections that say nothing, and nonsense."""
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))  # which the process inherits
    try:
        process, client = started(run_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    held = []
    for number in range(600):
        held.append(client.open("GET /health HTTP/1.1\r\nhost: localhost\r\n"))
        if number % 20 == 0:
            assert client.get("/health").status == 200
    for _ in range(50):
        with client.open("nonsense\r\n\r\n") as connection:
            assert connection.recv(12) == b"HTTP/1.1 400"
    for connection in held:
        connection.close()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    lines = process.stderr.read().splitlines()
    assert lines == ["WARNING:  Invalid HTTP request received."]


def test_a_rebound_name_reaches_nothing_and_a_known_one_does(run_dir, started):
    _, client = started(run_dir, "--allow-add", "--allowed-host", "scenes.example")
    vector = json.dumps({"name": "new", "vector": np.linspace(0, 1, 26).tolist()})
    for host, status in (("attacker.example", 421), ("scenes.example", 201)):
        headers = {"content-type": "application/json", "host": host}
        assert client.request("POST", "/classes", vector, headers).status == status


def test_adding_over_a_network_is_warned_of(run_dir, started):
    process, _ = started(run_dir, "--host", "0.0.0.0", "--allow-add")
    process.terminate()
    process.wait(timeout=60)
    warning = process.stderr.read()
    assert warning.startswith("warning: --allow-add on 0.0.0.0: whoever reaches this machine")
    assert warning.count("\n") == 1


def resident(process):
    """Bytes of memory that the process holds now."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_bad_and_good_requests_at_once_leave_no_trace(run_dir, started):
    process, client = started(run_dir, "--max-bytes", "200000", "--max-rows", "300")
    digits = mf.data.load("digits").features[:300].astype(np.float32)
    good = npy(digits)
    text = json.dumps({"features": digits[:100].tolist()}).encode()
    head = b"POST /classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"

    def one(number):
        kind = number % 6
        if kind == 0:
            return client.post("/classify?top=3", good, NPY).status, 200
        if kind == 1:
            return client.post("/classify?head=nearest", text).status, 200
        if kind == 2:
            return client.post("/classify", text[: number % len(text)]).status, 400
        if kind == 3:
            return client.post("/classify", npy(np.zeros((300, 63))), NPY).status, 422
        if kind == 4:  # too large, as it says itself
            with client.open((head + b"content-length: 200001\r\n\r\n").decode()) as connection:
                connection.sendall(b"x" * 1000)
                return read_answer(connection).status, 413
        with client.open(head.decode()) as connection:  # leaves in the middle
            connection.sendall(b"content-length: 5000\r\n\r\n" + b"[" * 1000)
        return 0, 0

    def storm():
        with ThreadPoolExecutor(8) as pool:
            for got, expected in pool.map(one, range(480)):
                assert got == expected

    storm()
    before = resident(process)
    for _ in range(3):
        storm()
    assert resident(process) - before < 10e6
    assert client.get("/health").status == 200
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)
    assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-run"], 1, "no-such-run: expected the folder of a finished run"),
        (["run", "--port", "70000"], 2, "port"),
        (["run", "--max-rows", "0"], 2, "max-rows"),
        (["run", "--head", "forest"], 1, "head: mcfa has softmax, nearest, ensemble"),
        (["run", "--persist"], 2, "--allow-add"),
        (["run", "--encoder", "x"], 2, "--allow-add"),
        (["run", "--allow-add", "--encoder", "./nothing"], 1, "./nothing: there is no such"),
        (["run", "--host", "no.such.host.invalid"], 1, "no.such.host.invalid"),
    ],
)
def test_bad_usage(run_dir, arguments, code, message):
    result = invoke("serve", *(run_dir if part == "run" else part for part in arguments))
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output


def test_a_port_that_is_taken_is_named(run_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = invoke("serve", run_dir, "--port", port)
    assert result.exit_code == 1 and f"127.0.0.1:{port}" in result.stderr


def test_answers_do_not_wait_for_acknowledgements(run_dir, started):
    """Of which Linux sends the first after 40 ms, and without TCP_NODELAY the body waits for it."""
    _, client = started(run_dir)
    body = npy(np.zeros((1, 64)))
    connection = http.client.HTTPConnection("127.0.0.1", client.port)
    durations = []
    for _ in range(60):
        start = time.perf_counter()
        connection.request("POST", "/classify", body, NPY)
        connection.getresponse().read()
        durations.append(time.perf_counter() - start)
    connection.close()
    assert min(durations) < 0.03


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_without_its_packages_it_says_what_to_install(run_dir, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for name in [name for name in sys.modules if name.startswith("mcfa_fast.serving")]:
        monkeypatch.delitem(sys.modules, name)
    result = invoke("serve", run_dir)
    assert result.exit_code == 1
    assert "pip install 'mcfa_fast[serve]'" in result.stderr
