"""A real browser and a real TensorBoard, each started for a test and ended by its process."""

import base64
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
# a digit as the mouse draws it, in shares of a square's sides
ARC = [(0.5 - 0.2 * math.cos(angle / 4), 0.38 - 0.2 * math.sin(angle / 4)) for angle in range(15)]
TWO = [*ARC, (0.6, 0.58), (0.48, 0.68), (0.34, 0.8), (0.5, 0.8), (0.72, 0.8)]
# what a test asks is on this machine: no proxy stands between
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    with closing(socket.socket()) as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def wait_for(ready: Callable[[], Any], seconds: float = 60, pause: float = 0.1) -> Any:
    """What ``ready`` returns as soon as it is true; an error of its counts as not yet."""
    end, reason = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if found := ready():
                return found
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            reason = error
        time.sleep(pause)
    raise TimeoutError(f"not within {seconds} s: {reason}")


@contextmanager
def started(command: list[str], url: str, log: Path, **environment: str) -> Iterator[str]:
    """A server, from when it answers at ``url`` until the block ends."""
    with log.open("wb") as output:
        environment = {**os.environ, **environment}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    try:

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            with DIRECT.open(url, timeout=5) as answer:
                return answer.status == 200

        wait_for(answers)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def tensorboard(logdir: Path, log: Path) -> Iterator[str]:
    """The real server over a folder of runs; gives its address."""
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    with started([*command, "--host", "127.0.0.1"], f"http://127.0.0.1:{port}/", log) as url:
        yield url


def get(url: str) -> Any:
    """JSON over HTTP."""
    with DIRECT.open(url, timeout=20) as answer:
        return json.load(answer)


class Browser:
    """Headless Chromium through ChromeDriver's own HTTP interface (the W3C's WebDriver)."""

    def __init__(self, url: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        arguments = ["--headless=new", f"--window-size={width},{height}", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += ["--no-first-run", "--disable-background-networking", "--force-device-scale-factor=1"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            arguments.append("--no-sandbox")  # Chromium refuses to sandbox root
        options = {"args": arguments, "binary": CHROMIUM}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"}}
        self.url = url
        answer = self.ask("POST", "session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"session/{answer['sessionId']}"
        if dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            self.devtools("Emulation.setEmulatedMedia", {"features": features})

    def ask(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from error

    def devtools(self, command: str, parameters: Mapping[str, Any]) -> Any:
        return self.ask("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def open(self, url: str) -> None:
        self.ask("POST", f"{self.session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function's body returns."""
        return self.ask("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def drag(self, selector: str, points: Sequence[tuple[float, float]]) -> None:
        """Press the mouse at the first point, move it over the others and let go; shares of an element's sides."""
        script = """const box = document.querySelector(arguments[0]).getBoundingClientRect();
                    return [box.x, box.y, box.width, box.height];"""

        def lies_still() -> list[float] | None:
            box = self.run(script, selector)
            time.sleep(0.3)
            return box if box == self.run(script, selector) else None

        left, top, width, height = wait_for(lies_still)
        places = [{"x": round(left + x * width), "y": round(top + y * height)} for x, y in points]
        moves = [{"type": "pointerMove", "duration": 40, **place} for place in places]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": actions}
        self.ask("POST", f"{self.session}/actions", {"actions": [mouse]})

    def requests(self) -> list[str]:
        """The address of everything the page asked the network for, up to now."""
        entries = self.ask("POST", f"{self.session}/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def complaints(self) -> list[str]:
        """What the browser's console says."""
        return [entry["message"] for entry in self.ask("POST", f"{self.session}/se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        return base64.b64decode(self.ask("GET", f"{self.session}/screenshot"))

    def close(self) -> None:
        self.ask("DELETE", self.session)


@contextmanager
def browser(log: Path, **options: Any) -> Iterator[Browser]:
    """A headless Chromium, until the block ends."""
    port = free_port()
    assert DRIVER
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own,  # Chromium leaves files in it
        started([DRIVER, f"--port={port}"], f"http://127.0.0.1:{port}/status", log, TMPDIR=own) as url,
    ):
        opened = Browser(url.removesuffix("status"), **options)
        try:
            yield opened
        finally:
            opened.close()


# TensorBoard's pages are nested in shadow roots, which a plain query does not enter
FIND_ALL = """
const found = [];
const search = (root) => {
  for (const element of root.querySelectorAll('*')) {
    if (element.matches(arguments[0])) found.push(element);
    if (element.shadowRoot) search(element.shadowRoot);
  }
};
search(document);
"""
