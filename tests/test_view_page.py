"""Saved pages as text: how large they are, what they fall back on, which runs have one, and that nothing breaks out of them."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
import zlib
from types import SimpleNamespace

import msgspec
import pytest
from render_fixtures import make_trace
from saved_pages import story
from scripted_cells import SpeakingRunner, speaking_engine
from test_render_html import assert_harmless

from workbench import Engine, Trace, TraceError, ViewError, load_trace
from workbench.comparison import compare
from workbench.events import StepRecord, Verdict
from workbench.render import mimebundle
from workbench.render.html import render_html
from workbench.runners.scripted import ScriptedRunner
from workbench.tape import why_payload
from workbench.view import View, files, page
from workbench.view.page import result_bundle, with_player
from workbench.view.sources import Source

SCRIPTS = re.compile(r"<script\b.*?</script>", re.DOTALL)
DATA = re.compile(r' data-workbench-key="[0-9a-f]+" data-workbench-1="([A-Za-z0-9+/=]+)"')
HOSTILE = """</script><script>window.hacked=1</script><!--<script>"'`><img src=x onerror="window.hacked=2">-->&amp;{body} ${1} 🦜\\u2028"""


def without_scripts(html: str) -> str:
    """What a sanitizer leaves."""
    return DATA.sub("", SCRIPTS.sub("", html))


def packed(html: str) -> tuple[dict, bytes]:
    """What a player unpacks: the JSON, and everything."""
    whole = zlib.decompress(base64.b64decode(DATA.search(html)[1]))
    return json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")]), whole


def steps_in(html: str) -> list[int]:
    """How many steps of each run are in a page."""
    frame = packed(html)[0]["saved"]["frame"]
    return [
        sum(part["tape"]["count"] for part in frame["parts"] if part["run"] == run and "tape" in part) for run in range(len(frame["runs"]))
    ]


@pytest.fixture
def unbuilt(monkeypatch, tmp_path):
    """A workbench whose view was never built."""
    monkeypatch.setattr(files, "STATIC", tmp_path)
    for read in (files.script, files.style, files.uplot):
        read.cache_clear()
    yield
    for read in (files.script, files.style, files.uplot):
        read.cache_clear()


# -- sizes and time ----------------------------------------------------------------------------------------------------


def test_three_hundred_steps_of_eight_requests_are_played_in_less_than_three_hundred_kilobytes(monkeypatch):
    monkeypatch.setattr(page, "IN_A_CELL", page.ON_A_PAGE)  # a busy machine finds fewer sentences in a cell's time
    assert 280 <= len(story().trace) <= 400
    assert story().metrics.num_preemptions > 0
    html = result_bundle(story())["text/html"]
    assert len(html.encode()) <= 300_000
    assert steps_in(html) == [len(story().trace)]
    assert len(packed(html)[0]["saved"]["whys"][0]) == len(story().trace)


def test_what_is_left_without_scripts_is_the_static_result_and_stays_below_sixty_kilobytes():
    bundle = result_bundle(story())
    still = without_scripts(bundle["text/html"])
    assert len(still.encode()) <= 60_000
    assert len(bundle["image/svg+xml"].encode()) <= 60_000
    assert still.replace('<div class="wb-saved">', "", 1).replace("</div>", "") == render_html(story()).replace("</div>", "")


def test_without_a_player_the_result_is_the_static_one_alone():
    run = speaking_engine().run("Hello", max_tokens=4)
    run.with_player = False
    assert result_bundle(run) == mimebundle(run)
    assert "<script" not in result_bundle(run)["text/html"]


def test_a_terminal_which_shows_text_alone_waits_for_no_player(monkeypatch):
    monkeypatch.setattr("workbench.view.control._shell", object)
    assert result_bundle(story()) == mimebundle(story())


def test_a_player_is_made_before_anybody_waits_for_it():
    trace, began = story().trace, time.process_time()
    with_player([Source(story(), 0)], "", "run")
    assert len(trace) > 280
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("limit", ["PLAYER_BYTES", "PLAYER_ROWS"])
def test_a_run_that_would_make_the_notebook_heavy_says_where_it_can_be_seen(monkeypatch, limit):
    monkeypatch.setattr(page, limit, 100)
    html = result_bundle(story())["text/html"]
    assert "<script" not in html
    assert "<code>run.view()</code>" in html
    assert '<code>run.to_html("run.html")</code>' in html
    assert html.count("<svg") == 2


def test_a_page_on_disk_has_no_such_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "PLAYER_BYTES", 100)
    assert steps_in(story().to_html(tmp_path / "run.html").read_text()) == [len(story().trace)]


def test_two_runs_of_three_hundred_steps_are_compared_in_less_than_four_hundred_kilobytes():
    branch = story().fork(story().first_step + 100, max_num_seqs=6).resume()
    found = compare(story(), branch)
    html = found._repr_html_()
    assert min(len(found.a), len(found.b)) >= 240
    assert len(html.encode()) < 400_000
    assert steps_in(html) == [len(found.a), len(found.b)]
    runs = packed(html)[0]["saved"]["frame"]["runs"]
    assert [run["name"] for run in runs] == list(found.names)
    assert runs[1]["parted"] == {"position": found.divergence.position, "sentence": found.divergence.sentence}


