"""``avo serve``: it prints the address and answers there, and says in one line why it cannot."""

import importlib.util
import signal
import socket
import subprocess
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.avo.cli.conftest import Avo

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


def test_the_printed_address_is_answered_until_it_is_interrupted(sample_db: str) -> None:
    command = [sys.executable, "-m", "avo", "serve", "--port", "0", "--db", sample_db]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = urlsplit(process.stdout.readline().strip())
        assert (address.hostname, address.path, address.query[:6]) == ("127.0.0.1", "/", "token=")
        connection = HTTPConnection("127.0.0.1", address.port or 0, timeout=300)
        connection.request("GET", "/")
        assert connection.getresponse().status == 401
        connection.close()
        connection.request("GET", "/", headers={"Authorization": f"Bearer {address.query[6:]}"})
        answer = connection.getresponse()
        assert (answer.status, b"mha-h100-2" in answer.read()) == (200, True)
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=300)[1] == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "70000"], "--port"),
        (["--host", "256.1.1.1"], "cannot listen at 256.1.1.1:0"),
        (["--token", "short"], "--token: give 16"),
        (["--db", "nothing.db"], "no database at /"),
    ],
)
def test_a_wrong_call_is_refused_in_one_line(avo: Avo, options: list[str], words: str) -> None:
    result = avo("serve", "--port", "0", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named(avo: Avo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = avo("serve", "--port", str(port))
    assert result.exit_code == 2
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in result.stderr


def test_a_missing_extra_is_named(avo: Avo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = avo("serve")
    assert (result.exit_code, "pip install 'avo-kernels[serve]'" in result.stderr) == (2, True)
