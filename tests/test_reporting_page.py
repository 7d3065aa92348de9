"""The report's page: complete, right, harmless and self-contained."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from reporting_runs import ODD_NAMES, Page, invoke, save_dataset, train

from mcfa_fast.systems.mcfa.config import MCFAConfig
from mcfa_fast.reporting import write_report
from mcfa_fast.reporting.palette import COLOURS

pytestmark = pytest.mark.usefixtures("one_thread")

SECTIONS = ("results", "training", "latents", "confusion", "classes", "settings")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs by name, of both tasks."""
    folder = tmp_path_factory.mktemp("reporting")
    dataset = save_dataset(folder / "odd")
    reference = ("--mode", "reference", "--seed", "4")
    return {
        "zsl": train(folder / "zsl", dataset, "zsl"),
        "gzsl": train(folder / "gzsl", dataset, "gzsl", *reference),
        "validated": train(folder / "validated", dataset, "gzsl", "--set", "selection=validation"),
        "best": train(folder / "best", dataset, "gzsl", "--mode", "best"),
    }


def report(tmp_path, *run_dirs, **options):
    contents = write_report(run_dirs, tmp_path / "report.html", **options)
    text = (tmp_path / "report.html").read_text()
    return text, Page(text), contents


@pytest.fixture(scope="module")
def pages(runs, tmp_path_factory):
    """Of every run alone: the page's text and what a parser makes of it."""
    return {name: report(tmp_path_factory.mktemp("pages"), run)[:2] for name, run in runs.items()}


def stored(run_dir):
    return json.loads((run_dir / "results.json").read_text())


def copy_without(run_dir, tmp_path, *names):
    copy = shutil.copytree(run_dir, tmp_path / "run")
    for name in names:
        (copy / name).unlink()
    return copy


@pytest.mark.parametrize("name", ["zsl", "gzsl", "validated", "best"])
def test_every_section_and_figure_is_there(pages, name):
    text, page = pages[name]
    generalized = name != "zsl"
    sections = [*SECTIONS, "trade-off"] if generalized else SECTIONS
    assert {f"run1-{section}" for section in sections} | {"environment"} <= set(page.ids)
    assert ("run1-trade-off" in page.ids) == generalized
    # Eight losses, two maps, and for each of three classifiers a matrix and bars.
    assert page.tags["svg"] == 8 + 2 + 6 + generalized + (name == "validated")
    labels = [v for tag, key, v in page.attributes if tag == "svg" and key == "aria-label"]
    assert len(labels) == page.tags["svg"] and all(labels)
    assert all(title for title, _ in page.tables)
    assert page.tags["h1"] == 1 and 'lang="en"' in text and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("name", ["zsl", "gzsl"])
def test_the_results_are_those_of_the_run(pages, runs, name):
    _, page = pages[name]
    results = stored(runs[name])["results"]
    head, *rows = page.table("Mean per-class accuracy in %")
    for row, (method, result) in zip(rows, results.items(), strict=True):
        cells = dict(zip(head, row, strict=True))
        wanted = {"classifier": method, "ZSL": f"{100 * result['accuracy']:.1f}"}
        if name == "gzsl":
            values = result["generalized"]
            wanted |= {
                "S seen": f"{100 * values['seen']:.1f}",
                "U unseen": f"{100 * values['unseen']:.1f}",
                "H": f"{100 * values['harmonic']:.1f}",
                "AUSUC": f"{values['ausuc']:.3f}",
                "calibration": f"{values['calibration']:.3g}",
                "best H": f"{100 * values['best']['harmonic']:.1f}",
                "note": result["note"],
            }
            exact = [values[key] for key in ("seen", "unseen", "harmonic", "ausuc")]
            assert set(exact) | {result["accuracy"]} <= set(page.values)
        assert cells == wanted
    head, *rows = page.table("Accuracy per class in %")
    for position, row in enumerate(rows):
        cells = dict(zip(head, row, strict=True))
        for method, result in results.items():
            wanted = result["classes"][position]
            assert cells["class"] == " ".join(wanted["name"].split())
            assert cells["images"] == str(wanted["count"])
            assert cells[method] == f"{100 * wanted['accuracy']:.1f}"
            kind = "unseen" if wanted["index"] >= 10 else "seen"
            assert cells["kind"] == kind


def test_the_hardest_confusions_are_the_matrix_s_largest(pages, runs):
    _, page = pages["gzsl"]
    for method, result in stored(runs["gzsl"])["results"].items():
        counts = np.array(result["confusion"])
        wrong = counts * ~np.eye(len(counts), dtype=bool)
        rows = page.table(f"Hardest confusions of {method}")[1:]
        found = [int(row[2]) for row in rows]
        assert found == sorted(wrong[wrong > 0].tolist(), reverse=True)[:10]
        names = [" ".join(row["name"].split()) for row in result["classes"]]
        for true, predicted, count, share in rows:
            true, predicted = names.index(true), names.index(predicted)
            assert wrong[true, predicted] == int(count)
            assert share == f"{100 * wrong[true, predicted] / counts[true].sum():.1f}"


