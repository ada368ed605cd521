"""Results as rows, files and data frames, and folders of several machines put together."""

import csv

import numpy as np
import pytest

from reward_design.cli import main
from reward_design.experiments import Results, export, frame, merge, rows
from reward_design.experiments.store import Store, StoreError


def unit(reward, seeds, **changes):
    """A record of seeds whose numbers are the seed, in tens per point of the curve."""
    curve = [[10.0 * seed + point for point in range(3)] for seed in seeds]
    record = {
        "kind": "unit", "status": "done", "task": "chain", "reward": reward, "agent": "ppo", "seeds": list(seeds),
        "config": {"gamma": 0.9}, "fingerprint": reward, "commit": "abc", "device": "1 x cpu", "time": "now",
        "steps": [8, 16, 24], "curves": {"true_return": curve, "success": [[None, 0.0, 1.0] for _ in seeds]},
        "final": {"true_return": [float(seed) for seed in seeds], "length": [None for _ in seeds]},
        "losses": {"loss": [float(np.mean(seeds)), None, 0.0]}, "episodes": [seed + 1 for seed in seeds],
        "wall_s": 1.0, "compile_s": 0.5, "env_steps": 24 * len(seeds), "steps_per_s": 24.0,
    }  # fmt: skip
    return record | changes


def folder(path, *records, agent="ppo", gamma=0.9, seeds=(0, 1)):
    identity = {
        "agent": agent, "seeds": list(seeds), "tasks": ["chain"],
        "rewards": list(dict.fromkeys(r["reward"] for r in records)), "config": {"chain": {"gamma": gamma}},
    }  # fmt: skip
    with Store(path, identity) as store:
        store.append({"kind": "session", "command": str(path)})
        for record in records:
            store.append(record)
    return path


def test_rows_are_the_records_by_seed(tmp_path):
    results = Results.load(folder(tmp_path, unit("sparse", [0, 1]), unit("dense", [0, 1], status="failed")))
    finals = rows(results)
    assert [(r["reward"], r["seed"], r["true_return"], r["agent"]) for r in finals] == [
        ("sparse", 0, 0.0, "ppo"),
        ("sparse", 1, 1.0, "ppo"),
    ]
    assert np.isnan(finals[0]["length"])
    points = rows(results, curves=True)
    assert [(p["seed"], p["steps"], p["true_return"]) for p in points[2:4]] == [(0, 24, 2.0), (1, 8, 10.0)]
    assert np.isnan(points[0]["success"])
    assert points[2]["success"] == 1.0


