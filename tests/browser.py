"""A headless Chromium to drive pages with, over its DevTools protocol through two pipes: nothing else is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from select import select
from typing import Any

import numpy as np
from PIL import Image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PATIENCE = 30
"""Seconds that an answer may take."""


class Page:
    """One open page. `events`: what the browser told so far, in order."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._rest, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []
        (target,) = self("Target.createTarget", url="about:blank").values()
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are kept."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select([self._answers], [], [], PATIENCE)
            part = os.read(self._answers, 1 << 20) if ready else b""
            assert part, "the browser has gone or says nothing"
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        return dict(json.loads(message))

    def open(self, path: Path, width: int = 1280, height: int = 900, **media: str) -> None:
        """Load a file and wait for it; `media` are features like prefers_color_scheme="dark"."""
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        self("Emulation.setEmulatedMedia", features=features)
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def box(self, selector: str) -> tuple[float, float, float, float]:
        """x, y, width and height of an element in the window, after scrolling it there."""
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        found = self.run(f"JSON.stringify(document.querySelector({selector!r}).getBoundingClientRect())")
        return tuple(json.loads(found)[side] for side in ("x", "y", "width", "height"))  # type: ignore[return-value]

    def pixels(self, selector: str) -> np.ndarray:
        """What an element looks like: (row, col, 3), 0..255."""
        x, y, width, height = self.box(selector)
        scroll = self.run("[scrollX, scrollY]")
        clip = {"x": x + scroll[0], "y": y + scroll[1], "width": width, "height": height, "scale": 1}
        return self.screenshot(clip=clip)

    def screenshot(self, **options: Any) -> np.ndarray:
        data = self("Page.captureScreenshot", captureBeyondViewport=True, **options)["data"]
        return np.asarray(Image.open(BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)

    def press(self, key: str) -> None:
        """A key, as KeyboardEvent.key names it."""
        codes = {"Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13}
        text = {"text": key} if len(key) == 1 else {}
        code = codes.get(key, ord(key[0]))
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **more)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.mouse("Pressed", *start, button="left", buttons=1, clickCount=1)
        for step in (0.25, 0.5, 0.75, 1):
            x, y = (a + step * (b - a) for a, b in zip(start, end, strict=True))
            self.mouse("Moved", x, y, button="left", buttons=1)
        self.mouse("Released", *end, button="left", clickCount=1)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        found = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        self("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=found)

    @property
    def complaints(self) -> list[str]:
        """What the console holds: exceptions, errors, warnings."""
        found = []
        for event in self.events:
            kind, told = event.get("method"), event.get("params", {})
            if kind == "Runtime.exceptionThrown":
                found.append(str(told["exceptionDetails"]))
            if kind == "Runtime.consoleAPICalled" or (kind == "Log.entryAdded" and told["entry"]["level"] != "verbose"):
                found.append(str(told))
        return found

    @property
    def requests(self) -> list[str]:
        """URLs that were asked for, but for those inside the page."""
        urls = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser with one page; `profile` is a folder of its own."""
    assert CHROMIUM
    their_commands, commands = os.pipe()
    answers, their_answers = os.pipe()

    def place_pipes() -> None:  # the browser reads from 3 and writes to 4
        inward, outward = os.dup(their_commands), os.dup(their_answers)
        os.dup2(inward, 3)
        os.dup2(outward, 4)

    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe",
             "--no-first-run", "--disable-background-networking", "--force-color-profile=srgb",
             f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
    process = subprocess.Popen(
        [CHROMIUM, *flags], preexec_fn=place_pipes, close_fds=False, stdin=subprocess.DEVNULL,  # noqa: PLW1509
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_commands)
    os.close(their_answers)
    try:
        yield Page(commands, answers)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        os.close(commands)
        os.close(answers)