def test_optimistic_results_are_labelled_in_every_table_and_others_are_not(pages, runs, tmp_path):
    badge = '<span class="badge">optimistic: best test epoch</span>'
    assert pages["gzsl"][0].count(badge) == 4  # cards and rows of softmax and ensemble
    assert "optimistic" not in pages["zsl"][1].text.replace("(optimistic, for mode", "")
    text, page, _ = report(tmp_path, runs["gzsl"], runs["validated"])
    assert text.count(badge) == 6
    notes = [row[-1] for row in page.table("Mean per-class accuracy in %. H")[1:]]
    optimistic = "optimistic: best test epoch"
    assert notes == [optimistic, "", optimistic, "", "", ""]
    assert "odd 10/2:0, GZSL: 2 runs" in page.text and "not comparable" not in text


def test_the_best_calibration_is_marked_as_chosen_on_the_test_rows(pages):
    text, page = pages["gzsl"]
    points = [row[1] for row in page.table("Operating points")[1:]]
    assert points == ["used", "best H, chosen on the test rows"] * 3
    figure = text[text.index("Seen-unseen curves:") :].split("</svg>")[0]
    for method in ("softmax", "nearest", "ensemble"):
        assert f"{method}: best H, chosen on the test rows" in figure


def test_preset_best_says_how_it_was_calibrated(pages, runs):
    _, page = pages["best"]
    assert "On three folds of the seen classes" in page.text and "chose epoch" not in page.text
    assert stored(runs["best"])["validation"]["score"] in page.values


def test_validation_shows_its_choice(pages, runs):
    _, page = pages["validated"]
    chosen = stored(runs["validated"])["validation"]
    names = [" ".join(ODD_NAMES[label].split()) for label in chosen["held_out"]]
    assert f"chose epoch {chosen['epochs']}" in page.text
    assert all(name in page.text for name in names)
    assert chosen["score"] in page.values
    assert any(
        value.startswith("validation score")
        for _, name, value in page.attributes
        if name == "aria-label"
    )


def test_settings_show_what_differs_from_the_preset(pages, runs):
    changed = pages["gzsl"][1].table("Options that differ from the preset")[1:]
    assert {row[0]: (row[1], row[2]) for row in changed} == {
        "epochs": ("2", "50"),
        "classifier_epochs": ("2", "23"),
        "seed": ("4", "0"),
    }
    rows = pages["gzsl"][1].table("All options")[1:]
    assert [row[0] for row in rows] == list(MCFAConfig.model_fields)
    config = stored(runs["gzsl"])["config"]
    for name, value, _, description in rows:
        wanted = config[name]
        assert value == (wanted if isinstance(wanted, str) else json.dumps(wanted))
        assert description == " ".join(MCFAConfig.model_fields[name].description.split())


@pytest.mark.parametrize("name", ["zsl", "gzsl", "validated"])
def test_nothing_is_fetched_from_elsewhere(pages, name):
    text, page = pages[name]
    assert page.links and all(re.match(r"#|data:image/png;base64,", link) for link in page.links)
    assert not re.search(r"https?:|@import|src:|url\((?!#)", text)
    assert page.tags["link"] == page.tags["script"] == page.tags["iframe"] == 0
    targets = [link[1:] for link in page.links if link.startswith("#")]
    assert set(targets) <= set(page.ids)
    assert max(page.ids.values()) == 1


def test_odd_class_names_are_text_and_nothing_else(pages):
    for text, page in pages.values():
        assert page.tags["script"] == page.tags["img"] == 0 and page.tags["style"] == 1
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
        assert "<script" not in text and "{{" not in text.replace("a &amp; b; {{ 7 * 7 }}", "")
    for name in ODD_NAMES:
        assert " ".join(name.split()) in pages["gzsl"][1].text


def test_figures_have_the_page_s_colours_only(pages):
    _, page = pages["gzsl"]
    assert not {name for _, name, _ in page.attributes} & {"fill", "stroke", "color"}
    styles = " ".join(value for _, name, value in page.attributes if name == "style")
    used = set(re.findall(r"var\(--([\w-]+)\)", styles))
    expected = {"ink", "seen", "unseen", "softmax", "nearest", "ensemble", "class-0"}
    assert expected <= used <= set(COLOURS)
    assert "#" not in styles.replace("url(#", "") and "rgb" not in styles


def test_the_same_run_gives_the_same_page(pages, runs, tmp_path):
    assert report(tmp_path, runs["gzsl"])[0] == pages["gzsl"][0]


