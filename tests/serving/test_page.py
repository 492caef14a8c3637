"""The page in a real headless Chromium."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import httpx
import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
HOSTILE = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script> Zebra"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # The sandbox needs rights that a container's root does not have.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, server) -> Iterator[Page]:
    context = browser.new_context(base_url=server.base, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.faults = []
    opened.on("pageerror", lambda error: opened.faults.append(str(error)))
    yield opened
    assert opened.faults == []
    context.close()


def cards(page: Page) -> list[str]:
    return page.locator(".card").evaluate_all("found => found.map(card => card.dataset.item)")


def open_item(page: Page, item_id: str) -> None:
    page.goto(f"/#item={item_id}")
    expect(page.locator("#item h1")).to_be_visible()


def test_the_start_page_shows_popular_items(page: Page, bundles):
    page.goto("/")
    expect(page.locator(".card")).to_have_count(24)
    expect(page.locator("#version")).to_contain_text(bundles[0].name)


def test_search_open_and_read_neighbours(page: Page, server):
    page.goto("/")
    page.get_by_role("combobox", name="Search by title").fill("number 17")
    page.get_by_role("option", name="Item number 17", exact=True).click()
    expect(page.locator("#item h1")).to_have_text("Item number 17")
    expect(page).to_have_url(re.compile("#item=item-17$"))
    expect(page.locator(".card")).to_have_count(12)
    answer = httpx.get(f"{server.base}/v1/items/item-17/similar?k=12&explain=1").json()
    assert cards(page) == [neighbour["item_id"] for neighbour in answer["neighbours"]]
    first = answer["neighbours"][0]
    card = page.locator(".card").first
    expect(card.locator(".score b")).to_have_text(f"{first['score']:.3f}")
    shown = card.locator(".share").evaluate_all("found => found.map(s => s.title)")
    names = {"text": "Text", "image": "Picture"}
    assert shown == [f"{names[key]} gives {value:.3f}" for key, value in first["reasons"].items()]


def test_pictures_are_shown_where_there_are_any(page: Page, server):
    open_item(page, "item-17")
    has = {
        item_id: httpx.get(f"{server.base}/v1/items/{item_id}").json()["has_image"]
        for item_id in cards(page)
    }
    assert set(has.values()) == {True, False}
    for item_id, expected in has.items():
        picture = page.locator(f'.card[data-item="{item_id}"] img')
        expect(picture).to_have_count(int(expected))
        if expected:
            picture.scroll_into_view_if_needed()
            page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())


def test_the_keyboard_alone_searches_opens_and_walks(page: Page):
    page.goto("/")
    expect(page.locator(".card")).to_have_count(24)
    page.keyboard.press("/")
    page.keyboard.type("item number 1")
    expect(page.get_by_role("option")).to_have_count(8)
    page.keyboard.press("ArrowDown")
    chosen = page.locator('[role=option][aria-selected="true"]').inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#item h1")).to_have_text(chosen)
    expect(page.locator(".card")).to_have_count(12)
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    focused = page.evaluate("document.activeElement.dataset.item")
    assert focused == cards(page)[1]
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring != "none"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"#item={focused}$"))
    page.keyboard.press("/")
    page.keyboard.type("it")
    page.keyboard.press("Escape")
    expect(page.locator("#suggestions")).to_be_hidden()


def test_back_and_forward_move_between_items(page: Page):
    open_item(page, "item-1")
    page.locator(".card").first.click()
    expect(page.locator("#item h1")).not_to_have_text("Item number 1")
    page.go_back()
    expect(page.locator("#item h1")).to_have_text("Item number 1")


def test_filters_narrow_the_neighbours_and_live_in_the_address(page: Page, server):
    open_item(page, "item-17")
    page.get_by_label("genre").select_option("western")
    expect(page).to_have_url(re.compile("genre=western"))
    answer = httpx.get(f"{server.base}/v1/items/item-17/similar?k=12&filter=genre:western").json()
    wanted = [neighbour["item_id"] for neighbour in answer["neighbours"]]
    expect(page.locator(".card").first).to_have_attribute("data-item", wanted[0])
    assert cards(page) == wanted
    page.reload()
    expect(page.get_by_label("genre")).to_have_value("western")
    page.get_by_label("genre").select_option("")
    expect(page).not_to_have_url(re.compile("genre="))


def test_more_neighbours_on_request(page: Page):
    open_item(page, "item-17")
    expect(page.locator(".card")).to_have_count(12)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".card")).to_have_count(24)


def test_a_script_in_a_title_does_not_run(page: Page, server):
    vector = [0.5] * 16
    body = {"title": HOSTILE, "plot": vector}
    assert httpx.put(f"{server.base}/v1/items/<b>", json=body).status_code == 201
    copy = {"title": "Copy", "plot": vector}
    assert httpx.put(f"{server.base}/v1/items/copy", json=copy).status_code == 201
    open_item(page, "copy")
    expect(page.locator(".card .title").first).to_have_text(HOSTILE)
    page.get_by_role("combobox", name="Search by title").fill("zebra")
    page.get_by_role("option", name="Zebra").click()
    expect(page.locator("#item h1")).to_have_text(HOSTILE)
    assert page.evaluate("window.hurt") is None
    assert page.locator("main script, main img[src=x]").count() == 0
    for item_id in ("%3Cb%3E", "copy"):
        assert httpx.delete(f"{server.base}/v1/items/{item_id}").status_code == 200


def test_the_content_policy_forbids_what_the_page_does_not_need(page: Page):
    answer = page.goto("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    page.evaluate(
        "const made = document.createElement('script'); made.textContent = 'window.hurt=1';"
        "document.head.append(made)"
    )
    assert page.evaluate("window.hurt") is None


def test_nothing_is_loaded_from_elsewhere(page: Page, server):
    hosts = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    open_item(page, "item-17")
    page.wait_for_load_state("networkidle")
    assert hosts == {f"127.0.0.1:{server.port}"}


def test_an_unknown_item_is_said_and_the_page_stays_usable(page: Page):
    page.goto("/#item=nobody")
    expect(page.get_by_role("alert")).to_contain_text("No item has the id 'nobody'")
    expect(page.locator(".card")).to_have_count(24)
    page.locator(".card").first.click()
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#item h1")).to_be_visible()


@pytest.mark.parametrize("address", ["/", "/#item=item-17", "/#item=nobody"])
def test_a_phone_scrolls_in_one_direction_only(page: Page, address: str):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    expect(page.locator(".card").first).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_on_its_ground(page: Page, scheme: str):
    """WCAG AA: a contrast of at least 4.5 for the body text, its notes and its titles."""
    page.emulate_media(color_scheme=scheme)
    open_item(page, "item-17")
    ground = colour(page, "body", "backgroundColor", fallback=":root")
    for selector in ("#item h1", ".note", ".card .title", ".score", ".share .value", ".badge"):
        ink = colour(page, selector, "color")
        assert contrast(ink, ground) >= 4.5, (selector, ink, ground)


def colour(page: Page, selector: str, key: str, fallback: str = "") -> tuple[int, ...]:
    read = "([selector, key]) => getComputedStyle(document.querySelector(selector))[key]"
    text = page.evaluate(read, [selector, key])
    if text == "rgba(0, 0, 0, 0)":
        text = page.evaluate(read, [fallback, key])
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    def light(rgb: tuple[int, ...]) -> float:
        linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_server_that_went_away_is_said_and_comes_back(browser: Browser, serving, bundles):
    with serving("--bundle", str(bundles[0])) as server:
        page = browser.new_context(base_url=server.base).new_page()
        open_item(page, "item-17")
        before = cards(page)
        port = server.port
    page.locator(".card").first.click()
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(page.locator("#version")).to_contain_text("no answer")
    assert cards(page) == before
    with serving("--bundle", str(bundles[0]), "--port", str(port)):
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.locator("#version")).to_contain_text(bundles[0].name)
        assert cards(page) != before
    page.context.close()
