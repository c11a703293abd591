"""matplotlib's SVG documents made fit for a page: a strict style policy allows no `style` in them, their own style
sheet would style the whole page, and their ids would meet those of the next plot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_KEPT_STYLES = (
    "fill", "stroke", "stroke-width", "stroke-linecap", "stroke-linejoin", "stroke-dasharray", "stroke-dashoffset",
    "stroke-opacity", "fill-opacity", "opacity", "text-anchor", "font-size",
)  # fmt: skip
_FONT_SIZE = re.compile(r"([\d.]+)px")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def svg_for_page(svg: str, name: str, title: str, purposes: Mapping[str, str]) -> str:
    """An element for our page.

    Args:
        svg: matplotlib's document.
        name: Begins all ids; the element NAME-caption of the page describes the picture.
        title: What it is called for who does not see it.
        purposes: Colour -> what it is for, such as "ink": filled and stroked by the classes fill-ink and stroke-ink.
    """
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = {href[1:] for node in root.iter() if (href := node.get(f"{{{_XLINK}}}href"))}
    used |= {found for node in root.iter() for value in node.attrib.values() for found in _REFERENCE.findall(value)}
    for node in root.iter():
        node.tag = node.tag.removeprefix(f"{{{_SVG}}}")
        node.attrib.update(_presentation(node.attrib.pop("style", "")))
        classes = []
        for paint in ("fill", "stroke"):
            if (purpose := purposes.get(node.get(paint, ""))) is not None:
                del node.attrib[paint]
                classes.append(f"{paint}-{purpose}")
        if classes:
            node.set("class", " ".join(classes))
        _rename_ids(node, f"{name}-", used)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    described = {"role": "img", "aria-label": title, "aria-describedby": f"{name}-caption"}
    root.attrib.update({**described, "stroke-linejoin": "round"})
    return ElementTree.tostring(root, encoding="unicode")


def _presentation(style: str) -> dict[str, str]:
    """A style attribute as presentation attributes; fonts are the page's."""
    found: dict[str, str] = {}
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font" and (size := _FONT_SIZE.search(value)):
            found["font-size"] = size[1]
        elif name in _KEPT_STYLES:
            found[name] = value.removesuffix("px") if name == "font-size" else value
    return found


def _rename_ids(node: ElementTree.Element, prefix: str, used: set[str]) -> None:
    name = node.attrib.pop("id", None)
    if name in used:
        node.set("id", prefix + name)
    href = node.attrib.pop(f"{{{_XLINK}}}href", None)
    if href is not None:
        node.set("href", f"#{prefix}{href[1:]}")
    for key, value in node.attrib.items():
        if "url(#" in value:
            node.set(key, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
