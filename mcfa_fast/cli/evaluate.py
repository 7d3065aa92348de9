"""``mcfa-fast evaluate``."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Optional

import numpy as np
import typer

from mcfa_fast.cli.common import (
    CalibrationOption,
    DeviceOption,
    HeadOption,
    RunArgument,
    TransductiveOption,
    console,
    errors_as_messages,
    image_progress,
    load_classifier,
    load_data,
    read_source,
    say,
    say_strengths,
)
from mcfa_fast.cli.tables import class_table, print_results
from mcfa_fast.data import MissingFileError
from mcfa_fast.data.checks import describe_classes
from mcfa_fast.evaluation import evaluate as evaluate_head
from mcfa_fast.experiments.run import evaluate_heads


def evaluate(
    run_dir: RunArgument,
    data: Annotated[
        Optional[str], typer.Option(help="Where the run's data lies now, if it has moved.")
    ] = None,
    split: Annotated[
        Optional[str],
        typer.Option(help="Another split, whose unseen classes are unseen in the run, too."),
    ] = None,
    head: HeadOption = None,
    calibration: CalibrationOption = None,
    device: DeviceOption = "cpu",
    transductive: TransductiveOption = False,
    per_class: Annotated[
        bool, typer.Option("--per-class", metavar="", help="Also print every class.")
    ] = False,
) -> None:
    """Evaluate all heads of a run again, on the test images of its split.

    With --transductive the test images are classified together, beside the labelled images that the
    run was trained on; these results are not to be compared with those of images by themselves. A
    star marks the head that answers. --calibration holds for this head alone, for scores of
    others are in other units.
    """
    with errors_as_messages():
        if transductive and calibration is not None:
            raise ValueError(
                "--calibration: it is of the scores of images by themselves; leave it out with "
                "--transductive"
            )
        classifier = load_classifier(run_dir, device, head=head)
        source = read_source(run_dir)
        try:
            dataset = load_data(source | ({"data": data} if data else {}))
        except MissingFileError as error:
            hint = "" if data else "; if the data has moved, say where to with --data"
            raise MissingFileError(f"{error}{hint}") from error
        generalized = classifier.run_.task == "gzsl"
        chosen = dataset.split(split or source["split"], generalized=generalized)
        trained = np.intersect1d(chosen.unseen_classes, classifier.seen_classes_)
        if trained.size:
            names = describe_classes(trained, dataset.class_names)
            raise ValueError(
                f"split {chosen.name!r}: the run was trained on its unseen classes {names}"
            )
        if not generalized:
            chosen.check_testable()
        if transductive:
            with image_progress("images") as progress:
                results = evaluate_heads(
                    classifier, dataset, chosen, transductive=True, progress=progress
                )
            say_strengths(classifier.transductive())
        else:
            results = evaluate_heads(classifier, dataset, chosen)
        if calibration is not None:
            own = classifier.head_.name
            classifier = load_classifier(run_dir, device, head=own, calibration=calibration)
            if results:
                calibrated = evaluate_head(classifier, dataset, chosen)
                results[own] = replace(calibrated, note=results[own].note)
            if len(classifier.heads_) > 1:
                say(f"--calibration {calibration:g} holds for the head {own} alone")
        print_results(results, classifier, dataset, chosen)
        if per_class and results:
            console.print(class_table(results))
