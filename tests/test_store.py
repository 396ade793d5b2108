"""An experiment directory survives kills, full disks, second drivers and other experiments."""

import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redline.experiment.plan import identity, jobs
from redline.experiment.presets import PRESETS
from redline.model import (
    Experiment,
    Failed,
    Goal,
    Invalid,
    Measured,
    Probe,
    RedlineError,
    ServerConfig,
    Stop,
    Trial,
    UsageError,
)
from redline.process import Marker
from redline.records import Records
from redline.sla import parse_sla
from redline.store import next_directory, open_store, reusable
from redline.store.journal import add_trial, read_journal, repair

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
SERVER = ServerConfig(name="max_num_seqs=8", command=("vllm", "serve", "m", "--max-num-seqs", "8"))
OTHER = ServerConfig(name="max_num_seqs=9", command=("vllm", "serve", "m", "--max-num-seqs", "9"))
EXPERIMENT = Experiment(
    name="e", servers=(SERVER,), workloads=(PRESETS["chat"],), slas=(parse_sla("p99_ttft_ms<=200"),), goal=Goal()
)
TEXT = '[server]\ncommand = "vllm serve m"\n'
CASE = jobs(EXPERIMENT)[0].cases[0].key


def records_of(n, gaps=3):
    rng = np.random.default_rng(n)
    return Records(
        observed_s=float(n),
        scheduled_s=np.arange(n, dtype=float),
        sent_s=np.arange(n, dtype=float),
        first_s=np.where(rng.random(n) < 0.1, math.nan, np.arange(n) + 0.1),
        end_s=np.arange(n) + 0.2,
        tokens_in=rng.integers(1, 9, n, dtype=np.int32),
        tokens_out=rng.integers(1, 9, n, dtype=np.int32),
        tokens_asked=rng.integers(1, 9, n, dtype=np.int32),
        status=rng.integers(0, 5, n).astype(np.uint8),
        gaps_us=rng.integers(0, 999, n * gaps, dtype=np.int32),
        gap_offsets=np.arange(n + 1, dtype=np.int64) * gaps,
    )


def trial_of(id="0001", outcome=None, **fields):
    outcome = outcome or Measured(stop=Stop(reason="full", at_s=5.0), duration_s=5.0, records=records_of(4))
    probe = Probe(by="rate", load=2.0, kind="main")
    return Trial(**{"id": id, "case": CASE, "probe": probe, "seed": 1, "started": "", "outcome": outcome, **fields})


def same(one, two):
    """Trials with the same records, which have no equality of their own."""
    ours, theirs = one.outcome, two.outcome
    if not isinstance(ours, Measured) or not isinstance(theirs, Measured) or ours.records is None:
        return one == two
    columns = zip(ours.records.columns().values(), theirs.records.columns().values(), strict=True)
    return all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in columns) and (
        replace(one, outcome=replace(ours, records=None)) == replace(two, outcome=replace(theirs, records=None))
    )


def opened(directory, experiment=EXPERIMENT, text=TEXT, **options):
    return open_store(directory, text, identity(experiment), **options)


def read(directory):
    return open_store(directory, write=False)


def filled(directory, count=2):
    """A directory with so many trials."""
    with opened(directory) as store:
        for _ in range(count):
            store.append(trial_of(store.next_id()))
    return directory


def files_of(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# ---- round trips -----------------------------------------------------------------------------------------------------


def test_trials_are_there_again_after_reopening(tmp_path):
    trials = [
        trial_of("0001"),
        trial_of("0002", Failed(reason="died", log_tail="x\ny", server_died=True)),
        trial_of("0003", Invalid(reason="client"), warnings=("w",), facts={"a": [1, {"b": None}]}),
        trial_of("0004", Measured(stop=Stop(reason="ended", at_s=1), duration_s=1, aggregates=({"x": math.inf},))),
        trial_of("0005", case="another"),
    ]

    with opened(tmp_path / "d") as store:
        for trial in trials:
            store.append(trial)
        first = dict(store.trials)
    with opened(tmp_path / "d") as store, read(tmp_path / "d") as reader:
        again, seen = dict(store.trials), dict(reader.trials)

    assert [] == store.notes
    for found in (first, again, seen):
        assert {CASE: 4, "another": 1} == {case: len(kept) for case, kept in found.items()}
        assert all(same(*pair) for pair in zip(trials[:4], found[CASE], strict=True))
    assert "0006" == store.next_id()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.integers(0, 50), st.integers(0, 5))
