"""The pages in a real browser: layout, contrast as drawn, no message of the browser, no request to anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudtrain.report import comparison, page
from tests.browser import browser as browser
from tests.made import MadeRun

Shown = Callable[..., Any]


@pytest.fixture
def shown(browser: Any, tmp_path: Path) -> Iterator[Shown]:
    """Shows a page; whatever the browser says, or asks for, fails the test."""
    contexts, told = [], []

    def show(text: str, *, width: int = 1280, dark: bool = False) -> Any:
        file = tmp_path / "a page.html"
        file.write_text(text, encoding="utf-8")
        scheme = "dark" if dark else "light"
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(60_000)
        contexts.append(context)
        opened = context.new_page()
        opened.on("console", lambda message: told.append(f"console: {message.text}"))
        opened.on("pageerror", lambda error: told.append(f"error: {error}"))
        opened.on("request", lambda request: told.append(f"request: {request.url[:200]}"))
        opened.goto(file.as_uri())
        return opened

    yield show
    for context in contexts:
        context.close()
    own = (tmp_path / "a page.html").as_uri()
    assert [line for line in told if line != f"request: {own}" and not line.startswith("request: data:")] == []


@pytest.fixture
def pages(made: MadeRun, tmp_path: Path, mnist: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The kinds of pages there are."""
    monkeypatch.setenv("CLOUDTRAIN_DATA", str(mnist))
    done = made.facts()
    failed = MadeRun(tmp_path / "runs" / "a-very-long-name-of-a-run-that-somebody-typed-in-full")
    failed.receipt |= {"ended_how": "failed", "name": failed.folder.name}
    failed.events = failed.events[:1]
    failed.log = b"a line of a log that is much longer than any screen of a telephone is wide, by far, " * 4
    bare = MadeRun(tmp_path / "runs" / "bare")
    bare.receipt |= {"settings": {}, "goals": [], "name": "bare", "phases": []}
    bare.receipt["train"] |= {"module": "mine.train"}
    bare.events, bare.metrics, bare.predictions, bare.layers = [], {}, [], ""
    runs = [done, failed.facts(), bare.facts()]
    return {
        "done": page.report(done),
        "failed": page.report(runs[1]),
        "bare": page.report(runs[2]),
        "compare": page.comparison(comparison.compare(runs)),
    }


# What of the text on a page cannot be read: its contrast as drawn is below 4.5, by the formula of WCAG 2.2.
FAINT = """() => {
  const rgba = c => { const n = c.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat([1]);
  const light = c => {
    const l = c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * l[0] + .7152 * l[1] + .0722 * l[2] };
  const ground = e => {
    const layers = [];
    for (let x = e; x; x = x.parentElement) layers.unshift(rgba(getComputedStyle(x).backgroundColor));
    return layers.reduce((b, a) => over(a, b), [255, 255, 255, 1]) };
  const faint = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), ink = rgba(e.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(over(ink, ground(e))), light(ground(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) faint.push(e.textContent.trim() + " " + ((a + .05) / (b + .05)).toFixed(2));
  }
  return faint }"""
# Words of a chart that touch each other, or leave its figure.
TOUCHING = """() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const frame = svg.closest("figure").getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map(e => [e.textContent, e.getBoundingClientRect()]);
    texts.forEach(([one, a], i) => {
      if (a.left < frame.left - 1 || a.right > frame.right + 1) found.push(one + " leaves the chart");
      for (const [other, b] of texts.slice(i + 1)) {
        const beside = a.right <= b.left || b.right <= a.left;
        if (!beside && a.top + 3 < b.bottom && b.top + 3 < a.bottom) found.push(one + " / " + other);
      }
    });
  }
  return found }"""
BROKEN = "() => [...document.images].filter(i => !i.complete || i.naturalWidth !== 28).length"
WIDE = "() => document.documentElement.scrollWidth - innerWidth"
OPEN = "() => document.querySelectorAll('details').forEach(d => d.open = true)"


@pytest.mark.mnist
@pytest.mark.parametrize("kind", ["done", "failed", "bare", "compare"])
def test_every_page_is_whole_and_readable_at_every_width(pages: dict[str, str], shown: Shown, kind: str) -> None:
    for width, dark in ((1280, False), (390, True)):
        opened = shown(pages[kind], width=width, dark=dark)
        opened.evaluate(OPEN)
        assert opened.evaluate(WIDE) <= 0, width
        assert opened.evaluate(FAINT) == [], (width, dark)
        assert opened.evaluate(TOUCHING) == [], width
        assert opened.evaluate(BROKEN) == 0
        assert opened.title() and opened.locator("h1").count() == 1
        assert opened.locator("img").count() == (57 if kind in ("done", "failed") else 0)


@pytest.mark.mnist
def test_dark_and_print_are_what_they_say(pages: dict[str, str], shown: Shown) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light, dark = shown(pages["done"]), shown(pages["done"], dark=True)
    assert light.evaluate(ground) == "rgb(250, 249, 246)" and dark.evaluate(ground) == "rgb(19, 22, 25)"
    dark.emulate_media(media="print", color_scheme="dark")
    assert dark.evaluate(ground) == "rgb(255, 255, 255)"
    assert dark.evaluate(FAINT) == []
    assert not dark.locator("summary").first.is_visible()
    assert dark.pdf(format="A4").startswith(b"%PDF-")


@pytest.mark.mnist
def test_the_accessible_tree_has_the_figures(pages: dict[str, str], shown: Shown) -> None:
    opened = shown(pages["done"])
    chart = opened.get_by_role("img", name="Accuracy of each epoch")
    assert chart.count() == 1
    described = opened.locator(f"#{chart.get_attribute('aria-describedby')}").inner_text()
    assert "it was highest, 99.44%, in epoch 14" in described
    for heading in ("Learning curves", "The most confident mistakes", "Time and cost", "Do it again"):
        assert opened.get_by_role("heading", name=heading).count() == 1
    assert opened.get_by_role("table", name="Confusion matrix").get_by_role("rowheader").count() == 10
    assert opened.get_by_role("img", name="Test picture 5, a handwritten 5").count() == 1
