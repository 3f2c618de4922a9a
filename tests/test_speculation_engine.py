"""An engine that speculates: proposers that fail, settings that contradict, going back, and ends inside an accepted run."""

from __future__ import annotations

import os
import signal

import pytest
import tiny_models
from scripted_cells import ANSWER, ByteTokenizer
from test_magics import error_of, magics_of, shell  # noqa: F401 (the fixture)

from workbench import Engine, EngineConfig, load_trace
from workbench.errors import ConfigError
from workbench.runners.drafters.make import first_layers, make_drafter
from workbench.runners.drafters.own import OwnDrafter
from workbench.runners.drafters.tokens import TokenDrafter
from workbench.runners.scripted import ScriptedRunner
from workbench.runners.torch_runner import TorchRunner

VOCAB = 101
PROMPTS = [
    {"prompt_token_ids": [(5 * i + j * j) % 7 for j in range(6 + 5 * i)], "temperature": 0.9 * (i % 2), "seed": i, "arrival_step": 2 * i}
    for i in range(4)
]
POOL = dict(num_blocks=64, block_size=4)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tiny_models.load("llama", tmp_path_factory.mktemp("target"))


def engine_with(target, drafter=None, method=None, **knobs) -> Engine:
    """An engine on ``target`` with a drafter, or the method's; without either it does not speculate."""
    drafter = make_drafter(method, target) if method else drafter
    drafts = {"num_speculative_tokens": 3} if drafter else {}
    runner = TorchRunner(target, drafter=drafter, num_threads=1, **POOL)
    return Engine(runner, **{"speculative": method, "debug": True, "max_num_batched_tokens": 32, **drafts, **POOL, **knobs})


def finish(engine: Engine, **params) -> list[tuple[int, ...]]:
    return [output.token_ids for output in engine.run([dict(prompt) for prompt in PROMPTS], **{"max_tokens": 20, **params}).outputs]


@pytest.fixture(scope="module")
def plain(target):
    """What the prompts give without speculation."""
    return finish(engine_with(target))


class Faulty:
    """Guesses the last token again, but in its fifth call answers what ``fault`` makes of the question."""

    def __init__(self, fault) -> None:
        self.fault, self.calls = fault, 0

    def propose(self, wanted):
        self.calls += 1
        return self.fault(wanted) if self.calls == 5 else [[one.token_ids[-1]] * one.limit for one in wanted]


def all_of(drafts):
    return lambda wanted: [drafts for _ in wanted]


def fails(wanted):
    raise ValueError("no idea")


def fails_at_length(wanted):
    raise RuntimeError("first line\n\tsecond line\n")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (fails, "ValueError: no idea"),
        (fails_at_length, "RuntimeError: first line second line"),
        (lambda wanted: [[1] * (one.limit + 1) for one in wanted], "4 drafts for r0, at most 3 were wanted"),
        (all_of([1, VOCAB]), "draft 101 for r0 is no token id (0 to 100)"),
        (all_of([1.0]), "draft 1.0 for r0 is no token id"),
        (all_of([-5]), "draft -5 for r0 is no token id"),
        (all_of([-1]), "draft -1 for r0 is no token id"),
        (all_of([True]), "draft True for r0 is no token id"),
        (all_of([None]), "draft None for r0 is no token id"),
        (all_of([float("nan")]), "draft nan for r0 is no token id"),
        (all_of(["1"]), "draft '1' for r0 is no token id"),
        (all_of(7), "TypeError"),
        (lambda wanted: [], "the proposer answered for 0 requests, 3 were asked"),
        (lambda wanted: [[1]] * (len(wanted) + 1), "the proposer answered for 4 requests, 3 were asked"),
        (lambda wanted: None, "TypeError"),
    ],
    ids=[
        *("raises", "says much", "too many", "beyond the vocabulary", "float", "-5", "-1", "bool", "nothing", "nan", "text"),
        *("no list", "too short", "too long", "none"),
    ],
)
def test_a_proposer_that_fails_costs_its_step_the_drafts_and_nothing_else(target, plain, fault, says):
    engine = engine_with(target, TokenDrafter(Faulty(fault)))
    assert finish(engine) == plain
    records = engine.trace.records
    (failed,) = [record for record in records if record.draft_problem]
    assert says in failed.draft_problem
    assert "\n" not in failed.draft_problem
    assert failed.proposed == ()
    assert failed.sampled
    assert records[failed.step + 1].spec == ()
    assert records[failed.step + 1].proposed
    assert records[failed.step - 1].proposed