def test_any_requests_come_back_as_they_were(tmp_path, n, gaps):
    directory = tmp_path / f"{n}-{gaps}"
    directory.mkdir(exist_ok=True)
    trial = trial_of(
        f"{len(read_journal(directory).ids) + 1}",
        Measured(stop=Stop(reason="full", at_s=1.0), duration_s=1.0, records=records_of(n, gaps)),
    )

    add_trial(directory, trial, ())

    assert same(trial, read_journal(directory).trials[-1])


# ---- kills -----------------------------------------------------------------------------------------------------------


def test_a_line_cut_at_any_byte_loses_that_trial_only(tmp_path):
    trials = [trial_of("1"), trial_of("2", Failed(reason="größer"))]
    for trial in trials:
        add_trial(tmp_path, trial, ())
    lines = tmp_path / "trials.jsonl"
    whole, requests = lines.read_bytes(), tmp_path / "requests" / "1.npz"
    kept_requests = requests.read_bytes()
    ends = [whole.index(b"\n"), len(whole) - 1]  # with its last byte a line is whole, also without the end of the line

    for size in range(len(whole) + 1):
        lines.write_bytes(whole[:size])
        complete = ["1", "2"][: sum(size >= end for end in ends)]
        torn = size > 0 and all(size not in (end, end + 1) for end in ends)
        cut = read_journal(tmp_path)

        assert complete == [trial.id for trial in cut.trials]
        assert torn == bool(cut.notes)
        if size % 20 == 0 or any(abs(size - end) < 3 for end in ends):  # a sync each: not at every byte
            requests.write_bytes(kept_requests)
            repair(tmp_path, read_journal(tmp_path))
            mended = read_journal(tmp_path)

            assert complete == [trial.id for trial in mended.trials]
            assert () == mended.notes == mended.strays
            assert bool(complete) == requests.exists()
            assert b"" == lines.read_bytes() or lines.read_bytes().endswith(b"\n")
            requests.write_bytes(kept_requests)


def test_a_torn_line_is_dropped_and_said_and_the_next_trial_stands_after_it(tmp_path):
    directory = filled(tmp_path / "d", 2)
    lines = directory / "trials.jsonl"
    lines.write_bytes(lines.read_bytes()[:-40])

    with opened(directory) as store:
        notes, id = list(store.notes), store.next_id()
        store.append(trial_of(id))
    with read(directory) as store:
        ids = [trial.id for trial in store.trials[CASE]]

    assert ["torn" in notes[0], "0002.npz" in notes[1]] == [True, True]
    assert ["0001", id] == ids
    assert [] == store.notes


def test_what_a_kill_leaves_beside_the_lines_is_removed(tmp_path):
    directory = filled(tmp_path / "d", 1)
    strays = ["requests/0007.npz", "requests/.0001.npz.tmp", ".trials.jsonl.tmp", ".experiment.toml.tmp"]
    for name in strays:
        (directory / name).write_bytes(b"half")

    with opened(directory) as store:
        notes, id = store.notes, store.next_id()

    assert not any((directory / name).exists() for name in strays)
    assert ["requests without a trial, as after a kill, were dropped: 0007.npz"] == notes
    assert 1 == len(store.trials[CASE])
    assert int(id) > 1


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", "experiment.toml"], ["lock", ".experiment.toml.tmp"]])
def test_a_kill_while_the_directory_is_made_does_not_lock_it_out(tmp_path, left):
    directory = tmp_path / "d"
    directory.mkdir()
    for name in left:
        (directory / name).write_text("")

    with opened(directory) as store:
        store.append(trial_of(store.next_id()))

    assert TEXT == (directory / "experiment.toml").read_text()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import opened, trial_of
