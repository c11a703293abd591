"""The report in a real browser, from a file and offline."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from auditing.audits import full_audit, named, row

from rlaif.auditing.report import render_report
from rlaif.records import JudgedComparison

webdriver = pytest.importorskip("selenium.webdriver")
by = pytest.importorskip("selenium.webdriver.common.by").By
keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")

pytestmark = pytest.mark.skipif(CHROMIUM is None or CHROMEDRIVER is None, reason="needs chromium and chromedriver")

PLANTED = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = pytest.importorskip("selenium.webdriver.chrome.service").Service(CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows that contradict (30 chat, 30 code), one where the judge ties, one where only the order changes it."""
    rows = [
        row(f"row-{number:02}", prob_a=0.99 - number / 200, groups={"task": ("chat", "code")[number % 2]})
        for number in range(60)
    ]
    rows[7] = row(
        f"hostile {PLANTED}", prob_a=1.0, groups={"task": PLANTED}, prompt=[("user", PLANTED)],
        responses=(PLANTED, "plain zebra"), votes=("b", "b", "tie"), rationale_ab=PLANTED,
        by_judge=(named(PLANTED, 0.4),),
    )  # fmt: skip
    rows += [
        row("judge-ties", prob_a=0.5, groups={"task": "chat"}),
        row("order", prob_a=0.6, orders=(0.9, 0.3), human="a", groups={"task": "code"}),
    ]
    return written(tmp_path_factory.mktemp("report") / "report.html", rows)


@pytest.fixture
def opened(browser: Any, page: Path) -> Any:
    return open_page(browser, page)


def written(path: Path, rows: list[JudgedComparison]) -> Path:
    path.write_text(render_report(full_audit(), rows, title="A title"), encoding="utf-8")
    return path


def open_page(browser: Any, page: Path, *, width: int = 1280, scheme: str = "light") -> Any:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())
    return browser


def ids(browser: Any) -> list[str]:
    """Of the rows in the page of the table."""
    return [each.text for each in browser.find_elements(by.CSS_SELECTOR, "#rows .opener")]


def status(browser: Any) -> str:
    return str(browser.find_element(by.ID, "status").text)


def until_status(browser: Any, start: str) -> None:
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait(browser, 30, poll_frequency=0.02)
    wait.until(lambda each: status(each).startswith(start))


def choose(browser: Any, name: str, label: str) -> None:
    select = pytest.importorskip("selenium.webdriver.support.ui").Select(browser.find_element(by.ID, name))
    (option,) = [each for each in select.options if each.text.startswith(label)]
    option.click()


def press(browser: Any, *pressed: str) -> None:
    browser.switch_to.active_element.send_keys(*pressed)


def active(browser: Any) -> str:
    return str(browser.switch_to.active_element.text)


def test_a_page_of_the_table_is_shown_the_worst_first(opened: Any) -> None:
    assert len(ids(opened)) == 50
    assert ids(opened)[:3] == [f"hostile {PLANTED}", "row-00", "row-01"]
    assert status(opened) == "62 of 62 disagreements: 1 to 50 shown"
    opened.find_element(by.ID, "next").click()
    assert ids(opened)[-2:] == ["judge-ties", "order"]
    assert status(opened) == "62 of 62 disagreements: 51 to 62 shown"
    assert active(opened) == ids(opened)[0]


def test_filters(opened: Any) -> None:
    choose(opened, "kind", "Only one calls a tie (1)")
    assert ids(opened) == ["judge-ties"]
    choose(opened, "kind", "Verdict changes with the order (1)")
    assert ids(opened) == ["order"]
    choose(opened, "kind", "All")
    choose(opened, "group-0", "chat (31)")
    assert status(opened).startswith("31 of 62")
    opened.find_element(by.ID, "confidence").send_keys(keys.END)
    assert ids(opened) == []
    opened.find_element(by.ID, "clear").click()
    assert status(opened).startswith("62 of 62")


def test_search_looks_into_ids_and_texts(opened: Any) -> None:
    query = opened.find_element(by.ID, "query")
    query.send_keys("ROW-1")
    until_status(opened, "10 of 62")
    assert set(ids(opened)) == {f"row-1{digit}" for digit in range(10)}
    query.clear()
    query.send_keys("zebra")
    until_status(opened, "1 of 62")
    assert ids(opened) == [f"hostile {PLANTED}"]


def test_a_column_sorts_up_down_and_back(opened: Any) -> None:
    def sort() -> str:
        opened.find_element(by.CSS_SELECTOR, "#head th:first-child button").click()
        return str(opened.find_element(by.CSS_SELECTOR, "#head th:first-child").get_attribute("aria-sort"))

    assert (sort(), ids(opened)[1]) == ("ascending", "judge-ties")
    assert (sort(), ids(opened)[0]) == ("descending", "row-59")
    assert (sort(), ids(opened)[0]) == ("none", f"hostile {PLANTED}")


def test_the_keyboard_alone_is_enough(opened: Any) -> None:
    press(opened, "/")
    assert opened.switch_to.active_element.get_attribute("id") == "query"
    press(opened, "row-0", keys.TAB)
    until_status(opened, "9 of 62")
    opened.find_element(by.CSS_SELECTOR, "#rows .opener").send_keys("j")
    assert active(opened) == "row-01"
    press(opened, keys.ARROW_DOWN)
    press(opened, "k")
    assert active(opened) == "row-01"
    press(opened, keys.ENTER)
    assert opened.switch_to.active_element.get_attribute("aria-expanded") == "true"
    detail = opened.find_element(by.CSS_SELECTOR, "tr.detail").text
    assert "Why is the sky blue?" in detail
    assert "Response A\nJudge prefers this\nBecause it is." in detail
    assert "Response B\nPeople prefer this\nLight scatters on air." in detail
    press(opened, keys.ESCAPE)
    assert opened.find_elements(by.CSS_SELECTOR, "tr.detail") == []
    press(opened, keys.SPACE)
    assert len(opened.find_elements(by.CSS_SELECTOR, "tr.detail")) == 1


