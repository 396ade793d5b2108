import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redline import process
from redline.model import Endpoint, Measured, Outcome, Probe, RedlineError, ServerConfig, Stop, UsageError, Watch
from redline.process import Marker
from redline.server import address, ask, attach, launch, warmup
from redline.server.address import free_port
from redline.server.idle import Stillness, requests_in
from redline.server.readiness import listing
from redline.server.released import gpu_memory_mib, wait_until_released
from tiny_server import SCRIPT, TinyServer, tiny_server
from waiting import gone, number_in

COMMAND = (sys.executable, SCRIPT, "--port", "{port}")
METRICS = (
    'vllm:num_requests_running{{engine="0",model_name="tiny"}} {}\n'
    'vllm:num_requests_waiting{{engine="0"}} {}\n'
    'vllm:num_requests_waiting_by_reason{{reason="capacity"}} 99.0\n'
)


@pytest.fixture
def tiny() -> Iterator[TinyServer]:
    with tiny_server() as server:
        yield server


# ---- attach ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_attaching_asks_for_the_model_and_strips_the_url(tiny: TinyServer, suffix: str) -> None:
    with attach(ServerConfig(name="", url=tiny.url + suffix)) as server:
        assert Endpoint(url=tiny.url, model="tiny") == server.endpoint
        assert [] == server.warnings
        assert server.alive()


def test_a_url_that_does_not_answer_is_an_error_with_the_url() -> None:
    url = f"http://127.0.0.1:{free_port()}"

    with (
        pytest.raises(RedlineError, match=rf"{url}/v1/models does not answer.*start the server"),
        attach(ServerConfig(name="", url=url)),
    ):
        pass


@pytest.mark.parametrize("url", ["ftp://host", "http://", "http://host:99999", "http://host?x=1", "::"])
def test_what_is_no_address_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        address.base_url(url)


def test_a_model_that_is_not_served_is_an_error_that_lists_those_that_are(tiny: TinyServer) -> None:
    tiny.behaviour.models = [{"id": f"m{n}"} for n in range(10)]

    with (
        pytest.raises(RedlineError, match=r"'big' is not served at .*; it serves m0, .*m7 and 2 more"),
        attach(ServerConfig(name="", url=tiny.url, model="big")),
    ):
        pass


def test_one_of_several_models_is_measured_with_a_warning(tiny: TinyServer) -> None:
    tiny.behaviour.models = [{"id": "base"}, {"id": "adapter"}]

    with attach(ServerConfig(name="", url=tiny.url)) as server:
        assert "base" == server.endpoint.model
        assert ["2 models are served and 'base' is measured; choose another one with --model"] == server.warnings
    with attach(ServerConfig(name="", url=tiny.url, model="adapter")) as server:
        assert "adapter" == server.endpoint.model
        assert [] == server.warnings


def test_a_server_without_a_list_of_models_needs_the_model(tiny: TinyServer) -> None:
    tiny.behaviour.models = None

    with attach(ServerConfig(name="", url=tiny.url, model="mine")) as server:
        assert "mine" == server.endpoint.model
    with (
        pytest.raises(RedlineError, match="answers 404: correct the URL, or, where the server has no such page"),
        attach(ServerConfig(name="", url=tiny.url)),
    ):
        pass


def test_a_redirect_is_an_error_that_names_its_target(tiny: TinyServer) -> None:
    tiny.behaviour.redirect = "https://elsewhere.example/v1/models"

    with (
        pytest.raises(RedlineError, match=r"redirects to https://elsewhere\.example"),
        attach(ServerConfig(name="", url=tiny.url)),
    ):
        pass


