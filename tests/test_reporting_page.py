"""The report's page: complete, right, harmless and self-contained."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from cli_run import MCFA, SOLVED, invoke
from reporting_runs import ODD_NAMES, Page, save_dataset, train

import mcfa_fast as mf
from mcfa_fast.reporting import write_report
from mcfa_fast.reporting.palette import COLOURS

pytestmark = pytest.mark.usefixtures("one_thread")

SECTIONS = ("results", "training", "embeddings", "confusion", "classes", "settings")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs by name, of both tasks."""
    folder = tmp_path_factory.mktemp("reporting")
    dataset = save_dataset(folder / "odd")
    reference = (*MCFA, "--preset", "reference", "--set", "epochs=2", "--seed", "4")
    grid = ("--set", "selection=grid", "--head", "scores")
    return {
        "zsl": train(folder / "zsl", dataset, "zsl", *MCFA, "--head", "nearest"),
        "gzsl": train(folder / "gzsl", dataset, "gzsl", *reference),
        "dual": train(folder / "dual", dataset, "gzsl", "--set", "vtos_weight=0"),
        "solved": train(folder / "solved", dataset, "gzsl", *SOLVED, *grid),
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


@pytest.mark.parametrize(
    ("name", "losses", "maps", "heads"),
    [("zsl", 8, 2, 3), ("gzsl", 8, 2, 3), ("dual", 2, 2, 1), ("solved", 0, 0, 1)],
)
def test_every_section_and_figure_is_there(pages, name, losses, maps, heads):
    text, page = pages[name]
    generalized = name != "zsl"
    sections = [*SECTIONS, "trade-off"] if generalized else SECTIONS
    assert {f"run1-{section}" for section in sections} | {"environment"} <= set(page.ids)
    assert ("run1-trade-off" in page.ids) == generalized
    # For each head a matrix and bars.
    assert page.tags["svg"] == losses + maps + 2 * heads + generalized
    labels = [v for tag, key, v in page.attributes if tag == "svg" and key == "aria-label"]
    assert len(labels) == page.tags["svg"] and all(labels)
    assert all(title for title, _ in page.tables)
    assert page.tags["h1"] == 1 and 'lang="en"' in text and "prefers-color-scheme: dark" in text


def test_a_system_without_epochs_or_embeddings_says_so(pages):
    text = pages["solved"][1].text
    assert "There are no training curves. The system eszsl is not trained in epochs." in text
    assert "There is no embedding map. The system eszsl scores classes without embedding" in text


def test_losses_have_their_weights_and_those_of_weight_0_are_left_out(pages):
    titles = [
        value.split(" over ")[0]
        for tag, name, value in pages["dual"][1].attributes
        if tag == "svg" and name == "aria-label" and " epochs, from " in value
    ]
    assert titles == ["total", "StoV contrast × 10"]


@pytest.mark.parametrize("name", ["zsl", "gzsl"])
def test_the_results_are_those_of_the_run(pages, runs, name):
    _, page = pages[name]
    results = stored(runs[name])["results"]
    head, *rows, chance = page.table("Mean per-class accuracy in %")
    for row, (own, result) in zip(rows, results.items(), strict=True):
        cells = dict(zip(head, row, strict=True))
        wanted = {"head": own, "ZSL": f"{100 * result['accuracy']:.1f}"}
        if name == "gzsl":
            values = result["generalized"]
            wanted |= {
                "S seen": f"{100 * values['seen']:.1f}",
                "U unseen": f"{100 * values['unseen']:.1f}",
                "H": f"{100 * values['harmonic']:.1f}",
                "AUSUC": f"{100 * values['ausuc']:.1f}",
                "calibration": f"{values['calibration']:.3g}",
                "best H": f"{100 * values['best']['harmonic']:.1f}",
                "note": result["note"],
            }
            exact = [values[key] for key in ("seen", "unseen", "harmonic", "ausuc")]
            assert set(exact) | {result["accuracy"]} <= set(page.values)
        assert cells == wanted
    chances = dict(zip(head, chance, strict=True))
    assert chances["head"] == "chance" and chances["ZSL"] == "50.0"  # of two unseen classes
    if name == "gzsl":  # of twelve
        assert [chances[key] for key in ("S seen", "U unseen", "H")] == ["8.3"] * 3
    head, *rows = page.table("Accuracy per class in %")
    for position, row in enumerate(rows):
        cells = dict(zip(head, row, strict=True))
        for own, result in results.items():
            wanted = result["classes"][position]
            assert cells["class"] == " ".join(wanted["name"].split())
            assert cells["images"] == str(wanted["count"])
            assert cells[own] == f"{100 * wanted['accuracy']:.1f}"
            kind = "unseen" if wanted["index"] >= 10 else "seen"
            assert cells["kind"] == kind


def test_the_hardest_confusions_are_the_matrix_s_largest(pages, runs):
    _, page = pages["gzsl"]
    for head, result in stored(runs["gzsl"])["results"].items():
        counts = np.array(result["confusion"])
        wrong = counts * ~np.eye(len(counts), dtype=bool)
        rows = page.table(f"Hardest confusions of {head}")[1:]
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
    assert badge not in pages["zsl"][0] and badge not in pages["dual"][0]
    text, page, _ = report(tmp_path, runs["gzsl"], runs["dual"])
    assert text.count(badge) == 6
    notes = [row[-1] for row in page.table("Mean per-class accuracy in %. H")[1:]]
    optimistic = "optimistic: best test epoch"
    assert notes == [optimistic, "", optimistic, "", ""]
    assert "odd 10/2:0, GZSL: 2 runs" in page.text and "not comparable" not in text


def test_the_best_calibration_is_marked_as_chosen_on_the_test_rows(pages):
    text, page = pages["gzsl"]
    points = [row[1] for row in page.table("Operating points")[1:]]
    assert points == ["used", "best H, chosen on the test rows"] * 3
    figure = text[text.index("Seen-unseen curves:") :].split("</svg>")[0]
    for head in ("softmax", "nearest", "ensemble"):
        assert f"{head}: best H, chosen on the test rows" in figure


@pytest.mark.parametrize("name", ["dual", "solved"])
def test_selection_says_on_what_it_was_made(pages, runs, name):
    _, page = pages[name]
    selection = stored(runs[name])["selection"]
    held_out = ", ".join(map(str, selection["held_out"]))
    assert f"Selection on 3 folds of the seen classes, with {held_out} of them held" in page.text
    assert selection["score"] in page.values
    assert "Selection on" not in pages["gzsl"][1].text


def test_results_no_better_than_chance_are_warned_of(runs, tmp_path):
    copy = copy_without(runs["solved"], tmp_path)
    content = stored(copy)
    content["results"]["scores"]["generalized"]["seen"] = 0.08
    (copy / "results.json").write_text(json.dumps(content))
    _, page, contents = report(tmp_path, copy)
    sentence = "S is 8.0%, no better than guessing (8.3%)"
    assert sentence in contents[0].warnings["scores"] and f"scores: {sentence}" in page.text
    result = invoke("report", copy, "-o", tmp_path / "report.html")
    assert result.exit_code == 0 and f"warning: run, scores: {sentence}" in result.stderr


def test_the_head_that_answers_is_marked(pages):
    for name, head in (("zsl", "nearest"), ("gzsl", "softmax")):
        text, page = pages[name]
        assert re.findall(r">(\w+) <span class=\"badge own\">answers<", text) == [head]
        assert f"Head that answers {head}" in page.text


def test_settings_show_what_differs_from_the_preset(pages, runs):
    changed = pages["gzsl"][1].table("Options that differ from the preset")[1:]
    assert {row[0]: (row[1], row[2]) for row in changed} == {
        "epochs": ("2", "50"),
        "softmax.epochs": ("1", "23"),
        "seed": ("4", "0"),
    }
    config = mf.RunConfig.model_validate(stored(runs["gzsl"])["run"])
    for owner, options in {
        "system mcfa": config.options,
        "training": config.options.training,
        "head softmax": config.heads["softmax"],
        "head nearest": config.heads["nearest"],
        "head ensemble": config.heads["ensemble"],
        "selection": config.selection,
    }.items():
        rows = pages["gzsl"][1].table(f"Options of the {owner}")[1:]
        values, fields = options.model_dump(mode="json"), type(options).model_fields
        names = [name for name in fields if name != "training"]
        assert [row[0].rpartition(".")[2] for row in rows] == names
        for name, (_, value, _, description) in zip(names, rows, strict=True):
            wanted = values[name]
            assert value == (wanted if isinstance(wanted, str) else json.dumps(wanted))
            assert description == " ".join(fields[name].description.split())


def test_what_selection_chose_is_marked(pages, runs):
    chosen = stored(runs["solved"])["selection"]["setting"]
    rows = {row[0]: row[1] for row in pages["solved"][1].table("Options that differ")[1:]}
    preset = mf.RunConfig.of("eszsl", task="gzsl").names
    differing = {name: value for name, value in chosen.items() if value != preset[name]}
    assert differing
    for name, value in differing.items():
        assert rows[name] == f"{value} chosen by selection"


@pytest.mark.parametrize("name", ["zsl", "gzsl", "dual", "solved"])
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
    names = ("zsl", "gzsl", "solved")
    text, page, _ = report(tmp_path, *(runs[name] for name in names))
    assert text.index('id="comparison"') < text.index('id="run1"') < text.index('id="run3"')
    rows = page.table("Mean per-class accuracy in %. H")[1:]
    heads = [(name, head) for name in names[:2] for head in ("softmax", "nearest", "ensemble")]
    wanted = [*heads, ("solved", "scores"), ("chance", ""), ("chance", "")]
    starred = {("zsl", "nearest"), ("gzsl", "softmax"), ("solved", "scores")}
    assert [(row[0], row[3]) for row in rows] == [
        (name, f"{head} *" if (name, head) in starred else head) for name, head in wanted
    ]
    assert [row[7] for row in rows[:2]] == ["–", "–"]
    harmonic = stored(runs["gzsl"])["results"]["nearest"]["generalized"]["harmonic"]
    assert rows[4][7] == f"{100 * harmonic:.1f}"
    assert "not comparable" in text
    options = {row[0]: row[1:] for row in page.table("All other options are the same")[1:]}
    assert options["system"] == ["mcfa", "mcfa", "eszsl"] and options["seed"] == ["0", "4", "0"]
    assert options["epochs"] == ["1", "2", "–"]
    assert not {"temperature", "visual_penalty"} & set(options)
    assert max(page.ids.values()) == 1


def test_runs_in_folders_of_one_name_are_told_apart(runs, tmp_path):
    copy = shutil.copytree(runs["solved"], tmp_path / "other" / "solved")
    _, _, contents = report(tmp_path, runs["solved"], copy)
    assert [content.name for content in contents] == [str(runs["solved"]), str(copy)]


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("metrics.csv", "There are no training curves"),
        ("curve_nearest.csv", "Only the marked points are shown for nearest"),
        ("data.json", "does not say which data it was trained on"),
        ("classifier.pt", "Which classes are seen is not known"),
        ("run.json", None),
        ("training.json", None),
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
        assert page.tags["svg"] == whole.tags["svg"] - 2
        assert "There is no embedding map" in page.text


def test_data_that_has_moved(runs, pages, tmp_path):
    copy = copy_without(runs["dual"], tmp_path)
    source = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps(source | {"data": "gone"}))
    _, page, contents = report(tmp_path, copy)
    assert "gone" in contents[0].embeddings.missing and "--data" in page.text
    _, page, _ = report(tmp_path, copy, data=source["data"])
    assert page.tags["svg"] == pages["dual"][1].tags["svg"]
    with pytest.raises(ValueError, match="digits: its classes are not those"):
        report(tmp_path, copy, data="digits")


def test_the_command_writes_the_page_and_says_what_is_missing(runs, tmp_path):
    copy = copy_without(runs["zsl"], tmp_path, "data.json")
    result = invoke("report", runs["zsl"], copy, "-o", tmp_path / "two.html")
    assert result.exit_code == 0, result.output
    assert "run: no embedding map. The run folder does not say" in result.stdout
    assert "2 runs described in" in result.stdout
    assert Page((tmp_path / "two.html").read_text()).ids["comparison"] == 1


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results.json", None, "this run is not finished"),
        ("results.json", "{", "results.json: damaged, not JSON"),
        ("results.json", "[]", "results.json: damaged"),
        ("results.json", '{"run": {}, "selection": null, "results": {}}', "damaged, run.system"),
        ("results.json", '{"run": {"system": "none"}}', "results.json: damaged, run"),
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
