"""What preflight learns from servers that take more or less, without a network."""

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from redline import lengths
from redline.experiment.datasets import parse_dataset
from redline.loadgen.learning import Reply
from redline.loadgen.payload import target_of
from redline.loadgen.preflight import preflight
from redline.model import Endpoint, Lengths, RedlineError, UsageError, Vocabulary, Workload
from redline.talks import turns_like

URL = "http://host:8000"
CHAT = Workload(name="chat", prompt=Lengths(mean=200), output=Lengths(mean=50))
IDS = Workload(
    name="ids",
    prompt=Lengths(mean=200),
    output=Lengths(mean=50),
    api="completions",
    prompt_kind="tokens",
    ignore_eos=False,
)


def reply(code: int = 200, **more: Any) -> Reply:
    facts: dict[str, Any] = {
        "ok": code == 200,
        "words": "",
        "code": code,
        "broken": "",
        "headers": {},
        "streamed": code == 200,
        "events": 0,
        "tokens_in": -1,
        "tokens_out": -1,
        "finish": "length",
        "first_s": 0.1,
    }
    return Reply(**{**facts, **more})


@dataclass
class FakeServer:
    """Two tokens a word (`tokens_each`) and ten for the template, unless told otherwise."""

    refuses: dict[str, str] = field(default_factory=dict)  # option -> what it says
    ignores: tuple[str, ...] = ()
    usage: str = "stream"  # stream, plain or none
    models: dict[str, Any] | None = None
    vocabulary: int = 100_000
    late: bool = False  # finds unknown token ids when the stream has begun
    always: Reply | None = None
    tokens_each: int = 2
    asked: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, method: str, path: str, body: bytes | None) -> Reply:
        if method == "GET":
            assert path == "/v1/models"
            listed = {"data": [self.models]} if self.models else {}
            return reply(body=json.dumps(listed).encode()) if self.models else reply(404)
        assert body is not None
        request = json.loads(body)
        self.asked.append(request)
        if self.always is not None:
            return self.always
        for option, words in self.refuses.items():
            if option in request:
                return reply(400, words=f"HTTP 400: {words}")
        prompt = request.get("prompt") or request["messages"][0]["content"]
        if isinstance(prompt, list) and max(prompt) >= self.vocabulary:
            said = "out of vocabulary"
            return reply(ok=False, words=said, broken=said) if self.late else reply(400, words=f"HTTP 400: {said}")
        tokens_in = len(prompt) if isinstance(prompt, list) else self.tokens_each * len(prompt.split()) + 10
        if not request["stream"]:
            counts = {"prompt_tokens": tokens_in} if self.usage == "plain" else {}
            return reply(ok=False, streamed=False, body=json.dumps({"choices": [], "usage": counts}).encode())
        named = [
            name for name in ("max_tokens", "max_completion_tokens") if name in request and name not in self.ignores
        ]
        tokens = request[named[0]] if named else 99
        if "ignore_eos" in self.ignores:
            tokens = 3
        told = self.usage == "stream" and "stream_options" in request
        return reply(events=tokens, tokens_in=tokens_in if told else -1, tokens_out=tokens if told else -1)


def learn(server: FakeServer, workload: Workload = CHAT, model: str = "m"):
    return preflight(server, target_of(Endpoint(url=URL, model=model)), model, workload)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_that_takes_everything_costs_two_requests_and_no_warning():
    server = FakeServer()
    learnt = learn(server)

    assert len(server.asked) == 2
    assert learnt.warnings == ()
    assert (learnt.shape.tokens_per_word, learnt.shape.extra_tokens) == (2.0, 10.0)
    assert learnt.facts["usage"] is True
    assert {"max_tokens", "min_tokens", "ignore_eos", "stream_options"} < set(server.asked[0])


def test_facts_can_be_stored():
    assert json.loads(json.dumps(learn(FakeServer()).facts))["length_field"] == "max_tokens"


@pytest.mark.parametrize("words", ["Unrecognized request argument: {}", "extra fields not permitted"])
@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ({"min_tokens"}, {"max_tokens", "ignore_eos", "stream_options"}),
        ({"stream_options"}, {"max_tokens", "ignore_eos", "min_tokens"}),
        ({"ignore_eos", "min_tokens"}, {"max_tokens", "stream_options"}),
        ({"ignore_eos", "min_tokens", "stream_options"}, {"max_tokens"}),
        ({"max_tokens"}, {"max_completion_tokens", "ignore_eos", "min_tokens", "stream_options"}),
        ({"max_tokens", "ignore_eos", "min_tokens"}, {"max_completion_tokens", "stream_options"}),
    ],
)
def test_refused_options_are_dropped_and_no_others(refused, left, words):
    hint = {"max_tokens": "max_tokens is not supported, use max_completion_tokens"}
    server = FakeServer(refuses={name: words.format(hint.get(name, name)) for name in sorted(refused)})
    learnt = learn(server)

    options = {"max_tokens", "max_completion_tokens", "ignore_eos", "min_tokens", "stream_options"}
    assert left == set(server.asked[-1]) & options
    assert ("ignore_eos" in refused) == any("ignore_eos" in text for text in learnt.warnings)
    assert ("stream_options" in refused) == any("stream_options" in text for text in learnt.warnings)


