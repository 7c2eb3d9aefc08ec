"""Takes the pictures of the page anew: docs/screenshots.py RESULTS [PICTURE ...]. Needs playwright and a Chromium."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from core.records import RecordStore
from leaderboard.aggregate import leaderboard
from leaderboard.page import page

DOCS = Path(__file__).parent
PICTURES = {  # name -> width, height, theme, what is at the top, what the pointer is on
    "page": (1280, 860, "light", "article", 'tr:nth-of-type(4) td[data-task="ks"]'),
    "page-dark": (1280, 1090, "dark", "#b0-trade-off", None),
    "page-phone": (390, 844, "light", ".controls", None),
    "page-layers": (800, 690, "light", "#b0-single-layers", None),  # wants results of `run --layers each`
    "page-detection": (640, 740, "dark", "#b0-detection", None),  # wants results of asv or qbe
}


def main() -> None:
    """Opens the page of a folder of results and photographs parts of it, those that are named or all that it has."""
    results, *chosen = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        path = Path(folder) / "leaderboard.html"
        path.write_text(page(leaderboard(RecordStore(Path(results)))), encoding="utf-8")
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in chosen or PICTURES:
            width, height, theme, top, pointed = PICTURES[name]
            tab = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=theme, device_scale_factor=1.5
            )
            tab.goto(path.as_uri())
            if tab.locator(top).count() == 0:
                sys.exit(f"{name}: the page of these results has no {top}")
            tab.evaluate("top => scrollTo(0, document.querySelector(top).getBoundingClientRect().top - 24)", top)
            if pointed:
                tab.hover(pointed)
            tab.screenshot(path=DOCS / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