def test_a_proposer_that_always_fails_leaves_an_engine_without_drafts(target, plain):
    class Broken:
        def propose(self, wanted):
            raise RuntimeError("never")

    engine = engine_with(target, TokenDrafter(Broken()))
    assert finish(engine) == plain
    decided = [record for record in engine.trace.records if record.sampled]
    assert sum(record.draft_problem == "RuntimeError: never" for record in decided) >= len(decided) - len(PROMPTS)  # at an end none asks
    assert engine.last_run.metrics.acceptance_rate is None


# -- settings ----------------------------------------------------------------------------------------------------------

WRONG = [
    ({"speculative": "ngram", "num_speculative_tokens": 65}, "num_speculative_tokens must be at most 64, not 65"),
    ({"speculative": "ngram", "num_speculative_tokens": 0}, "needs num_speculative_tokens of at least 1, not 0"),
    ({"speculative": "ngram", "num_speculative_tokens": -1}, "num_speculative_tokens must be at least 0, not -1"),
    ({"speculative": "ngram", "num_speculative_tokens": "autoo"}, "'autoo'"),
    ({"speculative": "ngramm"}, "unknown speculative method 'ngramm': did you mean 'ngram'?"),
    ({"speculative": "ngram:4-2"}, "4 to 2"),
    ({"speculative": "draft:skip:3"}, "keep 1 to 2"),
    ({"speculative": "draft:"}, "draft"),
    ({"speculative": "eagle"}, "no EAGLE head for llama comes with the package"),
    ({"speculative": "eagle:/nowhere/head.safetensors"}, "there is no EAGLE head '/nowhere/head.safetensors'"),
    ({"speculative": "synthetic:1.5"}, "synthetic:RATE"),
    ({"speculative": "ngram", "draft_sample_method": "probabilistic"}, "ngram, whose drafts have no probabilities: leave it at greedy"),
    ({"draft_sample_method": "probabilistic"}, "speculative is None, whose drafts have no probabilities"),
    ({"speculative": "suffix", "min_draft_probability": 0.2}, "suffix, whose drafts have no probabilities: leave it at 0"),
    ({"speculative": "ngram", "min_draft_probability": 1.5}, "probability must be at most 1, not 1.5"),
    ({"num_speculative_tokens": 3}, "proposes no drafts"),
    ({"num_speculative_tokens": "auto"}, "proposes no drafts"),
]


@pytest.mark.parametrize(("knobs", "says"), WRONG, ids=str)
def test_settings_that_cannot_be_are_told_in_one_line(target, knobs, says):
    with pytest.raises(ConfigError) as caught:
        Engine(target, tokenizer=ByteTokenizer(), **POOL, **knobs)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_runner_without_a_drafter_takes_no_method():
    with pytest.raises(ConfigError, match="speculative is ngram, but this runner proposes no drafts: leave it out"):
        Engine(ScriptedRunner(), speculative="ngram", **POOL)


@pytest.mark.parametrize(("knobs", "says"), [entry for entry in WRONG if entry[0].get("num_speculative_tokens") != "autoo"], ids=str)
def test_a_cell_tells_them_in_one_line(target, shell, capsys, knobs, says):  # noqa: F811
    magics_of(shell).session._make = lambda config: Engine(target, tokenizer=ByteTokenizer(), config=config.replace(**POOL))
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in knobs.items())
    line = error_of(shell, f"%%infer --raw {options}\n01", capsys)
    assert line.startswith("UsageError: ")
    assert says.replace("num_speculative_tokens must", "--num-speculative-tokens must") in line


def test_a_cell_asks_for_a_number_or_auto(shell, capsys):  # noqa: F811
    line = error_of(shell, "%%infer --speculative ngram --num-speculative-tokens autoo\nhello", capsys)
    assert line == "UsageError: --num-speculative-tokens takes a whole number or auto, not 'autoo'"


# -- auto, and going back ----------------------------------------------------------------------------------------------


@pytest.fixture
def adaptive(target):
    """An engine that chose its drafts for a while and still has requests."""
    engine = engine_with(target, method="ngram:1-3", num_speculative_tokens="auto")
    for prompt in PROMPTS:
        engine.add_request(dict(prompt), max_tokens=60, ignore_eos=True)
    for _ in range(40):
        engine.step()
    assert engine.has_unfinished
    return engine


