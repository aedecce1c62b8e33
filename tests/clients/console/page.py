"""The console in a browser: what a test sees of it, and what it does there."""

import json
import re
import sys
import tempfile
import time

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

WAIT_MAX = 45
FLAGS = (
    """--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --hide-scrollbars --disable-lcd-text --no-proxy-server""".split()
)


class Page:
    """The console in a browser of its own."""

    def __init__(self, chromium: str, driver: str, url: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        self.profile = tempfile.TemporaryDirectory(prefix="sidewing-console-", ignore_cleanup_errors=True)
        for flag in [*FLAGS, f"--user-data-dir={self.profile.name}", "--window-size=1280,800"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        self.url = url

    def __enter__(self) -> "Page":
        self.look()
        self.browser.get(self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.browser.quit()
        self.profile.cleanup()

    def look(self, width: int = 1280, height: int = 800, scheme: str = "light", scale: float = 1) -> None:
        """Another size, another colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def offline(self, is_offline: bool) -> None:
        self.browser.execute_cdp_cmd("Network.enable", {})
        limits = {"offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.browser.execute_cdp_cmd("Network.emulateNetworkConditions", limits)

    def js(self, script: str, *args: object) -> object:
        return self.browser.execute_script(script, *args)

    def find(self, css: str):
        return self.browser.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", css).strip()

    def wait(self, what: str, done):
        """The first true answer of `done`."""
        until = time.monotonic() + WAIT_MAX
        while not (found := done()):
            if time.monotonic() > until:
                sys.exit(f"waited for: {what}\n{self.js('return document.body.innerText')}\n{self.told()}")
            time.sleep(0.05)
        return found

    def keys(self, *keys: str) -> None:
        """Keys for whatever has the focus."""
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def write(self, sql: str) -> None:
        area = self.find("#sql")
        area.clear()
        area.send_keys(sql)

    def submit(self) -> None:
        """The editor's own key."""
        chain = webdriver.ActionChains(self.browser)
        chain.key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()

    def start(self, sql: str) -> None:
        self.write(sql)
        self.submit()

    def ended(self) -> str:
        return self.wait(
            "the end of a statement", lambda: self.state() != "running" and self.text("#summary")
        )

    def state(self) -> str:
        return self.find("#summary").get_attribute("data-state")

    def run(self, sql: str) -> list[list[str]]:
        """The rows that the page shows, once it says where the statement ran."""
        self.start(sql)
        if self.ended() and self.state() == "done":
            self.wait("where it ran", lambda: self.text("#summary").count("·") == 2)
        return self.rows()

    def rows(self) -> list[list[str]]:
        script = """return [...document.querySelectorAll('#rows tbody tr')]
          .map((row) => [...row.cells].map((cell) => cell.textContent))"""
        return self.js(script)

    def press(self, css: str) -> None:
        """A click where an element is, which may move with those around it."""
        self.js("const e = document.querySelector(arguments[0]); e.focus(); e.click()", css)

    def dataset(self, name: str) -> dict:
        script = """for (const body of document.querySelectorAll('#datasets tbody'))
          if (body.querySelector('.name').textContent === arguments[0]) return {
            state: body.querySelector('.state').innerText.trim(),
            figures: [...body.querySelectorAll('td[data-label]')].map((cell) => cell.textContent),
            words: body.querySelector('.words').innerText.trim() };"""
        return self.js(script, name) or {"state": "", "figures": [], "words": ""}

    def in_state(self, name: str, state: str) -> dict:
        def told() -> dict | None:
            dataset = self.dataset(name)
            return dataset if dataset["state"] == state else None

        return self.wait(f"{name} is {state}", told)

    def queries(self) -> list[dict]:
        script = """return [...document.querySelectorAll('#queries-body tr')].map((row) => ({
          where: row.cells[0].innerText.trim(), rows: row.cells[2].innerText.trim(),
          sql: row.querySelector('.statement').textContent, error: row.querySelector('.error').textContent }));"""
        return self.js(script)

    def query(self, sql: str) -> dict:
        """The record of a statement that ended."""
        found = lambda: [q for q in self.queries() if q["sql"] == sql and q["where"] != "running"]
        return self.wait(f"the record of {sql}", found)[0]

    def focused(self) -> str:
        script = """const e = document.activeElement;
        return e.id || e.getAttribute('aria-label') || e.textContent.slice(0, 40) || e.tagName"""
        return self.js(script)

    def told(self) -> list[str]:
        """What the browser complains of, but for answers that are errors on purpose."""
        entries = self.browser.get_log("browser")
        return [entry["message"] for entry in entries if entry["source"] != "network"]

    def asked(self) -> set[str]:
        """The origins that were asked so far; the browser's own pages and what is in a page are nobody's."""
        entries = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in entries if e["method"] == "Network.requestWillBeSent"]
        origins = [re.match(r"(?!chrome:|data:)\w+:(//[^/]*)?", re.sub("//[^/@]*@", "//", url)) for url in urls]
        return {origin[0] for origin in origins if origin}
