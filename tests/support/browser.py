"""A headless Chromium with somebody in front of it, for tests of the approval page."""

import os
import shutil
import tempfile
from pathlib import Path

from support import processes

DESKTOP, PHONE = (1280, 900), (360, 740)


def missing() -> str:
    """Why there is no browser to test with; empty: there is one."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "python3-selenium is not installed"
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            return f"there is no {program}"
    return ""


class Browser:
    """`size`: of what is shown. Everything that goes wrong in the page's scripts is in `complaints()`."""

    def __init__(self, size=DESKTOP, dark: bool = False):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
        self.profile = tempfile.mkdtemp(prefix="pgchaperone-test-browser-")
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                         "--disable-background-networking", "--disable-component-update", "--disable-sync",
                         "--hide-scrollbars", f"--user-data-dir={self.profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(service=Service(shutil.which("chromedriver")), options=options)
        # Headless windows are no smaller than 500 pixels: the size is that of the device.
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"}]})

    def close(self):
        self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)

    def forget(self):
        """Nobody is logged in any more, and nothing was complained about."""
        self.driver.delete_all_cookies()
        self.driver.get("about:blank")
        self.complaints()

    def open(self, url: str):
        self.driver.get(url)

    def find(self, css: str):
        found = self.driver.find_elements("css selector", css)
        return found[0] if found else None

    def text(self, css: str = "body") -> str:
        element = self.find(css)
        return element.text if element else ""

    def see(self, css: str, text: str = "", timeout_s: float = 15):
        """Waits for an element that shows, with this text in it, and returns it."""
        from selenium.common.exceptions import StaleElementReferenceException

        def there():
            try:
                for element in self.driver.find_elements("css selector", css):
                    if element.is_displayed() and text in element.text:
                        return element
            except StaleElementReferenceException:
                pass
            return None

        try:
            return processes.wait_until(there, timeout_s, f"{css} to show {text!r}", every_s=0.05)
        except TimeoutError as error:
            raise AssertionError(f"{error}; the page shows:\n{self.text()[:3000]}\n{self.complaints()}") from None

    def gone(self, css: str, timeout_s: float = 15):
        processes.wait_until(lambda: not self.find(css), timeout_s, f"{css} to be gone", every_s=0.05)

    def click(self, css: str):
        self.see(css).click()

    def type(self, css: str, text: str):
        self.see(css).send_keys(text)

    def press(self, *keys):
        """Keys for whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list:
        """What the console says that is no news, since the last call. Refused requests are told there, too."""
        return [line["message"] for line in self.driver.get_log("browser")
                if line["level"] in ("SEVERE", "WARNING") and "Failed to load resource" not in line["message"]]

    def shoot(self, name: str):
        """Keeps a picture of what is shown, where $PGCHAPERONE_ARTEFACTS says; else nowhere."""
        folder = os.environ.get("PGCHAPERONE_ARTEFACTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