def test_steps_in_which_a_request_begins_to_wait_say_what_would_have_let_it_run():
    told = packed(result_bundle(story())["text/html"])[0]["saved"]["whys"][0]
    changes = {why["step"]: [change["label"] for row in why["rows"] for change in row["changes"]] for why in told}
    waits = next(record.step for record in story().trace if any(one.verdict is Verdict.DEFERRED for one in record.decisions))
    assert changes[waits] == [change["label"] for row in why_payload(story().trace, waits)["rows"] for change in row["changes"]] != []
    assert changes[waits + 10] == []  # nobody waits for another reason than before


# -- which runs --------------------------------------------------------------------------------------------------------


def test_buffers_lie_where_the_json_says_each_on_a_multiple_of_eight():
    found, whole = packed(result_bundle(story())["text/html"])
    source = Source(story(), 0)
    assert [whole[start:end] for start, end in found["buffers"]] == [part.buffer for part in source.parts()]
    assert all(start % 8 == 0 for start, _ in found["buffers"])


def test_a_run_on_a_used_engine_shows_its_own_steps_only():
    engine = speaking_engine()
    first, second = engine.run("One", max_tokens=5), engine.run("Two", max_tokens=7)
    third = engine.run("Three", max_tokens=3)
    for run in (first, second, third):
        html = result_bundle(run)["text/html"]
        assert steps_in(html) == [len(run.trace)]
        saved = packed(html)[0]["saved"]
        assert saved["frame"]["runs"][0]["meta"]["first_step"] == run.first_step
        assert [why["step"] for why in saved["whys"][0]] == [record.step for record in run.trace]


def test_a_run_whose_engine_went_another_way_since_still_shows_what_it_did():
    engine = speaking_engine(max_num_seqs=1)
    run = engine.run(["One", "Two"], max_tokens=5)
    engine.rewind(4)
    engine.abort("r1")
    engine.run("Other", max_tokens=20)
    html = result_bundle(run)["text/html"]
    assert steps_in(html) == [len(run.trace)]
    parts = packed(html)[0]["saved"]["frame"]["parts"]
    ended = [event["step"] for part in parts for event in part.get("tape", {}).get("events", ()) if event["kind"] == "finished"]
    assert ended == [record.step for record in run.trace for _ in record.finished]


def test_a_failed_run_keeps_its_steps_and_names_the_one_that_failed():
    def fail(step):
        if step == 6:
            raise MemoryError("no room <left>")

    run = speaking_engine(runner=SpeakingRunner(before_step=fail)).run("Hello", max_tokens=20, background=True)
    with pytest.raises(MemoryError):
        run.wait()
    html = result_bundle(run)["text/html"]
    assert "Step 6 failed with MemoryError: no room &lt;left&gt;" in without_scripts(html)
    status = packed(html)[0]["saved"]["frame"]["parts"][0]["status"]
    assert (status["state"], status["error"]) == ("failed", {"type": "MemoryError", "message": "no room <left>", "step": 6})
    assert steps_in(html)[0] >= 6


def test_a_stopped_run_is_played_up_to_where_it_was_stopped():
    engine = speaking_engine()
    run = engine.run("Hello", max_tokens=50, background=True, paused=True)
    for _ in range(5):
        run.step()
    run.stop()
    assert steps_in(result_bundle(run)["text/html"]) == [len(run.trace)]
    assert packed(result_bundle(run)["text/html"])[0]["saved"]["frame"]["parts"][0]["status"]["state"] == "stopped"


def test_a_run_that_is_not_over_has_no_player_and_can_be_written_as_a_page(tmp_path):
    run = speaking_engine().run("Hello", max_tokens=50, background=True, paused=True)
    run.step()
    assert "<script" not in result_bundle(run)["text/html"]
    assert steps_in(run.to_html(tmp_path / "run.html").read_text()) == [1]


def test_a_run_without_a_step_is_a_static_result(tmp_path):
    run = speaking_engine().run("Hello", background=True, paused=True)
    run.stop()
    assert len(run.trace) <= 1
    empty = make_trace(2)
    still = Trace(empty.config, empty.model, empty.requests.values())
    assert with_player([Source(still, 0)], "<p>still</p>", "run") == "<p>still</p>"
    written = View(still).to_html(tmp_path / "empty.html").read_text()
    assert "<script" not in written
    assert "no steps" in written


def test_a_trace_from_a_file_is_shown_with_or_without_an_engine(tmp_path):
    trace = load_trace(story().save(tmp_path / "run.wbt"))
    rebuilt = Engine.from_trace(trace, ScriptedRunner()).last_run
    assert steps_in(rebuilt.to_html(tmp_path / "run.html").read_text()) == [len(trace)]
    assert steps_in(View(trace).to_html(tmp_path / "trace.html").read_text()) == [len(trace)]
    assert "Question 3: is this" in without_scripts((tmp_path / "run.html").read_text())


