"""The text panel, in a real browser: tokens and their marks against the records of the same trace."""

from __future__ import annotations

import re
from functools import cache

import pytest
from msgspec.structs import replace
from render_fixtures import scripted_run
from test_view_why import go
from view_plots import edited_trace, speculative_trace
from view_runs import busy_trace, frame_of, press, step_under_cursor

from workbench import Engine, Trace
from workbench.events import TokenLogprobs
from workbench.moment import moment
from workbench.rebuild import originals
from workbench.runners.scripted import ScriptedRunner
from workbench.tape import Packer, snapshot

ORIGINS = ("decoded", "accepted", "corrected", "bonus")
WORDS = (" the", " a", " force", " that", " pulls", "\n", " objects", "<|im_end|>")


def with_texts(trace):
    """The same trace with a text for every token id."""
    texts = {token: WORDS[token % len(WORDS)] for token in range(128)}
    return Trace(trace.config, trace.model, list(trace.requests.values()), trace.records, trace.fidelity, texts)


@cache
def chunked_trace():
    """Two requests with a common beginning, the second of which finds it in the cache and then waits for its turn in chunks."""
    prompts = [[1] * 24, [1] * 16 + [2] * 20]
    return with_texts(scripted_run(prompts, block_size=8, num_blocks=24, max_num_batched_tokens=12, max_num_seqs=2, max_tokens=6).trace)


def scored_trace():
    """A request whose tokens come with log-probabilities and alternatives."""
    trace = scripted_run([[1, 2, 3]], num_blocks=8, max_tokens=3).trace

    def scored(entry):
        scores = [TokenLogprobs(token, -1.25, 2, (40, token, 41), (-0.5, -1.25, -2.75)) for token in entry.token_ids]
        return replace(entry, logprobs=tuple(scores))

    records = [replace(record, sampled=tuple(map(scored, record.sampled))) for record in trace.records]
    return Trace(trace.config, trace.model, list(trace.requests.values()), records, trace.fidelity, {})


def opened(view_page, trace, request=None, **look):
    view = view_page(*frame_of(trace, live=False), **{"width": 1100, "height": 1500, **look})
    if request is not None:
        choose(view, request)
    return view


def choose(view, name):
    """Press the chip of a request, of ``all`` or of ``newest``."""
    view.page.locator(".wb-chips button", has_text=re.compile(f"^{name}$")).click()
    view.settle()


def tokens(view, selector=".wb-text-scroll"):
    """``(text, classes)`` of the tokens that are shown."""
    found = view.page.locator(selector).evaluate(
        "(el) => [...el.querySelectorAll('.wb-tok')].map((each) => [each.textContent, each.className.split(' ').slice(1)])"
    )
    return [(text, set(classes)) for text, classes in found]


def of_output(found):
    return [(text, classes) for text, classes in found if classes & {f"wb-{origin}" for origin in ORIGINS}]


def said_until(trace, name, step):
    """Every token that a request had gained by the end of a step: id, origin, and the step that brought it."""
    found = []
    for record in trace.records:
        if record.step > step:
            break
        if any(command.restarts and command.request_id == name for command in record.commands):
            found = []
        round_ = next((each for each in record.spec if each.request_id == name), None)
        right = 0 if round_ is None else round_.accepted
        after = "decoded" if round_ is None else "bonus" if round_.accepted == round_.proposed else "corrected"
        ids = [token for entry in record.sampled if entry.request_id == name for token in entry.token_ids]
        found += [(token, "accepted" if place < right else after, record.step) for place, token in enumerate(ids)]
    return found


def texts(trace, ids):
    return [trace.token_texts[token] for token in ids]


def note(view):
    return view.page.locator(".wb-text h4 em").inner_text()


