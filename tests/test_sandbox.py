"""Hostile and broken programs: every one ends in a named refusal, and the trainer stays as it was."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

from reward_design.envs import task
from reward_design.llm import CandidateRefused, Isolation, build_reward, check_many, isolation, lint
from reward_design.llm.checking import check_code
from reward_design.llm.screening import prepare
from reward_design.llm.supervisor import START_LIMIT, Worker, environment, readable_paths
from reward_design.llm.syscalls import DENIED, FILTERED, NUMBERS
from tests.hostile.checker import Checker
from tests.hostile.legitimate import LEGITIMATE
from tests.hostile.programs import LINTED, TRACED, first, pays
from tests.hostile.walls import WALLS

pytest.importorskip("flatbuffers")

OWN_PROCESS = ("endings", "endless", "memory", "answers", "silence")
"""Categories of :data:`WALLS` that break the worker that they run in."""


@pytest.fixture(scope="module")
def checker():
    made = Checker()
    yield made
    made.close()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder with a secret, a port that listens, a variable with a key; on leaving, all of it must be as before."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("the key")
    monkeypatch.setenv("RD_TEST_SECRET", "the key")
    prepare()
    before = surroundings()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        yield {"home": home, "port": server.getsockname()[1]}
        with pytest.raises(TimeoutError):
            server.accept()
    assert [path.name for path in home.iterdir()] == ["secret"]
    assert (home / "secret").read_text() == "the key"
    assert (home / "secret").stat().st_mode & 0o777 != 0o777
    assert not Path("/tmp/loot-of-a-candidate").exists()
    assert surroundings() == before


def surroundings():
    variables = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return children(), variables, sorted(os.listdir(Path.cwd())), threading.active_count()


def children():
    """Processes below this one, the shared worker of the module left out."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
            parent = int((entry.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"reward_design.llm.worker" in command and parent == os.getpid():
            found.add(int(entry.parent.name))
    return found


def formatted(source, machine):
    return source.format(home=machine["home"], port=machine["port"])


# --- the corpus -----------------------------------------------------------------------------------------------------


def test_the_corpus_is_large():
    sizes = [sum(map(len, table.values())) for table in (LINTED, TRACED, WALLS)]
    assert sum(sizes) >= 300
    assert min(sizes) >= 60
    assert len(LEGITIMATE) >= 30


@pytest.mark.parametrize("category", LINTED)
def test_the_linter_refuses(category):
    for source in LINTED[category]:
        begin = time.monotonic()
        with pytest.raises(CandidateRefused) as refused:
            lint.check(source)
        assert refused.value.stage == "lint", source[:200]
        assert len(refused.value.reason) > 20
        assert time.monotonic() - begin < 1.0


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"time_limit": "5"}, ValueError, "time_limit must be seconds, above 0 and finite, got '5'"),
        ({"time_limit": None}, ValueError, "time_limit must be seconds"),
        ({"time_limit": float("nan")}, ValueError, "time_limit must be seconds"),
        ({"min_isolation": "full"}, ValueError, "min_isolation must be one of Isolation.PROCESS"),
        ({"min_isolation": 99}, ValueError, "got 99"),
        ({"task": 3}, TypeError, "task must be a Task or the name of one, such as 'chain', got int"),
    ],
)
def test_settings_of_the_checks_are_checked(settings, error, text, untyped):
    with pytest.raises(error, match=text):
        build_reward(pays("obs[0]"), **{"task": "cartpole", **settings})


def test_a_reward_of_what_a_task_does_not_have_is_told_so():
    with pytest.raises(CandidateRefused, match="reward reads info, in which this task has nothing") as caught:
        build_reward("def reward(info):\n    return info['nothing']\n", "cartpole", time_limit=60.0)
    assert caught.value.stage == "trace"


@pytest.mark.parametrize("text", [pays("0.0\x00"), pays("1" * 6000)], ids=["null byte", "digits"])
def test_reasons_are_for_the_model(text):
    """No line that is None, and no advice on settings of the interpreter."""
    with pytest.raises(CandidateRefused) as caught:
        build_reward(text, "cartpole")
    assert "None" not in caught.value.reason
    assert "set_int_max" not in caught.value.reason
    assert "give plain Python code" in caught.value.reason


@pytest.mark.parametrize("category", TRACED)
def test_what_passes_the_linter_is_refused_later(category, checker, machine):
    for source, stages in TRACED[category]:
        lint.check(source)
        artifact, refused, seconds = checker.check(source)
        assert artifact is None, source
        assert refused.stage in stages, f"{source[:200]}: {refused}"
        assert len(refused.reason) > 20
        assert seconds < checker.limit + 5
    checker.close()


