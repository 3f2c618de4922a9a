"""The prefix cache's hits and misses explained, against a naive replay of what was computed and kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rebuild import engine_of, run_to_the_end
from test_scheduler import workloads

from workbench import Engine, RequestError
from workbench.adjust import change_knobs, edit_request, reset_prefix_cache
from workbench.prefix_story import admissions, prefix_story
from workbench.runners.scripted import ScriptedRunner


def engine_with(*requests, **knobs):
    knobs = {"block_size": 4, "num_blocks": 32, "debug": True, **knobs}
    engine = Engine(ScriptedRunner(lambda name, position: 50 + position), **knobs)
    for tokens, max_tokens, *more in requests:
        engine.add_request({"prompt_token_ids": tokens, "max_tokens": max_tokens, **(more[0] if more else {})})
    return engine


def run_of(*requests, **knobs):
    return finish(engine_with(*requests, **knobs))


def finish(engine):
    while engine.has_unfinished:
        engine.step()
    return engine.trace


TEN = list(range(10))


# -- every cause -----------------------------------------------------------------------------------------------------------


def test_a_prompt_that_was_computed_before_is_found_whole():
    story = prefix_story(run_of((TEN, 2), (TEN, 2, {"arrival_step": 3})), "r1")
    assert (story.cause, story.hits, story.possible, story.num_cached) == ("complete", 2, 2, 8)
    assert story.sentence == (
        "r1 found 2 of 2 reusable blocks in the prefix cache, 8 of its 10 tokens: it could not have found more; "
        "the last of them was computed by r0 in step 0."
    )


def test_content_of_the_same_step_counts_as_found():
    story = prefix_story(run_of((TEN, 2), (TEN, 2)), "r1")
    assert (story.step, story.hits, story.cause) == (0, 2, "complete")


def test_one_token_is_always_computed():
    story = prefix_story(run_of((TEN[:8], 2), (TEN[:8], 2)), "r1")
    assert (story.possible, story.hits, story.cause) == (1, 1, "complete")


def test_the_first_differing_token_is_named_with_its_block():
    trace = run_of((TEN, 2), ([0, 1, 2, 3, 4, 99, 6, 7, 8], 2))
    story = prefix_story(trace, "r1")
    assert (story.cause, story.hits, story.other, story.position, story.token_id, story.other_token_id) == ("differs", 1, "r0", 5, 99, 5)
    assert story.sentence == (
        "r1 found 1 of 2 reusable blocks in the prefix cache, 4 of its 9 tokens: block 1 (tokens 4 to 7) differs from what was computed "
        "before: token 5 is 99, but 5 in r0, which shares the first 5."
    )


def test_differing_tokens_are_shown_as_text_where_it_is_known():
    trace = run_of((TEN, 2), ([0, 1, 2, 3, 4, 99, 6, 7, 8], 2))
    trace.token_texts = {99: " red", 5: " blue"}
    assert "token 5 is ' red' (99), but ' blue' (5) in r0" in prefix_story(trace, "r1").sentence


def test_the_nearest_of_several_requests_is_named():
    story = prefix_story(run_of(([0, 1, 7, 7, 7], 2), (TEN, 2), ([0, 1, 2, 3, 4, 99, 6, 7, 8], 2)), "r2")
    assert (story.other, story.position) == ("r1", 5)


def test_a_prompt_of_one_block_is_too_short():
    story = prefix_story(run_of((TEN[:4], 2), (TEN[:4], 2)), "r1")
    assert (story.cause, story.possible) == ("too_short", 0)
    assert story.sentence == "r1 reused nothing: its 4 tokens fill no more than one block of 4, and at least one token must be computed."


def test_what_nobody_computed_cannot_be_found():
    story = prefix_story(run_of((TEN, 2)), "r0")
    assert story.cause == "not_computed"
    assert story.sentence == (
        "r0 found none of 2 reusable blocks in the prefix cache: block 0 (tokens 0 to 3) was never computed before step 0; "
        "no request had begun with the same token."
    )


def test_a_block_that_another_had_not_filled_yet():
    story = prefix_story(run_of((TEN[:6], 1), (TEN, 2, {"arrival_step": 1})), "r1")
    assert (story.cause, story.hits, story.other) == ("not_computed", 1, "r0")
    assert story.sentence.endswith("was never computed before step 1; r0 had computed only the first 6 tokens of it.")


def test_evicted_content_names_the_step_and_for_whom():
    trace = run_of((TEN, 1), (list(range(100, 120)), 1, {"arrival_step": 1}), (TEN, 1, {"arrival_step": 3}), num_blocks=6)
    story = prefix_story(trace, "r2")
    assert (story.cause, story.other, story.lost_step) == ("evicted", "r1", 1)
    where = f"block {story.hits} (tokens {4 * story.hits} to {4 * story.hits + 3})"
    assert story.sentence.endswith(f"{where} was evicted at step 1 to make room for r1.")


def test_prefix_caching_off_reuses_nothing():
    story = prefix_story(run_of((TEN, 2), (TEN, 2), enable_prefix_caching=False), "r1")
    assert (story.cause, story.sentence) == ("off", "r1 reused nothing: prefix caching is off (enable_prefix_caching).")


def test_prompt_logprobs_rule_hits_out():
    story = prefix_story(run_of((TEN, 2), (TEN, 2, {"prompt_logprobs": 1})), "r1")
    assert (story.cause, story.sentence) == ("prompt_logprobs", "r1 reused nothing: prompt_logprobs needs every position computed.")


def test_content_dropped_by_a_reset():
    engine = engine_with((TEN, 1))
    finish(engine)
    assert reset_prefix_cache(engine.scheduler)
    engine.add_request(TEN, max_tokens=1)
    story = prefix_story(finish(engine), "r1")
    assert (story.cause, story.lost_step) == ("dropped", 1)
    assert story.sentence.endswith("block 0 (tokens 0 to 3) was dropped when the prefix cache was emptied before step 1.")


def test_content_dropped_by_a_knob():
    engine = engine_with((TEN, 1))
    finish(engine)
    for enabled in (False, True):
        change_knobs(engine.scheduler, {"enable_prefix_caching": enabled})
    engine.trace.config = engine.scheduler.config
    engine.add_request(TEN, max_tokens=1)
    story = prefix_story(finish(engine), "r1")
    assert story.cause == "dropped"
    assert story.sentence.endswith("was dropped when enable_prefix_caching was changed before step 1.")


def test_content_that_was_computed_while_caching_was_off():
    engine = engine_with((TEN, 1), enable_prefix_caching=False)
    finish(engine)
    change_knobs(engine.scheduler, {"enable_prefix_caching": True})
    engine.trace.config = engine.scheduler.config
    engine.add_request(TEN, max_tokens=1)
    story = prefix_story(finish(engine), "r1")
    assert (story.cause, story.other) == ("not_kept", "r0")
    assert story.sentence.endswith("had been computed by r0, but could not be found: prefix caching was off then.")


def test_settings_are_those_of_the_step_not_of_the_end():
    engine = engine_with((TEN, 1), (TEN, 1))
    finish(engine)
    change_knobs(engine.scheduler, {"enable_prefix_caching": False})
    engine.trace.config = engine.scheduler.config
    engine.add_request(TEN, max_tokens=1)
    trace = finish(engine)
    assert [prefix_story(trace, name).cause for name in ("r1", "r2")] == ["complete", "off"]


# -- resumed and edited requests -------------------------------------------------------------------------------------------


def test_a_resumed_request_finds_what_it_computed_itself():
    trace = run_of((TEN[:8], 12), (list(range(100, 108)), 12), num_blocks=6)
    first, *later = admissions(trace, "r1")
    story = prefix_story(trace, "r1", later[0])
    assert (first, story.resumed, story.num_tokens) == (0, True, 13)
    assert story.hits == next(row for row in trace.at(later[0]).scheduled if row.request_id == "r1").num_cached // 4
    assert "itself" in story.sentence or story.cause == "evicted"


def test_an_edited_prompt_is_the_one_that_is_looked_up():
    engine = engine_with((TEN, 9), (list(range(100, 110)), 3))
    engine.step()
    engine.trace.requests["r1"] = edit_request(engine.scheduler, "r1", {"prompt_token_ids": TEN})
    trace = finish(engine)
    first, second = admissions(trace, "r1")
    assert prefix_story(trace, "r1", first).cause == "not_computed"
    assert (prefix_story(trace, "r1", second).cause, prefix_story(trace, "r1", second).hits) == ("complete", 2)


def test_a_prompt_that_was_edited_away_was_computed_all_the_same():
    engine = engine_with((TEN, 9))
    engine.step()
    engine.trace.requests["r0"] = edit_request(engine.scheduler, "r0", {"prompt_token_ids": [0, 1, 2, 3, 4, 99, 6, 7, 8]})
    story = prefix_story(finish(engine), "r0", 1)
    assert (story.cause, story.hits, story.position, story.other_token_id) == ("differs", 1, 5, 5)
    assert story.sentence.endswith("token 5 is 99, but 5 in its earlier prompt, which shares the first 5.")


def test_an_attempt_that_was_taken_back_computed_nothing():
    class Fails(ScriptedRunner):
        def execute(self, plan):
            if self.default_token:
                self.default_token = 0
                raise RuntimeError("no luck")
            return super().execute(plan)

    engine = Engine(Fails(default_token=1), block_size=4, num_blocks=32)
    engine.add_request(TEN, max_tokens=2)
    with pytest.raises(RuntimeError):
        engine.step()
    assert prefix_story(finish(engine), "r0").cause == "not_computed"


def test_a_trace_without_its_beginning_says_so():
    trace = run_of((TEN, 2), (TEN, 2, {"arrival_step": 3}))[3:]
    story = prefix_story(trace, "r1")
    assert story.cause == "complete"
    trace = run_of((TEN, 2), ([0, 1, 2, 3, 4, 99, 6, 7, 8], 2, {"arrival_step": 3}))[3:]
    story = prefix_story(trace, "r1")
    assert (story.cause, story.hits) == ("unknown", 1)
    assert story.sentence.endswith("block 1 (tokens 4 to 7) was not cached since step 3, where this trace begins.")


# -- how it looks, and bad input -------------------------------------------------------------------------------------------


def test_it_prints_its_sentence_and_draws_its_blocks():
    story = prefix_story(run_of((TEN, 2), ([0, 1, 2, 3, 4, 99, 6, 7, 8], 2)), "r1")
    assert repr(story).startswith("Step 0: r1 found 1 of 2 reusable blocks")
    assert "■</span>□" in story._repr_html_()


def test_what_it_cannot_explain_is_refused_with_what_there_is():
    trace = run_of((TEN, 2), (TEN, 2, {"arrival_step": 3}))
    with pytest.raises(RequestError, match=r"no request has the id 'r7' in this trace; it has r0, r1"):
        prefix_story(trace, "r7")
    with pytest.raises(RequestError, match=r"r1 was not admitted in step 1; it was in step 3: choose from these"):
        prefix_story(trace, "r1", 1)
    with pytest.raises(IndexError, match="step 99 is not in this trace; it has steps 0 to 4"):
        prefix_story(trace, "r1", 99)
    with pytest.raises(RequestError, match="r1 was never admitted"):
        prefix_story(trace[:2], "r1")


# -- against a naive replay ------------------------------------------------------------------------------------------------


class Naive:
    """Content of blocks by whole prefixes of tokens, and every prefix that was ever computed; continuous batching only."""

    def __init__(self, trace):
        self.trace = trace
        self.size = trace.config.block_size
        self.on = trace.config.enable_prefix_caching
        self.known = {name: list(request.prompt_token_ids) for name, request in trace.requests.items()}
        self.tables: dict[str, list[int]] = {}
        self.content: dict[int, tuple[int, ...]] = {}  # block -> all tokens up to its end
        self.ever: set[tuple[int, ...]] = set()
        self.free = list(range(1, trace[0].kv.total + 1))
        self.stories: list[tuple[str, int, int, str]] = []  # request, step, hits, class of the stop

    def replay(self):
        for record in self.trace:
            for command in record.commands:
                if command.kind == "abort":
                    self.release(command.request_id)
            self.plan(record)
            for sampled in record.sampled:
                self.known[sampled.request_id] += sampled.token_ids
            for end in record.finished:
                self.release(end.request_id)
        return self.stories

    def plan(self, record):
        gone = list(record.preempted)
        for row in record.scheduled:
            if row.request_id in record.admitted:
                self.look_up(row.request_id, record.step)
            while self.missing(row) > len(self.free):
                self.release(gone.pop(0))
            self.take(row)
            self.register(row)
        for name in gone:
            self.release(name)

    def look_up(self, name, step):
        tokens, found = self.known[name], []
        possible = (len(tokens) - 1) // self.size
        for block in range(possible if self.on else 0):
            prefix = tuple(tokens[: (block + 1) * self.size])
            holder = [block_id for block_id in self.content if self.content[block_id] == prefix]
            if not holder:
                break
            found.append(holder[0])
        if not self.on:
            stop = "off"
        elif not possible:
            stop = "too_short"
        elif len(found) == possible:
            stop = "complete"
        else:
            stop = "evicted" if tuple(tokens[: (len(found) + 1) * self.size]) in self.ever else "never"
        self.stories.append((name, step, len(found), stop))
        self.tables[name] = found
        self.free = [block_id for block_id in self.free if block_id not in found]

    def missing(self, row):
        return -(-row.end // self.size) - len(self.tables[row.request_id])

    def take(self, row):
        for _ in range(self.missing(row)):
            block_id = self.free.pop(0)
            self.content.pop(block_id, None)
            self.tables[row.request_id].append(block_id)

    def register(self, row):
        table, tokens = self.tables[row.request_id], self.known[row.request_id]
        for block in range(min(row.end, len(tokens)) // self.size if self.on else 0):
            prefix = tuple(tokens[: (block + 1) * self.size])
            self.ever.add(prefix)
            if self.content.get(table[block]) != prefix:
                self.content.pop(table[block], None)
                self.content[table[block]] = prefix  # the oldest stays first

    def release(self, name):
        table = self.tables.pop(name, [])
        shared = {block_id for other in self.tables.values() for block_id in other}
        blank = [block_id for block_id in reversed(table) if block_id not in self.content and block_id not in shared]
        kept = [block_id for block_id in reversed(table) if block_id in self.content and block_id not in shared]
        self.free = blank + self.free + kept


CLASSES = {"not_computed": "never", "differs": "never", "not_kept": "never"}


@settings(max_examples=120, deadline=None)
@given(workloads())
def test_stories_agree_with_a_naive_replay(workload):
    knobs, requests = workload
    knobs["batching"] = "continuous"
    trace = run_to_the_end(engine_of(knobs, requests), requests).trace
    told = [prefix_story(trace, name, record.step) for record in trace for name in record.admitted]
    mine = [(story.request_id, story.step, story.hits, CLASSES.get(story.cause, story.cause)) for story in told]
    assert mine == Naive(trace).replay()


@settings(max_examples=80, deadline=None)
@given(workloads(), st.sets(st.integers(0, 25), max_size=3))
def test_stories_hold_under_every_mode_and_after_failures(workload, fails):
    knobs, requests = workload
    trace = run_to_the_end(engine_of(knobs, requests, fails), requests).trace
    for record in trace:
        for name in record.admitted:
            story = prefix_story(trace, name, record.step)
            row = next(row for row in record.scheduled if row.request_id == name)
            assert story.num_cached == story.hits * story.block_size == row.num_cached
            assert 0 <= story.hits <= story.possible
            assert (story.cause == "complete") == (knobs["enable_prefix_caching"] and story.hits == story.possible > 0)
            assert story.cause not in ("unknown", "not_kept", "dropped", "prompt_logprobs")
            if story.cause == "differs":
                assert story.position // story.block_size == story.hits
                assert story.token_id != story.other_token_id
            if story.cause == "evicted":
                assert any(event.kind == "evicted" and event.request_id == story.other for event in trace.at(story.lost_step).block_events)
