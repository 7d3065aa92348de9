"""Matplotlib figures as SVG elements of an HTML page that follow the page's colours and fonts."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any, cast
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from mcfa_fast.reporting.palette import COLOURS

__all__ = ["drawn", "hue", "printable"]

_STYLE = {
    "svg.fonttype": "none",  # text stays text: selectable, searchable, in the page's own font
    "svg.image_inline": True,
    "text.parse_math": False,  # class names may contain dollar signs
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.5,
    "path.simplify_threshold": 0.3,
}
_INK = ("text.color", "axes.titlecolor", "legend.labelcolor")
_MUTED = ("xtick.color", "ytick.color", "axes.labelcolor", "axes.edgecolor")
_VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}
_NUMBER = re.compile(r"(\.\d\d)\d+")
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def hue(name: str) -> str:
    """The colour that :func:`drawn` replaces by the page's variable of that name."""
    return COLOURS[name][0]


def printable(text: str, longest: int = 26) -> str:
    """A name as a figure can show it: on one line, without control characters, shortened.

    Example:
        >>> printable("port\\n" + "x" * 40)
        'port xxxxxxxxxxxxxxxxxxxx…'
    """
    text = _CONTROL.sub(" ", text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def drawn(key: str, label: str, draw: Callable[..., Figure], *arguments: Any) -> Markup:
    """Draws a figure and returns it as an ``<svg>`` element.

    Colours become the page's CSS variables, so that the figure follows its light or dark theme.
    The same arguments give the same text.

    Args:
        key: Prefix of the identifiers in the figure, distinct on the page.
        label: What the figure shows, for those who cannot see it.
        draw: Makes the figure.
        *arguments: For `draw`.
    """
    style = dict.fromkeys(_INK, hue("ink")) | dict.fromkeys(_MUTED, hue("muted"))
    style |= {"grid.color": hue("grid"), "svg.hashsalt": key}
    output = io.BytesIO()
    with matplotlib.rc_context(cast(Any, _STYLE | style)), warnings.catch_warnings():
        # The browser has the glyphs that the font used for measuring lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        draw(*arguments).savefig(output, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(output.getvalue())
    _strip_namespaces(root)
    _drop_document_parts(root)
    _rename_identifiers(root, key)
    _share_styles(root)
    for element in root.iter():
        if "style" in element.attrib:
            colours = _COLOUR.sub(lambda match: _VARIABLES[match[0]], element.attrib["style"])
            element.set("style", colours)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _strip_namespaces(root: ElementTree.Element) -> None:
    """In HTML, the element's name alone makes it SVG."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        for name in ("d", "x", "y", "points"):
            if name in element.attrib:
                element.set(name, _NUMBER.sub(r"\1", element.attrib[name]).replace("\n", ""))
        element.text = (element.text or "").strip() or None
        element.tail = None


def _drop_document_parts(root: ElementTree.Element) -> None:
    """Metadata, and a style sheet that would apply to the whole page."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)


def _rename_identifiers(root: ElementTree.Element, key: str) -> None:
    """Keeps the identifiers that the figure refers to, under names of its own."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    names = {old: f"{key}-{number}" for number, old in enumerate(sorted(used))}
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in names:
            element.set("id", names[old])
        if element.get("href", "").startswith("#"):
            element.set("href", "#" + names[element.attrib["href"][1:]])
        if "clip-path" in element.attrib:
            element.set("clip-path", f"url(#{names[element.attrib['clip-path'][5:-1]]})")


def _share_styles(root: ElementTree.Element) -> None:
    """Moves a style that all markers of a group have to the group."""
    for group in root.iter("g"):
        markers = group.findall("use")
        styles = {marker.get("style") for marker in markers}
        style = styles.pop() if len(styles) == 1 else None
        if len(markers) > 1 and style is not None:
            group.set("style", style)
            for marker in markers:
                del marker.attrib["style"]