with opened(Path({directory!r})) as store:
    print("open", flush=True)
    for _ in range(100_000):
        id = store.next_id()
        store.append(trial_of(id))
        print(id, flush=True)
"""


@contextmanager
def writer(directory):
    code = WRITER.format(tests=os.path.dirname(__file__), directory=str(directory))  # noqa: PTH120 - a text is wanted
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "open\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_no_kill_loses_a_trial_that_was_kept(tmp_path):
    directory, told = tmp_path / "d", []
    for count in (1, 4):
        with writer(directory) as process:
            told += [process.stdout.readline().strip() for _ in range(count)]
            process.send_signal(signal.SIGKILL)
            told += process.stdout.read().split()
        with read(directory) as store:
            ids = [trial.id for trial in store.trials[CASE]]

        assert told == [id for id in ids if id in told]
        assert len(ids) == len(set(ids)) <= len(told) + 2  # one may have been kept and not told, each time


# ---- one driver at a time --------------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_with_the_pid_of_the_first(tmp_path):
    with writer(tmp_path / "d") as process:
        with pytest.raises(RedlineError, match=f"in use by process {process.pid}") as error, opened(tmp_path / "d"):
            pass
        with read(tmp_path / "d") as reader:
            assert TEXT == reader.experiment_text
    with opened(tmp_path / "d") as store:
        assert store.directory == tmp_path / "d"

    assert not isinstance(error.value, UsageError)


def test_the_lock_goes_with_the_block(tmp_path):
    for _ in range(2):
        with opened(tmp_path / "d") as store:
            store.next_id()


def test_reading_takes_no_lock_and_writes_nothing(tmp_path):
    directory = filled(tmp_path / "d", 1)
    lines = directory / "trials.jsonl"
    lines.write_bytes(lines.read_bytes() + b'{"torn')
    (directory / "requests" / "0009.npz").write_bytes(b"half")
    before = files_of(directory)

    with opened(tmp_path / "e"), read(directory) as store:
        with pytest.raises(RuntimeError):
            store.append(trial_of("0002"))
        with pytest.raises(RuntimeError):
            store.log_dir("x")

    assert before == files_of(directory)
    assert ["0001"] == [trial.id for trial in store.trials[CASE]]
    assert 1 == len(store.notes)


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_reading_what_holds_no_experiment_says_so(tmp_path, make):
    make(tmp_path / "d")

    with pytest.raises(UsageError, match=r"holds no experiment|is not there"), read(tmp_path / "d"):
        pass


# ---- one experiment in a directory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"slas": (parse_sla("p50_ttft_ms<=1"), parse_sla("p90_tpot_ms<=1"))},
        {"servers": (OTHER, SERVER)},
        {"workloads": (PRESETS["chat"], PRESETS["rag"])},
        {"goal": Goal(precision=0.1, max_time_s=5.0)},
        {"servers": (replace(SERVER, name="renamed", ready_timeout_s=9.0),)},
    ],
)
def test_more_to_ask_is_no_other_experiment(tmp_path, change):
    directory = filled(tmp_path / "d", 1)

    with opened(directory, replace(EXPERIMENT, **change)) as store:
        assert 1 == len(store.trials[CASE])
    with opened(directory) as store:
        assert 1 == len(store.trials[CASE])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"servers": (OTHER,)}, r"max_num_seqs=8, chat\) than this one \(max_num_seqs=9, chat"),
        ({"workloads": (PRESETS["rag"],)}, "max_num_seqs=8, chat.*max_num_seqs=8, rag"),
        ({"goal": Goal(by="concurrency")}, "by rate.*by concurrency"),
        ({"servers": (replace(OTHER, name=SERVER.name),)}, "the names are the same, what differs is the command"),
    ],
)
@pytest.mark.parametrize("trials", [0, 1])
def test_the_directory_of_another_experiment_is_refused_and_left_alone(tmp_path, change, says, trials):
    directory = filled(tmp_path / "d", trials)
    before = files_of(directory)

    with pytest.raises(UsageError, match=says), opened(directory, replace(EXPERIMENT, **change), text="x"):
        pass

    assert before == files_of(directory)


def test_what_tells_two_experiments_of_one_name_apart_is_named(tmp_path):
    text = '[server]\nurl = "http://h"\n[workload.chat]\nprompt = { mean = 5 }\n[search]\nseed = 1\n'
    other = text.replace("mean = 5 }", 'mean = 6 }\napi = "completions"').replace("seed = 1", "seed = 2")
    with opened(tmp_path / "d", text=text):
        pass
    another = replace(EXPERIMENT, servers=(replace(OTHER, name=SERVER.name),))

    with (
        pytest.raises(UsageError, match=r"what differs is prompt.mean of workload chat, api of workload chat; keep"),
        opened(tmp_path / "d", another, text=other),
    ):
        pass


def test_trials_tell_what_a_directory_is_about_when_its_description_is_gone(tmp_path):
    directory = filled(tmp_path / "d", 1)
    (directory / "environment.json").write_text("{")

    with (
        pytest.raises(UsageError, match="another experiment"),
        opened(directory, replace(EXPERIMENT, servers=(OTHER,))),
    ):
        pass
    with opened(directory) as store:
        assert 1 == len(store.trials[CASE])


def test_a_directory_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")

    with pytest.raises(UsageError, match=r"holds other files \(thesis.tex\)"), opened(tmp_path):
        pass

    assert ["thesis.tex"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(("place", "trials", "kept"), [("new/one", 0, False), ("new/two", 1, True), ("there", 0, True)])
def test_a_mistake_found_late_leaves_no_directory_unless_something_was_measured(tmp_path, place, trials, kept):
    (tmp_path / "there").mkdir()

    def mistaken():
        with opened(tmp_path / place) as store:
            for _ in range(trials):
                store.append(trial_of())
            raise UsageError("too long")

    with pytest.raises(UsageError, match="too long"):
        mistaken()

    assert kept == (tmp_path / place).exists() == (tmp_path / place.partition("/")[0]).exists()


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "d").write_text("x")

    with pytest.raises(UsageError, match="is no directory"), opened(tmp_path / "d"):
        pass


def test_a_new_directory_stands_beside_the_old_ones(tmp_path):
    assert tmp_path / "d" == next_directory(tmp_path / "d")
    (tmp_path / "d").mkdir()
    assert tmp_path / "d-2" == next_directory(tmp_path / "d")
    (tmp_path / "d-2").mkdir()
    assert tmp_path / "d-3" == next_directory(tmp_path / "d")


# ---- disks that fail -------------------------------------------------------------------------------------------------


@contextmanager
def largest_file(size):
    """Files of this process cannot grow beyond so many bytes: as on a full disk, a write may be cut short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_keeps_what_was_finished_and_leaves_nothing_half_written(tmp_path, room):
    with opened(tmp_path / "d") as store:
        store.append(trial_of(store.next_id()))
        before = files_of(store.directory)
        full = (store.directory / "trials.jsonl").stat().st_size + room
        with (
            largest_file(full),
            pytest.raises(RedlineError, match=r"cannot write .*trials.jsonl.*--out; what was finished"),
        ):
            store.append(trial_of("0002", Measured(stop=Stop(reason="full", at_s=1.0), duration_s=1.0)))
        with largest_file(5), pytest.raises(RedlineError, match=r"cannot write .*0003.npz"):
            store.append(trial_of("0003"))

        assert before == files_of(store.directory)
        assert ["0001"] == [trial.id for trial in store.trials[CASE]]
        store.append(trial_of("0004"))
    with read(tmp_path / "d") as store:
        assert ["0001", "0004"] == [trial.id for trial in store.trials[CASE]]
    assert [] == store.notes


