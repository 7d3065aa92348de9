"""Small runs to report on, and what a browser would make of their page."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser

import numpy as np
from cli_run import invoke
from zero_shot_data import SEEN, UNSEEN, make_images, make_semantics

from mcfa_fast import data
from mcfa_fast.data.save import save_folder

ODD_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{",
    "a & b; {{ 7 * 7 }}",
    "空港",
    "a name that is far too long for any figure to show it",
    "two\nlines\x07",
    "' onmouseover='alert(1)",
    "plain",
    "</svg><style>*{display:none}</style>",
    "<script>unseen</script>",
    "$unseen$ #1b2129",
)
"""Names of the classes: harmless to the page, or the tests say so."""

_VOID = {"meta", "img", "br", "hr", "link", "input"}


def save_dataset(folder):
    """The small solvable problem as a dataset folder, with odd class names."""
    features, labels = make_images(np.concatenate([SEEN, UNSEEN]), rows=12)
    dataset = data.Dataset(
        name=folder.name,
        features=features,
        labels=labels,
        class_names=ODD_NAMES,
        semantics=make_semantics()[: len(ODD_NAMES)],
        splits=data.splits.ClassSplits({"10/2:0": (SEEN, UNSEEN)}),
    )
    return save_folder(dataset, folder)


def train(run_dir, dataset, task, *options):
    result = invoke("train", "--data", dataset, "--task", task, "--run-dir", run_dir, *options)
    assert result.exit_code == 0, result.output
    return run_dir


class Page(HTMLParser):
    """Tags, texts, links and tables of a page; fails where tags are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links = Counter(), Counter(), []
        self.attributes, self.values, self.tables, self.parts = [], [], [], []
        self._open = []
        self._row = self._cell = None
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    @property
    def text(self):
        return " ".join(" ".join(self.parts).split())

    def table(self, caption):
        """Rows of the table whose caption begins so."""
        return next(rows for title, rows in self.tables if title.startswith(caption))

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append(["", []])
        elif tag == "tr":
            self._row = []
        elif tag in ("td", "th", "caption"):
            self._cell = ""

    def handle_startendtag(self, tag, attributes):
        self.tags[tag] += 1
        for name, value in attributes:
            self.attributes.append((tag, name, value))
            if name == "id":
                self.ids[value] += 1
            if name in ("href", "src", "xlink:href", "srcset", "action"):
                self.links.append(value)
            if tag == "data" and name == "value":
                self.values.append(float(value))

    def handle_endtag(self, tag):
        assert self._open and self._open.pop() == tag, f"</{tag}> at {self.getpos()}"
        if tag in ("td", "th"):
            self._row.append(" ".join(self._cell.split()))
            self._cell = None
        elif tag == "caption":
            self.tables[-1][0] = " ".join(self._cell.split())
            self._cell = None
        elif tag == "tr":
            self.tables[-1][1].append(self._row)

    def handle_data(self, text):
        if self._open and self._open[-1] != "style":
            self.parts.append(text)
        if self._cell is not None:
            self._cell += text