def test_the_key_comes_from_the_environment(tiny: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.behaviour.key = "s3cret"
    with pytest.raises(RedlineError, match="answers 401: it wants a key"), attach(ServerConfig(name="", url=tiny.url)):
        pass
    with (
        pytest.raises(UsageError, match="environment variable MY_KEY is not set"),
        attach(ServerConfig(name="", url=tiny.url, api_key_env="MY_KEY")),
    ):
        pass

    monkeypatch.setenv("MY_KEY", "s3cret")

    for config in (
        ServerConfig(name="", url=tiny.url, api_key_env="MY_KEY"),
        ServerConfig(name="", url=tiny.url, headers={"Authorization": "Bearer ${MY_KEY}"}),
    ):
        with attach(config) as server:
            assert {"Authorization": "Bearer s3cret"} == server.endpoint.headers


def test_proxies_of_the_environment_are_not_used(tiny: TinyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")

    with attach(ServerConfig(name="", url=tiny.url)) as server:
        assert "tiny" == server.endpoint.model


def test_another_start_of_a_server_is_told_apart(tmp_path: Path) -> None:
    config = ServerConfig(name="s", command=COMMAND, port=free_port())
    seen: list[tuple[str, str]] = []

    for _ in range(2):
        with launch(config, tmp_path) as server:
            running = ServerConfig(name="", url=server.endpoint.url)
            with attach(running) as first, attach(running) as again:
                seen.append((first.start_id, again.start_id))

    (one, one_again), (two, two_again) = seen
    assert one == one_again != two == two_again


def test_what_a_server_tells_about_itself_names_its_start(tiny: TinyServer) -> None:
    tiny.behaviour.version = "0.32.0"

    with attach(ServerConfig(name="", url=tiny.url)) as server:
        assert "version=0.32.0" in server.start_id


def test_a_creation_time_made_for_each_reply_names_no_start(tiny: TinyServer) -> None:
    for created, shown in ((int(time.time()), False), (1_700_000_000, True)):
        tiny.behaviour.models = [{"id": "tiny", "created": created}]

        assert shown == bool(listing(Endpoint(url=tiny.url, model="")).created)


def test_a_busy_server_is_a_warning(tiny: TinyServer) -> None:
    tiny.behaviour.metrics = METRICS.format(3.0, 2.0)

    with attach(ServerConfig(name="", url=tiny.url)) as server:
        assert 1 == len(server.warnings)
        assert "busy before the first trial (5 requests)" in server.warnings[0]


def test_a_server_that_only_answers_errors_is_dead(tiny: TinyServer) -> None:
    with attach(ServerConfig(name="", url=tiny.url)) as server:
        tiny.behaviour.health = 404
        assert server.alive()

        tiny.behaviour.health = 500
        assert not server.alive()


# ---- idle ------------------------------------------------------------------------------------------------------------


def test_metrics_of_every_engine_count_what_runs_and_waits() -> None:
    assert 5.0 == requests_in(METRICS.format("3.0", "2.0"))
    assert 0.0 == requests_in(METRICS.format("0.0", "0.0"))
    assert 3.0 == requests_in("# HELP x\nllamacpp:requests_processing 1\nllamacpp:requests_deferred 2\n")
    assert 4.0 == requests_in('sglang:num_running_reqs{tp="0"} 1\nsglang:num_running_reqs{tp="1"} 3 1700000000\n')
    assert requests_in("python_info 1.0\n") is None


def test_settling_waits_until_the_gauges_are_zero(tiny: TinyServer) -> None:
    tiny.behaviour.metrics = METRICS.format(1.0, 0.0)
    still = Stillness(Endpoint(url=tiny.url, model="tiny"))

    assert "was not idle before a trial" in str(still.settle(0.2))
    tiny.behaviour.metrics = METRICS.format(0.0, 0.0)
    assert still.settle(0.0) is None
    assert 0 == tiny.behaviour.generated


def test_a_gauge_that_stands_still_is_moved_by_a_request(tiny: TinyServer) -> None:
    tiny.behaviour.metrics = METRICS.format(1.0, 0.0)

    assert "was not idle" in str(Stillness(Endpoint(url=tiny.url, model="tiny")).settle(2.5))
    assert 1 == tiny.behaviour.generated


def test_without_metrics_a_lone_request_must_be_about_as_quick_as_the_first(tiny: TinyServer) -> None:
    still = Stillness(Endpoint(url=tiny.url, model="tiny"))
    assert still.settle(1.0) is None

    tiny.behaviour.ttft_s = [0.2] * 2
    assert still.settle(5.0) is None
    assert [] == tiny.behaviour.ttft_s

    tiny.behaviour.ttft_s = [0.2] * 10
    assert "was not idle" in str(still.settle(0.3))


def test_a_server_that_answers_no_lone_request_is_not_waited_for(tiny: TinyServer) -> None:
    tiny.behaviour.chat = tiny.behaviour.completions = 400
    still = Stillness(Endpoint(url=tiny.url, model="tiny"))

    assert still.settle(60.0) is None
    assert still.settle(60.0) is None


def test_a_model_without_a_chat_template_is_asked_for_completions(tiny: TinyServer) -> None:
    tiny.behaviour.chat = 400
    still = Stillness(Endpoint(url=tiny.url, model="tiny"))

    assert still.lone_ttft_s(5.0) is not None
    assert still.lone_ttft_s(5.0) is not None
    posts = [seen for seen in tiny.behaviour.seen if seen.startswith("POST")]
    assert ["POST /v1/chat/completions", "POST /v1/completions", "POST /v1/completions"] == posts


def test_caches_are_reset_where_there_are_pages_for_that(tiny: TinyServer) -> None:
    with attach(ServerConfig(name="", url=tiny.url)) as server:
        tiny.behaviour.caches = True
        server.reset_caches()
        tiny.behaviour.caches = False
        server.reset_caches()
        server.reset_caches()

    resets = [seen for seen in tiny.behaviour.seen if "reset" in seen]
    once = ["POST /reset_prefix_cache", "POST /reset_mm_cache", "POST /reset_encoder_cache"]
    assert 2 * once == resets


# ---- warm-up ---------------------------------------------------------------------------------------------------------


def test_times_settle_when_they_no_longer_change() -> None:
    assert not warmup.settled([1.0] * 7)
    assert warmup.settled([9.0, *[1.0] * 8])
    assert not warmup.settled([9.0] * 4 + [1.0] * 4)
    assert not warmup.settled([1.0] * 4 + [9.0] * 4)


class Commands:
    live = False

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        raise AssertionError("a benchmark command does not warm a server up")


class Watched:
    live = True

    def __init__(self) -> None:
        self.probes: list[Probe] = []

    def measure(self, probe: Probe, watch: Watch, seed: int) -> Outcome:
        self.probes.append(probe)
        return Measured(stop=Stop(reason="ended", at_s=0.0), duration_s=0.0)


def test_a_launched_server_is_warmed_up_once_and_an_attached_one_never(tiny: TinyServer, tmp_path: Path) -> None:
    session = Watched()
    with attach(ServerConfig(name="", url=tiny.url)) as server:
        server.warm_up(session)
    assert [] == session.probes

    with launch(ServerConfig(name="", command=COMMAND), tmp_path) as server:
        server.warm_up(session)
        server.warm_up(session)
    assert [("concurrency", 60.0)] == [(probe.by, probe.max_s) for probe in session.probes]


def test_lone_requests_warm_up_for_a_benchmark_command() -> None:
    times = iter([9.0, 5.0, *[1.0] * 7, 99.0])
    warmup.warm_up(Commands(), lambda: next(times))
    assert [99.0] == list(times)

    warmup.warm_up(Commands(), lambda: None)


# ---- launch ----------------------------------------------------------------------------------------------------------


def test_a_launched_server_is_ready_and_gone_afterwards(tmp_path: Path) -> None:
    notes: list[Marker | None] = []

    with launch(ServerConfig(name="s", command=COMMAND), tmp_path, notes.append) as server:
        assert "tiny" == server.endpoint.model
        assert server.alive()
        assert "the tiny server listens" == server.log_tail()

    before, running, after = notes
    assert before is not None
    assert running is not None
    assert (before.uuid, 0) == (running.uuid, before.pid)
    assert server.start_id == running.uuid
    assert after is None
    assert gone(running.pid)
    assert not server.alive()
    assert address.in_use(server.endpoint.url) is None


def test_its_workers_go_with_it(tmp_path: Path) -> None:
    command = (*COMMAND, "--worker", str(tmp_path / "pid"))

    with launch(ServerConfig(name="s", command=command), tmp_path):
        worker = number_in(tmp_path / "pid")
        assert not gone(worker)

    assert gone(worker)


def test_a_server_that_ignores_term_is_killed(tmp_path: Path) -> None:
    config = ServerConfig(name="s", command=(*COMMAND, "--ignore-term"), stop_grace_s=0.2)

    with launch(config, tmp_path) as server:
        pass

    assert not server.alive()
    assert "TERM, ignored" in server.log_tail()


Broken = Callable[[ServerConfig], str]


@pytest.fixture
def why_not(tmp_path: Path) -> Broken:
    """The message of a configuration that cannot start."""

    def why_not(config: ServerConfig) -> str:
        with pytest.raises(RedlineError) as error, launch(config, tmp_path):
            pass
        return str(error.value)

    return why_not


def test_a_command_that_exits_at_once_shows_its_log(why_not: Broken) -> None:
    script = "import sys; print('unknown option'); sys.exit(3)"

    message = why_not(ServerConfig(name="s", command=(sys.executable, "-c", script), port=free_port()))

    assert "server exited with code 3 before http://127.0.0.1:" in message
    assert message.endswith("\nunknown option")


def test_a_server_that_is_never_ready_shows_its_log(why_not: Broken) -> None:
    message = why_not(ServerConfig(name="s", command=(*COMMAND, "--health", "503"), ready_timeout_s=1.0))

    assert "server was not ready after 1 s: " in message
    assert "/health answers 503" in message
    assert message.endswith("\nthe tiny server listens")


def test_a_port_in_use_is_named_with_its_holder(why_not: Broken, tiny: TinyServer) -> None:
    message = why_not(ServerConfig(name="s", command=COMMAND, port=tiny.server_port))

    assert f"port {tiny.server_port} is already in use by pid " in message
    assert "{port} in the command takes a free one" in message


def test_a_port_that_is_bound_but_does_not_listen_is_in_use(why_not: Broken) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        assert "is already in use by another process" in why_not(
            ServerConfig(name="s", command=COMMAND, port=bound.getsockname()[1])
        )


def test_a_command_that_does_not_exist_is_told(why_not: Broken) -> None:
    assert "cannot start 'no-such-engine'" in why_not(
        ServerConfig(name="s", command=("no-such-engine", "--port={port}"))
    )


def test_a_model_that_is_not_served_stops_the_server_again(why_not: Broken) -> None:
    assert "it serves tiny" in why_not(ServerConfig(name="s", command=COMMAND, model="big"))


def test_a_variable_that_is_not_set_is_named_before_anything_starts(tmp_path: Path) -> None:
    config = ServerConfig(name="s", command=COMMAND, env={"TOKEN": "${REDLINE_NOT_SET}"})

    with pytest.raises(UsageError, match=r"REDLINE_NOT_SET is not set \(env of s\)"), launch(config, tmp_path):
        pass
    assert [] == list(tmp_path.iterdir())


def test_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDLINE_A", "x")

    assert "-x-$REDLINE_A-x" == ask.expand("-${REDLINE_A}-$REDLINE_A-${REDLINE_A}", "here")


def test_each_start_has_a_log_of_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        with launch(ServerConfig(name="s", command=COMMAND), tmp_path):
            pass

    assert {"server.log", "server-2.log"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("command", "url"),
    [
        (("vllm", "serve", "m", "--port", "8123"), "http://127.0.0.1:8123"),
        (("vllm", "serve", "m", "--host=0.0.0.0", "-p", "8123"), "http://127.0.0.1:8123"),
        (("vllm", "serve", "m", "--host", "::", "--port=8123"), "http://[::1]:8123"),
        (("vllm", "serve", "m", "--host", "10.1.2.3", "--port=8123"), "http://10.1.2.3:8123"),
    ],
)
def test_the_address_is_the_one_that_the_command_gives(command: tuple[str, ...], url: str) -> None:
    assert url == address.resolve(ServerConfig(name="s", command=command))[1]


def test_a_port_is_filled_in_everywhere() -> None:
    config = ServerConfig(
        name="s", start=("run", "-p", "{port}:8000"), stop=("stop", "s-{port}"), url="http://localhost:{port}/llm/v1"
    )

    filled, url = address.resolve(config)

    assert url == f"http://localhost:{filled.port}/llm"
    assert ("run", "-p", f"{filled.port}:8000") == filled.start
    assert ("stop", f"s-{filled.port}") == filled.stop


def test_a_command_without_a_port_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="does not say on which port"):
        address.resolve(ServerConfig(name="s", command=("docker", "run", "-p", "8000:8000")))


# ---- what a server held ----------------------------------------------------------------------------------------------


def test_a_port_that_stays_in_use_after_a_stop_is_a_warning(tiny: TinyServer) -> None:
    assert f"port {tiny.server_port} is still in use by pid" in str(wait_until_released(tiny.url, (), limit_s=0.2))
    assert wait_until_released(f"http://127.0.0.1:{free_port()}", ()) is None


def test_memory_of_the_gpus_must_come_back_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path}/used\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    free = f"http://127.0.0.1:{free_port()}"

    (tmp_path / "used").write_text("10\n70000\n")
    assert (10, 70_000) == gpu_memory_mib()
    assert "GPU 1 still has 69000 MiB more in use" in str(wait_until_released(free, (10, 1000), limit_s=0.0))
    (tmp_path / "used").write_text("10\n1400\n")
    assert wait_until_released(free, (10, 1000), limit_s=0.0) is None
    (tmp_path / "used").write_text("No devices were found\n")
    assert () == gpu_memory_mib()


