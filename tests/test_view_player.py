"""Saved pages in a real browser: the player against the records of its run, and what stays where it cannot start."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest
from render_fixtures import scripted_run
from saved_pages import Pages, beyond, opened, page_of, story
from scripted_cells import ANSWER, SpeakingRunner, speaking_engine
from test_view_blocks import COLOURS, EMPTY, Map, rgb
from test_view_page import HOSTILE, SCRIPTS, hostile_trace, without_scripts
from test_view_timeline import Strips, agrees
from test_view_why import go
from view_runs import PROMPTS, press, step_under_cursor

from workbench.comparison import compare
from workbench.moment import moment
from workbench.tape import whys
from workbench.view import View
from workbench.view.page import result_bundle

PLAYERS = ".wb-saved .wb-view"
STILLS = ".wb-saved svg.wb-svg"


@pytest.fixture(scope="module")
def pages():
    served = Pages()
    yield served
    served.close()


@pytest.fixture
def show(browser, pages):
    """Opens a page, or a file, and fails the test on an error there."""
    with ExitStack() as stack:

        def show(where, headers=None, **look):
            where = pages.serve(where, **(headers or {})) if isinstance(where, str) else where
            return stack.enter_context(opened(browser, where, **look))

        yield show


@pytest.fixture(scope="module")
def cell():
    """What a notebook stores of the run."""
    return result_bundle(story())["text/html"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return story().to_html(tmp_path_factory.mktemp("saved") / "run.html")


@pytest.fixture
def saved(show, cell):
    """The run played in a page from a server."""
    return show(page_of(cell)).play()


@pytest.fixture(params=["notebook", "file"])
def anywhere(request, show):
    """The run played in a page from a server, and in a page on disk."""
    where = page_of(request.getfixturevalue("cell")) if request.param == "notebook" else request.getfixturevalue("file")
    return show(where).play()


# -- it plays ----------------------------------------------------------------------------------------------------------


def test_the_player_stands_in_the_place_of_the_pictures_and_answers_and_numbers_stay(anywhere):
    assert anywhere.page.locator(PLAYERS).count() == 1
    assert anywhere.page.locator(STILLS).count() == 0
    said = anywhere.page.locator("body").inner_text()
    for output in story().outputs:
        assert output.prompt in said
        assert output.text in said
    assert "numbers of each request" in said
    assert step_under_cursor(anywhere) == story().trace[-1].step


def test_it_asks_for_nothing_at_all(anywhere):
    press(anywhere, "Home", "ArrowRight", "End")
    anywhere.page.wait_for_timeout(200)
    assert beyond(anywhere.requests) == []
    assert anywhere.warnings == []


def test_keys_slider_and_a_click_in_the_timeline_move_the_cursor(saved):
    press(saved, "Home")
    assert step_under_cursor(saved) == 0
    press(saved, "ArrowRight", "ArrowRight", "Shift+ArrowRight", "ArrowLeft")
    assert step_under_cursor(saved) == 11
    slider = saved.page.get_by_role("slider", name="Step")
    box = slider.bounding_box()
    saved.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert abs(step_under_cursor(saved) - len(story().trace) / 2) < 4
    saved.page.mouse.click(*Strips(saved, story().trace).point(77, 40))
    assert abs(step_under_cursor(saved) - 77) <= 1


@pytest.mark.parametrize("where", ["notebook", "file"])
def test_every_panel_tells_of_a_step_what_its_record_tells(show, tmp_path, where):
    run = scripted_run(list(PROMPTS), block_size=4, num_blocks=12, max_num_seqs=3, max_num_batched_tokens=16, max_tokens=12)
    trace = run.trace
    where = page_of(result_bundle(run)["text/html"]) if where == "notebook" else run.to_html(tmp_path / "run.html")
    saved = show(where, width=1300).play()
    told = {why["step"]: why for why in whys(trace, 0, len(trace), 10)}
    for step in range(0, len(trace), 6):
        go(saved, step)
        assert saved.page.locator(".wb-why-summary").inner_text().startswith(told[step]["summary"])
        now = moment(trace, step)
        grid = Map(saved, len(now.blocks))
        drawn = grid.pixels([grid.place(block.block_id) for block in now.blocks])
        assert [pixel != EMPTY for pixel in drawn] == [block.status == "in use" for block in now.blocks]
        owners = {rgb(COLOURS[list(trace.requests).index(block.owners[0])]) for block in now.blocks if block.owners}
        assert {pixel for pixel in drawn if pixel[3] == 255} <= owners
        agrees(Strips(saved, trace), trace, step)


def test_the_text_is_what_had_come_out_by_the_step(saved):
    trace = story().trace
    saved.page.locator(".wb-chips button", has_text=re.compile("^r1$")).click()
    for step in (0, 20, 90):
        go(saved, step)
        until = sum(len(entry.token_ids) for record in trace if record.step <= step for entry in record.sampled if entry.request_id == "r1")
        read = "els => els.filter((el) => el.classList.contains('wb-decoded')).map((el) => el.textContent).join('')"
        shown = saved.page.locator(".wb-text-scroll .wb-tok").evaluate_all(read)
        assert shown.endswith((ANSWER * 20)[:until][-10:])
        assert len(shown) == until


def test_play_walks_through_the_steps(saved):
    press(saved, "Home")
    saved.page.emulate_media(reduced_motion="no-preference")
    press(saved, "Space")
    saved.page.wait_for_function("() => Number(document.querySelector('.wb-saved > div').shadowRoot.querySelector('.wb-slider').value) > 3")
    press(saved, "Space")
    assert 3 < step_under_cursor(saved) < len(story().trace) - 1


def test_the_fork_button_says_how_a_run_is_forked(saved):
    go(saved, 12)
    saved.page.get_by_role("button", name="Fork at step 12").click()
    words = saved.page.locator(".wb-message").inner_text()
    assert "saved page" in words
    assert "run.view()" in words
    assert "run.fork(12)" in words


def test_a_change_that_would_have_helped_is_shown_and_says_where_it_can_be_tried(saved):
    press(saved, "Home")
    chip = saved.page.get_by_role("button", name=re.compile("^Run a branch")).first
    assert "max_num_batched_tokens" in chip.inner_text() or "max_num_seqs" in chip.inner_text()
    chip.click()
    saved.settle()
    assert "run.view()" in saved.page.locator(".wb-message").inner_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_on_disk_wears_the_readers_theme(show, file, dark):
    saved = show(file, dark=dark).play()
    shade = "els => els.map((el) => getComputedStyle(el).backgroundColor)"
    for background in saved.page.locator("body, .wb-run, .wb-view").evaluate_all(shade):
        red, green, blue, opacity = ([*map(float, re.findall(r"[\d.]+", background)), 1.0])[:4]
        assert opacity == 0 or (red + green + blue < 150) == dark, background
    assert saved.page.locator(".wb-view").evaluate("el => getComputedStyle(el).getPropertyValue('--wb-bg').trim()") == (
        "#15191f" if dark else "#ffffff"
    )


# -- a page is shared with others --------------------------------------------------------------------------------------


def test_two_players_on_a_page_do_not_disturb_each_other(show, cell):
    other = speaking_engine().run("Another", max_tokens=25)
    saved = show(page_of(cell, result_bundle(other)["text/html"])).play(2)
    first, second = (saved.page.locator(f"#cell{i} {PLAYERS}") for i in range(2))
    first.focus()
    for key in ("Home", "ArrowRight"):
        saved.page.keyboard.press(key)
    saved.settle()
    at = [view.get_by_role("slider", name="Step").get_attribute("aria-valuetext") for view in (first, second)]
    assert at == [f"step 1 of {len(story().trace) - 1}", f"step {len(other.trace) - 1} of {len(other.trace) - 1}"]
    second.focus()
    saved.page.keyboard.press("ArrowLeft")
    saved.settle()
    assert first.get_by_role("slider", name="Step").input_value() == "1"
    assert second.get_by_role("slider", name="Step").input_value() == str(len(other.trace) - 2)
    assert second.locator(".uplot").count() > 0


def test_the_styles_of_a_page_do_not_reach_into_the_player_nor_its_own_out_of_it(show, cell):
    plain = show(page_of(cell)).play()
    rude = "button, canvas, h4, .wb-panel, .wb-part { display: none !important; } dl, dd, p, table { margin: 99px; padding: 99px; }"
    styled = show(page_of(cell + '<p class="wb-view wb-hidden" id="outside">seen</p>', style=rude)).play()
    height = [page.page.locator(PLAYERS).bounding_box()["height"] for page in (plain, styled)]
    assert height[0] == height[1]
    assert styled.page.locator("#outside").is_visible()


def test_a_player_out_of_sight_is_drawn_as_high_as_it_stays(show, cell):
    saved = show(page_of('<div style="height: 4000px"></div>', cell)).play()
    height = saved.page.locator(PLAYERS).bounding_box()["height"]
    saved.page.locator(PLAYERS).scroll_into_view_if_needed()
    saved.page.wait_for_timeout(300)
    assert saved.page.locator(PLAYERS).bounding_box()["height"] == height


def test_a_player_that_is_taken_off_the_page_ends_and_is_as_it_was_when_it_is_back(show, cell):
    saved = show(page_of(cell)).play()
    go(saved, 30)
    saved.page.evaluate(
        """() => {
            window.kept = document.querySelector("#cell0");
            window.root = document.querySelector(".wb-saved > div").shadowRoot;
            kept.remove();
        }"""
    )
    saved.page.wait_for_function("() => window.root.querySelector('.wb-view') === null")
    saved.page.evaluate("() => document.body.append(window.kept)")
    saved.page.locator(PLAYERS).wait_for()
    saved.page.locator(f"{PLAYERS} .uplot").first.wait_for()
    assert step_under_cursor(saved) == 30
    press(saved, "ArrowRight")
    assert step_under_cursor(saved) == 31


def test_keys_that_the_player_uses_are_not_taken_for_the_notebooks_shortcuts(saved):
    saved.page.evaluate("() => document.addEventListener('keydown', (event) => { window.heard = event.target; }, true)")
    press(saved, "ArrowLeft")
    assert saved.page.evaluate("window.heard.closest('[data-lm-suppress-shortcuts=true]') !== null")


def test_what_an_output_without_its_script_carries_is_not_run_by_the_script_of_another(show, cell):
    other = SCRIPTS.sub("", result_bundle(speaking_engine().run("Not trusted", max_tokens=9))["text/html"])
    saved = show(page_of(other, cell)).play()
    assert saved.page.locator(f"#cell0 {PLAYERS}").count() == 0
    assert saved.page.locator(f"#cell0 {STILLS}").count() == 2


def test_scripts_that_a_notebook_puts_in_by_hand_start_the_player_too(show, cell):
    saved = show(page_of(""))
    saved.page.evaluate(
        """(html) => {
            const place = document.querySelector("#cell0");
            place.innerHTML = html;
            for (const old of place.querySelectorAll("script")) {
                if (old.type !== "") continue;
                const fresh = document.createElement("script");
                fresh.text = old.textContent;
                place.append(fresh);
                fresh.remove();
            }
        }""",
        cell,
    )
    saved.play()
    assert saved.page.locator(STILLS).count() == 0


# -- it cannot play ----------------------------------------------------------------------------------------------------


def test_where_scripts_are_taken_out_the_pictures_stay(show, cell):
    saved = show(page_of(without_scripts(cell)))
    assert saved.page.locator(STILLS).count() == 2
    assert saved.page.locator(PLAYERS).count() == 0


@pytest.mark.parametrize(
    "policy",
    ["default-src 'none'; style-src 'unsafe-inline'", "script-src 'unsafe-inline'; style-src 'unsafe-inline'"],
    ids=["no scripts", "no scripts of one's own making"],
)
def test_where_a_policy_forbids_it_the_pictures_stay(show, cell, policy):
    saved = show(page_of(cell), {"Content_Security_Policy": policy}, ignore="Content Security Policy|content security policy")
    saved.page.wait_for_timeout(300)
    assert saved.page.locator(STILLS).count() == 2
    assert saved.page.locator(".wb-saved > div:not(.wb-part)").count() == 0


@pytest.mark.parametrize(
    "lack",
    [
        "delete window.DecompressionStream",
        "window.atob = () => 'nonsense'",
        "Element.prototype.attachShadow = undefined",
        "delete window.ResizeObserver",
    ],
)
def test_in_a_browser_that_cannot_the_pictures_stay_with_no_more_than_a_warning(show, cell, lack):
    saved = show(page_of(cell), before=lack)
    saved.page.wait_for_function("() => document.querySelectorAll('.wb-saved svg.wb-svg').length === 2")
    for _ in range(50):
        if saved.warnings:
            break
        saved.page.wait_for_timeout(50)
    assert [text for text in saved.warnings if text.startswith("workbench: the pictures stay")] == saved.warnings != []
    assert saved.page.locator(STILLS).count() == 2
    assert saved.page.locator(".wb-saved > div:not(.wb-part)").count() == 0


# -- what comes from outside -------------------------------------------------------------------------------------------


def test_hostile_texts_are_shown_as_they_are_and_run_nothing(show, tmp_path):
    trace = hostile_trace()
    saved = show(View(trace, names=[HOSTILE]).to_html(tmp_path / "hostile.html")).play()
    for key in ("Home", "ArrowRight", "End"):
        press(saved, key)
    saved.page.locator(".wb-footer").get_by_role("button", name="table").click()
    saved.settle()
    assert saved.page.evaluate("window.hacked") is None
    assert saved.page.locator("img").count() == 0
    assert saved.page.locator(".wb-run-name").inner_text() == HOSTILE
    assert HOSTILE in saved.page.title()


def test_a_hostile_prompt_error_and_half_characters_are_shown_in_a_cell(show):
    def fail(step):
        if step == 6:
            raise ValueError(HOSTILE)

    run = speaking_engine(runner=SpeakingRunner(before_step=fail)).run([HOSTILE, "tail \U0001f99c"], max_tokens=20, background=True)
    with pytest.raises(ValueError, match="hacked"):
        run.wait()
    run.name = "half \ud83e" + HOSTILE
    saved = show(page_of(result_bundle(run)["text/html"])).play()
    press(saved, "Home", "End")
    said = saved.page.locator(".wb-run").inner_text()
    assert f"Step 6 failed with ValueError: {HOSTILE}" in said
    assert HOSTILE in saved.page.locator("pre.wb-prompt").first.inner_text()
    assert saved.page.evaluate("window.hacked") is None
    assert saved.page.evaluate("document.scripts.length") == 1


# -- two runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared():
    branch = story().fork(60, max_num_seqs=6).resume()
    return compare(story(), branch)


@pytest.mark.parametrize("where", ["notebook", "file"])
def test_two_runs_have_one_set_of_timelines_with_one_cursor_and_a_mark_where_they_part(show, compared, tmp_path, where):
    page = page_of(compared._repr_html_()) if where == "notebook" else compared.to_html(tmp_path / "two.html")
    saved = show(page).play()
    assert saved.page.locator(STILLS).count() == 0
    assert saved.page.locator(".wb-tl-canvas:visible").count() == 2
    assert saved.page.locator("body").inner_text().count(compared.sentence) == 1, "it is told once"
    saved.page.get_by_role("button", name="Put the cursor on the first step that differs").click()
    assert step_under_cursor(saved) == compared.divergence.steps[0]
    assert "goodput" in saved.page.locator(".wb-run").inner_text() or "TTFT p50" in saved.page.locator(".wb-run").inner_text()


def test_two_runs_without_scripts_show_both_timelines(show, compared):
    saved = show(page_of(without_scripts(compared._repr_html_())))
    assert saved.page.locator(STILLS).count() == 2
