"""The job runner: what it records, and what it survives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mcfa_fast.experiments import JobLog, JobResult, run_jobs
from mcfa_fast.experiments.jobs import WORKER_DIED, _safe_path, in_workers
from mcfa_fast.storage import CheckpointError


def square(job):
    """The work of most tests; some jobs are trouble."""
    number = job["number"]
    if job.get("trouble") == "raise":
        raise ValueError(f"number {number} is no good")
    if job.get("trouble") == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.get("trouble") == "nan":
        return [{"square": float("nan")}]
    if job.get("trouble") == "array":
        return [{"square": np.zeros(2)}]
    if job.get("trouble") == "slow":
        time.sleep(600)
    return [{"square": number**2, "threads": torch.get_num_threads(), "worker": os.getpid()}]


def jobs(*numbers, **options):
    return [{"number": number, **options} for number in numbers]


def test_every_job_is_done_once_and_recorded(tmp_path):
    log = JobLog(tmp_path / "new" / "jobs.jsonl")
    told = []
    run_jobs(jobs(1, 2, 3, 4), square, log, workers=2, on_result=told.append)
    assert sorted(r.job["number"] for r in told) == [1, 2, 3, 4]
    again = JobLog(tmp_path / "new" / "jobs.jsonl")
    assert again.results == log.results
    for result in again.results:
        assert result.error is None and result.seconds >= 0
        assert result.rows[0]["square"] == result.job["number"] ** 2
        assert result.rows[0]["threads"] == 1
    found = {result.rows[0]["worker"] for result in again.results}
    assert len(found) <= 2 and os.getpid() not in found


def test_a_job_is_asked_for_when_the_results_before_it_are_known():
    seen = []

    def source():
        while len(seen) < 3:
            number = seen[-1].result[0]["square"] if seen else 2
            trouble = "raise" if len(seen) == 2 else None
            yield {"number": number, "trouble": trouble}

    for result in in_workers(source(), square):
        seen.append(result)
    assert [result.job["number"] for result in seen] == [2, 4, 16]
    assert [result.error is None for result in seen] == [True, True, False]
    assert seen[2].result is None and "number 16 is no good" in seen[2].error


def test_a_dead_worker_is_told_apart():
    (result,) = in_workers(jobs(1, trouble="die"), square)
    assert (result.result, result.error) == (None, WORKER_DIED)


def test_finished_jobs_are_skipped_and_failed_ones_tried_again(tmp_path):
    log = JobLog(tmp_path / "jobs")
    log.append(JobResult({"number": 1}, [{"square": -1}], None, 0.5))
    log.append(JobResult({"number": 2}, [], "some error", 0.5))
    told = []
    run_jobs(jobs(1, 2), square, JobLog(tmp_path / "jobs"), on_result=told.append)
    assert [result.job["number"] for result in told] == [2]
    results = JobLog(tmp_path / "jobs").results
    assert [r.rows[0]["square"] for r in results] == [-1, 4]
    assert all(r.error is None for r in results)


def test_results_are_kept_with_what_they_depend_on(tmp_path):
    path = tmp_path / "jobs"
    options = {1: {"grid": (1, 2), "rate": 0.1}, 2: {"grid": (3,)}}
    log = JobLog(path, lambda job: {"options": options[job["number"]], "version": "a"})
    run_jobs(jobs(1, 2), square, log)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert {line["job"]["number"]: line["identity"] for line in lines} == {
        1: {"options": {"grid": [1, 2], "rate": 0.1}, "version": "a"},
        2: {"options": {"grid": [3]}, "version": "a"},
    }
    again = JobLog(path, log.identity)
    assert again.results == log.results and all(map(again.finished, jobs(1, 2)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 8, "seed": 1}, "epochs was 5 and is 8"),
        ({"epochs": 5}, "seed was 1 and is None"),
        ({"epochs": 5, "seed": 1, "new": True}, "new was None and is True"),
        ({"epochs": 8, "seed": 2}, "epochs was 5 and is 8; seed was 1 and is 2"),
    ],
)
def test_results_out_of_date_are_refused(changed, message, tmp_path):
    path = tmp_path / "jobs"
    identity = {"options": {"epochs": 5, "seed": 1}}
    log = JobLog(path)
    for job in jobs(1, 2):
        log.append(JobResult(job, [], None, 0.5, identity))
    before = path.read_bytes()

    def now(job):
        return {"options": changed} if job["number"] == 2 else identity

    message = "; options.".join(message.split("; "))
    with pytest.raises(ValueError, match=rf"1 of 2 .* first: 2 \(options\.{message}\)\. Choose"):
        JobLog(path, now)
    assert path.read_bytes() == before


def test_failed_jobs_are_run_again_whatever_they_depended_on(tmp_path):
    path = tmp_path / "jobs"
    JobLog(path).append(JobResult({"number": 3}, [], "some error", 0.5, {"epochs": 1}))
    run_jobs(jobs(3), square, JobLog(path, lambda job: {"epochs": 2}))
    (result,) = JobLog(path, lambda job: {"epochs": 2}).results
    assert result.error is None and result.identity == {"epochs": 2}


def test_trouble_of_one_job_leaves_the_others(tmp_path):
    log = JobLog(tmp_path / "jobs")
    kinds = {1: "raise", 2: "die", 3: "nan", 4: "array", 5: None, 6: "die", 7: None}
    planned = [{"number": number, "trouble": kind} for number, kind in kinds.items()]
    run_jobs(planned, square, log, workers=2)
    errors = {result.job["number"]: result.error for result in log.results}
    assert set(errors) == set(kinds)
    assert "number 1 is no good" in errors[1] and "Traceback" in errors[1]
    assert "worker process died" in errors[2] and "worker process died" in errors[6]
    assert "not JSON compliant" in errors[3] and "not JSON serializable" in errors[4]
    assert errors[5] is None and errors[7] is None
    assert [r.rows[0]["square"] for r in log.results if r.error is None] in ([25, 49], [49, 25])


def test_a_line_cut_off_by_a_crash_counts_as_not_run(tmp_path):
    path = tmp_path / "jobs"
    log = JobLog(path)
    for number in (1, 2):
        log.append(JobResult({"number": number}, [{"square": number}], None, 0.5))
    whole = path.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:length])
        cut = JobLog(path)
        assert [r.job["number"] for r in cut.results] == [1]
        assert not cut.finished({"number": 2})
        cut.append(JobResult({"number": 2}, [{"square": 2}], None, 0.5))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("line", [b"nonsense", b'{"job": 1}', b"[]", b'"text"', b'\xff"'])
def test_a_damaged_line_is_named(line, tmp_path):
    path = tmp_path / "jobs"
    JobLog(path).append(JobResult({"number": 1}, [], None, 0.5))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(CheckpointError, match="line 2: damaged"):
        JobLog(path)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH")
def test_workers_run_no_code_of_the_current_folder(tmp_path):
    """Modules of the standard library that a new interpreter imports, some of them at once."""
    for name in ("random", "pickle", "struct", "signal", "socket", "tempfile", "selectors"):
        (tmp_path / f"{name}.py").write_text(f"open({name!r} + '.ran', 'w').close()\n")
    path = tmp_path / "jobs"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, __file__, str(path), "quick"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [result.error for result in JobLog(path).results] == [None, None]
    assert list(tmp_path.glob("*.ran")) == []


@pytest.mark.parametrize("before", [None, "", "1"])
def test_the_environment_is_as_it_was(before, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    with _safe_path():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert os.environ.get("PYTHONSAFEPATH") == before


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child of another process may be dead without having been waited for.
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_a_killed_run_leaves_no_workers_and_resumes(tmp_path):
    path = tmp_path / "jobs"
    process = subprocess.Popen(
        [sys.executable, __file__, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < 2:
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.kill()
    process.wait()
    worker = json.loads(path.read_bytes().splitlines()[0])["rows"][0]["worker"]
    while alive(worker):
        assert time.monotonic() < deadline, "the worker lives on"
        time.sleep(0.05)
    told = []
    run_jobs(jobs(1, 2, 3), square, JobLog(path), on_result=told.append)
    assert [result.job["number"] for result in told] == [3]


def test_a_job_is_run_by_the_process_that_claims_it(tmp_path):
    ours, theirs = (JobLog(tmp_path / "jobs") for _ in range(2))
    first, second = jobs(1, 2)
    assert ours.claim(first) and theirs.claim(second)
    assert not theirs.claim(first) and not ours.claim(second)
    ours.append(JobResult(first, [], "some error", 0.5))
    assert not theirs.claim(first)  # it has just failed
    assert theirs.claim(first)  # a new try
    theirs.append(JobResult(second, [{"square": 4}], None, 0.5))
    theirs.append(JobResult(first, [{"square": 1}], None, 0.5))
    ours.refresh()
    assert ours.results == theirs.results and all(map(ours.finished, jobs(1, 2)))
    assert [path.name for path in tmp_path.glob("*-*")] == []


def test_two_processes_share_the_jobs(tmp_path):
    command = [sys.executable, __file__, str(tmp_path / "jobs"), "quick"]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=240) for process in both] == [0, 0]
    lines = [json.loads(line) for line in (tmp_path / "jobs").read_bytes().splitlines()]
    assert sorted(line["job"]["number"] for line in lines) == [1, 2]
    assert all(line["error"] is None for line in lines)


if __name__ == "__main__":
    slow = [] if sys.argv[2:] == ["quick"] else jobs(3, trouble="slow")
    planned = [*jobs(1, 2), *slow]
    run_jobs(planned, square, JobLog(Path(sys.argv[1])))