@pytest.mark.parametrize("category", [name for name in WALLS if name not in OWN_PROCESS])
def test_the_walls_hold_without_the_linter(category, checker, machine):
    for source, stages in WALLS[category]:
        artifact, refused, _ = checker.check(formatted(source, machine))
        assert artifact is None, source
        assert refused.stage in stages, f"{source[:200]}: {refused}"
    checker.close()


CHOSEN = {"endings": (0, 4), "endless": (0, 6), "memory": (0,), "answers": (0, 1, 4), "silence": (0, 1)}
"""Of :data:`OWN_PROCESS`, those for every run: a process each takes seconds. The others are marked slow."""
CASES = [(name, WALLS[name][i]) for name, chosen in CHOSEN.items() for i in chosen]
OTHERS = [(name, case) for name in OWN_PROCESS for i, case in enumerate(WALLS[name]) if i not in CHOSEN.get(name, ())]


@pytest.mark.parametrize("cases", [CASES, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["chosen", "others"])
def test_programs_that_attack_their_worker_hurt_nobody_else(cases, machine):
    def one(case):
        limit = {"answers": 20.0, "endings": 15.0, "silence": 20.0}.get(case[0], 1.5)
        begin = time.monotonic()
        with pytest.raises(CandidateRefused) as refused:
            check_code(
                formatted(case[1][0], machine), task("cartpole"), time_limit=limit, min_isolation=Isolation.CONFINED,
                linted=False,
            )  # fmt: skip
        return *case[1], refused.value, time.monotonic() - begin - limit

    with ThreadPoolExecutor(2) as pool:
        for source, stages, refused, over in pool.map(one, cases):
            assert refused.stage in stages, f"{source[:200]}: {refused}"
            assert over < START_LIMIT


def test_a_program_cannot_make_the_kernel_signal_the_trainer():
    """Landlock refuses this from its sixth version on, namespaces where there are any; seccomp does alone."""
    came = []
    before = signal.signal(signal.SIGUSR2, lambda *_: came.append(1))
    source = first(
        "import fcntl, os\nfor fd in range(3, 64):\n    try:\n"
        "        for command, value in ((8, os.getppid()), (10, 12), (4, os.O_ASYNC)):\n"
        "            fcntl.fcntl(fd, command, value)\n    except OSError: pass"
    )
    try:
        check_code(
            source, task("cartpole"), time_limit=30.0, min_isolation=Isolation.PROCESS, linted=False,
            skip=("landlock", "namespaces"),
        )  # fmt: skip
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert not came


@pytest.mark.slow
def test_honest_programs_pass(checker):
    for name, source in LEGITIMATE.items():
        lint.check(source)
        artifact, refused, _ = checker.check(source)
        assert refused is None, f"{name}: {refused}"
        assert artifact.program


# --- walls ----------------------------------------------------------------------------------------------------------


def reached(**skip):
    with Worker(time_limit=5.0, **skip) as worker:
        return worker.start()


def test_this_machine_reaches_a_level_by_trying():
    found = reached()
    assert found["level"] >= Isolation.CONFINED
    assert {"no_writing", "no_reading", "no_network", "no_processes"} <= set(found["features"])


@pytest.mark.parametrize(
    ("skip", "open_"),
    [(("landlock",), "no_reading"), (("seccomp", "namespaces"), "no_processes"), (("seccomp",), "no_processes")],
)
def test_a_wall_that_is_missing_is_noticed(skip, open_):
    found = reached(skip=skip)
    assert open_ not in found["features"]
    assert found["level"] == Isolation.PROCESS


def test_without_namespaces_the_level_is_lower():
    found = reached(skip=("namespaces",))
    assert found["level"] == Isolation.CONFINED
    assert "namespaces" not in found["features"]


def test_too_little_isolation_is_refused_before_the_program_runs(tmp_path):
    source = first(f"open({str(tmp_path / 'loot')!r}, 'w')")
    with pytest.raises(CandidateRefused, match=r"at level PROCESS .* and CONFINED is required") as refused:
        check_code(
            source, task("cartpole"), time_limit=5.0, min_isolation=Isolation.CONFINED, linted=False,
            skip=("landlock", "seccomp", "namespaces"),
        )  # fmt: skip
    assert refused.value.stage == "isolation"
    assert not (tmp_path / "loot").exists()


ORPHAN = """
import sys
from reward_design.llm.supervisor import Worker
worker = Worker(time_limit=300.0, skip=("dies_with_parent", *sys.argv[1:])).__enter__()
worker.start()
print(worker.process.pid, flush=True)
worker.ask({"source": "while True: pass", "specs": {}}, 300.0)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("skip", [(), ("namespaces",)], ids=["in namespaces", "without"])
def test_a_reader_whose_trainer_was_killed_ends_in_the_middle_of_its_work(skip):
    trainer = subprocess.Popen([sys.executable, "-c", ORPHAN, *skip], stdout=subprocess.PIPE, text=True)
    group = int(trainer.stdout.readline())
    time.sleep(1.0)
    assert alive(group)
    trainer.kill()
    trainer.communicate()
    deadline = time.monotonic() + 30.0
    while alive(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(group)


def alive(group):
    """Processes of a group, without those that have ended and wait for somebody to ask how."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, own = file.read_text().rsplit(")", 1)[1].split()[:3]
            found += [file.parent.name] if int(own) == group and state not in "ZX" else []
    return found


