from __future__ import annotations

import threading
from time import sleep

import pytest

from workbench import ConfigError, Engine, EngineBusyError, EngineClosedError, EngineConfig, RequestError
from workbench.events import Reason, Verdict
from workbench.runners.base import Runner
from workbench.runners.replay import ReplayRunner
from workbench.runners.scripted import ScriptedRunner


def scripted(outputs=None, **knobs) -> Engine:
    return Engine(ScriptedRunner(outputs), debug=True, **{"num_blocks": 64, **knobs})


class Failing(ScriptedRunner):
    """Raises once at a given step."""

    def __init__(self, at: int, error: BaseException) -> None:
        super().__init__(lambda name, position: position)
        self.at, self.error = at, error

    def execute(self, plan):
        if plan.step == self.at and self.error is not None:
            error, self.error = self.error, None
            raise error
        return super().execute(plan)


class Gated(ScriptedRunner):
    """Waits for permission before each step."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)

    def execute(self, plan):
        assert self.gate.acquire(timeout=20)
        return super().execute(plan)


# -- stepping ----------------------------------------------------------------------------------------------------------


def test_a_request_takes_one_prefill_and_a_decode_for_each_further_token():
    engine = scripted()
    engine.add_request(list(range(6)), max_tokens=4)
    kinds = []
    while engine.has_unfinished:
        kinds += [row.kind for row in engine.step().scheduled]
    assert kinds == ["prefill", "decode", "decode", "decode"]


def test_a_long_prompt_is_cut_into_chunks_of_the_budget():
    engine = scripted(max_num_batched_tokens=16)
    run = engine.run([list(range(40))], max_tokens=1)
    assert [(row.start, row.end) for record in run.trace for row in record.scheduled] == [(0, 16), (16, 32), (32, 40)]
    assert [record.decisions[0].verdict for record in run.trace] == [Verdict.PARTIAL, Verdict.PARTIAL, Verdict.SCHEDULED]


def test_a_second_equal_prompt_hits_the_prefix_cache():
    engine = scripted()
    first = engine.run([list(range(50))], max_tokens=1)
    second = engine.run([list(range(50))], max_tokens=1)
    assert first.trace[0].scheduled[0].num_cached == 0
    assert second.trace[0].scheduled[0].num_cached == 48


def test_a_failed_step_loses_nothing():
    engine = Engine(Failing(2, RuntimeError("out of luck")), num_blocks=64, debug=True)
    engine.add_request(list(range(20)), max_tokens=6)
    engine.add_request(list(range(30, 60)), max_tokens=6)
    engine.step()
    engine.step()
    with pytest.raises(RuntimeError, match="out of luck"):
        engine.step()
    engine.scheduler.check_integrity()
    while engine.has_unfinished:
        engine.step()
    tokens = {name: [] for name in ("r0", "r1")}
    for record in engine.trace:
        for sampled in record.sampled:
            tokens[sampled.request_id] += sampled.token_ids
    assert tokens == {"r0": list(range(6)), "r1": list(range(6))}


def test_what_a_failed_step_promised_is_not_found_in_the_prefix_cache():
    engine = Engine(Failing(0, RuntimeError()), num_blocks=64, debug=True)
    engine.add_request(list(range(40)), max_tokens=2)
    with pytest.raises(RuntimeError):
        engine.step()
    assert engine.step().scheduled[0].num_cached == 0


# -- runs --------------------------------------------------------------------------------------------------------------


def test_outputs_come_in_the_order_of_the_prompts():
    run = scripted({"r0": [4, 5], "r1": [6, 7]}).run([[1], [2]], max_tokens=2)
    assert [output.token_ids for output in run.outputs] == [(4, 5), (6, 7)]
    assert [output.finish_reason for output in run.outputs] == ["length", "length"]


def test_n_completions_share_a_prompt_and_are_numbered():
    run = scripted().run([list(range(40))], n=3, max_tokens=2, temperature=1.0)
    assert [(output.request_id, output.index) for output in run.outputs] == [("r0.0", 0), ("r0.1", 1), ("r0.2", 2)]
    assert len({request.sampling.seed for request in run.requests}) == 3
    assert [row.num_cached for row in run.trace[0].scheduled] == [0, 32, 32]


def test_a_background_run_returns_at_once_and_can_be_stopped():
    runner = Gated()
    engine = Engine(runner, num_blocks=64, debug=True)
    run = engine.run([[1, 2]], max_tokens=50, background=True)
    assert run.status == "running"
    runner.gate.release(3)
    run.stop()
    runner.gate.release(60)
    assert run.wait(20)
    assert run.status == "stopped"
    assert run.outputs[0].finish_reason == "abort"
    runner.gate.release(60)
    assert engine.run([[1, 2]], max_tokens=2).status == "finished"


def test_two_runs_on_one_engine_name_the_one_that_is_active():
    runner = Gated()
    engine = Engine(runner, num_blocks=64)
    run = engine.run([[1, 2]], max_tokens=3, background=True)
    with pytest.raises(EngineBusyError, match="the run of r0"):
        engine.run([[3]])
    with pytest.raises(EngineBusyError):
        engine.step()
    runner.gate.release(10)
    run.wait(20)


def test_a_request_can_be_added_and_aborted_while_a_run_is_active():
    runner = Gated()
    engine = Engine(runner, num_blocks=64, debug=True)
    run = engine.run([[1, 2]], max_tokens=8, background=True)
    runner.gate.release(100)
    engine.add_request([5, 6, 7], request_id="late", max_tokens=2)
    run.wait(20)
    assert run.status == "finished"
    assert "late" in engine.trace.requests


def test_a_failed_run_raises_its_error_and_leaves_the_engine_usable():
    engine = Engine(Failing(1, ValueError("broken")), num_blocks=64, debug=True)
    with pytest.raises(ValueError, match="broken"):
        engine.run([[1, 2, 3]], max_tokens=4)
    assert engine.last_run.status == "failed"
    assert not engine.has_unfinished
    assert engine.run([[1, 2, 3]], max_tokens=4).status == "finished"


def test_an_interrupt_is_raised_again_after_the_run_was_stopped_cleanly():
    engine = Engine(Failing(10**9, RuntimeError()), num_blocks=64, debug=True)

    def interrupt() -> None:
        raise KeyboardInterrupt

    run = engine.run([[1, 2]], max_tokens=60, background=True, on_step=lambda record: threading.Event().wait(0.01))
    with pytest.raises(KeyboardInterrupt):
        run.wait_or_stop(interrupt)
    assert run.status == "stopped"
    assert 0 < len(run.outputs[0].token_ids) < 60
    assert engine.run([[1]], max_tokens=1).status == "finished"


def test_leaving_a_stream_early_stops_its_run():
    engine = scripted()
    for chunk in engine.stream([1, 2], max_tokens=50):
        assert chunk.token_ids == (0,)
        break
    assert engine.active_run is None
    assert not engine.has_unfinished


def test_a_stream_ends_with_the_finish_reason():
    chunks = list(scripted().stream([1, 2], max_tokens=3))
    assert [chunk.finish_reason for chunk in chunks] == [None, None, "length"]


def test_requests_that_arrive_by_the_clock_are_waited_for():
    run = scripted().run([{"prompt_token_ids": [1], "arrival_s": 0.15}], max_tokens=1)
    assert run.trace[0].start_s >= 0.15
    assert len(run.trace) == 1


def test_a_replayed_trace_takes_the_same_decisions():
    prompts = [{"prompt_token_ids": list(range(i, i + 30)), "arrival_step": i, "max_tokens": 20} for i in range(8)]
    knobs = {"num_blocks": 7, "max_num_seqs": 5, "max_num_batched_tokens": 32}
    first = Engine(ScriptedRunner(lambda name, position: (7 * int(name[1:]) + position) % 97), **knobs).run(prompts)
    again = Engine(ReplayRunner(first.trace), **knobs).run(prompts)
    assert any(record.preempted for record in first.trace)
    for mine, theirs in zip(first.trace, again.trace, strict=True):
        for field in ("scheduled", "decisions", "block_events", "running", "waiting", "kv", "kv_after", "finished"):
            assert getattr(mine, field) == getattr(theirs, field)
    assert [output.token_ids for output in first.outputs] == [output.token_ids for output in again.outputs]


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_prompt_that_the_pool_can_never_hold_is_refused_with_the_numbers():
    with pytest.raises(RequestError, match=r"612 tokens and one token of output need 39 blocks of 16; the pool has 32: raise num_blocks"):
        scripted(num_blocks=32).run([list(range(612))])


def test_a_prompt_longer_than_max_model_len_is_refused():
    with pytest.raises(RequestError, match="max_model_len is 20"):
        scripted(max_model_len=20).add_request(list(range(20)))


def test_one_bad_prompt_leaves_the_engine_as_it_was():
    engine = scripted()
    with pytest.raises(RequestError, match="empty"):
        engine.run([[1, 2], []])
    assert not engine.has_unfinished
    assert engine.run([[1, 2]], max_tokens=1).outputs[0].request_id == "r0"


def test_a_duplicate_id_is_refused():
    engine = scripted()
    engine.add_request([1], request_id="mine")
    with pytest.raises(RequestError, match="'mine' is already in the engine"):
        engine.add_request([2], request_id="mine")


@pytest.mark.parametrize(
    ("prompt", "params", "words"),
    [
        ([1], {"max_tokens": 0}, "max_tokens must be at least 1"),
        ([1], {"temperature": float("nan")}, "finite"),
        ([1], {"top_p": 0.0}, "top_p must be greater than 0"),
        ([1], {"temprature": 1.0}, "did you mean 'temperature'"),
        ([-1], {}, "token id -1"),
        ("text", {}, "no tokenizer"),
        ({"promt": "x"}, {}, "did you mean 'prompt'"),
        ({"prompt": [1], "priority": "high"}, {}, "priority must be a whole number"),
        ({"prompt": [1], "arrival_s": float("nan")}, {}, "arrival_s"),
        (3.5, {}, "a prompt is text"),
        ([1], {"min_tokens": 9, "max_tokens": 3}, "min_tokens is 9"),
        ([1], {"allowed_token_ids": []}, "allowed_token_ids is empty"),
        ([1], {"stop": [""]}, "empty string"),
    ],
)
def test_an_impossible_request_gets_a_clear_error(prompt, params, words):
    with pytest.raises(RequestError, match=words):
        scripted().add_request(prompt, **params)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"num_block": 3}, "did you mean 'num_blocks'"),
        ({"max_num_seqs": 0}, "at least 1"),
        ({"block_size": 1.5}, "whole number"),
        ({"num_speculative_tokens": 3}, "proposes no drafts"),
        ({"num_speculative_tokens": 3, "max_num_batched_tokens": 3}, "verifying 3 drafts takes 4 tokens of one step"),
        ({"policy": "lifo"}, "'fcfs', 'priority'"),
        ({"max_model_len": 500, "num_blocks": 10}, "10 blocks of 16 hold 160 tokens"),
        ({"max_model_len": 5000}, "reads at most 4,096"),
        ({"max_model_len": 300, "max_num_batched_tokens": 100, "enable_chunked_prefill": False}, "without chunked prefill"),
    ],
)
def test_an_impossible_knob_gets_a_clear_error(knobs, words):
    with pytest.raises(ConfigError, match=words):
        Engine(ScriptedRunner(), **knobs)


def test_a_closed_engine_says_so():
    engine = scripted()
    engine.close()
    engine.close()
    with pytest.raises(EngineClosedError, match="make a new one"):
        engine.run([[1]])


def test_no_prompt_at_all_is_an_error():
    with pytest.raises(RequestError, match="no prompt"):
        scripted().run([])


def test_a_config_can_be_given_whole_and_changed():
    engine = Engine(ScriptedRunner(), config=EngineConfig(num_blocks=5), max_num_seqs=2)
    assert (engine.num_blocks, engine.config.max_num_seqs) == (5, 2)


def test_the_scripted_and_the_replay_runner_are_runners():
    assert isinstance(ScriptedRunner(), Runner)
    assert isinstance(ReplayRunner(scripted().run([[1]], max_tokens=1).trace), Runner)


def test_waiting_behind_a_full_batch_names_the_limit():
    engine = scripted(max_num_seqs=1)
    engine.add_request([1], max_tokens=2)
    engine.add_request([2], max_tokens=2)
    deferred = engine.step().decisions[1]
    assert (deferred.reason, deferred.limit) == (Reason.MAX_NUM_SEQS, 1)


def test_in_a_cell_a_mistake_is_one_line_and_a_bug_of_ours_shows_where():
    from workbench import IntegrityError

    def lines_of(error):
        try:
            raise error
        except type(error) as raised:
            return raised._render_traceback_()

    assert lines_of(ConfigError("num_blocks must be at least 1, not 0")) == ["ConfigError: num_blocks must be at least 1, not 0"]
    assert "test_engine.py" in "".join(lines_of(IntegrityError("books disagree")))


def test_time_spent_paused_is_nobodys_latency():
    engine = Engine(ScriptedRunner(), num_blocks=8)
    run = engine.run([[1, 2, 3]], max_tokens=6, paused=True)
    sleep(0.2)  # before the first step
    run.step()
    sleep(0.2)
    run.step()
    run.resume()
    request = run.metrics.requests[0]
    assert request.ttft_ms < 150
    assert max(request.itl_ms) < 150
    assert run.trace[-1].end_s < 0.2