def test_requests_do_not_outlive_a_line_that_could_not_be_written(tmp_path):
    with opened(tmp_path / "d") as store:
        (store.directory / "trials.jsonl").symlink_to("/dev/full")

        with pytest.raises(RedlineError, match="No space left"):
            store.append(trial_of(store.next_id()))

        assert [] == list((store.directory / "requests").iterdir())


def test_a_place_where_nothing_can_be_made_is_an_error_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("x")

    with pytest.raises(RedlineError, match=r"cannot write .*--out$") as error, opened(tmp_path / "file" / "d"):
        pass

    assert not isinstance(error.value, UsageError)


def test_a_damaged_line_before_the_last_one_is_named(tmp_path):
    directory = filled(tmp_path / "d", 2)
    lines = directory / "trials.jsonl"
    first, second = lines.read_bytes().splitlines(keepends=True)

    for bad in (b"{}\n", first.replace(b"redline.trial/1", b"redline.trial/9")):
        lines.write_bytes(bad + second)
        with pytest.raises(RedlineError, match="line 1 is damaged"), opened(directory):
            pass
        assert bad + second == lines.read_bytes()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:50]), "is damaged"),
        (lambda file: file.write_bytes(b""), "is damaged"),
        (lambda file: np.savez(file, a=np.zeros(1)), "is damaged"),
        (lambda file: np.savez(file, **records_of(2).columns()), "holds 2 requests, not 4"),
    ],
)
def test_a_trial_that_lost_its_requests_is_no_evidence(tmp_path, harm, says):
    directory = filled(tmp_path / "d", 2)
    harm(directory / "requests" / "0001.npz")

    with opened(directory) as store:
        assert ["0002"] == [trial.id for trial in store.trials[CASE]]
        assert "0003" == store.next_id()

    assert [True] == [note.startswith("trial 0001 is not used") and says in note for note in store.notes]