def test_what_no_wall_hides_is_that_a_file_is_there(tmp_path):
    """As docs/llm_rewards.md says: stat tells the size of a file that can neither be read nor listed."""
    secret = tmp_path / "secret"
    secret.write_text("x" * 1221)
    source = first(
        f"import os\nsize = float(os.stat({str(secret)!r}).st_size)\nopened = 0.0\n"
        f"for attempt in (lambda: open({str(secret)!r}).read(), lambda: os.listdir({str(tmp_path)!r})):\n"
        "    try:\n        attempt()\n        opened += 1.0\n    except OSError: pass"
    ).replace("return", "return size + 1e4 * opened + 0.0 * ", 1)
    artifact = check_code(
        source, task("cartpole"), time_limit=60.0, min_isolation=Isolation.CONFINED, linted=False
    )  # fmt: skip
    assert artifact.provenance["range"] == [1221.0, 1221.0]


def test_less_isolation_can_be_accepted():
    artifact = check_code(
        pays("obs[0]"), task("cartpole"), time_limit=30.0, min_isolation=Isolation.PROCESS,
        skip=("landlock", "seccomp", "namespaces"),
    )  # fmt: skip
    assert artifact.provenance["isolation"] == "PROCESS"


def test_a_worker_gets_nothing_of_the_user(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert not {"OPENAI_API_KEY", "HOME", "PATH", "USER"} & set(environment())
    assert not {"/", "/root", "/home", "/tmp", "/etc", "/proc", str(Path.home())} & set(readable_paths())


def test_tables_of_system_calls_have_what_matters():
    for machine in NUMBERS:
        numbers = NUMBERS[machine]
        assert len(set(numbers.values())) == len(numbers)
        assert {"execve", "socket", "ptrace", "mount", "kill", "io_uring_setup", "unshare"} <= set(numbers) & set(
            DENIED
        )
        assert set(FILTERED) - {"open"} <= set(numbers)


def test_other_platforms_have_a_process_only(monkeypatch):
    monkeypatch.setattr(isolation.sys, "platform", "darwin")
    monkeypatch.setattr(isolation, "_limit_resources", lambda limits: None)
    monkeypatch.setattr(isolation, "_granted", [])
    limits = {"skip": (), "readable": [], "cpu": 1, "files": 64, "address_space": 2**32}
    isolation.enter(limits)
    assert isolation.seal(limits).level is Isolation.PROCESS
    os.close(isolation.NULL_FD)


# --- limits ---------------------------------------------------------------------------------------------------------


def test_a_hanging_program_is_killed_with_its_group(machine):
    begin = time.monotonic()
    with Worker(time_limit=1.0) as worker:
        worker.start()
        with pytest.raises(CandidateRefused, match="took longer than 1 s") as refused:
            worker.ask({"source": "import time\ntime.sleep(1000)\n" + pays("obs[0]"), "specs": {}}, 1.0)
        group = worker.process.pid
    assert refused.value.stage == "time"
    assert time.monotonic() - begin < 60
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_many_are_checked_at_once_and_keep_their_order():
    sources = [pays("obs[0]"), pays("open('x')"), pays("jnp.log(obs[0])")]
    good, linted, smoked = check_many(sources, "cartpole", time_limit=30.0)
    assert good.settings["artifact"].source == sources[0]
    assert (linted.stage, smoked.stage) == ("lint", "smoke")


def test_one_text_is_no_list_of_texts(untyped):
    with pytest.raises(TypeError, match="put it into a list"):
        check_many(pays("obs[0]"), "cartpole")


@pytest.mark.parametrize("wrong", [{"time_limit": 0.0}, {"time_limit": float("nan")}, {"language": "prose"}])
def test_wrong_settings_are_errors_of_the_caller(wrong):
    with pytest.raises(ValueError, match=r"must be") as error:
        build_reward(pays("obs[0]"), "cartpole", **wrong)
    assert not isinstance(error.value, CandidateRefused)


def test_source_must_be_text():
    with pytest.raises((TypeError, TypeCheckError), match="source"):
        build_reward(b"def reward(obs): return 0", "cartpole")  # pyright: ignore[reportArgumentType]