# -- what stands there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", [speculative_trace, busy_trace])
def test_the_output_is_what_came_out_up_to_the_cursor_each_token_marked_by_its_origin(view_page, trace):
    trace = with_texts(trace())
    view = opened(view_page, trace, "r1")
    first, last = trace.records[0].step, trace.records[-1].step
    for step in (last, last // 2, last // 2 + 1, first + 2, last - 1):
        go(view, step)
        expected = said_until(trace, "r1", step)
        shown = of_output(tokens(view))
        assert [text for text, _ in shown] == texts(trace, [token for token, _, _ in expected])
        assert [f"wb-{origin}" in classes for (_, classes), (_, origin, _) in zip(shown, expected, strict=True)] == [True] * len(expected)
        assert ["wb-new" in classes for _, classes in shown] == [at == step for _, _, at in expected]


def test_the_prompt_is_marked_by_what_the_cache_spared_and_what_is_computed(view_page):
    trace = chunked_trace()
    view = opened(view_page, trace, "r1")
    prompt = originals(trace)["r1"].prompt_token_ids
    spared = computed = 0
    seen = set()
    for record in trace.records:
        go(view, record.step)
        if (row := next((row for row in record.scheduled if row.request_id == "r1"), None)) is not None:
            spared, computed = spared or row.num_cached, row.end
        marks = ["wb-cached" if place < spared else "wb-computed" if place < computed else "wb-later" for place in range(len(prompt))]
        shown = [(text, classes & {"wb-cached", "wb-computed", "wb-later"}) for text, classes in tokens(view)][: len(prompt)]
        assert shown == [(text, {mark}) for text, mark in zip(texts(trace, prompt), marks, strict=True)]
        seen |= set(marks)
    assert seen == {"wb-cached", "wb-computed", "wb-later"}


def test_what_a_preempted_request_had_computed_is_marked_as_not_computed_any_more(view_page):
    trace = with_texts(busy_trace())
    record = next(record for record in trace.records if record.preempted)
    name = record.preempted[0]
    view = opened(view_page, trace, name)
    later = next(r for r in trace.records[record.step :] if name in r.resumed)
    for step in (record.step - 1, record.step, later.step, record.step - 1):
        go(view, step)
        one = next(one for one in moment(trace, step).requests if one.request_id == name)
        waits = sum("wb-later" in classes for _, classes in tokens(view))
        assert waits == max(0, one.num_prompt_tokens - one.num_computed_tokens)
        spared = next((row.num_cached for row in later.scheduled if row.request_id == name), 0) if step == later.step else None
        assert spared is None or sum("wb-cached" in classes for _, classes in tokens(view)) == min(spared, one.num_prompt_tokens)


def test_drafts_that_the_step_refused_stand_struck_through_behind_the_text(view_page):
    trace = with_texts(speculative_trace())
    view = opened(view_page, trace, "r0")
    proposed = {}
    checked = 0
    for record in trace.records:
        round_ = next((each for each in record.spec if each.request_id == "r0"), None)
        if round_ is not None and checked < 4:
            go(view, record.step)
            refused = [text for text, classes in tokens(view) if "wb-refused" in classes]
            assert refused == texts(trace, proposed["r0"][round_.accepted : round_.proposed])
            checked += bool(refused)
        proposed |= {each.request_id: each.token_ids for each in record.proposed}
    assert checked == 4


def test_the_legend_names_the_origins_that_occur_and_no_others(view_page):
    trace = with_texts(speculative_trace())
    view = opened(view_page, trace, "r1")
    last = trace.records[-1].step
    go(view, last)
    legend = view.page.locator(".wb-text-legend").inner_text()
    words = {"decoded": "decoded", "accepted": "accepted draft", "corrected": "corrected", "bonus": "bonus"}
    occur = {origin for _, origin, _ in said_until(trace, "r1", last)}
    assert {origin for origin, word in words.items() if word in legend} == occur
    assert "refused" not in legend


def test_a_request_that_was_given_another_prompt_begins_afresh(view_page):
    trace = with_texts(edited_trace())
    view = opened(view_page, trace, "r1")
    restart = next(record.step for record in trace.records if any(command.restarts for command in record.commands))
    for step, prompt in ((restart - 1, [2] * 5), (restart, [3] * 9), (len(trace) - 1, [3] * 9), (restart - 1, [2] * 5)):
        go(view, step)
        shown = tokens(view)
        out = said_until(trace, "r1", step)
        assert [text for text, _ in shown if _ & {"wb-later", "wb-computed", "wb-cached"}] == texts(trace, prompt)
        assert [text for text, _ in of_output(shown)] == texts(trace, [token for token, _, _ in out])


def test_a_request_that_waits_says_that_nothing_is_computed_yet(view_page):
    trace = busy_trace()
    view = opened(view_page, trace)
    go(view, 0)
    waiting = next(name for name in trace.records[0].waiting)
    assert f"{waiting} waits: nothing computed yet" in view.page.locator(".wb-tails").inner_text()
    choose(view, waiting)
    assert f"{waiting} waits: nothing computed yet" in view.page.locator(".wb-text-scroll").inner_text()
    assert note(view).startswith(f"{waiting} · waits · 0 of at most 12 tokens")


def test_a_trace_without_texts_shows_ids_and_says_so(view_page):
    trace = busy_trace()
    view = opened(view_page, trace, "r0")
    go(view, trace.records[-1].step)
    assert "This trace holds no texts" in view.page.locator(".wb-text").inner_text()
    prompt = originals(trace)["r0"].prompt_token_ids
    assert [text.strip() for text, _ in tokens(view)][: len(prompt)] == [str(token) for token in prompt]


def test_tokens_of_the_chat_template_are_shown_small_and_line_breaks_by_a_sign(view_page):
    trace = with_texts(scripted_run([[7, 5, 1]], num_blocks=8, max_tokens=2).trace)
    view = opened(view_page, trace)
    (special, broken, plain) = tokens(view)[:3]
    assert special[0] == "<|im_end|>"
    assert "wb-special" in special[1]
    assert "wb-break" in broken[1]
    assert not plain[1] & {"wb-special", "wb-break"}
    sign = view.page.locator(".wb-break").first.evaluate("(el) => getComputedStyle(el, '::before').content")
    assert sign == '"↵"'


def test_a_character_of_several_tokens_stands_whole_in_the_last_of_them(view_page):
    prompt = {20: "Caf", 21: "<0xC3>", 22: "<0xA9>"}
    output = {10: " Hi", 11: " <0xF0>", 12: "<0x9F>", 13: "<0x99>", 14: "<0x82>", 15: "<0xE2><0x82>", 16: "<0xAC>!"}
    with Engine(ScriptedRunner({"r0": list(output)}, default_token=10), num_blocks=8) as engine:
        trace = engine.run([list(prompt), [20]], max_tokens=len(output)).trace
    trace = Trace(trace.config, trace.model, list(trace.requests.values()), trace.records, trace.fidelity, prompt | output)
    view = opened(view_page, trace, "r0")
    said = [" Hi", " ", "·", "·", "🙂", "·", "€!"]
    assert [text for text, _ in tokens(view)] == ["Caf", "·", "é", *said]
    assert "special" in " ".join(tokens(view)[1][1]), "what stands for a part of a character is small"
    choose(view, "all")
    assert [text for text, _ in tokens(view, ".wb-tail >> nth=0")] == said
    press(view, *["ArrowLeft"] * 3)
    assert [text for text, _ in tokens(view, ".wb-tail >> nth=0")] == said[:4]


def test_markup_in_a_token_is_text(view_page):
    trace = with_texts(scripted_run([[1, 2, 3]], num_blocks=8, max_tokens=2).trace)
    trace.token_texts[2] = "<img src=x onerror=alert(1)>"
    view = opened(view_page, trace)
    assert tokens(view)[1][0] == "<img src=x onerror=alert(1)>"
    assert view.page.locator(".wb-text img").count() == 0


def test_a_long_prompt_is_folded_and_unfolds(view_page):
    trace = with_texts(scripted_run([[1] * 1584], num_blocks=128, max_num_batched_tokens=2048, max_tokens=2).trace)
    view = opened(view_page, trace)
    assert len(tokens(view)) == 150 + 200 + 2
    fold = view.page.get_by_role("button", name="Show 1,234 more tokens of the prompt")
    assert fold.inner_text() == "… 1,234 more tokens"
    fold.click()
    view.settle()
    assert len(tokens(view)) == 1584 + 2


def test_a_long_output_shows_its_end_and_the_rest_when_asked(view_page):
    trace = with_texts(scripted_run([[1] * 4], num_blocks=256, max_tokens=1700).trace)
    view = opened(view_page, trace)
    assert len(of_output(tokens(view))) == 400
    view.page.get_by_role("button", name="Show the whole output").click()
    view.settle()
    assert len(of_output(tokens(view))) == 1700


def test_all_shows_the_end_of_every_request_those_that_have_ended_last(view_page):
    trace = with_texts(busy_trace())
    view = opened(view_page, trace)
    ends = {end.request_id: record.step for record in trace.records for end in record.finished}
    step = sorted(ends.values())[1]
    go(view, step)
    names = view.page.locator(".wb-name").all_inner_texts()
    here = [name for name in originals(trace) if any(name in (*r.running, *r.waiting, *r.held) for r in trace.records[: step + 1])]
    assert names == sorted(here, key=lambda name: (ends[name] <= step, name))
    for place, name in enumerate(names):
        shown = [text for text, _ in tokens(view, f".wb-tail >> nth={place}") if not _ & {"wb-refused"}]
        assert shown == texts(trace, [token for token, _, _ in said_until(trace, name, step)])[-60:]
    view.page.locator(".wb-name").first.click()
    view.settle()
    assert note(view).startswith(names[0])


def test_newest_shows_the_request_of_the_newest_token(view_page):
    trace = with_texts(busy_trace())
    view = opened(view_page, trace)
    choose(view, "newest")
    for record in trace.records[3::6]:
        go(view, record.step)
        last = next(r for r in reversed(trace.records[: record.step + 1]) if r.sampled)
        assert note(view).split(" · ")[0] in {entry.request_id for entry in last.sampled}


# -- what it does ------------------------------------------------------------------------------------------------------


def test_a_click_on_a_token_goes_to_its_step_and_selects_its_request(view_page):
    trace = with_texts(busy_trace())
    view = opened(view_page, trace)
    last = trace.records[-1].step
    go(view, last)
    name = view.page.locator(".wb-name").first.inner_text()
    expected = said_until(trace, name, last)
    view.page.locator(".wb-tail >> nth=0").locator(".wb-tok").nth(len(expected) - 3).click()
    view.settle()
    assert step_under_cursor(view) == expected[-3][2]
    assert note(view).startswith(name)
    assert len(of_output(tokens(view))) == len(expected) - 2


def test_a_click_on_a_token_of_the_prompt_goes_to_the_step_that_computed_it(view_page):
    trace = chunked_trace()
    view = opened(view_page, trace, "r1")
    go(view, trace.records[-1].step)
    rows = [(record.step, row) for record in trace.records for row in record.scheduled if row.request_id == "r1" and row.kind == "prefill"]
    assert len(rows) > 1
    last = len(originals(trace)["r1"].prompt_token_ids) - 1
    for place in (last, 0):
        go(view, trace.records[-1].step)
        view.page.locator(".wb-text-scroll .wb-tok").nth(place).click()
        view.settle()
        assert step_under_cursor(view) == next(step for step, row in rows if place < row.end)


def test_the_tooltip_tells_place_step_origin_likelihood_and_alternatives(view_page):
    trace = scored_trace()
    view = opened(view_page, trace)
    step = trace.records[-1].step
    go(view, step)
    record = next(r for r in trace.records if r.sampled and r.sampled[0].logprobs)
    scores = record.sampled[0].logprobs[0]
    place = len(originals(trace)["r0"].prompt_token_ids)
    view.page.locator(".wb-text-scroll .wb-tok").nth(place).hover()
    view.settle()
    told = view.page.locator(".wb-tip").inner_text()
    assert f"token 1 of the output · id {scores.token_id} · step {record.step}" in told
    assert f"logprob {scores.logprob:.2f}".replace("-", "−") + f" · rank {scores.rank}" in told
    others = [(token, value) for token, value in zip(scores.top_ids, scores.top_logprobs, strict=True) if token != scores.token_id]
    assert others
    for token, value in others:
        assert f"token {token} {value:.2f}".replace("-", "−") in told


def test_the_tokens_are_one_stop_of_the_tab_key_that_the_arrow_keys_walk(view_page):
    trace = with_texts(busy_trace())
    view = opened(view_page, trace, "r1")
    go(view, trace.records[-1].step)
    stops = view.page.locator(".wb-text-root .wb-tok[tabindex]")
    assert stops.count() == 1
    stops.focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowRight", "ArrowLeft"):
        view.page.keyboard.press(key)
    view.settle()
    expected = said_until(trace, "r1", trace.records[-1].step)
    focused = view.page.evaluate("[document.activeElement.getAttribute('aria-label'), document.activeElement.getAttribute('role')]")
    assert f"token {len(expected) - 2} of the output" in focused[0]
    assert focused[1] == "button"
    assert view.page.locator(".wb-tip").is_visible()
    assert stops.count() == 1
    assert step_under_cursor(view) == trace.records[-1].step, "the keys walk the tokens, not the steps"
    view.page.keyboard.press("Enter")
    view.settle()
    assert step_under_cursor(view) == expected[-3][2]
    view.page.keyboard.press("Tab")
    assert not view.page.evaluate("document.activeElement.matches('.wb-tok')")


def test_a_step_forward_leaves_the_spans_that_are_there_alone(view_page):
    trace = with_texts(busy_trace())
    view = opened(view_page, trace, "r0")
    go(view, 6)
    view.page.evaluate(
        """() => {
            window.changes = [];
            const watch = new MutationObserver((found) => window.changes.push(...found));
            watch.observe(document.querySelector(".wb-text-scroll"), { childList: true, subtree: true });
        }"""
    )
    gained = len(said_until(trace, "r0", 7)) - len(said_until(trace, "r0", 6))
    press(view, "ArrowRight")
    changes = view.page.evaluate("window.changes.map((each) => [each.addedNodes.length, each.removedNodes.length])")
    assert [sum(each) for each in zip(*changes, strict=True)] == [gained, 0]
    assert gained > 0


def test_a_run_that_was_taken_back_and_went_another_way_shows_the_other_words(view_page):
    words = {"r0": 1}

    def script(name, position):
        return words[name] + position % 3

    engine = Engine(ScriptedRunner(script), num_blocks=16)
    engine.add_request([6] * 5, max_tokens=12)
    for _ in range(9):
        engine.step()
    packer = Packer(engine.trace, 0, text_of=lambda token: f" w{token}")
    first = packer.pack()
    frame, _ = snapshot(engine.trace, state="paused")
    frame["parts"] = [frame["parts"][0] | {"tape": {**first.header, "buffer": 0}}]
    view = view_page(frame, [first.buffer])
    assert [text for text, _ in of_output(tokens(view))] == [f" w{1 + i % 3}" for i in range(9)]
    engine.rewind(4)
    words["r0"] = 11
    for _ in range(3):
        engine.step()
    second = packer.pack()
    view.push({"kind": "frame", "seq": 1, "parts": [frame["parts"][0] | {"tape": {**second.header, "buffer": 0}}]}, [second.buffer])
    press(view, "End")
    assert [text for text, _ in of_output(tokens(view))] == [f" w{1 + i % 3}" for i in range(4)] + [f" w{11 + i % 3}" for i in range(4, 7)]


def test_a_run_without_steps_says_so(view_page):
    view = view_page(*snapshot(busy_trace()[:0]))
    assert "the text appears with the first" in view.page.locator(".wb-text").inner_text()
