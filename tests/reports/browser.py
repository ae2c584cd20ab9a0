"""A headless Chromium that reports requests, console messages, layout and print of a page.

It is controlled by the DevTools protocol over two pipes, which need no port and no driver.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --remote-debugging-pipe "
    "--host-resolver-rules=MAP\t*\t~NOTFOUND"
)
_LOOK = """(() => {
  const box = each => each.getBoundingClientRect();
  return {
    blank: [...document.images].filter(each => !each.complete || each.naturalWidth === 0).length,
    images: document.images.length,
    flat: [...document.querySelectorAll('figure')].filter(each => box(each).width < 60 || box(each).height < 20).length,
    figures: document.querySelectorAll('figure').length,
    beyond: [...document.querySelectorAll('main *')].filter(each => !each.closest('.scroll, svg')
      && box(each).right > innerWidth + 1).length,
    wide: document.documentElement.scrollWidth - innerWidth,
    clipped: [...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth + 1).length,
    unmarked: [...document.querySelectorAll('.scroll, section > figure')].filter(each =>
      each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).backgroundImage === 'none'
      && getComputedStyle(each, '::before').content === 'none').length,
    text: document.body.innerText,
  };
})()"""


def find_chromium() -> str | None:
    """Return the path of the first Chromium on PATH."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Visit(NamedTuple):
    """Requests, console messages and layout of one visit to a page."""

    requests: list[str]  # other than of the page itself and of data URIs
    console: list[str]  # errors and warnings
    look: dict[str, Any]


class Browser:
    """One Chromium; a context manager."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_it, write = os.pipe()
        read, from_it = os.pipe()

        flags = [each.replace("\t", " ") for each in _FLAGS.split(" ")]
        wired = f'exec "$@" 3<&{to_it} 4>&{from_it}'  # the protocol is read from 3 and written to 4
        self._process = subprocess.Popen(
            ["bash", "-c", wired, "bash", program, *flags, f"--user-data-dir={self._folder.name}"],
            pass_fds=(to_it, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_it)
        os.close(from_it)
        self._write, self._read = os.fdopen(write, "wb", buffering=0), os.fdopen(read, "rb", buffering=0)
        self._rest, self._number, self._events = b"", 0, []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for name in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{name}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._write.close()
        self._read.close()
        self._folder.cleanup()

    def open(self, page: Path, *, width: int = 1200) -> Visit:
        """Open a page in a window of `width` pixels."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._events.clear()
        address = page.resolve().as_uri()
        self._call("Page.navigate", url=address)
        while not any(each["method"] == "Page.loadEventFired" for each in self._events):
            self._events.append(self._next())
        look = self._call("Runtime.evaluate", expression=_LOOK, returnByValue=True)["result"]["value"]
        urls = [
            each["params"]["request"]["url"] for each in self._events if each["method"] == "Network.requestWillBeSent"
        ]
        entries = [each["params"]["entry"] for each in self._events if each["method"] == "Log.entryAdded"]
        console = [each["text"] for each in entries if each["level"] in ("error", "warning")]
        for each in self._events:
            if each["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                console.append(json.dumps(each["params"])[:300])
        return Visit([url for url in urls if url != address and not url.startswith("data:")], console, look)

    def print(self) -> bytes:
        """Return the open page as a PDF on A4."""
        answer = self._call("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(answer["data"])

    def as_printed(self, *, width: int) -> dict[str, Any]:
        """Return the layout of the open page in print, on paper of `width` pixels."""
        self._call("Emulation.setEmulatedMedia", media="print")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        look = self._call("Runtime.evaluate", expression=_LOOK, returnByValue=True)["result"]["value"]
        self._call("Emulation.setEmulatedMedia", media="")
        return look

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if method.split(".")[0] != "Target":
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            if "method" in answer:
                self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = self._read.read(1 << 20)
            if not more:
                raise RuntimeError(f"the browser ended with {self._process.poll()}")
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)