def test_a_server_that_ignores_max_tokens_gets_the_newer_name():
    learnt = learn(FakeServer(ignores=("max_tokens",)))

    assert learnt.shape.length_field == "max_completion_tokens"
    assert learnt.warnings == ()


def test_outputs_that_end_early_are_a_warning():
    assert ["the server ignored ignore_eos: it sent 3 tokens where 8 were asked for"] == list(
        learn(FakeServer(ignores=("ignore_eos",))).warnings
    )


def test_a_workload_that_lets_answers_end_does_not_ask_to_ignore_it():
    server = FakeServer()
    workload = Workload(name="free", prompt=Lengths(mean=50), output=Lengths(mean=50), ignore_eos=False)
    learn(server, workload)

    assert not {"ignore_eos", "min_tokens"} & set(server.asked[0])


def test_tokens_per_word_come_from_an_answer_in_one_piece_where_streams_tell_nothing():
    learnt = learn(FakeServer(usage="plain"))

    assert (2.0, 10.0) == (learnt.shape.tokens_per_word, learnt.shape.extra_tokens)
    assert ["the server sends no usage: output tokens are counted as one per content event"] == list(learnt.warnings)


def test_tokens_per_word_are_assumed_where_nothing_tells_them():
    learnt = learn(FakeServer(usage="none"))

    assert learnt.shape.tokens_per_word == 1.3
    assert any("1.3 tokens per word are assumed" in text for text in learnt.warnings)


def test_prompts_of_preflight_are_never_the_same():
    server = FakeServer()
    learn(server)
    learn(server)

    prompts = [request["messages"][0]["content"] for request in server.asked]
    assert len({prompt[:20] for prompt in prompts}) == len(prompts) == 4


@pytest.mark.parametrize(("vocabulary", "ids"), [(100_000, (1_000, 30_000)), (2_000, (300, 1_900)), (256, (100, 250))])
def test_token_ids_stay_within_the_vocabulary(vocabulary, ids):
    assert ids == learn(FakeServer(vocabulary=vocabulary), IDS).shape.ids


def test_a_server_that_finds_unknown_ids_only_in_the_stream_is_asked_for_lower_ones():
    server = FakeServer(vocabulary=2_000, late=True)  # as vLLM 0.32 does

    assert learn(server, IDS).shape.ids == (300, 1_900)


def test_a_small_context_is_not_exceeded_by_learning():
    server = FakeServer(models={"id": "m", "max_model_len": 128})
    learn(server, Workload(name="w", prompt=Lengths(mean=40), output=Lengths(mean=9)))

    assert max(2 * len(request["messages"][0]["content"].split()) + 10 for request in server.asked) < 128 - 9


def test_a_server_without_token_ids_says_so():
    with pytest.raises(RedlineError, match=r'takes no token ids as a prompt: HTTP 400: out of.*prompt_kind = "text"'):
        learn(FakeServer(vocabulary=10), IDS)


def test_token_ids_in_chat_are_a_mistake():
    workload = Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), prompt_kind="tokens")

    with pytest.raises(UsageError, match='only api = "completions" takes'):
        learn(FakeServer(), workload)


def test_a_workload_beyond_the_context_is_refused_before_any_prompt_of_its_length():
    server = FakeServer(models={"id": "m", "max_model_len": 128})

    with pytest.raises(
        UsageError, match="250 tokens of prompt and output on average, and m at http://host:8000 takes 128"
    ):
        learn(server)
    assert len(server.asked) == 1


def test_conversations_beyond_the_context_are_told_of():
    talking = Workload(name="w", prompt=Lengths(mean=200), output=Lengths(mean=50), turns=turns_like(4, 0.0))
    text = "conversations come to 1,000 tokens on average, and the context takes 900: their oldest turns are left out"

    assert text in learn(FakeServer(models={"id": "m", "max_model_len": 900}), talking).warnings
    assert text not in learn(FakeServer(models={"id": "m", "max_model_len": 2000}), talking).warnings