def test_several_runs_are_compared_first(runs, tmp_path):
    names = ("zsl", "gzsl", "validated")
    text, page, _ = report(tmp_path, *(runs[name] for name in names))
    assert text.index('id="comparison"') < text.index('id="run1"') < text.index('id="run3"')
    rows = page.table("Mean per-class accuracy in %. H")[1:]
    methods = ("softmax", "nearest", "ensemble")
    wanted = [(name, method) for name in names for method in methods]
    assert [(row[0], row[3]) for row in rows] == wanted
    assert [row[7] for row in rows[:2]] == ["–", "–"]
    harmonic = stored(runs["gzsl"])["results"]["nearest"]["generalized"]["harmonic"]
    assert rows[4][7] == f"{100 * harmonic:.1f}"
    assert "not comparable" in text
    options = {row[0]: row[1:] for row in page.table("All other options are the same")[1:]}
    assert options["seed"] == ["0", "4", "0"] and "temperature" not in options
    assert max(page.ids.values()) == 1


def test_runs_in_folders_of_one_name_are_told_apart(runs, tmp_path):
    copy = shutil.copytree(runs["zsl"], tmp_path / "other" / "zsl")
    _, _, contents = report(tmp_path, runs["zsl"], copy)
    assert [content.name for content in contents] == [str(runs["zsl"]), str(copy)]


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("metrics.csv", "There are no training curves"),
        ("curve_nearest.csv", "Only the marked points are shown for nearest"),
        ("data.json", "does not say which data it was trained on"),
        ("classifier.pt", "Which classes are seen is not known"),
        ("config.json", None),
        ("checkpoint.pt", None),
    ],
)
def test_what_hangs_on_a_missing_file_is_left_out_with_a_sentence(
    runs, pages, tmp_path, missing, sentence
):
    _, page, _ = report(tmp_path, copy_without(runs["gzsl"], tmp_path, missing))
    whole = pages["gzsl"][1]
    assert page.table("Mean per-class") == whole.table("Mean per-class")
    if sentence is None:
        assert page.tags["svg"] == whole.tags["svg"]
    else:
        assert sentence in page.text and sentence not in whole.text
    if missing in ("data.json", "classifier.pt"):
        assert page.tags["svg"] == whole.tags["svg"] - 2 and "There is no latent map" in page.text


def test_data_that_has_moved(runs, pages, tmp_path):
    copy = copy_without(runs["gzsl"], tmp_path)
    source = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps(source | {"data": "gone"}))
    _, page, contents = report(tmp_path, copy)
    assert "gone" in contents[0].latents.missing and "--data" in page.text
    _, page, _ = report(tmp_path, copy, data=source["data"])
    assert page.tags["svg"] == pages["gzsl"][1].tags["svg"]
    with pytest.raises(ValueError, match="digits: its classes are not those"):
        report(tmp_path, copy, data="digits")


def test_the_command_writes_the_page_and_says_what_is_missing(runs, tmp_path):
    copy = copy_without(runs["zsl"], tmp_path, "data.json")
    result = invoke("report", runs["zsl"], copy, "-o", tmp_path / "two.html")
    assert result.exit_code == 0, result.output
    assert "run: no latent map. The run folder does not say" in result.stdout
    assert "2 runs described in" in result.stdout
    assert Page((tmp_path / "two.html").read_text()).ids["comparison"] == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", None, "this run is not finished"),
        ("results.json", "{", "results.json: damaged, not JSON"),
        ("results.json", "[]", "results.json: damaged"),
        ("results.json", '{"config": {}, "results": {}}', "results.json: damaged, config.mode"),
        ("metrics.csv", "epoch,total\n1,high\n", "metrics.csv: damaged"),
        ("curve_softmax.csv", "seen\n0.5\n", "curve_softmax.csv: damaged, no column 'unseen'"),
        ("data.json", '{"data": 3}', "data.json: damaged, data"),
        ("classifier.pt", "no zip", "classifier.pt: damaged"),
    ],
)
def test_a_damaged_run_is_one_message_that_names_the_file(runs, tmp_path, file, content, message):
    copy = copy_without(runs["gzsl"], tmp_path)
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_text(content)
    result = invoke("report", copy, "-o", tmp_path / "report.html")
    assert result.exit_code == 1 and message in result.stderr
    assert "Traceback" not in result.output and not (tmp_path / "report.html").exists()


def test_other_errors_of_the_command(runs, tmp_path):
    result = invoke("report", tmp_path, "-o", tmp_path / "report.html")
    assert result.exit_code == 1 and "expected the folder of a finished run" in result.stderr
    result = invoke("report", runs["zsl"], "-o", tmp_path / "nowhere" / "report.html")
    assert result.exit_code == 1 and "nowhere" in result.stderr
    assert invoke("report", "-o", tmp_path / "report.html").exit_code == 2


def test_without_its_packages_the_command_names_the_extra(runs, tmp_path):
    script = (
        "import sys; sys.modules['matplotlib'] = None; from mcfa_fast.cli import app; "
        f"app(['report', {str(runs['zsl'])!r}, '-o', {str(tmp_path / 'report.html')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "matplotlib is not installed; pip install 'mcfa_fast[report]'" in done.stderr