# ---- what else is kept -----------------------------------------------------------------------------------------------


def test_no_secret_is_written_anywhere(tmp_path, monkeypatch):
    secret = "sk-12345678"
    monkeypatch.setattr(sys, "argv", ["redline", "find", "--header", f"Authorization: Bearer {secret}"])
    server = replace(
        SERVER,
        command=("vllm", "serve", "m", "--api-key", secret),
        headers={"Authorization": f"Bearer {secret}"},
        env={"HF_TOKEN": secret},
    )
    experiment = replace(EXPERIMENT, servers=(server,))
    text = f'[server]\ncommand = "vllm serve m --api-key {secret}"\nheaders = {{ Authorization = "Bearer {secret}" }}\n'

    with opened(tmp_path / "d", experiment, text, files={"p.json": f'{{"api_key": "{secret}"}}'}) as store:
        store.append(trial_of(store.next_id(), Failed(reason=f"wrong key {secret}", log_tail=f"'{secret}'")))

    written = files_of(tmp_path / "d")
    assert {"experiment.toml", "environment.json", "trials.jsonl", "p.json", "lock"} == {str(path) for path in written}
    assert not any(secret.encode() in content for content in written.values())
    assert b"***" in written[next(path for path in written if path.name == "experiment.toml")]


def test_the_machine_of_every_start_is_kept(tmp_path):
    for _ in range(2):
        with opened(tmp_path / "d") as store:
            pass
    with opened(tmp_path / "d", replace(EXPERIMENT, servers=(SERVER, OTHER))):
        pass

    about = json.loads((tmp_path / "d" / "environment.json").read_text())
    assert "redline.environment/1" == about["schema"]
    assert ["max_num_seqs=8, chat", "max_num_seqs=9, chat"] == list(about["cases"].values())
    assert 3 == len(about["runs"])
    assert {"started", "command", "versions", "python", "system", "cpu", "cores", "servers"} <= about["runs"][0].keys()
    assert list(SERVER.command) == about["runs"][0]["servers"]["max_num_seqs=8"]
    assert "rate" == store.environment["variable"]


