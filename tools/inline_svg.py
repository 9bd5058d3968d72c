"""Figures as SVG elements of an HTML page.

A figure is drawn in the colours of `ROLES`; in the SVG each becomes a CSS variable of the page, so that one drawing
serves light and dark. Text stays text, in the page's font.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

__all__ = ["DEPTH_COLOURS", "FONT", "LINE", "NONE", "QUIET", "ROLES", "STYLE", "svg"]

DEPTH_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0578d", "#a87b00", "#2b97c9")
"""Of the depths, then again, dashed (Okabe and Ito 2008: distinct for colour-blind eyes)."""

QUIET, LINE, NONE = "#666a70", "#dfdcd3", "#e4e1d9"
ROLES = {
    **{colour: f"var(--d{i})" for i, colour in enumerate(DEPTH_COLOURS)},
    QUIET: "var(--quiet)",
    LINE: "var(--line)",
    NONE: "var(--none)",
}
"""From the colour in a figure to the CSS value in the page."""

FONT = 12.5

STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "deeprnn", "font.size": FONT, "text.color": QUIET}
"""Settings of matplotlib for a figure that becomes SVG. (Any: from 3.11 on it has a type for their names alone.)"""

_STYLED = ("fill", "stroke")


def svg(figure: Figure, label: str) -> str:
    """A figure as an SVG element for HTML, with a label for screen readers."""
    text = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(text.getvalue())
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for name in list(element.attrib):
            element.set(name.rpartition("}")[2], element.attrib.pop(name))
    _clean(root)
    _title_cells(root, getattr(figure, "cell_titles", ()))
    width, height = figure.get_size_inches() * 72
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": label})
    return ElementTree.tostring(root, encoding="unicode")


def _clean(root: ElementTree.Element) -> None:
    """Remove what a page does not need: metadata, style sheets, clip paths, names, empty groups."""
    used = {value[1:] for element in root.iter() for name, value in element.items() if name == "href"}
    for parent in list(root.iter()):
        for child in list(parent):
            empty = child.tag in ("g", "defs") and not list(child)
            if empty or child.tag in ("metadata", "clipPath", "style"):
                parent.remove(child)
        parent.attrib.pop("clip-path", None)
        if parent.get("transform", "").startswith("rotate(-0 "):
            del parent.attrib["transform"]
        if parent.get("id") not in used | {"cells"}:
            parent.attrib.pop("id", None)
        if "style" in parent.attrib:
            _restyle(parent)
        if parent.tail is not None and not parent.tail.strip():
            parent.tail = "\n"
        if parent.text is not None and not parent.text.strip():
            parent.text = None


def _restyle(element: ElementTree.Element) -> None:
    """Turn the style that matplotlib writes into attributes, its colours into the page's, its font into a size."""
    style = dict(part.strip().split(": ", 1) for part in element.attrib.pop("style").split(";") if ":" in part)
    font = re.fullmatch(r"(?:(\d+|bold) )?([\d.]+)px .*", style.pop("font", ""))
    if font:
        style["font-weight"], style["font-size"] = font[1], font[2]
    style["font-size"] = (style.get("font-size") or "").removesuffix("px")
    style.pop("font-family", None)
    if element.tag == "text":
        style.setdefault("fill", QUIET)
    if style["font-size"] == f"{FONT:g}":
        del style["font-size"]  # it is the page's
    for name, value in style.items():
        if value:
            element.set(name, ROLES.get(value, value) if name in _STYLED else value)


def _title_cells(root: ElementTree.Element, titles: Sequence[str]) -> None:
    """Name each cell of a heat map, so that a pointer over it shows its value; no seams between cells."""
    for mesh in root.iter("g"):
        if mesh.get("id") == "cells":
            del mesh.attrib["id"]
            mesh.set("shape-rendering", "crispEdges")
            for cell, title in zip(mesh.iter("path"), titles):
                ElementTree.SubElement(cell, "title").text = title