@pytest.mark.parametrize("curves", [False, True])
def test_files_hold_the_rows(tmp_path, curves):
    pandas = pytest.importorskip("pandas")
    results = Results.load(folder(tmp_path, unit("sparse", [0, 1])))
    expected = frame(results, curves=curves)
    with export(results, tmp_path / "new" / "r.csv", curves=curves).open(newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == [str(seed) for seed in expected["seed"]]
    read = pandas.read_csv(tmp_path / "new" / "r.csv")
    np.testing.assert_array_equal(read["true_return"], expected["true_return"])
    pytest.importorskip("pyarrow")
    path = export(results, tmp_path / "r.parquet", curves=curves)
    pandas.testing.assert_frame_equal(pandas.read_parquet(path), expected)


def test_several_comparisons_are_one_table_with_their_names(tmp_path, capsys):
    pandas = pytest.importorskip("pandas")
    one, two = (
        unit("sparse", [0, 1]),
        unit("dense", [0, 1], curves={"length": [[1.0] * 3] * 2}, final={"length": [4, 5]}),
    )
    folder(tmp_path / "s" / "quick" / "chain", one)
    folder(tmp_path / "s" / "deep" / "minihack-Room", two)
    assert main(["export", str(tmp_path / "s"), "--to", str(tmp_path / "s.csv")]) == 0
    table = pandas.read_csv(tmp_path / "s.csv")
    assert table["comparison"].tolist() == ["deep/minihack-Room"] * 2 + ["quick/chain"] * 2
    assert table["length"].tolist()[:2] == [4, 5]
    assert table["true_return"].isna().tolist() == [True, True, False, False]
    known = {name: Results.load(tmp_path / "s" / name) for name in ("deep/minihack-Room", "quick/chain")}
    assert rows(known)[0] == {"comparison": "deep/minihack-Room", **rows(known["deep/minihack-Room"])[0]}
    assert len(frame(known, curves=True)) == 12
    capsys.readouterr()
    assert main(["report", str(tmp_path / "s")]) == 2
    assert "in 2 folders below it, as a suite has them: name one of those" in capsys.readouterr().err


def test_files_of_another_kind_and_empty_results_are_refused(tmp_path):
    results = Results.load(folder(tmp_path, unit("sparse", [0], status="failed")))
    with pytest.raises(ValueError, match=r"ends in .csv or .parquet, got 'r.xlsx'"):
        export(results, tmp_path / "r.xlsx")
    with pytest.raises(ValueError, match="no unit of this comparison has finished"):
        export(results, tmp_path / "r.csv")


def test_other_designs_and_other_seeds_are_put_together(tmp_path):
    a = folder(tmp_path / "a", unit("sparse", [0, 2]), unit("dense", [0, 2]), seeds=(0, 2))
    b = folder(tmp_path / "b", unit("dense", [1]), unit("sparse", [1]), seeds=(1,))
    c = folder(tmp_path / "c", unit("shaping", [0, 1, 2]), seeds=(0, 1, 2))
    merged = merge([a, b, c], tmp_path / "out")
    assert isinstance(merged, Results)
    assert merged.identity["seeds"] == [0, 1, 2]
    assert merged.rewards == ("sparse", "dense", "shaping")
    for name in ("sparse", "dense", "shaping"):
        done = merged.done["chain", name]
        np.testing.assert_array_equal(done.final(), [0, 1, 2])
        np.testing.assert_array_equal(done.curve()[1][:, 1], [1, 11, 21])
        assert done.record["episodes"] == [1, 2, 3]
        assert done.record["env_steps"] == 72
        np.testing.assert_allclose(done.record["losses"]["loss"][0], 1.0)  # the mean over all three seeds
    assert len(Results.load(a).records) == 4  # untouched


def test_a_unit_that_two_folders_have_counts_once(tmp_path):
    a, b = (folder(tmp_path / name, unit("sparse", [0, 1])) for name in "ab")
    merged = merge([a, b], tmp_path / "out")
    assert isinstance(merged, Results)
    assert [r["kind"] for r in merged.records] == ["comparison", "session", "unit"]


@pytest.mark.parametrize(
    ("other", "settings", "message"),
    [
        (unit("sparse", [0, 1], fingerprint="x"), {}, "sparse on chain in .*b was computed by another program"),
        (unit("sparse", [1, 2]), {"seeds": (1, 2)}, r"has the seeds \[1, 2\], another folder \[0, 1\]"),
        (unit("dense", [0]), {"seeds": (0,)}, r"dense on chain has the seeds \[0\], other units \[0, 1\]"),
        (unit("dense", [0, 1]), {"agent": "dqn"}, "was trained by ppo, .*b by dqn"),
        (unit("dense", [0, 1]), {"gamma": 0.5}, "the settings of chain in .*b are not those in"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, other, settings, message):
    a = folder(tmp_path / "a", unit("sparse", [0, 1]))
    b = folder(tmp_path / "b", other, **settings)
    with pytest.raises(StoreError, match=message):
        merge([a, b], tmp_path / "out")


def test_a_folder_with_records_is_not_merged_into(tmp_path):
    a = folder(tmp_path / "a", unit("sparse", [0, 1]))
    with pytest.raises(StoreError, match="has records already"):
        merge([a], folder(tmp_path / "b", unit("sparse", [0, 1])))
    with pytest.raises(ValueError, match="at least one folder"):
        merge([], tmp_path / "out")


def bytes_of(top):
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*.jsonl")}


def suites_of_two_machines(tmp_path, **changes):
    a, b = tmp_path / "a", tmp_path / "b"
    folder(a / "one" / "chain", unit("sparse", [0, 1]))
    folder(b / "one" / "chain", unit("sparse", [0, 1], **changes), unit("dense", [0, 1]))
    folder(b / "two" / "minihack-Room", unit("shaping", [0, 1]))
    return a, b


def test_suites_are_put_together_comparison_by_comparison(tmp_path):
    a, b = suites_of_two_machines(tmp_path)
    before = bytes_of(a), bytes_of(b)
    merged = merge([a, b], tmp_path / "out")
    assert {name: list(found.done) for name, found in merged.items()} == {
        "one/chain": [("chain", "sparse"), ("chain", "dense")],
        "two/minihack-Room": [("chain", "shaping")],
    }
    for name, found in merged.items():
        assert Results.load(tmp_path / "out" / name).records == found.records
        assert sum(r["kind"] == "unit" for r in found.records) == len(found.done)
    assert (bytes_of(a), bytes_of(b)) == before


def test_a_conflict_in_a_suite_is_refused_by_name_and_nothing_is_written(tmp_path):
    a, b = suites_of_two_machines(tmp_path, fingerprint="other")
    with pytest.raises(
        StoreError, match=r"^one/chain: sparse on chain in .*b/one/chain was computed by another program"
    ):
        merge([a, b], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_was_interrupted_goes_on(tmp_path):
    a, b = suites_of_two_machines(tmp_path)
    merge([a, b], tmp_path / "whole")
    whole = bytes_of(tmp_path / "whole")
    lines = whole["one/chain/records.jsonl"].splitlines(keepends=True)
    (tmp_path / "cut" / "one" / "chain").mkdir(parents=True)
    (tmp_path / "cut" / "one" / "chain" / "records.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:20])
    merge([a, b], tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == whole
    merge([a, b], tmp_path / "cut")
    assert bytes_of(tmp_path / "cut") == whole


def test_a_suite_is_merged_into_a_new_folder_only(tmp_path):
    a, b = suites_of_two_machines(tmp_path)
    before = bytes_of(tmp_path)
    with pytest.raises(StoreError, match="a is one of the folders to merge, and none of them is changed"):
        merge([a, b], a)
    with pytest.raises(StoreError, match="two/minihack-Room has records already; give --out a new folder"):
        merge([a], b)
    with pytest.raises(StoreError, match="one/chain has records already; give --out a new folder"):
        merge([a / "one" / "chain"], b)
    with pytest.raises(StoreError, match=r"b/one/chain holds one comparison, .*a several in folders below it"):
        merge([a, b / "one" / "chain"], tmp_path / "out")
    with pytest.raises(StoreError, match=r"no records.jsonl in .*nothing"):
        merge([a, tmp_path / "nothing"], tmp_path / "out")
    assert bytes_of(tmp_path) == before


def test_what_is_known_of_saved_rewards_is_kept(tmp_path):
    known = {"kind": "artifact", "reward": "sparse", "sha256": ["a" * 64], "file": "mine.reward"}
    a, b = (folder(tmp_path / name, unit("sparse", [0, 1])) for name in "ab")
    for place in (a, b):
        with Store(place, Results.load(place).identity) as store:
            store.append(known)
    merged = merge([a, b], tmp_path / "out")
    assert isinstance(merged, Results)
    assert [r for r in merged.records if r["kind"] == "artifact"] == [known]


SUITE = """
[sizes]
smoke = { seeds = 2 }
[blocks.one]
tasks = ["chain"]
rewards = ["sparse", "dense"]
"""


def test_suites_on_the_command_line(tmp_path, capsys):
    a, b = (str(path) for path in suites_of_two_machines(tmp_path))
    out = str(tmp_path / "out")
    assert main(["merge", a, b, "--out", out]) == 0
    said = capsys.readouterr().out
    assert "one/chain: 2 of 2 units, 2 seeds" in said
    assert f"reward-design report {out} --suite NAME --size SIZE" in said
    assert "dense" in (tmp_path / "out" / "one" / "chain" / "report.html").read_text()
    (tmp_path / "mine.toml").write_text(SUITE)
    suite = ["--suite", str(tmp_path / "mine.toml")]
    assert main(["merge", a, b, "--out", out, *suite]) == 0
    assert "Suite mine, size smoke" in (tmp_path / "out" / "report.html").read_text()
    assert main(["merge", f"{a}/one/chain", "--out", str(tmp_path / "m"), *suite]) == 2
    assert "--suite is for folders of suites" in capsys.readouterr().err
    for words in (["merge", a, b], ["report", out]):
        assert main([*words, "--size", "core"]) == 2
        assert "--size is one of a suite, got --size core without --suite" in capsys.readouterr().err


def test_on_the_command_line(tmp_path, capsys):
    a = folder(tmp_path / "a", unit("sparse", [0, 1]))
    assert main(["export", str(a), "--to", str(tmp_path / "r.csv")]) == 0
    assert capsys.readouterr().out.strip().endswith("r.csv")
    assert main(["export", str(a), "--to", "r.txt"]) == 2
    assert main(["merge", str(a), str(tmp_path / "nothing"), "--out", str(tmp_path / "m")]) == 2
    assert "no records.jsonl in" in capsys.readouterr().err
