"""A small driver for Chromium over the DevTools protocol: start it, open pages, look, collect errors.

The protocol is spoken with aiohttp's own WebSocket client (https://chromedevtools.github.io/devtools-protocol/).
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import aiohttp

DEADLINE = 30.0  # seconds that anything in the page may take
# The same engine without windows, tabs and toolbars takes a fifth of the time for a page.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new --remote-debugging-port=0 --disable-background-networking --disable-component-update "
    "--disable-sync --disable-extensions --no-first-run --no-default-browser-check --disable-quic "
    "--disable-gpu --disable-dev-shm-usage --no-proxy-server --password-store=basic --use-mock-keychain"
).split()

KEYS = {  # their codes, and what they write
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "ArrowUp": (38, ""),
    "ArrowDown": (40, ""),
}

# Runs in every document before its own scripts.
WATCH_VIOLATIONS = """
    addEventListener("securitypolicyviolation", (event) => {
      console.error("CSP:", event.violatedDirective, event.sample);
    });
"""

WAIT = """
    new Promise((resolve) => {
      const look = () => {
        let found = false;
        try { found = %s; } catch (error) { if (!(error instanceof TypeError)) throw error; }
        if (found) { observer.disconnect(); clearInterval(timer); resolve(true); }
      };
      const observer = new MutationObserver(look);
      observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true });
      const timer = setInterval(look, 50);
      look();
    })
"""


# Where the page may not run scripts, no timer of its own fires.
LOOK = """
    (() => {
      try { return Boolean(%s); } catch (error) { if (!(error instanceof TypeError)) throw error; return false; }
    })()