def choices(engine: Engine, step: int) -> list:
    """What the engine would choose before ``step`` for batches of one to five: all that is seen of what it learned."""
    learned = engine.scheduler_before(step).adaptive
    return [learned.choose(num_decoding, step) for num_decoding in range(1, 6)]


def test_every_choice_is_recorded_and_was_kept_to(adaptive):
    records = adaptive.trace.records
    assert {record.draft_choice.reason for record in records} >= {"measuring", "probe"}
    assert any(record.draft_choice.num_drafts for record in records)
    for record in records:
        assert all(len(one.token_ids) <= record.draft_choice.num_drafts for one in record.proposed)


def test_every_recorded_choice_follows_from_the_records_before_it(adaptive):
    for record in adaptive.trace.records:
        learned = adaptive.scheduler_before(record.step).adaptive
        decoding = sum(bool(sampled.token_ids) for sampled in record.sampled)
        assert learned.choose(decoding, record.step) == record.draft_choice


@pytest.mark.parametrize("at", [1, 7, 23, 40])
def test_rewinding_brings_back_what_was_learned(adaptive, at):
    before, kept = choices(adaptive, at), [record.draft_choice for record in adaptive.trace.records[:at]]
    adaptive.rewind(at)
    assert choices(adaptive, at) == before
    record = adaptive.step()
    assert [record.draft_choice for record in adaptive.trace.records[:at]] == kept
    decoding = len(record.sampled)
    assert record.draft_choice == before[decoding - 1] if decoding else record.draft_choice.reason == "measuring"


@pytest.mark.parametrize("at", [7, 23, 40])
def test_a_fork_and_an_engine_from_a_trace_know_what_was_learned(adaptive, target, tmp_path, at):
    before = choices(adaptive, at)
    twin = adaptive.fork(at)
    assert choices(twin, at) == before
    adaptive.rewind(at)
    adaptive.trace.save(tmp_path / "run.trace")
    drafter = make_drafter("ngram:1-3", target)
    again = Engine.from_trace(load_trace(tmp_path / "run.trace"), TorchRunner(target, drafter=drafter, num_threads=1, **POOL))
    assert choices(again, at) == before


def test_a_rewound_engine_gives_the_same_tokens_whatever_it_chooses_now(adaptive, target):
    adaptive.rewind(11)
    while adaptive.has_unfinished:
        adaptive.step()
    expected = engine_with(target)
    for prompt in PROMPTS:
        expected.add_request(dict(prompt), max_tokens=60, ignore_eos=True)
    while expected.has_unfinished:
        expected.step()
    assert outputs(adaptive) == outputs(expected)


def outputs(engine: Engine) -> dict[str, list[int]]:
    tokens: dict[str, list[int]] = {}
    for record in engine.trace.records:
        for sampled in record.sampled:
            tokens.setdefault(sampled.request_id, []).extend(sampled.token_ids)
    return tokens


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ngram:1-3", "draft:skip:2"])
def test_an_abort_between_proposing_and_verifying_leaves_the_others_alone(target, plain, method):
    engine = engine_with(target, method=method)
    for prompt in PROMPTS:
        engine.add_request(dict(prompt), max_tokens=20)
    states = engine.scheduler.queues.states
    while not ("r1" in states and states["r1"].draft_token_ids):
        engine.step()
    engine.abort("r1")
    record = engine.step()
    assert "r1" not in {one.request_id for one in record.spec}
    while engine.has_unfinished:
        engine.step()
    found = outputs(engine)
    assert tuple(found.pop("r1")) == plain[1][: len(outputs(engine)["r1"])] != plain[1]
    assert [tuple(found[name]) for name in ("r0", "r2", "r3")] == [plain[0], plain[2], plain[3]]
    assert engine.trace.records[-1].kv_after.in_use == 0


def answering(drafts: bool) -> Engine:
    """An engine that says ``ANSWER`` over and over, with four right drafts each step or none."""
    says = ANSWER.encode() * 4

    def right(name, known):
        return list(says[len(known) - 5 : len(known) - 1])

    runner = ScriptedRunner(lambda name, position: says[position], drafts=right if drafts else None)
    return Engine(runner, tokenizer=ByteTokenizer(), num_blocks=64, num_speculative_tokens=4 if drafts else 0, debug=True)


