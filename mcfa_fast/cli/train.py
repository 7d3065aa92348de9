"""``mcfa-fast train``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import typer

import mcfa_fast as mf
from mcfa_fast.cli.common import (
    DATA_FILE,
    DataOption,
    DeviceOption,
    FeaturesOption,
    Mode,
    Preset,
    SemanticsOption,
    SplitOption,
    console,
    default_folder,
    errors_as_messages,
    load_classifier,
    load_data,
    parse_settings,
    print_own_classifier,
    short_digest,
)
from mcfa_fast.cli.tables import print_results
from mcfa_fast.data.loading import locate
from mcfa_fast.experiments.run import run as run_experiment
from mcfa_fast.storage.checkpoint import write_atomically


def train(
    data: DataOption = "digits",
    features: FeaturesOption = None,
    semantics: SemanticsOption = None,
    split: SplitOption = None,
    preset: Annotated[
        Optional[Preset],
        typer.Option(help="Table I settings for zero-shot (the default) or generalized zero-shot."),
    ] = None,
    mode: Annotated[
        Optional[Mode],
        typer.Option(
            help="The paper's equations (the default), what the authors' public code does, or "
            "the settings of highest accuracy."
        ),
    ] = None,
    config_file: Annotated[
        Optional[Path],
        typer.Option(
            "--config",
            help="JSON file of all options in place of --preset and --mode, as the best.json of "
            "a sweep or the config.json of a run.",
        ),
    ] = None,
    settings: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change any option of MCFAConfig; repeatable."
        ),
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Seed of every random stream (default: 0, or the file's).")
    ] = None,
    run_dir: Annotated[
        Optional[Path],
        typer.Option(
            help="Folder of the run; a killed run resumes there (default: below runs/, named after "
            "the data, the split and the options)."
        ),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Train on the seen classes of a split, then classify and evaluate.

    Leaves a run folder with configuration, metrics (CSV and TensorBoard), checkpoint, trained
    classifier and results. Calling it again with a killed run's folder resumes the run.
    """
    with errors_as_messages():
        overrides = parse_settings(settings or [])
        preset_config = _config(preset, mode, config_file)
        config = preset_config.replace(**({} if seed is None else {"seed": seed}) | overrides)
        source = {"data": locate(data), "features": features, "semantics": semantics}
        dataset = load_data(source)
        name = dataset.split(split, generalized=config.task == "gzsl").name
        if run_dir is None:
            kind = config.mode
            if config_file is not None:  # there are many of one name
                kind = f"{config_file.stem}-{short_digest(preset_config.model_dump_json())}"
            changed = (f"{key}={getattr(config, key)}" for key in sorted({*overrides} - {"seed"}))
            run_dir = default_folder(
                dataset.name,
                features,
                semantics,
                name,
                config.task,
                kind,
                *changed,
                f"seed{config.seed}",
            )
        train_and_report(config, dataset, name, run_dir, device, source)


def _config(preset: Preset | None, mode: Mode | None, path: Path | None) -> mf.MCFAConfig:
    if path is None:
        return getattr(mf.MCFAConfig, (mode or Mode.paper).value)((preset or Preset.zsl).value)
    if preset is not None or mode is not None:
        raise typer.BadParameter(
            "it holds what --preset and --mode say; --set changes options of it",
            param_hint="--config",
        )
    text = path.read_text()
    try:
        return mf.MCFAConfig(**json.loads(text))
    except (TypeError, json.JSONDecodeError):
        raise ValueError(f"{path}: expected a JSON object of options of MCFAConfig") from None


def train_and_report(
    config: mf.MCFAConfig,
    dataset: mf.data.Dataset,
    split: str,
    run_dir: Path,
    device: str,
    source: dict[str, Any] | None = None,
) -> None:
    if config.sampler == "episodic" and device == "cpu":
        # Batches of some dozen instances are too small to share out: threads would only wait.
        torch.set_num_threads(1)
    start = time.perf_counter()
    results = run_experiment(
        config, dataset, split, run_dir=run_dir, device=device, progress=console.is_terminal
    )
    if source is not None:  # not before: the folder may be that of another run
        content = json.dumps(source | {"split": split}, indent=2) + "\n"
        write_atomically(run_dir / DATA_FILE, lambda file: file.write(content.encode()))
    classifier = load_classifier(run_dir)
    generalized = config.task == "gzsl"
    print_results(results, classifier, dataset, dataset.split(split, generalized=generalized))
    seconds = time.perf_counter() - start
    kept = f"; everything about it is in {run_dir}" if source is not None else ""
    console.print(f"The run took {seconds:.0f} s{kept}", highlight=False, soft_wrap=True)
    if source is not None:
        print_own_classifier(classifier.method)