# ---- servers that are no foreground process --------------------------------------------------------------------------


def daemon(tmp_path: Path, stop: str) -> ServerConfig:
    """Started by a command that ends at once, in a session and environment of its own."""
    command = f"setsid env -u REDLINE_SERVER {sys.executable} {SCRIPT} --port {{port}} > {tmp_path}/out 2>&1 & "
    return ServerConfig(
        name="d",
        start=("sh", "-c", command + f"echo $! > {tmp_path}/pid"),
        stop=("sh", "-c", stop),
        log=("cat", str(tmp_path / "out")),
        url="http://127.0.0.1:{port}",
    )


def test_start_stop_and_log_commands_run_a_server_that_is_no_child(tmp_path: Path) -> None:
    with launch(daemon(tmp_path, f"kill $(cat {tmp_path}/pid)"), tmp_path / "logs") as server:
        assert server.alive()
        assert "the tiny server listens" == server.log_tail()

    assert gone(number_in(tmp_path / "pid"))


def test_a_stop_command_that_fails_is_told(tmp_path: Path) -> None:
    warnings: list[str] = []
    config = daemon(tmp_path, f"kill $(cat {tmp_path}/pid); echo no such container; exit 1")

    with launch(config, tmp_path / "logs", warn=warnings.append):
        pass

    assert 1 == len(warnings)
    assert warnings[0].startswith("stop command exited with code 1: sh -c")
    assert warnings[0].endswith("no such container")


def test_a_start_command_that_fails_shows_what_it_said(why_not: Broken) -> None:
    config = ServerConfig(
        name="d", start=("sh", "-c", "echo no such image; exit 125"), url=f"http://127.0.0.1:{free_port()}"
    )

    message = why_not(config)

    assert "start command exited with code 125" in message
    assert message.endswith("\nno such image")
    assert process.MARK not in message
