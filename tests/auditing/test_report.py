from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from auditing.audits import around, full_audit, missing, named, row

from rlaif.auditing import report as report_module
from rlaif.auditing.report import render_report
from rlaif.auditing.results import Audit, Figure, Finding
from rlaif.records import JudgedComparison

HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>{{7*7}}\u2028\u2029<!--\u202e'\""
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Elements of a page, in order, and the text of each script and of the whole page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str, str]] = []
        self.style = ""
        self.words = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs).get("id") or "", ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            name, text = self.scripts[-1]
            self.scripts[-1] = (name, text + data)
        elif self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self, name: str) -> Any:
        return json.loads(dict(self.scripts)[name])


def rendered(audit: Audit | None = None, rows: list[JudgedComparison] | None = None, **options: Any) -> Page:
    rows = [row("first"), row("second", prob_a=0.7)] if rows is None else rows
    return Page(render_report(audit or full_audit(), rows, **{"title": "A title", **options}))


def test_text_from_elsewhere_stays_text() -> None:
    hostile = row(
        HOSTILE, prompt=[(HOSTILE, HOSTILE)], responses=(HOSTILE, HOSTILE), groups={HOSTILE: HOSTILE},
        rationale_ab=HOSTILE, by_judge=(named(HOSTILE, 0.5),),
    )  # fmt: skip
    audit = full_audit(
        source={HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
        counts={HOSTILE: 1},
        by={HOSTILE: {HOSTILE: {"agreement": Figure(None, None, None, 0, HOSTILE)}}},
        findings=(Finding("first-slot", "warning", HOSTILE, HOSTILE), Finding("random", "note", HOSTILE, HOSTILE)),
        calibration={HOSTILE: HOSTILE},
    )
    text = render_report(audit, [hostile], title=HOSTILE)
    page = Page(text)
    assert [name for name, _ in page.scripts] == ["index", "texts", ""]
    assert page.all("img") == []
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "49" not in page.words.replace("{{7*7}}", "")
    assert "{{7*7}}" in page.words
    assert page.data("texts")[0]["a"] == HOSTILE.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace(
        "\u202e", "\\u202e"
    )
    assert text.isascii()


def test_policy_allows_our_script_and_style_and_nothing_else() -> None:
    page = rendered()
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert policy.split("; ") == [
        "default-src 'none'", f"script-src {source(dict(page.scripts)[''])}", f"style-src {source(page.style)}",
        "img-src data:", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    assert all("style" not in attributes for _, attributes in page.elements)


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = rendered()
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert links
    assert all(value is not None and re.match(r"#|data:,$", value) for value in links)
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_the_script_builds_no_markup_from_text() -> None:
    script = dict(rendered().scripts)[""]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_the_same_audit_gives_the_same_page() -> None:
    rows = [row("one"), row("two", prob_a=0.6, groups={"task": "chat"})]
    assert render_report(full_audit(), rows, title="t") == render_report(full_audit(), rows, title="t")


def test_findings_come_first_with_severity_in_words() -> None:
    page = rendered()
    words = " ".join(page.words.split())
    assert words.index("The judge agrees with people in 71 % of the rows.") < words.index("Main figures The bar")
    assert "Warning It favours the first slot: 62 %. What to do: Ask in both orders." in words
    assert "Serious It favours the longer response." in words


def test_headings_are_in_order() -> None:
    levels = [int(tag[1]) for tag, _ in rendered().elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_ids_are_unique_and_referred_ones_exist() -> None:
    page = rendered()
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    targets = {(each.get("href") or "")[1:] for each in page.all("a")}
    described = {attributes["aria-describedby"] for _, attributes in page.elements if "aria-describedby" in attributes}
    assert targets | described <= set(ids)


def test_missing_figures_say_why() -> None:
    audit = full_audit(
        figures={"agreement": missing("there are no human labels"), "human_ceiling": missing(), "ece": missing()},
        orders={}, by={}, confusion=(), reliability=(), brier_decomposition=None, coverage=(), length_gaps=(),
        panel=None, prediction_powered={}, against=None, calibration=None, findings=(),
    )  # fmt: skip
    words = " ".join(rendered(audit, [row("alone", human=None)]).words.split())
    assert "Agreement with people not known there are no human labels" in words
    assert "Nothing stands out." in words
    assert "Not shown: there are no human labels." in words
    assert "There are no human labels to compare with, and no row in which the two orders differ." in words


def test_an_empty_audit_is_still_a_page() -> None:
    page = rendered(Audit({}, {}, {}), [])
    assert page.all("main")
    assert page.scripts == []


def test_a_figure_without_interval_says_why() -> None:
    audit = full_audit(figures={"agreement": Figure(1.0, None, None, 1, "one cluster only")})
    words = " ".join(rendered(audit).words.split())
    assert "100.0 %" in words
    assert "one cluster only" in words


def test_rows_are_one_a_line_the_worst_first() -> None:
    rows = [row("unsure", prob_a=0.6), row("sure", prob_a=0.99), row("right", human="a")]
    page = rendered(rows=rows)
    assert [entry[0] for entry in page.data("index")["rows"]] == ["sure", "unsure"]
    lines = dict(page.scripts)["texts"].split("\n")
    assert (lines[0], len(lines[1:-1]), lines[-1]) == ("[", 2, "]")
    assert json.loads(lines[1].removesuffix(","))["prompt"] == [["user", "Why is the sky blue?"]]


def test_groups_are_numbered() -> None:
    rows = [row("one", prob_a=0.9, groups={"task": "chat"}), row("two", prob_a=0.8, groups={"task": "code"})]
    index = rendered(rows=rows).data("index")
    assert (index["columns"], index["values"]) == (["task"], [["chat", "code"]])
    assert [entry[-1] for entry in index["rows"]] == [[0], [1]]


def test_only_so_many_rows_are_in_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MOST_ROWS", 2)
    page = rendered(rows=[row(f"row {number}") for number in range(3)])
    assert len(page.data("texts")) == 2
    assert "3 of 3 rows deserve a look" in page.words
    assert "This page holds the first 2." in page.words


def test_without_script_the_worst_rows_can_be_read() -> None:
    page = rendered(rows=[row("the id", responses=("first response", "second response"))])
    assert page.all("noscript")
    assert "first response" in page.words
    assert "the id" in page.words


def test_lone_surrogates_do_no_harm() -> None:
    text = render_report(full_audit(), [row("\ud800", responses=("\udfff", "x"))], title="\ud83d")
    assert text.encode("utf-8")


def test_many_values_of_a_column_are_folded() -> None:
    values = {f"value {number}": {"agreement": around(0.5)} for number in range(13)}
    assert "13 values" in rendered(full_audit(by={"task": values})).words


def test_the_head_names_what_was_audited_and_a_demonstration_judge() -> None:
    words = " ".join(rendered(full_audit(source={"judge": "builtin:tiny", "is_demonstration": True})).words.split())
    assert "judge builtin:tiny" in words.replace("judgebuiltin", "judge builtin")
    assert "its labels are not for training" in words
    assert "not for training" not in rendered().words


def test_the_head_leaves_out_what_is_empty() -> None:
    names = re.findall("<dt>(.*?)</dt>", render_report(full_audit(source={"judge": "j", "by": []}), [], title="T"))
    assert "judge" in names
    assert "by" not in names
