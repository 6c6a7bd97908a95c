"""The page of `report` in a real browser: it opens, it is driven by mouse, fingers and keys, and it fits."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page, chromium
from worlds import World

from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.report.gather import gather
from pansharpen_cli.report.page import write

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

FIRST, SECOND = "exp", "LC08_L1TP_201032_20210430_20210508_01_T1_as_long_as_those_of_archives_gsa"
HOSTILE = "</script><img src=https://example.org/x.png onerror=alert(1)>"
SECONDS = 2
READABLE = 4.5
"""WCAG 2.2, 1.4.3: contrast of text."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two products of a scene with an infrared band, and with one whose name means no good."""
    folder = tmp_path_factory.mktemp("report")
    names = ("blue", "green", "red", "nir", HOSTILE)
    world = World(pan_size=(512, 640), ms_size=(128, 160), bands=5, dtype="uint16", nodata=0, waves=6, names=names)
    pan, ms = world.pan_image(), world.ms_image()
    pan += 60 * np.random.default_rng(0).normal(size=pan.shape)
    pan[:, :80], ms[:, :20] = 0, 0
    paths = world.write(folder, pan, ms)
    made = [folder / f"{name}.tif" for name in (FIRST, SECOND)]
    for product, method in zip(made, ("exp", "gsa"), strict=True):
        sharpen(Job(paths[0], [paths[1]], product, model=method, threads=1, coregister="off"))
    write(gather(made), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, report: Path) -> Page:
    browser.open(report)
    return browser


def state(page: Page, crop: int = 1) -> dict[str, float]:
    names = ["scale", "x", "y", "split"]
    style = f"document.getElementById('crop-{crop}').style"
    script = f"{json.dumps(names)}.map(name => Number({style}.getPropertyValue('--' + name)))"
    return dict(zip(names, page.run(script), strict=True))


