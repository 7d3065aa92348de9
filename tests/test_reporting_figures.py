"""The report's figures: what is drawn where, and as what kind of SVG."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from mcfa_fast.reporting.embedding_map import (
    EmbeddingSample,
    _spread,
    draw_map,
    embed_pca,
    embed_tsne,
)
from mcfa_fast.reporting.figures import (
    CurvePoint,
    TradeOff,
    class_bars,
    confusion_matrix,
    head_colour,
    history,
    seen_unseen,
)
from mcfa_fast.reporting.palette import COLOURS
from mcfa_fast.reporting.svg import drawn, hue, printable


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize(
    ("values", "scale"),
    [([100.0, 1.0, 0.5], "log"), ([3.0, 2.0, 1.0], "linear"), ([100.0, 0.0, -5.0], "linear")],
)
def test_a_loss_over_orders_of_magnitude_is_on_a_log_scale(values, scale):
    axes = history("loss", np.arange(1, 4), np.array(values), "seen").axes[0]
    assert axes.get_yscale() == scale
    assert axes.lines[0].get_ydata().tolist() == values


def test_matrix_cells_are_shares_of_the_true_class():
    counts = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
    figure = confusion_matrix(counts, ["a", "b", "c"], ["seen", "seen", "unseen"])
    axes = figure.axes[0]
    opacity = axes.images[0].get_array()[..., 3]
    assert opacity.tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0, 0.75]]
    assert [text.get_text() for text in axes.texts] == ["75", "25", "25", "75"]
    assert [label.get_color() for label in axes.get_yticklabels()] == [
        hue("seen"),
        hue("seen"),
        hue("unseen"),
    ]
    assert axes.lines[0].get_ydata()[0] == axes.lines[1].get_xdata()[0] == 1.5


def test_bars_are_ordered_by_kind_and_accuracy():
    kinds = ["unseen", "seen", "seen", "unseen"]
    axes = class_bars([0.9, 0.2, 0.6, None], ["a", "b", "c", "d"], kinds).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "b", "a", "d"]
    assert [bar.get_width() for bar in axes.patches] == [60, 20, 90, 0]
    assert [text.get_text() for text in axes.texts] == ["60.0", "20.0", "90.0", "no images"]
    places = [bar.get_y() for bar in axes.patches]
    assert places[2] - places[1] > places[1] - places[0] == pytest.approx(1)


def test_the_trade_off_shows_the_curve_and_its_points():
    curve = np.array([[0.8, 0.5, 0.0], [0.0, 0.4, 0.6]])
    points = (CurvePoint(0.5, 0.4, "used", True), CurvePoint(0.8, 0.1, "best", False))
    figure = seen_unseen([TradeOff("softmax", curve, points), TradeOff("other", None, points)])
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["softmax: used"].get_xydata().tolist() == [[40, 50]]
    assert lines["other: best"].get_xydata().tolist() == [[10, 80]]
    drawn_curve = next(line for line in axes.lines if line.get_color() == hue("softmax"))
    assert drawn_curve.get_xydata().tolist() == [[0, 80], [40, 50], [60, 0]]
    # On a line of equal H, 2SU / (S + U) is the same everywhere.
    faint = [line for line in axes.lines if line.get_color() == hue("faint")]
    for number, line in enumerate(faint, 1):
        unseen, seen = line.get_xydata().T
        assert np.allclose(2 * seen * unseen / (seen + unseen), 10 * number)
    assert head_colour("softmax", 0) == "softmax" and head_colour("eszsl", 12) == "class-2"


def test_more_classes_than_names_fit_are_drawn_without_names():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, size=(717, 717))
    names = [f"class {number}" for number in range(717)]
    kinds = ["seen"] * 645 + ["unseen"] * 72
    matrix = drawn("m", "matrix", confusion_matrix, counts, names, kinds)
    bars = drawn("b", "bars", class_bars, rng.random(717).tolist(), names, kinds)
    assert len(matrix) + len(bars) < 1_200_000
    assert "class 3" not in texts(matrix) + texts(bars)


def test_names_beside_the_map_keep_their_order_and_a_distance():
    heights = np.array([0.5, 0.51, 0.0, 1.0, 0.49, 0.505])
    spread = _spread(heights)
    assert np.array_equal(np.argsort(spread), np.argsort(heights))
    assert np.diff(np.sort(spread)).min() > 0.045 - 1e-9
    assert 0 < spread.min() and spread.max() < 1
    assert _spread(np.array([0.3])) == pytest.approx([0.3])
    crowded = _spread(np.linspace(0.4, 0.6, 70))
    assert np.allclose(np.diff(crowded), 1 / 70)


def sample(images=24, classes=6, width=5):
    rng = np.random.default_rng(0)
    return EmbeddingSample(
        images=rng.normal(size=(images, width)),
        image_classes=np.arange(images) % classes,
        descriptors=rng.normal(size=(classes, width)),
        classes=np.arange(classes),
        unseen=np.arange(classes) >= classes - 2,
        names=tuple(f"name {number}" for number in range(classes)),
        training=False,
    )


def test_the_map_names_unseen_classes_at_their_descriptors():
    found = sample()
    places, variance = embed_pca(found)
    assert 0 < variance < 1
    axes = draw_map(found, places, "PCA").axes[0]
    named = {text.get_text(): text.xy for text in axes.texts}
    assert set(named) == {"name 4", "name 5"}
    assert np.allclose(named["name 5"], places[24 + 5])
    # Every image once, every descriptor once, and nothing else.
    shown = np.concatenate([line.get_xydata() for line in axes.lines])
    assert len(shown) == len(places) == 30
    assert np.allclose(np.sort(shown, axis=0), np.sort(places, axis=0))
    markers = {line.get_marker() for line in axes.lines[-3:]}
    assert markers == {"P", "o"} and axes.lines[-3].get_marker() == "P"


def test_tsne_is_repeatable_and_works_for_few_points():
    found = sample(images=4, classes=3, width=2)
    first = embed_tsne(found)
    assert first.shape == (7, 2) and np.array_equal(first, embed_tsne(found))


def marked(text, colour):
    figure = Figure(figsize=(2, 2))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], "o", color=colour)
    axes.set_title(text)
    return figure


def test_a_drawn_figure_is_a_themed_element_with_identifiers_of_its_own():
    first = drawn("one", 'a "figure"', marked, "title", hue("seen"))
    root = ElementTree.fromstring(first)
    assert root.tag == "svg" and root.get("role") == "img"
    assert root.get("aria-label") == 'a "figure"'
    assert root.get("viewBox") and root.get("width") is None
    assert "var(--seen)" in first and COLOURS["seen"][0] not in first
    assert "title" in texts(first)
    assert first == drawn("one", 'a "figure"', marked, "title", hue("seen"))
    second = drawn("two", "another", marked, "title", hue("seen"))
    identifiers = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert identifiers[0] and not identifiers[0] & identifiers[1]
    for svg, own in zip((first, second), identifiers, strict=True):
        assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)) <= {
            pair for name in own for pair in ((name, ""), ("", name))
        }


@pytest.mark.parametrize("text", ["<b>&amp;</b>", "$x^2$", "$\\bad{", "空港", "]]>", "#1b2129"])
def test_text_in_a_figure_is_what_it_is(text):
    assert text in texts(drawn("key", text, marked, text, hue("seen")))


def test_printable_names():
    assert printable("a\x00b\nc\ud800") == "a b c "
    assert printable("x" * 26) == "x" * 26 and len(printable("x" * 27)) == 26