def test_showing_a_trace_loads_no_torch(tmp_path):
    story().save(tmp_path / "run.wbt")
    code = (
        "import sys; from workbench import Engine, View, load_trace, compare; from workbench.runners.scripted import ScriptedRunner;"
        "trace = load_trace('run.wbt'); View(trace).to_html('view.html'); compare(trace, trace).to_html('two.html');"
        "run = Engine.from_trace(trace, ScriptedRunner()).last_run; run.to_html('run.html'); run._repr_mimebundle_();"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_a_trace_that_lacks_its_beginning_is_shown_from_where_it_begins(tmp_path):
    part = story().trace[40:90]
    html = View(part).to_html(tmp_path / "part.html").read_text()
    assert steps_in(html) == [50]
    assert packed(html)[0]["saved"]["frame"]["runs"][0]["meta"]["first_step"] == part.first_step


def test_a_trace_that_is_not_exact_is_not_shown_as_steps(tmp_path):
    exact = make_trace(3)
    guessed = Trace(exact.config, exact.model, exact.requests.values(), exact.records, "reconstructed")
    assert "<script" not in with_player([Source(guessed, 0)], "still", "run")
    with pytest.raises(ViewError, match=r"is reconstructed, not exact"):
        View(guessed).to_html(tmp_path / "guessed.html")
    assert "<script" not in compare(guessed, exact)._repr_html_()


def test_runs_that_begin_at_different_steps_stand_side_by_side_in_the_player():
    engine = Engine(ScriptedRunner(), num_blocks=24, max_num_seqs=2)
    prompts = [list(range(20)), list(range(100, 130))]
    found = compare(engine.run(prompts), engine.run(prompts))
    html = found._repr_html_()
    assert steps_in(html) == [len(trace) for trace in found.side_by_side]
    starts = [run["meta"]["first_step"] for run in packed(html)[0]["saved"]["frame"]["runs"]]
    assert starts == list(found.first_steps)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_view_leaves_a_line_where_widgets_are_not_kept():
    view = View(make_trace(2), names=["<b>mine</b>"])
    data = view._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "&lt;b&gt;mine" in data["text/html"]
    assert "run.view()" in data["text/html"]
    view.close()


def test_without_the_built_files_the_result_is_static_and_a_page_says_what_to_do(unbuilt, tmp_path):
    assert result_bundle(story()) == mimebundle(story())
    with pytest.raises(ViewError, match="was not built: run `make view`"):
        story().to_html(tmp_path / "run.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["nowhere/run.html", "."])
def test_a_place_that_cannot_be_written_is_an_error_of_one_line(tmp_path, place):
    with pytest.raises(TraceError, match="cannot write") as caught:
        story().to_html(tmp_path / place)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "run.html"
    path.write_text("older")
    assert story().to_html(str(path)) == path
    assert path.read_text().endswith("</html>\n")
    assert [each.name for each in tmp_path.iterdir()] == ["run.html"]


# -- what comes from outside -------------------------------------------------------------------------------------------


def hostile_trace() -> Trace:
    """A trace in which every text that can come from outside tries to break out."""
    trace = make_trace(2)
    raw = msgspec.json.encode(trace.records).decode().replace('"r0"', json.dumps(HOSTILE))
    records = msgspec.json.decode(raw, type=list[StepRecord])
    requests = [msgspec.structs.replace(one, id=HOSTILE if one.id == "r0" else one.id, prompt=HOSTILE) for one in trace.requests.values()]
    model = msgspec.structs.replace(trace.model, name=HOSTILE, path=HOSTILE)
    texts = {token: HOSTILE for record in records for entry in record.sampled for token in entry.token_ids}
    return Trace(trace.config, model, requests, records, "exact", texts)


def assert_only_our_scripts(html: str) -> None:
    """Nothing runs but the player's one script."""
    assert re.findall(r"<script\b[^>]*>", html) == ["<script>"]
    assert html.count("</script>") == 1
    assert "<!--" not in without_scripts(html)
    assert_harmless(without_scripts(html))


def test_nothing_that_comes_from_outside_is_markup(tmp_path):
    trace = hostile_trace()
    for html in (
        View(trace, names=[HOSTILE]).to_html(tmp_path / "view.html").read_text(),
        compare(SimpleNamespace(trace=trace, name=HOSTILE), make_trace(2))._repr_html_(),
    ):
        assert_only_our_scripts(html)
        assert packed(html)[0]["saved"]["frame"]["runs"][0]["name"] == HOSTILE


def test_half_a_surrogate_pair_in_a_prompt_or_a_name_is_no_obstacle(tmp_path):
    run = speaking_engine().run([{"prompt_token_ids": [72, 105], "id": "half \ud83e"}], max_tokens=4)
    run.name = "a \udc00 run"
    run.error = None
    assert steps_in(result_bundle(run)["text/html"]) == [len(run.trace)]
    assert packed(run.to_html(tmp_path / "run.html").read_text())[0]["saved"]["frame"]["runs"][0]["name"] == "a \udc00 run"
