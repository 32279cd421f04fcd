"""Debian's Firefox for tests, spoken to over its own Marionette protocol: JSON after its length."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
from contextlib import contextmanager

from study_browser import free_port, wait_until

FIREFOX = shutil.which("firefox-esr")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name of a reference in WebDriver


class Firefox:
    """One window; a command that Firefox refuses raises `RuntimeError`."""

    def __init__(self, connection):
        self.connection = connection
        self.numbers = itertools.count(1)
        self._read()  # a greeting
        self.ask("WebDriver:NewSession", capabilities={"alwaysMatch": {}})

    def _read(self):
        length = b""
        while (byte := self.connection.recv(1)) != b":":
            length += byte
        body = b""
        while len(body) < int(length):
            body += self.connection.recv(int(length) - len(body))
        return json.loads(body)

    def ask(self, command, **parameters):
        body = json.dumps([0, next(self.numbers), command, parameters]).encode()
        self.connection.sendall(str(len(body)).encode() + b":" + body)
        _, _, error, found = self._read()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return found

    def go(self, url):
        self.ask("WebDriver:Navigate", url=url)

    def run(self, script, *arguments):
        return self.ask("WebDriver:ExecuteScript", script=script, args=list(arguments))["value"]

    @property
    def path(self):
        return self.run("return location.pathname")

    def size(self, width, height):
        self.ask("WebDriver:SetWindowRect", width=width, height=height)

    def all(self, css):
        found = self.ask("WebDriver:FindElements", using="css selector", value=css)
        return [each[_ELEMENT] for each in found]

    def first(self, css):
        """The first element, as soon as it is there."""
        wait_until(lambda: self.all(css), 30)
        return self.all(css)[0]

    def click(self, element):
        self.ask("WebDriver:ElementClick", id=element)

    def type(self, element, text):
        self.ask("WebDriver:ElementSendKeys", id=element, text=text)

    def leave(self, css):
        """Click on what leads to another page."""
        before = self.path
        self.click(self.first(css))
        wait_until(lambda: self.path != before, 30)

    def drag(self, start, end):
        def move(element):
            origin = {_ELEMENT: element}
            return {"type": "pointerMove", "origin": origin, "x": 0, "y": 0, "duration": 100}

        down, up = ({"type": f"pointer{name}", "button": 0} for name in ("Down", "Up"))
        steps = [move(start), down, move(end), move(end), up]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}}
        self.ask("WebDriver:PerformActions", actions=[mouse | {"actions": steps}])


@contextmanager
def firefox(folder):
    """Firefox with a profile of its own in a folder."""
    port = free_port()
    (folder / "user.js").write_text(f'user_pref("marionette.port", {port});\n', "utf-8")
    command = [FIREFOX, "--headless", "--marionette", "--profile", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**os.environ, "HOME": str(folder)}, **quiet) as process:
        try:
            wait_until(lambda: _listens(port), 60)
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                yield Firefox(connection)
        finally:
            process.terminate()


def _listens(port):
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0
