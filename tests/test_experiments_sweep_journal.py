"""Sweeps that are killed, go on, or are refused."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
from sweep_runs import GRID, RANGES, outcome, run, train_by_script, train_here

from mcfa_fast.experiments import Choice, Range
from mcfa_fast.experiments.journal import Journal
from mcfa_fast.storage import CheckpointError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def script(monkeypatch):
    return partial(train_by_script, monkeypatch)


# What survives


def test_more_trials_go_on_from_those_before(tmp_path, script):
    script(lambda job: job.options["learning_rate"])
    few = run(tmp_path / "grown", RANGES, trials=12, prune=False)
    jobs = script(lambda job: job.options["learning_rate"])
    grown = run(tmp_path / "grown", RANGES, trials=20, prune=False)
    assert min(job.trial for job in jobs) == 12
    assert grown.rows[:12] == few.rows
    assert run(tmp_path / "whole", RANGES, trials=20, prune=False).rows == grown.rows


INSIDE, OUTSIDE = {"learning_rate": 1e-3, "epochs": 4}, {"learning_rate": 1.0, "epochs": 50}


def open_journal(path, **options):
    settings = {"points": None, "sampler": "tpe", "sampler_seed": 0, "prune": False, **options}
    return Journal(path, RANGES, **{"preset": OUTSIDE, **settings})


@pytest.mark.parametrize("preset", [INSIDE, OUTSIDE])
@pytest.mark.parametrize("points", [None, [{"learning_rate": 1e-3, "epochs": e} for e in (2, 3)]])
def test_a_trial_that_was_left_is_run_again_with_the_same_options(points, preset, tmp_path):
    path = tmp_path / "journal"
    settings = {"points": points, "preset": preset}
    for number in range(3):
        first = open_journal(path, **settings).begin()
        journal = open_journal(path, **settings)
        (again,) = journal.unfinished()
        assert (again.number, again.params) == (first.number, first.params)
        assert journal.options(again) == journal.options(first)
        journal.report(again, 0.5, 0)
        journal.close()
        reopened = open_journal(path, **settings)
        (third,) = reopened.unfinished()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            reopened.report(third, 0.5, 0)
        reopened.end(third, "complete", 0.5)
        assert list(open_journal(path, **settings).unfinished()) == []
        options = reopened.rows()[number].options
        if number == 0:
            assert options == preset
        elif points is not None:
            assert options == points[number - 1]


def test_a_point_that_was_only_queued_is_taken_once(tmp_path):
    points = [{"learning_rate": 1e-3, "epochs": e} for e in (2, 3)]
    path = tmp_path / "journal"
    open_journal(path, points=points, preset=INSIDE).study.enqueue_trial(INSIDE)
    journal = open_journal(path, points=points, preset=INSIDE)
    assert journal.trials == []
    assert [journal.begin().params for _ in range(3)] == [INSIDE, *points]


def test_a_line_that_was_cut_off_is_no_damage(tmp_path, script):
    script(lambda job: 0.5)
    wanted = run(tmp_path)
    path = tmp_path / "journal.log"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code": 9, "wor')
    assert run(tmp_path).rows == wanted.rows
    assert path.read_bytes().startswith(whole + b'{"op_code":')
    assert run(tmp_path).rows == wanted.rows
    path.write_bytes(whole[:50] + b"\n" + whole[50:])
    with pytest.raises(CheckpointError, match="journal.log: damaged"):
        run(tmp_path)


# Slow enough to be killed between the beginning and the end of a trial.
SLOW = {"system": "dual-encoder", "folds": 2}
EPOCHS = {"epochs": Range(40, 44), "temperature": Range(0.1, 0.4)}
SHARED = {"search": {"epochs": Range(20, 27)}, "sampler": "grid", **SLOW}
KILLED = {
    "tpe": {"search": EPOCHS, "trials": 6, "prune": False, **SLOW},
    "grid": {"search": {"epochs": Range(40, 44)}, "sampler": "grid", "jobs": 2, **SLOW},
}


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
@pytest.mark.parametrize("kind", KILLED)
def test_a_killed_sweep_resumes_without_repeating_trials(kind, tmp_path, monkeypatch):
    train_here(monkeypatch)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, __file__, str(out), kind],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 240
    done = b'"state":1,'  # of a complete trial
    path = out / "journal.log"
    while not path.exists() or path.read_bytes().count(done) < 2:
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    before = [line for line in path.read_bytes().splitlines() if done in line]
    assert 2 <= len(before) < 6
    resumed = run(out, **KILLED[kind])
    after = [line for line in path.read_bytes().splitlines() if done in line]
    assert after[: len(before)] == before and len(after) == 6
    finished = [json.loads(line)["trial_id"] for line in after]
    assert len(set(finished)) == 6
    whole = run(tmp_path / "whole", **{**KILLED[kind], "jobs": 1})
    assert outcome(resumed.rows) == outcome(whole.rows)
    assert {row.state for row in whole.rows} == {"complete"}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_killed_between_two_parameters_gets_the_same_ones(sampler, tmp_path, monkeypatch):
    def journal(name):
        options = {"points": None, "sampler": sampler, "sampler_seed": 0, "prune": False}
        space = {"a": Range(0.0, 1.0), "b": Range(1, 1000)}
        found = Journal(tmp_path / name, space, preset={"a": 2.0, "b": 1}, **options)
        if not found.trials:
            found.end(found.begin(), "complete", 0.5)
        return found

    wanted = journal("whole").begin().params
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.trial.Trial, "suggest_int", Mock(side_effect=KeyboardInterrupt))
        journal("killed").begin()
    (trial,) = journal("killed").unfinished()
    assert trial.params == wanted and set(wanted) == {"a", "b"}


# Several processes


def test_a_trial_belongs_to_the_process_that_began_it(tmp_path):
    first, second = (open_journal(tmp_path / "journal") for _ in range(2))
    trials = [first.begin(), second.begin(), first.begin()]
    assert [trial.number for trial in trials] == [0, 1, 2]
    assert list(second.unfinished()) == []
    assert [row.state for row in second.rows()] == ["running", "unfinished", "running"]
    second.end(trials[1], "complete", 0.5)
    first.close()
    assert [row.state for row in second.rows()] == ["unfinished", "complete", "unfinished"]
    assert [trial.number for trial in second.unfinished()] == [0, 2]
    assert [path.name for path in tmp_path.glob("worker-*")] == [f"worker-{second._name}.lock"]


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_two_processes_share_a_sweep(tmp_path, monkeypatch):
    """Each trial is run once, and the outcome of a grid is that of one process."""
    train_here(monkeypatch)
    command = [sys.executable, __file__, str(tmp_path / "shared"), "shared"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    both = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    trials = open_shared(tmp_path / "shared" / "journal.log")
    assert len({trial.user_attrs["process"] for trial in trials}) == 2
    whole = run(tmp_path / "whole", **SHARED)
    again = run(tmp_path / "shared", **SHARED)  # finds nothing left to do
    assert outcome(again.rows) == outcome(whole.rows)
    for name in ("best.json", "sweep.json"):
        contents = [(tmp_path / folder / name).read_bytes() for folder in ("shared", "whole")]
        assert contents[0] == contents[1]
    assert not list((tmp_path / "shared").glob("worker-*"))


def open_shared(path):
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="sweep", storage=storage).trials


# What is refused


@pytest.mark.parametrize(
    "options",
    [
        {"search": {"epochs": Range(1, 3)}},
        {"seeds": (1,)},
        {"splits": ["7/3:1"]},
        {"fixed": {"kl_weight": 2.0}},
        {"head": "nearest"},
        {"preset": "v0"},
        {"task": "gzsl"},
        {"folds": 2},
        {"system": "cada-vae", "search": {"epochs": Range(1, 3)}},
        {"sampler_seed": 1},
    ],
)
def test_a_folder_is_for_one_sweep_only(options, tmp_path, script):
    script(lambda job: 0.5 if "task" not in options else None)
    run(tmp_path, sampler="grid", trials=1)
    with pytest.raises(ValueError, match="belongs to a different run"):
        run(tmp_path, **{"sampler": "grid", "trials": 1, **options})


@pytest.mark.parametrize(
    ("system", "options", "head"),
    [
        ("mcfa", {}, "softmax"),
        ("mcfa", {"head": "ensemble"}, "ensemble"),
        ("dual-encoder", {}, "nearest"),
        ("eszsl", {"search": {"visual_penalty": Choice((1.0,))}}, "scores"),
    ],
)
def test_the_head_judged_by_is_that_of_the_preset(system, options, head, tmp_path, script):
    script(lambda job: 0.5)
    run(tmp_path, **{"search": {"epochs": Choice((1,))}, "system": system, **options})
    assert json.loads((tmp_path / "sweep.json").read_text())["run"]["head"] == head


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": {}}, "search, seeds: expected an option and a seed"),
        ({"search": {"epoch": Range(1, 2)}}, "epoch: mcfa has no such option"),
        ({"search": {"epochs": Range(0, 2)}}, "epochs: .*greater than or equal to 1"),
        (
            {"search": {"kl_weight": Range(0.0, 1.0)}, "fixed": {"kl_weight": 1.0}},
            "kl_weight: .*searched or fixed",
        ),
        (
            {"search": {"epochs": Range(1, 2)}, "fixed": {"training.epochs": 1}},
            "epochs: .*searched or fixed",
        ),
        ({"fixed": {"epoch": 1}}, "epoch: mcfa has no such option"),
        ({"fixed": {"seed": 1}}, "seed: not to be fixed, it is given by 'seeds'"),
        ({"fixed": {"selection": "test"}, "preset": "reference"}, "looks at no test rows, got"),
        ({"fixed": {"selection": "grid"}}, "selection: expected 'none' or 'calibration'"),
        ({"preset": "fast"}, "preset: mcfa has paper, reference, .*got 'fast'"),
        ({"system": "gan"}, "system: expected one of .*got 'gan'"),
        ({"task": "any"}, "task: expected 'zsl' or 'gzsl'"),
        ({"head": "knn"}, "head: mcfa has softmax, nearest, ensemble, got 'knn'"),
        ({"sampler": "best"}, "sampler: expected one of"),
        ({"search": RANGES, "sampler": "grid"}, "grid needs"),
        ({"seeds": ()}, "search, seeds: expected"),
        ({"folds": 1}, "folds\n.*greater than or equal to 2"),
        ({"trials": 0}, "trials: expected 1 or more, got 0"),
        ({"jobs": 0}, "jobs: expected 1 or more, got 0"),
        ({"splits": []}, "splits: expected one or more"),
        ({"splits": ["9/9"]}, "no split '9/9'"),
        ({"search": {"classes_per_batch": Range(2, 5)}}, "expected at most 4.*got 5"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_without_optuna_there_is_a_hint(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "mcfa_fast.experiments.journal")
    with pytest.raises(ImportError, match=r"optuna is not installed.*'mcfa_fast\[tune\]'"):
        run(tmp_path, GRID)
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    run(Path(sys.argv[1]), **{**KILLED, "shared": SHARED}[sys.argv[2]])
