"""`rlaif serve` as a process of its own: signals, exit codes, and what it writes."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rlaif.cli.main import main
from rlaif.cli.serve import sparing
from tests.servers import Answer, Received, ScriptedServer, chat_reply, error_reply
from tests.tiny_models import save_reward_model

BODY = {"items": [{"prompt": "Name a color.", "response": "Red."}]}
TOKEN = "the-token-of-the-test"
KEY = "sk-the-key-of-the-test"
TENTHS = [(str(score), math.log(0.1)) for score in range(1, 11)]
UNIFORM = chat_reply(TENTHS, text="1", token="1", logprob=TENTHS[0][1])


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("RLAIF_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL", "RLAIF_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def judging(answer: Answer) -> Callable[[Received], Answer]:
    """A judge that gives this answer, and knows no other endpoint."""
    return lambda received: answer if asks(received) else Answer(error_reply("not found"), status=404)


def asks(received: Received) -> bool:
    return received.path.endswith("/chat/completions")


class Process:
    """A server process, its address, and everything it writes."""

    def __init__(self, *flags: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlaif", "serve", "--port", "0", *flags],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.written: list[str] = []
        self._found = threading.Event()
        self.url = ""
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,)) for pipe in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()
        assert self._found.wait(60), self.text

    def _read(self, pipe: Any) -> None:
        for line in pipe:
            self.written.append(line)
            if match := re.search(r"on (http://\S+)", line):
                self.url = match[1]
                self._found.set()

    @property
    def text(self) -> str:
        return "".join(self.written)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)

    def end(self) -> int:
        """Wait for the end; the exit code."""
        code = self.process.wait(30)
        for reader in self._readers:
            reader.join(10)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return code


@contextlib.contextmanager
def serving(*flags: str, **environment: str) -> Iterator[Process]:
    server = Process(*flags, **environment)
    try:
        yield server
    finally:
        server.process.kill()
        server.end()


def post(url: str, body: Any = BODY, path: str = "/score", **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as reply:
        text: str = reply.read().decode()
    return text


def test_it_says_where_it_listens_and_ends_with_0_on_a_signal() -> None:
    with serving("--judge", "builtin:tiny") as server:
        assert post(server.url)[0] == 200
        server.process.send_signal(signal.SIGINT)
        assert server.end() == 0
        assert "serving builtin:tiny on http://127.0.0.1:" in server.text
        assert "is a demonstration judge" in server.text


def test_a_reward_model_is_served_with_rewards_and_no_ratings(tmp_path: Path) -> None:
    folder = save_reward_model(tmp_path / "tiny-rm")
    with serving("--judge", f"hf-reward:{folder}") as server:
        status, reply = post(server.url)
        assert status == 200
        (item,) = reply["items"]
        assert isinstance(item.pop("reward"), float)
        assert item == {"rating": None, "rating_probs": None}
        server.process.send_signal(signal.SIGINT)
        assert server.end() == 0


def test_what_is_in_flight_is_finished_before_the_end() -> None:
    with (
        ScriptedServer(judging(Answer(UNIFORM, delay=1.0))) as judge,
        ThreadPoolExecutor() as pool,
        serving("--judge", "openai:judge", "--base-url", judge.url) as server,
    ):
        answer = pool.submit(post, server.url)
        server.wait_for(lambda: any(map(asks, judge.received)))
        server.process.terminate()
        server.wait_for(lambda: "stopping: new requests are refused" in server.text)
        assert post(server.url)[1]["error"]["name"] == "Draining"
        status, reply = answer.result()
        assert (status, reply["items"][0]["reward"]) == (200, pytest.approx(0))
        assert server.end() == 0


def test_a_second_signal_does_not_wait() -> None:
    with (
        ScriptedServer(judging(Answer(fault="hang"))) as judge,
        ThreadPoolExecutor() as pool,
        serving("--judge", "openai:judge", "--base-url", judge.url) as server,
    ):
        answer = pool.submit(post, server.url)
        server.wait_for(lambda: any(map(asks, judge.received)))
        server.process.terminate()
        server.wait_for(lambda: "stopping" in server.text)
        server.process.terminate()
        assert server.end() == 130
        assert isinstance(answer.exception(), OSError)


def test_what_takes_too_long_is_given_up() -> None:
    with (
        ScriptedServer(judging(Answer(fault="hang"))) as judge,
        ThreadPoolExecutor() as pool,
        serving("--judge", "openai:judge", "--base-url", judge.url, "--drain", "0.2") as server,
    ):
        answer = pool.submit(post, server.url)
        server.wait_for(lambda: any(map(asks, judge.received)))
        server.process.terminate()
        assert answer.result()[1]["error"]["name"] == "Draining"
        assert server.end() == 0
        assert "stopped with requests unanswered after 0.2 s: 1" in server.text


def test_nothing_it_writes_holds_a_secret() -> None:
    def refusing(received: Received) -> Answer:
        return Answer(error_reply(f"you sent {received.headers['authorization']} and {TOKEN}"), status=401)

    with ScriptedServer(refusing) as judge:
        flags = ("--judge", "openai:judge", "--base-url", judge.url, "--token", TOKEN)
        with serving(*flags, OPENAI_API_KEY=KEY, RLAIF_DEBUG="1") as server:
            replies = [
                post(server.url),
                post(server.url, Authorization=f"Bearer {TOKEN}x"),
                post(server.url, Authorization=f"Bearer {TOKEN}"),
                post(server.url, {"items": TOKEN}, Authorization=f"Bearer {TOKEN}"),
                post(server.url, {}, f"/{TOKEN}"),
            ]
            assert [status for status, _ in replies] == [401, 401, 503, 422, 404]
            health = urllib.request.Request(f"{server.url}/healthz")
            with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(health):
                pass
            with caught.value as error:
                texts = [error.read().decode(), get(f"{server.url}/metrics")]
            server.process.terminate()
            assert server.end() == 0
    assert judge.received[0].headers["authorization"] == f"Bearer {KEY}"
    texts += [server.text, json.dumps(replies)]
    assert "BackendUnusableError" in server.text
    assert "RLAIF_TOKEN does not" in server.text
    for text in texts:
        assert KEY not in text
        assert TOKEN not in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "--host: '0.0.0.0' can be reached from elsewhere; set RLAIF_TOKEN"),
        (["--host", "::"], "can be reached from elsewhere"),
        (["--host", "example.org"], "can be reached from elsewhere"),
        (["--token", ""], "--token: expected ASCII characters"),
        (["--token", "two\nlines"], "--token: expected ASCII characters"),
        (["--port", "65536"], "--port: '65536', expected a whole number from 0 to 65535"),
        (["--queue", "10", "--max-items", "11"], "--queue: 10 does not hold one request of --max-items 11"),
        (["--judge", "nobody:x"], "unknown backend 'nobody'"),
        (["--tokn", TOKEN], "--tokn: unknown flag (did you mean '--token'"),
    ],
)
def test_wrong_use_starts_nothing(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert TOKEN not in err


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--judge", "fake:0.5", "--port", str(port)]) == 2
    assert f"ConfigError: cannot listen on 127.0.0.1, port {port}: Address already in use" in capsys.readouterr().err


def test_the_token_of_the_environment_opens_other_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving("--judge", "fake:0.5", "--host", "0.0.0.0", RLAIF_TOKEN=TOKEN) as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert post(url)[0] == 401
        assert post(url, Authorization=f"Bearer {TOKEN}")[0] == 200
        assert TOKEN not in server.text


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "uvicorn" else find(name, package)
    )
    assert main(["serve", "--judge", "nobody:x"]) == 2
    assert (
        "the endpoint needs uvicorn, which an extra brings; run: pip install 'rlaif[serve]'" in capsys.readouterr().err
    )


def test_the_same_kind_of_failure_is_said_now_and_then() -> None:
    said: list[str] = []
    now = [0.0]
    say = sparing(said.append, clock=lambda: now[0], seconds=5.0)
    for second, text in enumerate(["A: 1", "A: 2", "B: 3", "A: 4", "A: 5", "A: 6"]):
        now[0] = float(second)
        say(text)
    assert said == ["A: 1", "B: 3", "A: 6 (and 3 more)"]
