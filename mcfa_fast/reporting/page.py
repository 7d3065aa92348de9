"""The report as one HTML page."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from mcfa_fast.environment import environment
from mcfa_fast.reporting.content import RunContent, describe_run
from mcfa_fast.reporting.palette import css_variables
from mcfa_fast.reporting.run_files import HeadResult, RunFiles, read_run
from mcfa_fast.reporting.settings import differences
from mcfa_fast.storage import write_text

__all__ = ["render_report", "write_report"]


def write_report(
    run_dirs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    data: str | None = None,
) -> list[RunContent]:
    """Writes a page about finished runs that needs no other file and no network.

    The same runs give the same page, on one machine with one version of the library.

    Args:
        run_dirs: folders of the runs.
        output: the HTML file to write.
        data: where the runs' dataset lies, if it has moved.

    Returns:
        What the page says about each run.

    Raises:
        ValueError: when there is no run, a folder is not that of a finished run, one of its files
            is damaged, or `data` is not what a run was trained on.
        OSError: when `output` cannot be written.

    Example:
        >>> import tempfile
        >>> from mcfa_fast import RunConfig, data
        >>> from mcfa_fast.experiments.run import run
        >>> config = RunConfig.of(task="zsl", options={"epochs": 1, "selection": "none"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = run(config, data.load("digits"), "7/3:0", run_dir=folder)
        ...     runs = write_report([folder], Path(folder) / "report.html", data="digits")
        ...     page = (Path(folder) / "report.html").read_text()
        >>> page[:15], len(runs[0].panels)
        ('<!doctype html>', 1)
    """
    contents = _describe([read_run(Path(path)) for path in run_dirs], data)
    page = render_report(contents)
    write_text(Path(output), page)
    return contents


def render_report(contents: Sequence[RunContent]) -> str:
    """The page about runs that were described with :func:`~.content.describe_run`."""
    template = _templates().get_template("page.html.j2")
    return template.render(
        title=_title(contents),
        runs=contents,
        columns=_columns(contents),
        chances=_chances(contents),
        comparable=len({_setting(content.run) for content in contents}) == 1,
        differences=differences([content.run.config for content in contents]),
        environment=environment(),
        light=Markup(css_variables(0)),
        dark=Markup(css_variables(1)),
    )


def _describe(runs: Sequence[RunFiles], data: str | None) -> list[RunContent]:
    if not runs:
        raise ValueError("run_dirs: expected at least one run, got none")
    names = Counter(run.path.resolve().name for run in runs)
    return [
        describe_run(
            run,
            f"run{number}",
            # Folders of one name are told apart by their paths, as they were given.
            name if names[name := run.path.resolve().name] == 1 else str(run.path),
            data,
        )
        for number, run in enumerate(runs, 1)
    ]


def _setting(run: RunFiles) -> tuple[str, str, str]:
    return run.first.dataset, run.first.split, run.config.task


def _title(contents: Sequence[RunContent]) -> str:
    settings = {_setting(content.run) for content in contents}
    if len(settings) > 1:
        return f"{len(contents)} runs compared"
    dataset, split, task = settings.pop()
    count = f": {len(contents)} runs" if len(contents) > 1 else ""
    return f"{dataset} {split}, {task.upper()}{count}"


def _chances(contents: Sequence[RunContent]) -> dict[str, HeadResult]:
    """By dataset, split and task, a result that says what chance is."""
    return {
        f"{run.first.dataset} {run.first.split} {run.config.task.upper()}": run.first
        for run in (content.run for content in contents)
    }


def _columns(contents: Sequence[RunContent]) -> dict[str, bool]:
    """Which columns a table of all results needs."""
    results = [result for content in contents for result in content.run.results.values()]
    return {
        "generalized": any(result.generalized is not None for result in results),
        "note": any(result.note for result in results),
    }


def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("mcfa_fast.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"percent": _percent, "number": _number, "setting": _setting_text}
    return templates


def _percent(value: float | None) -> Markup:
    """A share of 0..1 in %, its exact value beside it for programs that read the page."""
    return Markup("–") if value is None else _data(value, f"{100 * value:.1f}")


def _number(value: float, form: str = ".3f") -> Markup:
    return _data(value, format(value, form))


def _data(value: float, text: str) -> Markup:
    return Markup('<data value="{}">{}</data>').format(repr(value), text)


def _setting_text(value: Any) -> Markup:
    """An option's value as ``--set`` takes it."""
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