def test_the_text_of_the_last_start_is_kept(tmp_path):
    for text in ("one\n", "two\n"):
        with opened(tmp_path / "d", text=text) as store:
            assert text == store.experiment_text
    with read(tmp_path / "d") as store:
        assert "two\n" == store.experiment_text


def test_the_marker_of_the_server_that_is_up_survives_the_driver(tmp_path):
    marker = Marker(uuid="u", pid=5, pgid=5, start_time="7@b", stop=("docker", "stop", "x"))

    with opened(tmp_path / "d") as store:
        assert store.server_marker() is None
        store.note(marker)
    with opened(tmp_path / "d") as store:
        mode = stat.S_IMODE((tmp_path / "d" / "server.json").stat().st_mode)
        found = store.server_marker()
        store.note(None)
        store.note(None)
        left = store.server_marker()

    assert (marker, 0o600, None) == (found, mode, left)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"uuid": 1}', '{"uuid": "u", "stop": 5, "pid": 1}', "null"])
def test_a_marker_that_cannot_be_read_names_no_process(tmp_path, text):
    with opened(tmp_path / "d") as store:
        (tmp_path / "d" / "server.json").write_text(text)

        assert store.server_marker() is None


def test_ids_are_never_those_of_logs_that_a_kill_left(tmp_path):
    directory = filled(tmp_path / "d", 1)

    with opened(directory) as store:
        store.log_dir("0041")
    with opened(directory) as store:
        assert ["0042", "0043"] == [store.next_id(), store.next_id()]


@pytest.mark.parametrize(
    "name", ["max_num_seqs=8", "a/b", "../up", "..", "", "ü" * 300, 'x={"a": 1}', ".hidden", "a\0b"]
)
def test_logs_of_any_name_stay_in_the_directory(tmp_path, name):
    with opened(tmp_path / "d") as store:
        folder = store.log_dir(name)

        assert folder == store.log_dir(name)
    assert folder.is_dir()
    assert tmp_path / "d" / "logs" == folder.parent
    assert name not in ("max_num_seqs=8",) or folder.name == name


def test_logs_of_two_names_do_not_meet(tmp_path):
    names = ["a/b", "a_b", "a:b", "x" * 200, "x" * 201]

    with opened(tmp_path / "d") as store:
        assert len(names) == len({store.log_dir(name) for name in names})


# ---- servers that were not started here ------------------------------------------------------------------------------


def test_old_trials_and_those_of_an_earlier_start_are_not_used():
    def trial(id, hours, start="s2"):
        return trial_of(id, started=(NOW - timedelta(hours=hours)).isoformat(), server_start=start)

    trials = [trial("1", 25), trial("2", 23, "s1"), trial("3", 23), trial("4", 1, ""), trial("5", 30, "s1")]

    used, note = reusable(trials, NOW, "s2")

    assert ["3", "4"] == [trial.id for trial in used]
    assert (
        "3 earlier trials are kept but not used (2 older than 24 h and 1 from before the server was started anew); "
        "--reuse uses them all the same" == note
    )


def test_where_the_start_is_not_known_only_age_counts():
    trials = [trial_of("1", started=NOW.isoformat(), server_start="s1")]

    assert (tuple(trials), "") == reusable(trials, NOW, "")
    assert ((), "") == reusable([], NOW, "s1")


@pytest.mark.parametrize("started", ["", "yesterday"])
def test_a_trial_without_a_time_is_old(started):
    used, note = reusable([trial_of("1", started=started)], NOW, "")

    assert () == used
    assert note.startswith("1 earlier trial is kept but not used")


def test_a_time_without_a_zone_is_utc():
    trials = [trial_of("1", started="2026-11-25T11:00:00")]

    assert (tuple(trials), "") == reusable(trials, NOW, "")
