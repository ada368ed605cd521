"""Records on disk: whole or not at all, one comparison per folder, one writer per folder."""

import errno
import json
import os

import numpy as np
import pytest

from reward_design.experiments import store
from reward_design.experiments.store import Store, StoreError, differences, read

IDENTITY = {"agent": "ppo", "seeds": [0, 1, 2, 3], "tasks": ["chain"], "rewards": ["sparse"], "config": {"chain": {}}}


def filled(folder, count=3):
    with Store(folder, IDENTITY) as s:
        for i in range(count):
            s.append({"kind": "unit", "i": i, "text": "ü · \n"})
    return (folder / store.FILE).read_bytes()


def test_records_come_back_and_are_added_to(tmp_path):
    filled(tmp_path)
    with Store(tmp_path, IDENTITY) as s:
        s.append({"kind": "unit", "i": 3})
        assert [r.get("i") for r in s.records] == [None, 0, 1, 2, 3]
    assert [r.get("i") for r in read(tmp_path)] == [None, 0, 1, 2, 3]
    assert read(tmp_path)[1]["text"] == "ü · \n"


def test_a_file_cut_anywhere_loses_only_its_last_line(tmp_path):
    whole = filled(tmp_path)
    path = tmp_path / store.FILE
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = whole[:cut].count(b"\n")
        with Store(tmp_path, IDENTITY) as s:
            assert len(s.records) == max(kept, 1)  # the identity is written again where it was lost
            s.append({"kind": "unit", "i": "new"})
        lines = path.read_bytes().splitlines()
        assert [{k: v for k, v in json.loads(line).items() if k != "crc"} for line in lines] == s.records
        assert s.records[-1]["i"] == "new"


def test_reading_ignores_a_torn_line_and_changes_nothing(tmp_path):
    whole = filled(tmp_path)
    torn = whole[:-5]
    (tmp_path / store.FILE).write_bytes(torn)
    assert len(read(tmp_path)) == 3
    assert (tmp_path / store.FILE).read_bytes() == torn


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    lines = filled(tmp_path).splitlines(keepends=True)
    lines[1] = b"\x00" + lines[1]
    (tmp_path / store.FILE).write_bytes(b"".join(lines))
    with pytest.raises(StoreError, match=r"line 2 of .*records.jsonl is damaged"):
        read(tmp_path)
    with pytest.raises(StoreError, match="line 2"):
        Store(tmp_path, IDENTITY)
    with Store(tmp_path, IDENTITY, overwrite=True) as s:
        assert len(s.records) == 1


def test_another_configuration_is_refused_and_nothing_is_touched(tmp_path):
    before = filled(tmp_path)
    other = {**IDENTITY, "seeds": list(range(20)), "config": {"chain": {"gamma": 0.9}}}
    with pytest.raises(
        StoreError, match=r"seeds 0..3 there, 0..19 here; config.chain.gamma nothing there, 0.9 here"
    ) as e:
        Store(tmp_path, other)
    assert "another --out, or --overwrite" in str(e.value)
    assert "--extend" not in str(e.value)
    assert (tmp_path / store.FILE).read_bytes() == before
    with pytest.raises(StoreError, match="belongs to a different configuration"):
        Store(tmp_path, other, extend=True)
    with Store(tmp_path, other, overwrite=True) as s:
        assert [r["kind"] for r in s.records] == ["comparison"]


def test_extend_adds_tasks_and_rewards(tmp_path):
    filled(tmp_path)
    more = {
        **IDENTITY,
        "tasks": ["chain", "cliff"],
        "rewards": ["sparse", "dense"],
        "config": {"chain": {}, "cliff": {}},
    }
    with pytest.raises(StoreError, match="--extend to add to it"):
        Store(tmp_path, more)
    with Store(tmp_path, more, extend=True) as s:
        assert s.records[-1]["identity"]["tasks"] == ["chain", "cliff"]
    with Store(tmp_path, more) as s:
        assert [r["kind"] for r in s.records].count("comparison") == 2
    with pytest.raises(StoreError, match="tasks"):
        Store(tmp_path, {**more, "tasks": ["cliff"]}, extend=True)


def test_two_writers_cannot_share_a_folder(tmp_path):
    with Store(tmp_path, IDENTITY), pytest.raises(StoreError, match="another process is writing"):
        Store(tmp_path, IDENTITY)
    Store(tmp_path, IDENTITY).__exit__()


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    write, calls = os.write, []

    def full(file, data):
        calls.append(len(data))
        if len(calls) == 1:
            return write(file, data[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store(tmp_path, IDENTITY) as s:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(StoreError, match=r"No space left.*make room there and run the same command again"):
            s.append({"kind": "unit", "long": "x" * 100})
        monkeypatch.undo()
        assert len(s.records) == 1
        s.append({"kind": "unit", "i": 1})
    assert [r.get("i") for r in read(tmp_path)] == [None, 1]


def test_numbers_are_plain_json(tmp_path):
    with Store(tmp_path, IDENTITY) as s:
        s.append(
            {"kind": "unit", "a": np.array([1 / 3, np.nan]), "b": float("inf"), "c": np.int64(3), "d": (1, True, None)}
        )
    assert read(tmp_path)[1] == {"kind": "unit", "a": [0.333333, None], "b": None, "c": 3, "d": [1, True, None]}


def test_folders_that_cannot_be_used(tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(StoreError, match="must be a folder"):
        Store(file, IDENTITY)
    with pytest.raises(StoreError, match=r"no records.jsonl in"):
        read(tmp_path)
    (tmp_path / store.FILE).write_bytes(b'{"kind"')
    with pytest.raises(StoreError, match="no records yet"):
        read(tmp_path)


def test_differences_are_named_by_path():
    assert differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}) == {"a.c": (2, 3), "a.d": (None, 4)}
    assert differences(IDENTITY, IDENTITY) == {}