@pytest.mark.parametrize("stop", ["s, o", "of", "cour", ".", " Yes", "Y"])
def test_a_stop_string_inside_an_accepted_run_cuts_there(stop):
    params = {"stop": stop, "max_tokens": 50, "chat": False}
    drafted = answering(True)
    output, expected = drafted.run("abcde", **params).outputs[0], answering(False).run("abcde", **params).outputs[0]
    assert (output.text, output.token_ids) == (expected.text, expected.token_ids)
    assert (output.finish_reason, output.stop_reason) == ("stop", stop)
    assert drafted.trace.records[-1].kv_after.in_use == 0
    assert len(drafted.trace) < len(expected.token_ids) or len(expected.token_ids) == 1


def test_of_a_run_that_a_stop_string_cuts_nothing_after_it_is_said():
    engine = answering(True)
    engine.run("abcde", stop="f", max_tokens=50, chat=False)
    last = engine.trace.records[-1]
    assert (last.spec[0].accepted, len(last.sampled[0].token_ids)) == (4, 1 + ANSWER[6:].index("f"))
    assert last.sampled[0].token_ids[-1] == ord("f")


@pytest.mark.parametrize("max_tokens", range(1, 13))
def test_a_length_that_ends_inside_an_accepted_run_is_kept_to(max_tokens):
    output = answering(True).run("abcde", max_tokens=max_tokens, chat=False).outputs[0]
    assert (output.text, output.finish_reason) == (ANSWER[:max_tokens], "length")


@pytest.mark.parametrize("method", ["ngram:1-3", "draft:skip:2"])
def test_log_probabilities_of_accepted_tokens_are_the_targets(target, plain, method):
    drafted, alone = engine_with(target, method=method), engine_with(target)
    assert finish(drafted, logprobs=3) == finish(alone, logprobs=3) == plain
    assert drafted.last_run.metrics.acceptance_rate > 0.05
    for output, expected in zip(drafted.last_run.outputs, alone.last_run.outputs, strict=True):
        assert len(output.logprobs) == len(expected.logprobs) == len(output.token_ids)
        for mine, theirs in zip(output.logprobs, expected.logprobs, strict=True):
            assert (mine.token_id, mine.rank, mine.top_ids) == (theirs.token_id, theirs.rank, theirs.top_ids)
            assert [mine.logprob, *mine.top_logprobs] == pytest.approx([theirs.logprob, *theirs.top_logprobs], abs=1e-4)


# -- interrupts --------------------------------------------------------------------------------------------------------


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # a signal is handled between bytecodes, not at once
        pass


class InterruptedTokens(Faulty):
    def __init__(self, strike) -> None:
        super().__init__(lambda wanted: strike())


class InterruptedDrafter(OwnDrafter):
    """Struck after it has drafted for the fifth time, when its drafts stand in the cache."""

    calls, strike = 0, staticmethod(interrupt)

    def on(self, num_blocks, block_size):
        return self

    def draft(self, rows, after):
        drafts = super().draft(rows, after)
        self.calls += 1
        if self.calls == 5:
            self.strike()
        return drafts


def raised() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("strike", [interrupt, raised])
@pytest.mark.parametrize("kind", ["tokens", "model"])
def test_an_interrupt_while_drafting_loses_nothing(target, plain, kind, strike):
    drafter = TokenDrafter(InterruptedTokens(strike)) if kind == "tokens" else InterruptedDrafter(first_layers(target, 2))
    drafter.strike = strike
    engine = engine_with(target, drafter)
    for prompt in PROMPTS:
        engine.add_request(dict(prompt), max_tokens=20)
    interrupted = []
    while engine.has_unfinished:
        try:
            engine.step()
        except KeyboardInterrupt:
            interrupted.append(len(engine.trace))
    assert len(interrupted) == 1
    assert [command.kind for command in engine.trace.records[interrupted[0]].commands if command.kind == "abandoned"] == ["abandoned"]
    assert [tuple(outputs(engine)[f"r{index}"]) for index in range(len(PROMPTS))] == plain
    assert not any(record.draft_problem for record in engine.trace.records)
    assert engine.trace.records[-1].kv_after.in_use == 0


def test_settings_know_the_most_drafts_that_a_step_can_verify():
    assert EngineConfig().max_drafts == 0
    assert EngineConfig(speculative="eagle").max_drafts == 4
    assert EngineConfig(speculative="eagle", num_speculative_tokens=64).max_drafts == 64
    assert EngineConfig(speculative="eagle", num_speculative_tokens="auto").max_drafts == 6
