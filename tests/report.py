"""A report in headless Chromium: CHROMIUM PAGE FOLDER. At a phone's and a desk's width, light and dark, and on paper:
no console message, no request, nothing wider than the window, no label outside its picture or too small to read.
Writes screenshots to the folder. Speaks the DevTools protocol over its pipe, with the standard library alone.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

WIDTHS = [390, 1280]
MOST_BYTES = 2_000_000

# What a page says of itself in a window of some width, as a list of faults. The width is told, not asked for: a phone's
# `innerWidth` grows with what is too wide.
LOOK = """(width => {
  const faults = [];
  const root = document.documentElement;
  if (root.scrollWidth > width) {
    const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1
      && !e.ownerSVGElement && !e.closest('.scroll')
      && getComputedStyle(e.parentElement).overflowX === 'visible');
    faults.push(`overflow: ${root.scrollWidth} px of ${width}, by ` + wide.slice(0, 3).map(e => e.outerHTML.slice(0, 120)));
  }
  for (const svg of document.querySelectorAll('svg')) {
    const view = svg.viewBox.baseVal;
    const box = svg.getBoundingClientRect();
    if (box.width === 0) continue;
    const inside = svg.getScreenCTM().inverse();
    for (const text of svg.querySelectorAll('text')) {
      const b = text.getBoundingClientRect();
      const [x0, y0, x1, y1] = [b.left - box.left, b.top - box.top, b.right - box.left, b.bottom - box.top];
      if (x0 < -1 || y0 < -1 || x1 > box.width + 1 || y1 > box.height + 1)
        faults.push(`label outside its picture: ${text.textContent} in ${svg.getAttribute('aria-label')}`);
      const size = parseFloat(getComputedStyle(text).fontSize) / Math.abs(inside.a || 1);
      if (size < 8.5) faults.push(`label of ${size.toFixed(1)} px: ${text.textContent} in ${svg.getAttribute('aria-label')}`);
    }
    if (/NaN|Infinity/.test(svg.outerHTML)) faults.push(`no number in ${svg.getAttribute('aria-label')}`);
  }
  if (document.scripts.length) faults.push('a script');
  for (const link of document.querySelectorAll('nav a'))
    if (!document.querySelector(link.getAttribute('href'))) faults.push(`no section ${link.getAttribute('href')}`);
  return faults.slice(0, 12);
})"""


class Browser:
    """Chromium with one page."""

    def __init__(self, chromium, profile):
        ours, theirs = os.pipe(), os.pipe()
        self.read, self.write = theirs[0], ours[1]

        def hand_over():
            # Chromium takes commands from descriptor 3 and answers on 4. Copies first, so that none is overwritten.
            a, b = os.dup(ours[0]), os.dup(theirs[1])
            os.dup2(a, 3)
            os.dup2(b, 4)

        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                     "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen([chromium, *arguments], close_fds=False, preexec_fn=hand_over,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(ours[0])
        os.close(theirs[1])
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def message(self):
        while b"\0" not in self.buffer:
            part = os.read(self.read, 1 << 20)
            if not part:
                raise SystemExit("FAILED: Chromium went away")
            self.buffer += part
        one, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(one)

    def ask(self, method, **params):
        self.number += 1
        ask = {"id": self.number, "method": method, "params": params}
        if self.session:
            ask["sessionId"] = self.session
        os.write(self.write, json.dumps(ask).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise SystemExit(f"FAILED: {method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def wait(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.message())

    def value(self, expression):
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise SystemExit(f"FAILED: {result['exceptionDetails']}")
        return result["result"].get("value")


def look(browser, page, width, scheme, folder):
    """Faults of the page at a width, and a screenshot."""
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=844 if width < 600 else 900,
                deviceScaleFactor=1, mobile=width < 600)
    browser.ask("Emulation.setEmulatedMedia", media="screen",
                features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.events.clear()
    browser.ask("Page.navigate", url=page.absolute().as_uri())
    browser.wait("Page.loadEventFired")
    # All of it, hidden parts as well.
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    faults = browser.value(f"{LOOK}({width})")
    browser.value("document.querySelectorAll('details').forEach(d => d.open = false)")
    faults += browser.value(f"{LOOK}({width})")
    for event in browser.events:
        name, params = event.get("method"), event.get("params", {})
        if name in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            faults.append(f"console: {json.dumps(params)[:300]}")
        if name == "Network.requestWillBeSent" and params["request"]["url"] != page.absolute().as_uri():
            faults.append(f"request: {params['request']['url'][:200]}")
    shot = browser.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True,
                       clip={"x": 0, "y": 0, "width": width, "scale": 1,
                             "height": browser.value("document.documentElement.scrollHeight")})
    (folder / f"{page.stem}-{width}-{scheme}.png").write_bytes(base64.b64decode(shot["data"]))
    timing = "(() => { const t = performance.getEntriesByType('navigation')[0]; return Math.round(t.loadEventStart) })()"
    return [f"{width} px, {scheme}: {fault}" for fault in dict.fromkeys(faults)], browser.value(timing)


def main():
    chromium, page, folder = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    size = page.stat().st_size
    faults = [f"{size} bytes"] if size > MOST_BYTES else []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(chromium, profile)
        try:
            for domain in ["Page", "Runtime", "Log", "Network"]:
                browser.ask(f"{domain}.enable")
            loads = []
            for width in WIDTHS:
                for scheme in ["light", "dark"]:
                    found, load = look(browser, page, width, scheme, folder)
                    faults += found
                    loads.append(load)
            browser.ask("Emulation.setEmulatedMedia", media="print", features=[])
            # A4 less its margins, at 96 dots an inch.
            browser.ask("Emulation.setDeviceMetricsOverride", width=720, height=1050, deviceScaleFactor=1, mobile=False)
            shot = browser.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
            (folder / f"{page.stem}-paper.png").write_bytes(base64.b64decode(shot))
            faults += [f"paper: {fault}" for fault in browser.value(f"{LOOK}(720)") if not fault.startswith("label of")]
            paper = browser.ask("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
            (folder / f"{page.stem}.pdf").write_bytes(base64.b64decode(paper))
        finally:
            browser.process.terminate()
            browser.process.wait()
    for fault in faults:
        print(f"FAILED: {page.name}: {fault}", file=sys.stderr)
    print(f"{page.name}: {size} bytes, loaded in {', '.join(f'{load} ms' for load in loads)}, {len(faults)} faults")
    sys.exit(bool(faults))


main()
