"""What dies, fills up, breaks or jumps in a real run: the next start goes on, and the numbers are the same."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from reward_design import cli
from reward_design.experiments import compare, room, single
from reward_design.experiments.migration import migrate
from reward_design.experiments.records import FILE, FORMAT, encoded, lines
from reward_design.experiments.results import Results
from reward_design.experiments.store import DAMAGED, Store, StoreError, read
from reward_design.experiments.suites import compare_suite, load_suite
from tests.fault_blows import BLOWS, DAMAGE, Scene, damage, killed, read_only, worker_killed
from tests.fault_tools import Disk, Judgement, Program, judge, results, whole_lines, workers

WORDS = (
    *("compare", "--task", "chain", "--rewards", "sparse", "count_bonus", "--agent", "q_learning", "--seeds", "2"),
    *("--total-timesteps", "2000", "--quiet"),
)
ARGS = {"agent": "q_learning", "seeds": 2, "total_timesteps": 2000, "progress": False, "report": False}
LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the process table of Linux")


class Undisturbed(NamedTuple):
    """A run to compare with; what it compiled is kept for other runs of its programs."""

    here: Program
    apart: Program
    out: Path
    results: list[tuple[str, str]]
    seconds: float

    def scene(self, out, program=None, rng=None):
        return Scene(program or self.here, out, rng or random.Random(0), self.seconds)

    def goes_on(self, out, before=()):
        """The same command ends well, with every number of the undisturbed run, nothing lost and nothing twice."""
        status, _, errors = self.here.finish(out)
        assert status == 0, errors
        assert judge(out, self.results, before) == Judgement(equal=True, lost=0, doubled=0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    cache, out = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("undisturbed")
    here, apart = Program(WORDS).cached(cache), Program((*WORDS, "--executor", "processes")).cached(cache)
    begun = time.monotonic()
    status, _, errors = here.finish(out)
    assert status == 0, errors
    return Undisturbed(here, apart, out, results(out), time.monotonic() - begun)


def test_the_judge_sees_what_is_lost_doubled_or_different(undisturbed, tmp_path):
    out, expected = undisturbed.out, undisturbed.results
    assert len(expected) == 4  # the comparison, what is exact, two units
    assert judge(out, expected, [whole_lines(out)]).equal
    data = (out / FILE).read_bytes()
    *most, last = data.splitlines(keepends=True)
    (tmp_path / FILE).write_bytes(b"".join(most))
    assert judge(tmp_path, expected).lost == 1
    assert judge(tmp_path, results(tmp_path), [whole_lines(out)]).lost == 1
    (tmp_path / FILE).write_bytes(data + last)
    assert judge(tmp_path, expected).doubled == 1
    record = json.loads(last)
    record["episodes"][0] += 1
    (tmp_path / FILE).write_bytes(b"".join([*most, encoded({k: v for k, v in record.items() if k != "crc"})]))
    judged = judge(tmp_path, expected)
    assert (judged.equal, judged.lost, judged.doubled) == (False, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(undisturbed, tmp_path, seed):
    rng, tries = random.Random(seed), iter(range(20))
    before = []
    while not before:
        out = tmp_path / f"r{next(tries)}"  # a run that ended before its moment came is of no use
        while len(before) < 3 and killed(undisturbed.scene(out, rng=rng)):
            before.append(whole_lines(out))
    undisturbed.goes_on(out, before)


@LINUX
@pytest.mark.slow
def test_killed_workers_change_nothing(undisturbed, tmp_path):
    rows = worker_killed(undisturbed.scene(tmp_path / "r", undisturbed.apart))
    assert rows
    undisturbed.goes_on(tmp_path / "r", [whole_lines(tmp_path / "r")])


@LINUX
@pytest.mark.slow
def test_ctrl_c_ends_the_workers_as_well(undisturbed, tmp_path):
    process = undisturbed.apart.start(tmp_path / "r")
    deadline = time.monotonic() + 300
    while not (found := workers(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert errors.strip().startswith("Interrupted. What is finished is kept in")
    # One that was just being started ends by itself, when it finds that nobody is there.
    while [pid for pid in found if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    undisturbed.goes_on(tmp_path / "r")


def test_a_full_disk_ends_a_run_in_a_sentence_and_loses_nothing(undisturbed, tmp_path):
    sizes = [line.end for line in lines((undisturbed.out / FILE).read_bytes())]
    full = replace(
        undisturbed.here, prelude=f"limit_files({(sizes[-1] + sizes[-2]) // 2})"
    )  # in the middle of the last record
    status, _, errors = full.finish(tmp_path / "r")
    assert status == 2
    assert "a record could not be written to" in errors
    assert "(File too large); what was finished before is kept: make room there" in errors
    assert "Traceback" not in errors
    before = whole_lines(tmp_path / "r")
    assert before.total() == len(sizes) - 1
    undisturbed.goes_on(tmp_path / "r", [before])


def test_a_disk_too_full_for_the_report_keeps_the_records(undisturbed, tmp_path):
    shutil.copytree(undisturbed.out, tmp_path / "r")
    old = (tmp_path / "r" / "report.html").read_text()
    status, _, errors = replace(undisturbed.here, prelude="limit_files(20_000)").finish(tmp_path / "r")
    assert status == 2
    assert "report.html could not be written (File too large), the records are kept" in errors
    assert (tmp_path / "r" / "report.html").read_text() == old
    assert judge(tmp_path / "r", undisturbed.results, [whole_lines(undisturbed.out)]).equal


@pytest.mark.slow
def test_a_disk_too_full_for_a_checkpoint_ends_training_in_a_sentence(tmp_path):
    words = ("train", "--task", "chain", "--agent", "q_learning", "--total-timesteps", "2000", "--evaluations", "2")
    program = Program(words)
    status, _, errors = replace(program, prelude="limit_files(2_000)").finish(tmp_path / "r")
    assert status == 2
    (said,) = [line for line in errors.splitlines() if "could not be written (" in line]  # orbax may log behind it
    assert said.endswith("make room there if the disk is full, and run the same command again.")
    assert program.finish(tmp_path / "r")[0] == program.finish(tmp_path / "whole")[0] == 0
    assert judge(tmp_path / "r", results(tmp_path / "whole")) == Judgement(equal=True, lost=0, doubled=0)


@pytest.fixture
def disk(tmp_path):
    """A small file system that can really be full."""
    (tmp_path / "disk").mkdir()
    try:
        small = Disk(tmp_path / "disk", "8m")
    except OSError as error:
        pytest.skip(str(error))
    with small:
        yield small


def on_small(program, disk):
    return replace(program, launcher=disk.launcher, environment={**program.environment, room.RESERVE: "0"})


def filled_up(program, disk, mark, leaving=0):
    """Run it on a disk that gets full once its records have a mark: exit status, and its sentences about files."""
    process, deadline = on_small(program, disk).start(disk.folder / "r"), time.monotonic() + 300
    records = disk.seen / "r" / FILE
    while not (records.is_file() and mark in records.read_bytes()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.003)
    disk.fill_up(leaving)
    while process.poll() is None:
        assert time.monotonic() < deadline
        if not leaving:  # also what it gives back itself, as by a new version of a file in place of an old one
            disk.fill_up()
        time.sleep(0.01)
    errors = process.communicate()[1]
    assert "Traceback" not in errors
    return process.returncode, [line for line in errors.splitlines() if "could not be written" in line]


def goes_on_there(program, disk, before, expected, out):
    """With room again the same command ends as if nothing had been."""
    disk.make_room()
    status, _, errors = on_small(program, disk).finish(disk.folder / "r")
    assert status == 0, errors
    shutil.copytree(disk.seen / "r", out)
    assert judge(out, expected, [before]) == Judgement(equal=True, lost=0, doubled=0)


def test_a_file_system_that_fills_up_ends_a_comparison_in_a_sentence(undisturbed, disk, tmp_path):
    status, (sentence,) = filled_up(undisturbed.here, disk, b'"kind":"exact"')
    assert status == 2
    assert "(No space left on device); what was finished before is kept: make room there and run the same" in sentence
    assert str(disk.folder / "r") in sentence
    before = whole_lines(disk.seen / "r")
    assert 0 < before.total() < whole_lines(undisturbed.out).total()
    goes_on_there(undisturbed.here, disk, before, undisturbed.results, tmp_path / "r")


@pytest.mark.slow
def test_a_file_system_that_fills_up_ends_training_in_a_sentence(disk, tmp_path):
    words = ("train", "--task", "chain", "--agent", "q_learning", "--total-timesteps", "20000", "--evaluations", "10")
    program = Program(words).cached(tmp_path / "cache")
    assert program.finish(tmp_path / "whole")[0] == 0
    status, (sentence,) = filled_up(program, disk, b'"kind":"session"', leaving=330_000)  # for one checkpoint or two
    assert status == 2
    assert re.search(
        r"could not be written \(it may take 20\d kB, \d+ kB are free\); earlier ones are kept: ", sentence
    )
    assert sentence.endswith("make room there if the disk is full, and run the same command again.")
    before, kept = whole_lines(disk.seen / "r"), [path.name for path in (disk.seen / "r" / "checkpoints").iterdir()]
    assert kept
    assert all(name.isdigit() for name in kept)  # no half of one
    goes_on_there(program, disk, before, results(tmp_path / "whole"), tmp_path / "r")


def test_a_read_only_folder_is_named_before_anything_runs(undisturbed, tmp_path):
    shutil.copytree(undisturbed.out, tmp_path / "r")
    data = (tmp_path / "r" / FILE).read_bytes()
    (tmp_path / "r" / FILE).write_bytes(data[: data.rindex(b"\n", 0, -1) + 1])
    (row,) = read_only(undisturbed.scene(tmp_path / "r", rng=_Early()))
    assert row["status"] == 2
    assert "(Permission denied); choose another --out, or make it one that you may write to" in row["said"]
    undisturbed.goes_on(tmp_path / "r")


class _Early(random.Random):
    """Chooses a time, and that at once."""

    def random(self):
        return 0.0


def test_a_second_process_on_the_same_folder_is_refused(undisturbed, tmp_path):
    process = undisturbed.here.start(tmp_path)
    deadline = time.monotonic() + 300
    while not ((tmp_path / FILE).is_file() and b'"kind":"session"' in (tmp_path / FILE).read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert process.poll() is None
    with pytest.raises(StoreError, match=r"another process is writing to .*; wait for it to end"):
        Store(tmp_path, {})
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert judge(tmp_path, undisturbed.results) == Judgement(equal=True, lost=0, doubled=0)


def test_a_clock_that_jumps_by_years_changes_no_number(undisturbed, tmp_path):
    status, _, errors = replace(undisturbed.here, prelude="jump_clock(0)").finish(tmp_path / "r")
    assert status == 0, errors
    times = [record["time"] for record in read(tmp_path / "r") if "time" in record]
    assert times != sorted(times) or len({t[:4] for t in times}) > 1  # it did jump
    units = Results.load(tmp_path / "r").done.values()
    assert all(0 <= unit.record["compile_s"] <= unit.record["wall_s"] < 1000 for unit in units)
    for path in (tmp_path / "r").iterdir():
        os.utime(path, (4e9, 4e9))
    undisturbed.goes_on(tmp_path / "r", [whole_lines(tmp_path / "r")])


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_last_record_is_set_aside(undisturbed, tmp_path, how, seed):
    data = (undisturbed.out / FILE).read_bytes()
    broken = damage(data, how, random.Random(seed))
    assert broken != data
    (tmp_path / FILE).write_bytes(broken)
    known = read(undisturbed.out)
    with Store(tmp_path, known[0]["identity"]) as store:
        assert store.records == known[:-1]
        store.append(known[-1])
    assert read(tmp_path) == known
    kept = whole_lines(undisturbed.out) - whole_lines(tmp_path)
    assert not kept
    aside = (tmp_path / DAMAGED).read_bytes() if (tmp_path / DAMAGED).exists() else b""
    assert aside == b"" or broken.endswith(aside)
    assert bool(aside) >= (how in ("line of noise", "digit"))


def test_a_unit_whose_record_was_damaged_is_computed_again(undisturbed, tmp_path):
    data = (undisturbed.out / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(damage(data, "digit", random.Random(0)))
    with pytest.raises(StoreError, match=r"line 5 of .* is damaged; run the command that wrote it again"):
        read(tmp_path)
    undisturbed.goes_on(tmp_path)


# --- formats ----------------------------------------------------------------------------------------------------------


def in_format_1(folder, out):
    """The records of a folder as the format 1 had them: lines of JSON, without checksums."""
    out.mkdir(parents=True)
    old = [r | {"format": 1} if r["kind"] == "comparison" else r for r in read(folder)]
    text = "".join(json.dumps(r, allow_nan=False, separators=(",", ":")) + "\n" for r in old)
    (out / FILE).write_text(text)
    return text


def test_records_of_an_older_format_are_read_and_migrated_before_they_grow(undisturbed, tmp_path, capsys):
    text = in_format_1(undisturbed.out, tmp_path / "suite" / "block" / "chain")
    folder = tmp_path / "suite" / "block" / "chain"
    assert Results.load(folder).done.keys() == Results.load(undisturbed.out).done.keys()
    with pytest.raises(StoreError, match=rf"format 1, .* writes {FORMAT}: run `reward-design migrate .*chain` once"):
        compare("chain", ["sparse", "count_bonus"], out=folder, **ARGS)
    assert (folder / FILE).read_text() == text
    assert cli.main(["migrate", str(tmp_path / "suite")]) == 0
    assert capsys.readouterr().out == f"migrated {folder / FILE}\n"
    assert (folder / "records.format1.jsonl").read_text() == text
    assert read(folder) == read(undisturbed.out)
    assert cli.main(["migrate", str(tmp_path / "suite")]) == 0
    assert "have the format of this version" in capsys.readouterr().out
    undisturbed.goes_on(folder, [whole_lines(undisturbed.out)])


def test_a_migration_that_does_not_fit_on_the_disk_changes_nothing(undisturbed, tmp_path):
    text = in_format_1(undisturbed.out, tmp_path / "chain")
    command = f"ulimit -f 1; exec {sys.executable} -m reward_design migrate {tmp_path}"  # at most 1 KB per file
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert f"{tmp_path / 'chain' / FILE} could not be migrated (File too large) and is as it was" in done.stderr
    assert [path.name for path in (tmp_path / "chain").iterdir()] == [FILE]
    assert (tmp_path / "chain" / FILE).read_text() == text
    assert migrate(tmp_path) == [tmp_path / "chain" / FILE]


def test_what_cannot_be_migrated_is_named(tmp_path, capsys):
    assert cli.main(["migrate", str(tmp_path)]) == 2
    assert f"no {FILE} in {tmp_path} or below it" in capsys.readouterr().err
    newer = {"kind": "comparison", "format": FORMAT + 1, "identity": {}}
    (tmp_path / FILE).write_bytes(encoded(newer))
    for attempt in (lambda: read(tmp_path), lambda: Store(tmp_path, {}), lambda: migrate(tmp_path)):
        with pytest.raises(StoreError, match=rf"has the format {FORMAT + 1}, .* install a newer version"):
            attempt()
    assert (tmp_path / FILE).read_bytes() == encoded(newer)
    (tmp_path / FILE).write_text('{"kind":"comparison","format":1,"identity":{}}\n{"kind":"unit"\n')
    with pytest.raises(StoreError, match=r"line 2 of .* is damaged"):
        migrate(tmp_path)
    (tmp_path / FILE).write_text('{"kind":"comparison","format":1,"identity":{}}\n{"kind":"unit"')
    assert migrate(tmp_path) == [tmp_path / FILE]
    assert [record["kind"] for record in read(tmp_path)] == ["comparison"]


def test_a_folder_that_another_process_writes_is_not_migrated(tmp_path):
    with Store(tmp_path, {}), pytest.raises(StoreError, match="another process is writing"):
        migrate(tmp_path)


# --- room -------------------------------------------------------------------------------------------------------------


def test_an_estimate_of_room_is_above_what_a_run_takes(undisturbed):
    used = sum(path.stat().st_size for path in undisturbed.out.iterdir())
    assert used < room.of_units(num_units=2, num_seeds=2, num_points=31) < 20 * used
    wide = [len(encoded({"kind": "unit", "curves": [[-1.23456e-100] * 200] * 10 * 4}))]
    assert wide[0] < room.of_units(num_units=1, num_seeds=10, num_points=200)


def test_what_does_not_fit_is_refused_before_it_runs(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path).free
    monkeypatch.setenv(room.RESERVE, str(free / 1e6 + 1000))
    with pytest.raises(StoreError, match=r"1 units of 2 seeds may take 2\d\d kB in .* are free and .* must stay free"):
        compare("chain", "sparse", out=tmp_path / "r", **ARGS)
    assert not Results.load(tmp_path / "r").units
    suite = load_suite("core", "smoke")
    with pytest.raises(StoreError, match=rf"{suite.num_runs} runs of core may take .* choose --out on another disk"):
        compare_suite(suite, out=tmp_path / "s", progress=False)
    assert not (tmp_path / "s").exists()
    with pytest.raises(StoreError, match=r"checkpoints of this run may take 6\d\d kB in"):
        single.train("chain", agent="q_learning", out=str(tmp_path / "t"))
    assert not (tmp_path / "t" / "checkpoints").exists()
    monkeypatch.setenv(room.RESERVE, "much")
    with pytest.raises(ValueError, match=r"REWARD_DESIGN_DISK_RESERVE must be a number of megabytes, got 'much'"):
        room.check(tmp_path, 0, "nothing")
    monkeypatch.setenv(room.RESERVE, "0")
    room.check(tmp_path, 1000, "little")
    with pytest.raises(StoreError, match=r"a suite may take 42.1 TB in"):
        room.check(tmp_path / "not" / "there", room.of_units(10**6, 1000, 200), "a suite")


def test_every_kind_of_blow_has_a_program():
    from benchmarks.fault_drill import PROGRAMS

    assert {name for name, _ in BLOWS.values()} == {*PROGRAMS}
