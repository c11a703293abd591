from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from auditing.audits import full_audit, missing

from rlaif.auditing.plots import plot_svg, plots, save_plots
from rlaif.auditing.results import Audit

NAMES = ["reliability", "coverage", "length_gap", "first_slot", "confusion"]


def svg_of(name: str, audit: Audit) -> ElementTree.Element:
    (plot,) = [each for each in plots(audit) if each.name == name]
    return ElementTree.fromstring(plot_svg(plot))


def test_all_plots_are_saved_as_png(tmp_path: Path) -> None:
    paths = save_plots(full_audit(), tmp_path)
    assert [path.name for path in paths] == [f"{name}.png" for name in NAMES]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_a_plot_without_data_is_left_out_and_says_why(tmp_path: Path) -> None:
    bare = Audit({}, {}, {"agreement": missing("there are no human labels"), "ece": missing("no probabilities")})
    assert save_plots(bare, tmp_path) == []
    whys = {plot.name: plot.why for plot in plots(bare)}
    assert whys["coverage"] == "there are no human labels"
    assert whys["reliability"] == "no probabilities"
    assert all(whys.values())
    with pytest.raises(ValueError, match="no probabilities"):
        plot_svg(plots(bare)[0])


@pytest.mark.parametrize("name", NAMES)
def test_svg_is_inert_and_takes_the_colours_of_the_page(name: str) -> None:
    root = svg_of(name, full_audit())
    tags = {node.tag for node in root.iter()}
    assert tags <= {"svg", "g", "defs", "path", "use", "text", "clipPath", "rect"}
    assert root.get("role") == "img"
    assert root.get("aria-describedby") == f"{name}-caption"
    assert all("style" not in node.attrib for node in root.iter())
    colours = {node.get(paint) for node in root.iter() for paint in ("fill", "stroke")} - {None}
    assert colours <= {"none"}
    classes = {part for node in root.iter() for part in node.get("class", "").split()}
    assert {"fill-ink", "fill-series"} <= classes | {"fill-series" if "stroke-series" in classes else ""}


def test_text_of_svg_is_text() -> None:
    words = [node.text for node in svg_of("confusion", full_audit()).iter("text")]
    # 150 of 150 + 5 + 45 = 200 rows where people prefer A: 75 %.
    assert {"The judge says", "People say", "tie", "150", "75.0 %"} <= set(words)


def test_ids_of_different_plots_do_not_meet() -> None:
    seen: list[str] = []
    for name in NAMES:
        root = svg_of(name, full_audit())
        ids = [node.get("id", "") for node in root.iter() if node.get("id")]
        used = {node.get("href", "")[1:] for node in root.iter("use")}
        assert used <= set(ids)
        seen += ids
    assert len(seen) == len(set(seen))


def test_svg_is_the_same_each_time() -> None:
    assert [plot_svg(plot) for plot in plots(full_audit())] == [plot_svg(plot) for plot in plots(full_audit())]


def test_captions_say_what_is_drawn() -> None:
    captions = {plot.name: plot.caption for plot in plots(full_audit())}
    # The last bin: the judge says 95 %, people 0.5 + 0.45 * 0.7 = 81.5 %.
    assert "Where the judge says 95.0 % on average, people prefer A in 81.5 %" in captions["reliability"]
    assert "A shown first: 66.0 %; B shown first: 58.0 %; both orders: 62.1 %" in captions["first_slot"]
    assert "in 75.0 % of the 200 rows where people prefer A" in captions["confusion"]


def test_points_of_different_sizes_are_said_to_be_so() -> None:
    audit = full_audit()
    few, *others = audit.reliability
    few = replace(few, human_a=replace(few.human_a, n=7))
    most = max(each.human_a.n for each in others)
    caption = plots(replace(audit, reliability=(few, *others)))[0].caption
    assert f"Each point holds 7 to {most} rows of similar probability" in caption


def test_weighted_confusion_shows_fractions() -> None:
    audit = full_audit(confusion=((1.5, 0.0, 0.0), (0.0, 0.0, 0.0), (0.25, 0.0, 2.0)))
    words = {node.text for node in svg_of("confusion", audit).iter("text")}
    assert {"1.5", "0.2", "–"} <= words


def test_drawing_leaves_no_global_state() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    plot_svg(plots(full_audit())[0])
    assert dict(matplotlib.rcParams) == before
