"""A headless Chromium driven by its DevTools protocol: enough to open a page, click, type and
read what it asked of the network. It needs nothing but the `websockets` package."""

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--window-size=1360,820",
)


def find_chromium() -> str:
    """Its path, or a skip; under CI the browser tests must not vanish in silence, so a failure."""
    given = os.environ.get("LUTHIER_TEST_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, _NAMES)), None)
    if found:
        return found
    reason = "no chromium found (install it, or set LUTHIER_TEST_CHROMIUM to its path)"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Tab:
    """One page. `requests` and `sockets` are all addresses it asked for; `problems` holds script
    errors and what the content security policy refused."""

    def __init__(self, socket: ClientConnection, session: str) -> None:
        self._socket = socket
        self._session = session
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())
        self.requests: list[str] = []
        self.sockets: list[str] = []
        self.frames: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.problems: list[str] = []

    async def _read(self) -> None:
        async for raw in self._socket:
            message = json.loads(raw)
            if "id" in message:
                future = self._waiting.pop(message["id"], None)
                if future is not None and not future.done():
                    future.set_result(message)
            elif message.get("sessionId") == self._session:
                self._note(message["method"], message["params"])

    def _note(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
                self.headers.append(params["request"]["headers"])
            case "Network.webSocketCreated":
                self.sockets.append(params["url"])
            case "Network.webSocketFrameSent":
                self.frames.append(params["response"]["payloadData"])
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(
                    str(details.get("exception", {}).get("description", details["text"]))
                )
            case "Log.entryAdded" if params["entry"]["source"] == "security":
                self.problems.append(params["entry"]["text"])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        message = {"id": number, "method": method, "params": params, "sessionId": self._session}
        await self._socket.send(json.dumps(message))
        answer = await asyncio.wait_for(future, 30)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def start(self) -> Self:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")
        return self

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        answer = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def until(self, script: str, timeout: float = 30) -> Any:
        """Waits until the expression is true, through navigations; its value."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    with suppress(RuntimeError):
                        if value := await self.evaluate(script):
                            return value
                    await asyncio.sleep(0.05)
        text = await self.evaluate("document.body.innerText")
        raise AssertionError(f"never true: {script}\n{self.problems}\n{text}")

    async def sent(self, text: str, timeout: float = 30) -> None:
        """Waits until a message with this text has gone out over a WebSocket."""
        async with asyncio.timeout(timeout):
            while True:
                if any(text in frame for frame in self.frames):
                    return
                await asyncio.sleep(0.02)

    async def click(self, selector: str) -> None:
        """With real mouse events: some of the page's menus open on pointer-down only."""
        place = f"document.querySelector({json.dumps(selector)})"
        await self.until(f"!!{place}")
        box = await self.evaluate(
            f"(() => {{ const b = {place}.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="none" if kind == "mouseMoved" else "left",
                clickCount=1,
            )

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def screenshot(self, path: Path) -> None:
        answer = await self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(answer["data"]))

    def assert_stayed_home(self, url: str) -> None:
        """It asked nobody but this origin, and nothing went wrong."""
        asked = [urlsplit(one) for one in [*self.requests, *self.sockets]]
        hosts = {one.netloc for one in asked if one.scheme != "data"}
        assert hosts == {urlsplit(url).netloc}
        assert self.problems == []

    async def close(self) -> None:
        self._reader.cancel()
        await self._socket.close()


@asynccontextmanager
async def browser() -> AsyncIterator[Tab]:
    """A browser of its own with an empty profile, and its one tab."""
    program = find_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            program,
            *_FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": profile},
        )
        try:
            tab = await _attach(Path(profile) / "DevToolsActivePort")
            try:
                yield await tab.start()
            finally:
                await tab.close()
        finally:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), 10)
            with suppress(ProcessLookupError):  # what it started, too, or it leaves files behind
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _attach(announcement: Path) -> Tab:
    async with asyncio.timeout(30):
        while True:
            if announcement.exists() and "\n" in (text := announcement.read_text()):
                break
            await asyncio.sleep(0.05)
    port, path = text.split("\n")[:2]
    socket = await connect(f"ws://127.0.0.1:{port}{path}", max_size=None)

    async def ask(method: str, **params: Any) -> Any:
        await socket.send(json.dumps({"id": 0, "method": method, "params": params}))
        while True:
            message = json.loads(await socket.recv())
            if message.get("id") == 0:
                return message["result"]

    target = await ask("Target.createTarget", url="about:blank")
    session = await ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
    return Tab(socket, session["sessionId"])
