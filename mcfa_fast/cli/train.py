"""``mcfa-fast train``."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Optional

import torch
import torch.distributed as dist
import typer

from mcfa_fast.classifiers import RunConfig
from mcfa_fast.cli.common import (
    DATA_FILE,
    DataOption,
    DeviceOption,
    FeaturesOption,
    HeadOption,
    PresetOption,
    SemanticsOption,
    SettingsOption,
    SplitOption,
    SystemOption,
    Task,
    TaskOption,
    console,
    default_folder,
    errors_as_messages,
    load_classifier,
    load_data,
    parse_settings,
    say,
    short_digest,
)
from mcfa_fast.cli.launch import launched
from mcfa_fast.cli.tables import print_results
from mcfa_fast.data import Dataset
from mcfa_fast.data.loading import locate
from mcfa_fast.evaluation import ResultWarning
from mcfa_fast.experiments.run import run
from mcfa_fast.storage import write_text
from mcfa_fast.systems.base import TrainableConfig
from mcfa_fast.systems.registry import RECOMMENDED, find
from mcfa_fast.training.ranks import World


def train(
    data: DataOption = "digits",
    features: FeaturesOption = None,
    semantics: SemanticsOption = None,
    split: SplitOption = None,
    system: SystemOption = None,
    task: TaskOption = None,
    preset: PresetOption = None,
    head: HeadOption = None,
    settings: SettingsOption = None,
    config_file: Annotated[
        Optional[Path],
        typer.Option(
            "--config",
            help="JSON file in place of --system, --task and --preset: the run.json of a run or "
            "the best.json of a sweep.",
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
    """Train a system on the seen classes of a split, then classify and evaluate.

    Leaves a run folder with options, metrics (CSV and TensorBoard), checkpoint, trained classifier
    and results. Calling it again with a killed run's folder resumes the run; with other options of
    heads or selection, it fits the heads anew and does not train again. Under torchrun, all
    processes train together, each on its share of every batch.
    """
    with errors_as_messages(), launched(device) as (device, group):
        changes = parse_settings(settings)
        source = {"data": locate(data), "features": features, "semantics": semantics}
        if config_file is None:
            config = RunConfig.of(
                system or RECOMMENDED, task=(task or Task.zsl).value, preset=preset
            )
            is_first = config.preset == next(iter(find(config.system).presets))
            kind = None if is_first else config.preset
        elif system is not None or task is not None or preset is not None:
            raise typer.BadParameter(
                "it holds what --system, --task and --preset say; --set changes options of it",
                param_hint="--config",
            )
        else:
            config = _read_config(config_file)
            # There are many of one name.
            kind = f"{config_file.stem}-{short_digest(config.model_dump_json())}"
        config = config.replace(changes).with_arguments(head=head, seed=seed)
        dataset = load_data(source)
        name = dataset.split(split, generalized=config.task == "gzsl").name
        if run_dir is None:
            run_dir = default_folder(
                dataset.name,
                features,
                semantics,
                name,
                config.system,
                kind,
                config.task,
                *(f"{option}={value}" for option, value in sorted(changes.items())),
                f"seed{config.options.seed}",
            )
        seconds = train_and_report(
            config, dataset, name, run_dir, device, source, changes, group=group
        )
        say(f"The run took {seconds:.0f} s; everything about it is in {run_dir}")


def _read_config(path: Path) -> RunConfig:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: expected JSON") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, the options of a run")
    return RunConfig.model_validate(content)


def train_and_report(
    config: RunConfig,
    dataset: Dataset,
    split: str,
    run_dir: Path,
    device: str,
    source: Mapping[str, Any],
    fixed: Mapping[str, Any],
    *,
    group: dist.ProcessGroup | None = None,
) -> float:
    """Does a run and prints its results.

    Args:
        config, dataset, split, run_dir, device, fixed, group: see
            :func:`~mcfa_fast.experiments.run.run`.
        source: which data it is, to be written into the folder.

    Returns:
        How many seconds it took.
    """
    options = config.options
    is_episodic = isinstance(options, TrainableConfig) and options.training.sampler == "episodic"
    if is_episodic and device == "cpu":
        # Batches of some dozen instances are too small to share out: threads would only wait.
        torch.set_num_threads(1)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultWarning)  # which are printed below the results
        results = run(
            config,
            dataset,
            split,
            fixed=fixed,
            run_dir=run_dir,
            device=device,
            progress=console.is_terminal,
            group=group,
        )
    seconds = time.perf_counter() - start
    if not World(group).first:
        return seconds
    # Not before: the folder may be that of another run.
    content = json.dumps({**source, "split": split}, indent=2) + "\n"
    write_text(run_dir / DATA_FILE, content)
    generalized = config.task == "gzsl"
    chosen = dataset.split(split, generalized=generalized)
    print_results(results, load_classifier(run_dir), dataset, chosen)
    return seconds