def middle(page: Page, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
    x, y, width, height = page.box(selector)
    return x + across * width, y + down * height


STAGE = "#crop-1 .stage"


def test_it_opens_fast_and_silently_and_asks_for_nothing(browser: Page, report: Path):
    began = time.perf_counter()
    browser.open(report)
    seconds = time.perf_counter() - began
    browser.run("new Promise(done => setTimeout(done, 200))")
    assert browser.requests == [report.as_uri()]
    assert browser.complaints == []
    assert browser.run("document.images.length") > 20
    assert browser.run("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert seconds < SECONDS


def test_the_policy_is_in_force(page: Page):
    """What a hostile name would have to do fails, were it not escaped."""
    page.run("document.body.insertAdjacentHTML('beforeend', '<img id=evil src=https://example.org/x.png>')")
    page.run(
        "window.ran = false; document.body.append(Object.assign(document.createElement('script'), {text: 'ran = 1'}))"
    )
    page.run("new Promise(done => setTimeout(done, 200))")
    assert page.run("window.ran") is False
    failed = [event["params"] for event in page.events if event.get("method") == "Network.loadingFailed"]
    assert [why.get("blockedReason") for why in failed] == ["csp"]


def test_a_drag_moves_the_divider(page: Page):
    before = page.pixels(STAGE)
    start = middle(page, STAGE)
    page.drag(start, (start[0] + 100, start[1]))
    assert state(page)["split"] == pytest.approx(50 + 100 * 100 / page.box(STAGE)[2], abs=0.5)
    after = page.pixels(STAGE)
    changed = (np.abs(after - before).max(axis=2) > 8)[:-40]  # less the labels
    width = changed.shape[1]
    assert changed[:, width // 2 + 20 : width // 2 + 80].mean() > 0.3  # gsa has become exp
    assert changed[:, : width // 2 - 40].mean() == 0
    assert changed[:, width // 2 + 140 :].mean() == 0
    assert state(page, 2)["split"] == 50  # each crop for itself


def test_the_divider_has_keys(page: Page):
    page.run("document.querySelector('#crop-1 input').focus()")
    before = page.pixels(STAGE)
    for _ in range(5):
        page.press("ArrowRight")
    assert state(page)["split"] == 55
    assert page.run("document.querySelector('#crop-1 input').getAttribute('aria-valuetext')") == f"55 percent {FIRST}"
    assert np.abs(page.pixels(STAGE) - before).max() > 50


def test_keys_zoom_and_move_all_pictures_of_a_crop(page: Page):
    page.run(f"document.querySelector('{STAGE}').focus()")
    before = page.pixels(STAGE)
    page.press("+")
    page.press("+")
    assert state(page)["scale"] == pytest.approx(2.25)
    page.press("ArrowRight")
    zoomed = state(page)
    assert zoomed["x"] == pytest.approx(-50 * 1.25 - 10)  # the middle stayed in the middle, then 10 % on
    moved = page.run(f"[...document.querySelectorAll('{STAGE} img:not([hidden])')].map(i => getComputedStyle(i).scale "
                     "+ getComputedStyle(i).transform)")  # fmt: skip
    shown = [transform for transform in moved if not transform.endswith("none")]
    assert len(shown) >= 2
    assert len(set(shown)) == 1
    assert np.abs(page.pixels(STAGE) - before).mean() > 3
    assert state(page, 2)["scale"] == 1
    page.press("0")
    assert state(page)["scale"] == 1
    assert np.array_equal(page.pixels(STAGE), before)


def test_the_wheel_zooms_what_is_clicked_and_else_scrolls(page: Page):
    x, y = middle(page, STAGE, 0.25, 0.25)
    page.mouse("Wheel", x, y, deltaX=0, deltaY=-400)
    assert state(page)["scale"] == 1
    page.drag((x, y), (x, y))
    x, y = middle(page, STAGE, 0.25, 0.25)
    page.mouse("Wheel", x, y, deltaX=0, deltaY=-400)
    found = state(page)
    assert found["scale"] == pytest.approx(np.e, rel=0.01)
    assert (found["x"], found["y"]) == (pytest.approx(-25 * (np.e - 1), rel=0.02),) * 2  # it zooms where it points
    start = middle(page, STAGE, 0.8, 0.8)
    page.drag(start, (start[0] + 30, start[1] + 10))
    assert state(page)["x"] == pytest.approx(found["x"] + 100 * 30 / page.box(STAGE)[2], abs=0.3)
    for _ in range(3):
        page.mouse("Wheel", *middle(page, STAGE), deltaX=0, deltaY=4000)
    assert state(page)["scale"] == 1  # never smaller than the crop


def test_two_fingers_zoom(page: Page):
    page("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=2)
    x, y = middle(page, STAGE)
    page.touch("Start", (x - 30, y), (x + 30, y))
    for step in (40, 50, 60):
        page.touch("Move", (x - step, y), (x + step, y))
    page.touch("End")
    page("Emulation.setTouchEmulationEnabled", enabled=False)
    assert state(page)["scale"] == pytest.approx(2, rel=0.02)
    assert state(page)["x"] == pytest.approx(-50, abs=2)


def test_buttons_zoom(page: Page):
    for name, scale in (("in", 1.5), ("out", 1), ("in", 1.5), ("reset", 1)):
        where = middle(page, f"#crop-2 [data-zoom={name}]")
        page.drag(where, where)
        assert state(page, 2)["scale"] == pytest.approx(scale)


def test_what_is_compared_can_be_chosen(page: Page):
    def choose(name: str, value: str) -> None:
        page.run(f"(() => {{ const s = document.querySelector('[name={name}]'); s.value = '{value}';"
                 " s.dispatchEvent(new Event('change', {bubbles: true})); })()")  # fmt: skip

    shown = "[...document.querySelectorAll('#crop-1 .panel')].filter(p => p.offsetWidth).map(p => p.dataset.layer)"
    assert page.run(shown) == ["p0", "p1"]
    pictures = {}
    for left in ("pan", "ms", "p0"):
        choose("left", left)
        choose("right", left)
        assert page.run(shown) == [left]
        pictures[left] = page.pixels(STAGE)
    assert np.ptp(pictures["pan"][10:200, 10:200], axis=2).max() == 0  # grey
    assert np.abs(pictures["ms"] - pictures["p0"]).mean() > 0.5
    where = middle(page, "[name=colours][value=infrared] + span")
    page.drag(where, where)
    assert np.abs(page.pixels(STAGE) - pictures["p0"]).mean() > 5
    choose("left", "pan")
    choose("right", "pan")
    assert np.array_equal(page.pixels(STAGE), pictures["pan"])
    where = middle(page, "[name=view][value=side] + span")
    page.drag(where, where)
    assert page.run(shown) == ["pan", "ms", "p0", "p1"]


def test_maps_tell_their_values(page: Page):
    data = json.loads(page.run("document.getElementById('data').textContent"))
    values = data["products"][1]["maps"]["HQNR"]["values"]
    selector = "[data-product='1'][data-index=HQNR] image"
    row, col = next((r, c) for r, line in enumerate(values) for c, value in enumerate(line) if value is not None)
    page.mouse("Moved", *middle(page, selector, (col + 0.5) / len(values[0]), (row + 0.5) / len(values)))
    told = page.run("document.querySelector(\"[data-product='1'][data-index=HQNR] output\").textContent")
    assert told == f"{values[row][col]:.3f} in block {row}, {col}"
    page.run("document.querySelector(\"[data-product='1'][data-index=HQNR] .map\").focus()")
    for key, (row, col) in (("", (0, 0)), ("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("ArrowLeft", (1, 0))):
        if key:
            page.press(key)
        told = page.run("document.querySelector(\"[data-product='1'][data-index=HQNR] output\").textContent")
        value = values[row][col]
        assert told == f"{'no data' if value is None else f'{value:.3f}'} in block {row}, {col}"


CONTRAST = """(() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.5) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.offsetWidth || element.closest("svg")) continue;
    const [a, b] = [parts(getComputedStyle(element).color), behind(element)].map(light);
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walker.currentNode.data.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 3);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_by_day_and_night(browser: Page, report: Path, scheme: str):
    browser.open(report, prefers_color_scheme=scheme)
    paper = browser.screenshot()[5, 5].mean()
    assert paper > 240 if scheme == "light" else paper < 40
    worst = browser.run(CONTRAST)
    assert worst[0][0] >= READABLE, worst


@pytest.mark.parametrize("width", [320, 768, 1920])
def test_nothing_sticks_out(browser: Page, report: Path, width: int):
    browser.open(report, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    outside = ".scroll *, svg *, .stage *, .skip, .unseen"
    wide = browser.run(
        f"[...document.querySelectorAll('body *:not({outside})')]"
        f".filter(e => e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert browser.box(STAGE)[2] <= width


def test_keys_lead_through_the_page_and_focus_is_seen(page: Page):
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "Skip to the pictures"
    assert page.run("document.activeElement.getBoundingClientRect().top") >= 0
    page.press("Enter")
    assert page.run("location.hash") == "#look"
    reached = set()
    for _ in range(60):
        page.press("Tab")
        active = "document.activeElement"
        assert page.run(f"{active}.closest('svg, label') ? 1 : parseFloat(getComputedStyle({active}).outlineWidth)") > 0
        reached.add(page.run(f"{active}.name || {active}.getAttribute('class') || {active}.tagName"))
    assert {"view", "left", "right", "colours", "stage", "INPUT", "BUTTON"} <= reached


def test_everything_has_a_name(page: Page):
    """As a screen reader hears it: the browser's own tree of what there is."""
    tree = page("Accessibility.getFullAXTree")["nodes"]
    heard = {}
    for node in (node for node in tree if not node.get("ignored")):
        heard.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("image", "img", "button", "slider", "combobox", "radio", "link", "region", "navigation"):
        assert all(heard.get(role, [])), role
    assert {"banner", "main", "navigation", "contentinfo", "slider", "heading", "table"} <= set(heard)
    assert any("divider" in name for name in heard["slider"])


def test_on_paper_and_without_script_all_pictures_stand_side_by_side(browser: Page, report: Path):
    shown = "[...document.querySelectorAll('#crop-1 .panel')].map(p => p.getBoundingClientRect()).filter(b => b.width)"
    browser.open(report)
    browser("Emulation.setEmulatedMedia", media="print")
    boxes = browser.run(f"{shown}.map(b => [b.left, b.top, b.width])")
    assert len(boxes) == 4
    assert len({(left, top) for left, top, _ in boxes}) == 4
    assert not browser.run("document.querySelector('.tools').offsetWidth")
    browser("Emulation.setEmulatedMedia", media="")
    browser("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(report)
    assert len({tuple(box) for box in browser.run(f"{shown}.map(b => [b.left, b.top])")}) == 4
    assert not browser.run("document.querySelector('.tools').offsetWidth")
    browser("Emulation.setScriptExecutionDisabled", value=False)


def test_calm_is_respected(browser: Page, report: Path):
    browser.open(report, prefers_reduced_motion="reduce")
    assert browser.run("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    assert browser.run("document.getAnimations().length") == 0