"""


class PageError(Exception):
    """The page did not do what it was asked for; says what it showed."""


def find_browser() -> str | None:
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One Chromium process with a profile of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        # Chromium's own sandbox does not work for root.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        with (profile / "log").open("wb") as log:
            command = [program, *FLAGS, *sandbox, f"--user-data-dir={profile}", "about:blank"]
            # What is found may be a script that starts it and waits: with it all of its group is ended.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._profile = profile

    async def address(self) -> str:
        """Where it listens; it writes that into its profile when it is ready."""
        port_file = self._profile / "DevToolsActivePort"
        async with asyncio.timeout(30):
            while not (port_file.exists() and port_file.read_text().count("\n") >= 1):
                if self.process.poll() is not None:
                    raise PageError("Chromium ended: " + (self._profile / "log").read_text(errors="replace")[-2000:])
                await asyncio.sleep(0.05)
        port, path = port_file.read_text().split("\n")[:2]
        return f"ws://127.0.0.1:{port}{path}"

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class DevTools:
    """The connection to a browser: commands out, answers and events in."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._reader = asyncio.create_task(self._read())

    async def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Call one method; raises PageError with what the browser says."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        where = {"sessionId": session} if session else {}
        await self._ws.send_json({"id": number, "method": method, "params": params, **where})
        try:
            async with asyncio.timeout(DEADLINE + 5):
                result: dict[str, Any] = await answer
                return result
        except TimeoutError:
            raise PageError(f"{method} was not answered") from None

    async def _read(self) -> None:
        async for message in self._ws:
            frame: dict[str, Any] = json.loads(message.data)
            if "id" in frame:
                self._answered(self._answers.pop(frame["id"]), frame)
            elif page := self._pages.get(frame.get("sessionId", "")):
                page.happened(frame["method"], frame["params"])
        for answer in self._answers.values():
            answer.cancel()

    @staticmethod
    def _answered(answer: "asyncio.Future[dict[str, Any]]", frame: dict[str, Any]) -> None:
        if answer.done():
            return
        if "error" in frame:
            answer.set_exception(PageError(frame["error"]["message"]))
        else:
            answer.set_result(frame["result"])

    @asynccontextmanager
    async def page(self) -> AsyncIterator["Page"]:
        """A fresh page in a context of its own: no cookies, no cache of another test's."""
        context = (await self.send("Target.createBrowserContext"))["browserContextId"]
        target = await self.send("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        await page.prepare()
        yield page
        await self.send("Target.disposeBrowserContext", browserContextId=context)

    async def close(self) -> None:
        await self._ws.close()
        await self._reader


class Page:
    """One tab. `troubles` collects console errors, exceptions, violations of the CSP and dialogs; `requests`,
    `posts` and `sockets` the addresses that were asked for, and what was sent there."""

    def __init__(self, tools: DevTools, session: str) -> None:
        self._tools, self._session = tools, session
        self._loaded = asyncio.Event()
        self._scripts = True
        self._answering: set[asyncio.Task[Any]] = set()
        self._trouble = asyncio.Event()
        self.troubles: list[str] = []
        self.expected: list[str] = []  # words of troubles that may also come when the test is over
        self.requests: list[str] = []
        self.posts: list[tuple[str, str]] = []
        self.sockets: list[str] = []

    async def prepare(self) -> None:
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            await self.send(f"{domain}.enable")
        await self.before_scripts(WATCH_VIOLATIONS)

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._tools.send(method, self._session, **params)

    def happened(self, method: str, params: dict[str, Any]) -> None:
        """Keep what a person would call an error."""
        self._trouble.set()
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
                if "postData" in params["request"]:
                    self.posts.append((params["request"]["url"], params["request"]["postData"]))
            case "Network.webSocketCreated":
                self.sockets.append(params["url"])
            case "Page.javascriptDialogOpening":
                self.troubles.append(f"dialog: {params['message']}")
                self._answering.add(asyncio.create_task(self.send("Page.handleJavaScriptDialog", accept=False)))
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.troubles.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                words = [str(arg.get("value", arg.get("description", ""))) for arg in params["args"]]
                self.troubles.append("console: " + " ".join(words))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.troubles.append(f"log: {params['entry']['text']} {params['entry'].get('url', '')}")
            case "Audits.issueAdded" if "ContentSecurityPolicy" in params["issue"]["code"]:
                self.troubles.append(f"issue: {params['issue']['code']} {json.dumps(params['issue']['details'])[:300]}")

    async def open(self, url: str) -> Self:
        """Go there and wait until it is loaded."""
        self._loaded.clear()
        answer = await self.send("Page.navigate", url=url)
        if answer.get("errorText"):
            raise PageError(f"{url}: {answer['errorText']}")
        await self._wait_loaded()
        return self

    async def complete(self) -> None:
        """Wait until a document that a press has led to has all its files."""
        await self.until("document.readyState === 'complete'")

    async def go(self, steps: int) -> None:
        """Press Back (-1) or Forward (1): asked of the browser, not of the document, which may be exchanged for one
        that was kept before it has answered."""
        history = await self.send("Page.getNavigationHistory")
        await self.send(
            "Page.navigateToHistoryEntry", entryId=history["entries"][history["currentIndex"] + steps]["id"]
        )

    async def leave(self) -> None:
        """Close the document, so that its hub can go; a dialog first, which would hold it back for good."""
        await asyncio.gather(*self._answering, return_exceptions=True)
        await self.open("about:blank")

    async def reload(self) -> None:
        self._loaded.clear()
        await self.send("Page.reload")
        await self._wait_loaded()

    async def _wait_loaded(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self._loaded.wait()

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression (a promise is awaited), as JSON."""
        answer = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    async def until(self, condition: str, deadline: float = DEADLINE) -> None:
        """Wait until an expression is true in the page; it is looked at whenever the page changes."""
        try:
            async with asyncio.timeout(deadline):
                while True:
                    try:
                        if await self.evaluate((WAIT if self._scripts else LOOK) % condition):
                            return
                        await asyncio.sleep(0.05)
                    except PageError as error:
                        if not re.search("context|navigated", str(error)):  # another document has come: look at that
                            raise
        except TimeoutError:
            shown = await self.evaluate("document.body.innerText")
            raise PageError(f"never true: {condition}\ntroubles: {self.troubles}\nthe page shows:\n{shown}") from None

    async def before_scripts(self, source: str) -> None:
        """Run this in every document to come, before its own scripts."""
        await self.send("Page.addScriptToEvaluateOnNewDocument", source=source)

    def forgive(self, *words: str) -> None:
        """Forget the troubles that a test has provoked: those that contain one of these."""
        self.troubles = [one for one in self.troubles if not any(word in one for word in words)]

    async def until_trouble(self, words: str) -> None:
        """Wait until a trouble is heard of that contains these words."""
        try:
            async with asyncio.timeout(DEADLINE):
                while not any(words in one for one in self.troubles):
                    self._trouble.clear()
                    await self._trouble.wait()
        except TimeoutError:
            raise PageError(f"no trouble with {words!r} among {self.troubles}") from None

    async def text(self, selector: str) -> list[str]:
        """What a person can read in each element that matches."""
        code = f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.innerText)"
        texts: list[str] = await self.evaluate(code)
        return texts

    async def click(self, selector: str) -> None:
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    async def click_on(self, elements: str) -> None:
        """Press the one element that an expression for a list gives, with the mouse, where it is."""
        await self.complete()  # else it may move away
        await self.until(f"getComputedStyle(({elements})[0]).pointerEvents !== 'none'")
        place = f"""(() => {{
            const [node, ...more] = {elements};
            if (!node || more.length) return `${{more.length + Boolean(node)}} elements`;
            node.scrollIntoView({{ block: "center" }});
            const box = node.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        found = await self.evaluate(place)
        if isinstance(found, str):
            raise PageError(f"{found} for {elements}")
        await self.click_at(*found)

    async def click_at(self, x: float, y: float, count: int = 1) -> None:
        """Press what is there; `count`: it is the second one of a double-click."""
        where = {"x": x, "y": y, "button": "left", "clickCount": count}
        await self.send("Input.dispatchMouseEvent", type="mousePressed", **where)
        await self.send("Input.dispatchMouseEvent", type="mouseReleased", **where)

    async def fill(self, selector: str, text: str) -> None:
        """Put a text into a field, in place of what is there."""
        field = f"document.querySelector({json.dumps(selector)})"
        await self.evaluate(f"{field}.focus(), {field}.select()")
        await self.send("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Press a key: a character, or one of KEYS."""
        code, text = KEYS.get(key, (ord(key[0].upper()), key))
        named = {"key": key, "windowsVirtualKeyCode": code}
        await self.send("Input.dispatchKeyEvent", type="keyDown", **named, **({"text": text} if text else {}))
        await self.send("Input.dispatchKeyEvent", type="keyUp", **named)

    async def type(self, text: str) -> None:
        for character in text:
            await self.press(character)

    async def viewport(self, width: int, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.send("Emulation.setDeviceMetricsOverride", **size)

    async def dark(self) -> None:
        await self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    async def without_scripts(self) -> None:
        self._scripts = False
        await self.send("Emulation.setScriptExecutionDisabled", value=True)

    async def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    async def picture(self, path: Path) -> None:
        """What is in the window as PNG."""
        answer = await self.send("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))
