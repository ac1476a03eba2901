"""A real browser for the tests: headless Chromium, driven by Selenium.

::

    with browse(tmp_path) as browser:
        browser.open("http://127.0.0.1:6543/")
        browser.wait_until("document.querySelector('h1')")
        assert browser.console() == []

Chromium and its driver are the system's (Debian: ``apt-get install chromium
chromium-driver``). Selenium is told where they are, for it would fetch its own
otherwise. Without one of the three, the test is skipped.
"""

import os
import shutil
from contextlib import contextmanager

import pytest
from servers import poll

# Neither of them reaches for anything but the tests' own server.
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
]


class Browser:
    """One page in a Chromium of its own.

    Attributes:
        driver: Selenium's ``webdriver.Chrome``.
    """

    def __init__(self, driver):
        self.driver = driver

    def open(self, address):
        """Go to an address; returns when the page has loaded."""
        self.driver.get(address)

    def run(self, script, *arguments):
        """The value of a JavaScript expression, or of a body with ``return``."""
        if "return" not in script:
            script = f"return ({script});"
        return self.driver.execute_script(script, *arguments)

    def wait_until(self, script, *arguments):
        """What :meth:`run` gives as soon as that is true."""
        return poll(
            lambda: self.run(script, *arguments), lambda: self._describe(script)
        )

    def _describe(self, script):
        text = self.run("document.body.innerText")
        console = "\n".join(self.console())
        return f"{script} did not become true; page:\n{text}\nconsole:\n{console}"

    def type(self, selector, text):
        """Type into the element that a selector finds, key by key."""
        self.driver.find_element("css selector", selector).send_keys(text)

    def click(self, selector):
        """Click the middle of the element that a selector finds."""
        self.driver.find_element("css selector", selector).click()

    def accessible(self, selector):
        """The role and the name of an element, as a screen reader is told them."""
        element = self.driver.find_element("css selector", selector)
        return element.aria_role, element.accessible_name

    def console(self):
        """Errors and warnings that the console has got since the last call."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in {"SEVERE", "WARNING"}
        ]

    def screenshot(self, path):
        """Write what the window shows to a PNG file."""
        path.write_bytes(self.driver.get_screenshot_as_png())


@contextmanager
def browse(directory, size=(1000, 1000)):
    """A :class:`Browser`, whose profile is a new directory in ``directory``."""
    webdriver = pytest.importorskip("selenium.webdriver")
    profile = directory / "chromium"
    profile.mkdir()
    options = webdriver.ChromeOptions()
    options.binary_location = _find("chromium")
    for flag in [
        *FLAGS,
        f"--user-data-dir={profile}",
        f"--window-size={size[0]},{size[1]}",
    ]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(
        executable_path=_find("chromedriver"),
        env={**os.environ, "HOME": str(profile)},
    )
    driver = webdriver.Chrome(options, service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def _find(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: apt-get install chromium chromium-driver")
    return path