def test_a_tail_beyond_the_context_is_cut_and_said():
    spread = Workload(name="w", prompt=Lengths(mean=200, cv=1.0), output=Lengths(mean=50))
    learnt = learn(FakeServer(models={"id": "m", "max_model_len": 600}), spread)

    assert learnt.shape.context_limit == 600
    assert any("are cut to fit the context of 600 tokens" in text for text in learnt.warnings)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (reply(401, words="HTTP 401: no key"), r"HTTP 401: no key; name the variable .* --api-key-env"),
        (reply(403, words="HTTP 403: not you"), r"HTTP 403: not you; name the variable"),
        (
            reply(404, words="HTTP 404: no such model"),
            r"HTTP 404: no such model; check the URL and --model \('m' was asked for; it serves other\)",
        ),
        (reply(429, words="HTTP 429: later"), r"HTTP 429: later; it rejects a single request"),
        (reply(500, words="HTTP 500: oops"), r"HTTP 500: oops; change the workload"),
        (reply(400, words="HTTP 400: no chat template"), r"HTTP 400: no chat template; change the workload .*--api"),
        (reply(307, headers={"location": "http://there/v1"}), r"redirects to http://there/v1; give the address"),
        (reply(0, ok=False, broken="connection reset"), r"got no usable answer: connection reset; check"),
        (reply(ok=False, streamed=False, words="answered with one JSON document"), r"server-sent events"),
        (reply(ok=False, words="error event: boom"), r"error event: boom; check the server's log"),
    ],
)
def test_what_cannot_be_measured_says_why_and_what_to_do(answer, words):
    server = FakeServer(always=answer, models={"id": "other"})

    with pytest.raises(RedlineError, match=r"POST http://host:8000/v1/chat/completions .*" + words):
        learn(server)


def test_proxies_of_the_environment_are_named_as_unused(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")

    assert any("HTTPS_PROXY is set" in text for text in learn(FakeServer()).warnings)


# ---- prompts of a file ----


def written(text: str, **more: Any) -> Workload:
    dataset = parse_dataset(text, "p.jsonl")
    return Workload(name="w", prompt=Lengths(mean=20), output=Lengths(mean=9), dataset=dataset, **more)


def lines(*prompts: str, **more: Any) -> str:
    return "\n".join(json.dumps({"prompt": prompt, "output_tokens": 5, **more}) for prompt in prompts)


def test_the_sizes_of_a_files_prompts_are_learnt_from_what_the_server_counts():
    learnt = learn(FakeServer(), written(lines(*("abcdefg " * 40 for _ in range(50)))))

    # two tokens a word, of eight bytes
    assert learnt.workload.dataset.tokens_per_byte == pytest.approx(2 / 8, rel=0.05)
    assert learnt.warnings == ()


def test_no_prompt_of_the_file_is_sent_before_the_first_trial():
    server = FakeServer()
    learn(server, written(lines(*(f"prompt {n}" for n in range(50)))))

    sent = [request["messages"][0]["content"] for request in server.asked]
    assert not any(content.startswith("prompt") for content in sent)


def test_prompts_beyond_the_context_are_left_out_and_counted():
    workload = written(lines(*["short enough"] * 30, "word " * 2_000))
    learnt = learn(FakeServer(models={"id": "m", "max_model_len": 1_000}), workload)

    assert "1 of the 31 prompts of p.jsonl do not fit the context of 1000 tokens, and are left out" in learnt.warnings
    assert 30 == lengths.usable_prompts(learnt.workload.dataset)


def test_a_file_of_which_no_prompt_fits_is_refused():
    with pytest.raises(UsageError, match=r"no prompt of p.jsonl fits the 100 tokens"):
        learn(FakeServer(models={"id": "m", "max_model_len": 100}), written(lines("word " * 2_000)))


def test_messages_need_the_chat_api():
    text = json.dumps({"messages": [{"role": "user", "content": "hi"}], "output_tokens": 3})

    with pytest.raises(UsageError, match='only api = "chat" takes'):
        learn(FakeServer(), written(text, api="completions"))


def test_what_only_some_prompts_ask_for_is_tried_before():
    server = FakeServer(refuses={"ignore_eos": "no ignore_eos"})
    learnt = learn(server, written(lines("hi", ignore_eos=True), ignore_eos=False))

    assert "ignore_eos" in server.asked[0]
    assert any("refused ignore_eos" in warning for warning in learnt.warnings)


WHOLE = Vocabulary(file="tokenizer.json", sha256="s", text=b"alma bene cori duso entu alne beri coso dutu enma")


def test_words_of_a_tokenizer_are_a_token_each_and_the_rest_is_the_template():
    server = FakeServer(tokens_each=1)
    shape = learn(server, replace(CHAT, tokenizer=WHOLE)).shape

    assert (1.0, 10.0) == (shape.tokens_per_word, shape.extra_tokens)
    assert {*server.asked[1]["messages"][0]["content"].split()} <= set(WHOLE.words)


def test_a_tokenizer_of_another_model_is_a_warning_and_the_server_counts():
    learnt = learn(FakeServer(), replace(CHAT, tokenizer=WHOLE))

    assert 2.0 == learnt.shape.tokens_per_word
    assert any("tokenizer.json is not how m counts: " in warning for warning in learnt.warnings)


def test_a_server_that_tells_no_length_takes_the_tokenizers():
    learnt = learn(FakeServer(usage="none"), replace(CHAT, tokenizer=WHOLE))

    assert (1.0, 0.0) == (learnt.shape.tokens_per_word, learnt.shape.extra_tokens)


def test_further_fields_are_in_every_request():
    server = FakeServer()
    learn(server, Workload(name="w", prompt=Lengths(mean=9), output=Lengths(mean=9), extra={"temperature": 0.7}))

    assert [0.7] * len(server.asked) == [request["temperature"] for request in server.asked]