def test_single_keys_can_be_turned_off(opened: Any) -> None:
    opened.find_element(by.ID, "shortcuts").click()
    opened.find_element(by.CSS_SELECTOR, "#rows .opener").send_keys("/")
    assert opened.switch_to.active_element.get_attribute("class") == "opener"


def test_everything_that_can_be_clicked_can_be_reached_by_tab(opened: Any) -> None:
    unreachable = opened.execute_script(
        "return [...document.querySelectorAll('a, button, input, select, summary, .scroll')]"
        ".filter((each) => each.checkVisibility() && each.tabIndex < 0).length"
    )
    assert unreachable == 0


def test_planted_markup_is_shown_and_inert(opened: Any) -> None:
    opened.find_element(by.CSS_SELECTOR, "#rows .opener").click()
    detail = opened.find_element(by.CSS_SELECTOR, "tr.detail")
    assert detail.text.count(PLANTED) == 4  # prompt, response A, reason, judge
    assert opened.find_elements(by.TAG_NAME, "img") == []
    assert opened.execute_script("return typeof window.pwned") == "undefined"
    assert [each.get_attribute("id") for each in opened.find_elements(by.TAG_NAME, "script")] == ["index", "texts", ""]


def test_the_policy_stops_what_slips_in(opened: Any) -> None:
    opened.execute_script(
        "const script = document.createElement('script'); script.textContent = 'window.pwned = 1';"
        "document.body.append(script);"
    )
    assert opened.execute_script("return typeof window.pwned") == "undefined"
    assert any("Content Security Policy" in entry["message"] for entry in opened.get_log("browser"))


def test_the_console_stays_silent(opened: Any) -> None:
    opened.get_log("browser")
    opened.refresh()
    opened.find_element(by.CSS_SELECTOR, "#rows .opener").click()
    opened.find_element(by.ID, "query").send_keys("row")
    until_status(opened, "59 of 62")
    assert opened.get_log("browser") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Any, page: Path, scheme: str) -> None:
    open_page(browser, page, scheme=scheme).find_element(by.CSS_SELECTOR, "#rows .opener").click()
    assert browser.execute_script(LOW_CONTRAST) == []


LOW_CONTRAST = """
const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
const light = (rgb) => {
  const [r, g, b] = rgb.slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (node) => {
  if (node === null) return [255, 255, 255];
  const [r, g, b, alpha = 1] = parsed(getComputedStyle(node).backgroundColor);
  if (alpha === 1) return [r, g, b];
  const below = behind(node.parentElement);
  return [r, g, b].map((c, at) => c * alpha + below[at] * (1 - alpha));
};
const low = [];
for (const node of document.querySelectorAll("body *")) {
  const isSvg = node instanceof SVGElement;
  const words = [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim() !== "");
  const skipped = node.closest("script, style, noscript, option, [aria-hidden], :disabled");
  if (!words || skipped || !node.checkVisibility()) continue;
  const style = getComputedStyle(node);
  const below = behind(isSvg ? node.ownerSVGElement.parentElement : node);
  const pair = [light(parsed(isSvg ? style.fill : style.color)), light(below)];
  const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (ratio < 4.5) low.push([node.tagName, node.className.toString(), node.textContent.slice(0, 30), ratio]);
}
return low;
"""


def test_dark_and_light_differ(browser: Any, page: Path) -> None:
    def colours() -> tuple[str, str]:
        body = browser.find_element(by.TAG_NAME, "body").value_of_css_property("background-color")
        return body, browser.find_element(by.CSS_SELECTOR, "figure text").value_of_css_property("fill")

    open_page(browser, page, scheme="light")
    light = colours()
    open_page(browser, page, scheme="dark")
    assert not set(light) & set(colours())


@pytest.mark.parametrize("width", [360, 768])
def test_narrow_pages_do_not_scroll_sideways(browser: Any, page: Path, width: int) -> None:
    open_page(browser, page, width=width).find_element(by.CSS_SELECTOR, "#rows .opener").click()
    for details in browser.find_elements(by.CSS_SELECTOR, "#all-figures > details > summary"):
        details.click()
    assert browser.execute_script(TOO_WIDE, width) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


TOO_WIDE = """
return [...document.querySelectorAll("body *")]
  .filter((each) => each.closest(".scroll") === null && each.getBoundingClientRect().right > arguments[0] + 1)
  .map((each) => [each.tagName, each.className.toString(), each.id]);
"""


def test_20_000_rows_load_filter_and_sort(browser: Any, tmp_path: Path) -> None:
    rows = [row(f"row-{number}", prob_a=0.99, groups={"task": "chat"}) for number in range(19_999)]
    rows.append(row("needle", prob_a=0.51, responses=("Only here: XYLOPHONE", "b"), groups={"task": "code"}))
    open_page(browser, written(tmp_path / "report.html", rows))
    assert status(browser) == "20,000 of 20,000 disagreements: 1 to 50 shown"
    assert len(browser.find_elements(by.CSS_SELECTOR, "#rows tr")) == 51
    browser.find_element(by.ID, "query").send_keys("xylophone")
    until_status(browser, "1 of 20,000")
    assert ids(browser) == ["needle"]
    browser.find_element(by.ID, "clear").click()
    choose(browser, "sort", "Id")
    assert ids(browser)[:2] == ["needle", "row-0"]


def test_the_page_prints(opened: Any) -> None:
    assert opened.print_page().startswith("JVBER")  # %PDF in base64
