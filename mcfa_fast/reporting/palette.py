"""Colours of the page and its figures, each for a light and a dark background.

The light colours are dark enough, and the dark theme's light enough, to be read as text. Colours
that stand side by side differ in lightness as well as hue, and none is the only sign of what it
shows: markers, line styles, order and labels say the same.
"""

from __future__ import annotations

__all__ = ["CELL", "CLASS_COLOURS", "COLOURS", "css_variables"]

COLOURS: dict[str, tuple[str, str]] = {
    "page": ("#f6f7f9", "#0e1217"),
    "surface": ("#ffffff", "#161b22"),
    "grid": ("#e1e5ea", "#2b323c"),
    "faint": ("#b4bcc8", "#4a5462"),
    "muted": ("#5b6675", "#9aa5b4"),
    "ink": ("#1b2129", "#e7eaef"),
    "seen": ("#1f6cae", "#62b0ec"),
    "unseen": ("#c2540f", "#f5994f"),
    "softmax": ("#6246b8", "#ab94f5"),
    "nearest": ("#0b806a", "#43cdac"),
    "ensemble": ("#9c3d73", "#ef9cc7"),
    "warning": ("#8a5a00", "#f0c052"),
    "on-cell": ("#fefefe", "#fdfdfd"),
    "class-0": ("#c43d5b", "#f28a9c"),
    "class-1": ("#3b4cc2", "#98a3ff"),
    "class-2": ("#8f7100", "#dcc156"),
    "class-3": ("#127536", "#57c682"),
    "class-4": ("#177da9", "#71caec"),
    "class-5": ("#872256", "#da89b4"),
    "class-6": ("#24857a", "#64d3c7"),
    "class-7": ("#696f10", "#b9bf53"),
    "class-8": ("#98388f", "#e08dd9"),
    "class-9": ("#a84c0b", "#f3a465"),
}
"""Name to (light theme, dark theme); the light ones are distinct, for figures are drawn in them."""

CLASS_COLOURS = tuple(name for name in COLOURS if name.startswith("class-"))

CELL = (0.11, 0.39, 0.69)
"""Colour of a full cell of a confusion matrix; emptier cells let the background through."""


def css_variables(theme: int) -> str:
    """Declarations of all colours as CSS variables, of the light theme (0) or the dark one (1).

    Example:
        >>> css_variables(0).split(";")[0]
        '--page:#f6f7f9'
    """
    return ";".join(f"--{name}:{colours[theme]}" for name, colours in COLOURS.items())
