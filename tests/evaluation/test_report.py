from __future__ import annotations

import copy
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from muxrec.evaluation.relevance import CO_ENGAGEMENT, build_relevance
from muxrec.evaluation.report.charts import Series, bar_chart, interval_track, line_chart
from muxrec.evaluation.report.markup import Markup, join, json_block, tag
from muxrec.evaluation.report.neighbours import browser_data, choose_items
from muxrec.evaluation.report.page import report_page
from muxrec.evaluation.report.thumbnails import thumbnails
from muxrec.evaluation.scoring import unit_rows

ATTACK = "</script><img src=x onerror=alert(1)><script>alert(1)</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Outline(HTMLParser):
    """Elements and attributes that a page really has."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))


def outline(page: str) -> list[tuple[str, dict]]:
    parser = Outline()
    parser.feed(page)
    return parser.elements


@pytest.fixture(scope="session")
def page(measured_run) -> str:
    return (measured_run[1].folder / "index.html").read_text()


def test_text_is_escaped_and_markup_is_kept():
    found = tag("p", "a < b & c", tag("b", '"'), title='"><script>')
    assert found == '<p title="&quot;&gt;&lt;script&gt;">a &lt; b &amp; c<b>&quot;</b></p>'
    assert join("<", Markup("<hr>")) == "&lt;<hr>"


def test_json_in_the_page_survives_a_title_that_closes_the_script():
    block = json_block("data", {"title": ATTACK, "line": "a\u2028b"})
    assert [name for name, _ in outline(block)] == ["script"]
    body = block[block.index(">") + 1 : block.rindex("</script>")]
    assert json.loads(body) == {"title": ATTACK, "line": "a\u2028b"}


def test_titles_row_names_and_notes_cannot_inject_markup(measured_run, checkerboard):
    report = copy.deepcopy(measured_run[1].report)
    report["name"] = report["notes"][0] = report["facts"]["command"] = ATTACK
    for truth in report["truths"]:
        for part in truth["slices"]:
            part["title"] = ATTACK
            part["rows"][0]["name"] = ATTACK
            part["differences"][0]["name"] = ATTACK
    report["exposure"][ATTACK] = report["exposure"]["random"]
    items = checkerboard.items().set_column(2, "title", pa.array([ATTACK] * 24))
    vectors = unit_rows(np.random.default_rng(0).normal(size=(24, 4)))
    browser = browser_data(items, vectors, None, display=("title",), image=None)
    page = report_page(report, browser=browser, shown={}, histories={})
    elements = outline(page)
    assert "img" not in [name for name, _ in elements]
    assert sum(name == "script" for name, _ in elements) == 2


def test_the_page_fetches_nothing_and_says_so_to_the_browser(page):
    elements = outline(page)
    links = [a.get("href", "") for _, a in elements if "href" in a]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not [a for _, a in elements if "src" in a]
    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page
    policy = next(a["content"] for _, a in elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy


def test_every_row_and_slice_is_on_the_page(page, measured_run):
    for truth in measured_run[1].report["truths"]:
        for part in truth["slices"]:
            assert part["title"].split(":")[0] in page
    for name in ("popularity", "BM25 (implicit)", "main", "permuted_images"):
        assert f">{name}</th>" in page


def test_the_browser_holds_the_neighbours_and_marks_the_hits(checkerboard, recipe):
    items = checkerboard.items()
    truth = build_relevance(checkerboard, items, split="test", recipe=recipe)[CO_ENGAGEMENT]
    vectors = unit_rows(np.eye(2)[np.arange(24) % 2] + 0.01)
    data = browser_data(items, vectors, truth, display=("title", "nothing"), image=None)
    assert len(data["queries"]) == len(items)
    titles = items["title"].to_pylist()
    for query in data["queries"]:
        assert len(query["neighbours"]) == 10
        scores = [score for _, score, _ in query["neighbours"]]
        assert scores == sorted(scores, reverse=True)
    shown = {data["items"][q["item"]]["title"]: q for q in data["queries"]}
    first = shown[titles[8]]
    at = int(np.flatnonzero(truth.queries == 8)[0])
    relevant = {titles[i] for i in truth.items[truth.offsets[at] : truth.offsets[at + 1]]}
    for item, _, hit in first["neighbours"]:
        assert bool(hit) == (data["items"][item]["title"] in relevant)
    assert sum(hit for _, _, hit in first["neighbours"]) >= 9


def test_a_large_catalogue_shows_two_hundred_items_cold_ones_among_them():
    count = 5_000
    items = pa.table(
        {"train_events": np.arange(count)[::-1], "is_cold": np.arange(count) >= count - 1_000}
    )
    chosen = choose_items(items, None)
    assert len(chosen) == len(set(chosen.tolist())) == 200
    assert (chosen >= count - 1_000).sum() == 50
    assert set(range(100)) <= set(chosen.tolist())


def test_thumbnails_stop_at_their_limit_and_skip_what_is_no_picture(tmp_path):
    rng = np.random.default_rng(0)
    paths: list[Path | None] = []
    for number in range(6):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(rng.integers(0, 255, (300, 200, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    whole = thumbnails(
        [None, tmp_path / "bad.jpg", tmp_path / "gone.jpg", *paths], limit_bytes=10**6
    )
    assert whole[:3] == [None] * 3
    assert all(address and address.startswith("data:image/webp;base64,") for address in whole[3:])
    limit = sum(len(address or "") for address in whole[3:6])
    assert [bool(a) for a in thumbnails(paths, limit_bytes=limit)] == [True] * 3 + [False] * 3


def test_charts_stay_inside_their_frame_and_say_what_they_show():
    chart = line_chart([Series("a", [(1, 5.0), (100, 1.0)])], label="Loss: a ends", x_name="step")
    numbers = [
        float(n)
        for d in re.findall(r'd="M([^"]+)" class="curve', chart)
        for n in re.findall(r"-?[\d.]+", d)
    ]
    assert numbers
    assert all(0 <= n <= 100 for n in numbers)
    assert 'aria-label="Loss: a ends"' in chart
    bars = bar_chart([Series("a", [(0, 50), (1, 0)])], label="b", names=["0", "1"], x_name="x")
    assert bars.count("<rect") == 2
    track = interval_track(-0.2, -0.1, 0.3, within=(-0.2, 0.3), kind="level")
    assert 'x1="2.00%" x2="98.00%"' in track


# Per module: while it lives, Playwright keeps an event loop running in this thread.
@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    flags = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(params=[(390, "light"), (1280, "dark")], ids=["phone", "desktop"])
def opened(request, chromium, measured_run):
    width, scheme = request.param
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    view = context.new_page()
    said: list[str] = []
    view.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    view.on("pageerror", lambda error: said.append(str(error)))
    view.goto((measured_run[1].folder / "index.html").as_uri())
    yield view
    assert said == []
    context.close()


@pytest.mark.browser
def test_the_page_never_scrolls_sideways(opened, tmp_path):
    overflow = "document.documentElement.scrollWidth - window.innerWidth"
    assert opened.evaluate(overflow) <= 0
    for button in opened.locator("[role=tab]").all():
        button.click()
        assert opened.evaluate(overflow) <= 0
    picture = opened.screenshot(path=tmp_path / "report.png", full_page=True)
    assert len(picture) > 20_000


@pytest.mark.browser
def test_tabs_show_one_slice_and_follow_the_arrow_keys(opened):
    tabs = opened.locator("[role=tablist]").first.locator("[role=tab]")
    tabs.first.focus()
    opened.keyboard.press("ArrowRight")
    assert tabs.nth(1).get_attribute("aria-selected") == "true"
    panels = opened.locator("[data-tabs]").first.locator("[role=tabpanel]")
    assert [p.is_visible() for p in panels.all()] == [i == 1 for i in range(panels.count())]


@pytest.mark.browser
def test_neighbours_are_found_and_walked_by_keyboard_alone(opened):
    search = opened.locator("#finder")
    title = opened.locator("#chosen h3")
    cards = opened.locator("#neighbours-list li")
    assert cards.count() == 10
    first = title.inner_text()
    search.focus()
    opened.keyboard.press("ArrowDown")
    assert title.inner_text() != first
    assert search.get_attribute("aria-activedescendant")
    opened.keyboard.type("alien")
    options = opened.locator("#options li").all_inner_texts()
    assert options
    assert all("alien" in text for text in options)
    assert "alien" in title.inner_text()
    opened.keyboard.press("Tab")
    while opened.evaluate("document.activeElement.className") != "card":
        opened.keyboard.press("Tab")
    name = opened.locator(":focus .name").inner_text()
    opened.keyboard.press("Enter")
    assert title.inner_text() == name


@pytest.mark.browser
def test_text_keeps_its_contrast_in_both_schemes(opened):
    ratios = opened.evaluate(
        """() => [...document.querySelectorAll("p, td, th, li, dd, dt, .what")].map((element) => {
          const parse = (text) => text.match(/[\\d.]+/g).map(Number);
          const light = (rgb) => rgb.slice(0, 3).map((v) => {
            v = text_is_float(rgb) ? v : v / 255;
            return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          }).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          function text_is_float(rgb) { return rgb.float; }
          const read = (text) => Object.assign(parse(text.replace("srgb", "")),
            { float: text.startsWith("color(") });
          let holder = element;
          let back = read(getComputedStyle(holder).backgroundColor);
          while (holder.parentElement && back.length > 3 && back[3] === 0) {
            holder = holder.parentElement;
            back = read(getComputedStyle(holder).backgroundColor);
          }
          const [a, b] = [light(read(getComputedStyle(element).color)), light(back)];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        })"""
    )
    assert ratios
    # 4.5 is the level AA of WCAG 2 for body text.
    assert min(ratios) >= 4.5
