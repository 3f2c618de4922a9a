from __future__ import annotations

import _thread
import builtins

import pytest
from IPython.core.interactiveshell import InteractiveShell
from scripted_cells import ANSWER, SpeakingRunner, speaking_engine
from test_timetravel import Remembering
from traitlets.config import Config

from workbench import Engine, EngineConfig, IntegrityError, Run
from workbench._options import KNOBS
from workbench._session import Session
from workbench.errors import UnknownModelError


@pytest.fixture
def shell(monkeypatch):
    monkeypatch.delattr(builtins, "_", raising=False)  # a doctest leaves one behind, and IPython respects it
    InteractiveShell.clear_instance()
    made = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}), colors="nocolor")
    made.extension_manager.load_extension("workbench")
    magics_of(made).session._make = lambda config: speaking_engine(config.replace(model="scripted", num_blocks=config.num_blocks or 64))
    yield made
    made.extension_manager.unload_extension("workbench")
    InteractiveShell.clear_instance()


def magics_of(shell):
    return shell.magics_manager.registry["InferMagics"]


def use_runner(shell, runner):
    magics_of(shell).session._make = lambda config: speaking_engine(config.replace(model="scripted", num_blocks=64), runner)


def error_of(shell, cell, capsys):
    """The one line that a wrong cell prints."""
    capsys.readouterr()
    result = shell.run_cell(cell)
    assert result.error_in_exec is not None
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    lines = (printed.out + printed.err).strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# -- running -----------------------------------------------------------------------------------------------------------


def test_a_cell_runs_each_line_and_is_the_result(shell):
    run = shell.run_cell("%%infer --max-tokens 3\nfirst\nsecond").result
    assert isinstance(run, Run)
    assert [(output.prompt, output.text) for output in run.outputs] == [("first", ANSWER[:3]), ("second", ANSWER[:3])]


def test_the_result_is_bound_and_is_the_last_run(shell):
    shell.run_cell("%%infer --max-tokens 2 -o mine\nhello")
    assert shell.user_ns["mine"] is shell.run_cell("%infer last").result


def test_the_result_is_the_underscore_of_the_next_cell(shell):
    run = shell.run_cell("%%infer --max-tokens 2\nhello", store_history=True).result
    assert shell.run_cell("_.status", store_history=True).result == "finished"
    assert run.status == "finished"


@pytest.mark.parametrize("cell", ["%%infer --n 1;\nhello", "%%infer --n 1\nhello\n;", "%%infer -o x\nhello;"])
def test_a_semicolon_hides_the_result(shell, cell, capsys):
    assert shell.run_cell(cell).result is None
    assert "hello" not in capsys.readouterr().out
    assert magics_of(shell).session.last.status == "finished"


@pytest.mark.parametrize("prompt", ["What's {this} $HOME (and open", '"""', "int x = 5; {y}", "%timeit", "!ls", "<script>x</script>"])
def test_the_body_reaches_the_engine_as_typed(shell, prompt):
    shell.user_ns["this"] = "WRONG"
    shell.run_cell(f"%%infer --max-tokens 1 -o run\n{prompt}")
    assert shell.user_ns["run"].outputs[0].prompt == prompt


def test_the_option_line_knows_variables(shell):
    shell.user_ns["length"] = 5
    assert len(shell.run_cell("%%infer --max-tokens {length}\nhello").result.outputs[0].token_ids) == 5


def test_sections_are_prompts_of_several_lines(shell):
    run = shell.run_cell("%%infer --max-tokens 1\na\nb\n---\nc").result
    assert [output.prompt for output in run.outputs] == ["a\nb", "c"]


def test_chat_is_the_default_and_raw_turns_it_off(shell):
    chat = shell.run_cell("%%infer --max-tokens 1\nab").result.outputs[0]
    raw = shell.run_cell("%%infer --max-tokens 1 --raw\nab").result.outputs[0]
    assert (chat.prompt_token_ids, raw.prompt_token_ids) == ((257, 97, 98, 257), (97, 98))


def test_yaml_requests_keep_their_own_settings(shell):
    body = "- {prompt: a, id: late, arrival_step: 3, priority: 2, sampling: {max_tokens: 4}}\n- b\n"
    run = shell.run_cell(f"%%infer --yaml --max-tokens 2\n{body}").result
    late = run.trace.requests["late"]
    assert (late.arrival_step, late.priority, [len(output.token_ids) for output in run.outputs]) == (3, 2, [4, 2])


def test_engine_options_reach_the_engine(shell):
    run = shell.run_cell("%%infer --num-blocks 9 --max-num-seqs 2 --no-enable-prefix-caching --max-tokens 1\na").result
    config = run.trace.config
    assert (config.num_blocks, config.max_num_seqs, config.enable_prefix_caching) == (9, 2, False)


def test_the_same_cell_shows_the_same_run(shell):
    cell = "%%infer --max-tokens 4 --seed 3 --temperature 1\na\nb"
    first, second = (shell.run_cell(cell).result for _ in range(2))
    assert [record.scheduled for record in first.trace] == [record.scheduled for record in second.trace]
    assert [output.request_id for output in first.outputs] == [output.request_id for output in second.outputs]


def test_engines_of_past_cells_can_still_be_forked(shell):
    first = shell.run_cell("%%infer --max-tokens 3\na").result
    for _ in range(3):
        shell.run_cell("%%infer --max-tokens 1\na")
    assert first.outputs[0].text == ANSWER[:3]
    assert first.fork(1).resume().outputs[0].text == ANSWER[:3]


def test_engines_of_past_cells_but_the_last_give_their_cache_back(monkeypatch):
    session = Session()
    monkeypatch.setattr(session, "_make", lambda config: Engine(Remembering(8, 4), config=config))
    engines = [session.engine(EngineConfig(num_blocks=8, block_size=4)) for _ in range(3)]
    assert ["KV cache given back" in repr(engine) for engine in engines] == [True, False, False]


def test_a_cell_can_use_an_engine_of_the_notebook(shell):
    engine = shell.user_ns["engine"] = speaking_engine(max_num_seqs=2)
    run = shell.run_cell("%%infer --engine engine --max-tokens 2 --seed 4 --temperature 1\nhello").result
    assert run.engine is engine
    assert run.trace.requests["r0"].sampling.seed == 4
    shell.run_cell("%%infer --engine engine --max-tokens 2\nagain")
    assert len(engine.trace.requests) == 2


# -- interrupts, background ----------------------------------------------------------------------------------------------


def test_an_interrupt_returns_what_there_is(shell):
    engine = shell.user_ns["engine"] = speaking_engine(
        runner=SpeakingRunner(before_step=lambda step: _thread.interrupt_main() if step == 5 else None, sleep_s=0.01)
    )
    run = shell.run_cell("%%infer --engine engine --max-tokens 400\nhello").result
    assert run.status == "stopped"
    assert 0 < len(run.outputs[0].token_ids) < 400
    assert run.outputs[0].finish_reason == "abort"
    again = shell.run_cell("%%infer --engine engine --max-tokens 2\nhello").result
    assert again.status == "finished"
    assert engine.active_run is None


def test_a_background_run_returns_at_once_and_can_be_stopped(shell):
    use_runner(shell, SpeakingRunner(sleep_s=0.01))
    run = shell.run_cell("%%infer --background --max-tokens 900 -o run\nhello").result
    assert run.status == "running"
    assert "run" in repr(shell.run_cell("%infer status").result)
    assert "stopped" in repr(shell.run_cell("%infer stop").result)
    assert run.status == "stopped"
    assert "Nothing" in repr(shell.run_cell("%infer stop").result)


def test_a_second_cell_on_a_busy_engine_says_whose_run_is_active(shell, capsys):
    shell.user_ns["engine"] = speaking_engine(runner=SpeakingRunner(sleep_s=0.01))
    run = shell.run_cell("%%infer --background --engine engine --max-tokens 900;\nhello")
    assert "run 1" in error_of(shell, "%%infer --engine engine\nsecond", capsys)
    shell.run_cell("%infer stop;")
    assert run.result is None
    assert magics_of(shell).session.last.status == "stopped"


def test_unloading_stops_what_runs(shell):
    use_runner(shell, SpeakingRunner(sleep_s=0.01))
    run = shell.run_cell("%%infer --background --max-tokens 900\nhello").result
    shell.extension_manager.unload_extension("workbench")
    assert run.wait(timeout=10)
    assert shell.find_cell_magic("infer") is None
    shell.extension_manager.load_extension("workbench")


# -- subcommands ---------------------------------------------------------------------------------------------------------


def test_the_list_names_bound_and_unbound_runs(shell):
    shell.run_cell("%%infer --max-tokens 2 -o mine\nhello")
    shell.run_cell("%%infer --max-tokens 2\nhello")
    listing = shell.run_cell("%infer list").result
    assert listing.rows == [("mine", "finished", "1", "2", "2"), ("run 2", "finished", "1", "2", "2")]


def test_listings_are_text_and_markdown(shell):
    bundle = shell.run_cell("%infer config max_num_seqs").result._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/markdown"}
    assert "max\\_num\\_seqs" in bundle["text/markdown"]


def test_models_are_listed(shell):
    assert "smollm2" in repr(shell.run_cell("%infer models").result)


def test_config_sets_the_defaults_of_later_cells(shell):
    shell.run_cell("%config InferMagics.max_tokens = 2\n")
    shell.run_cell("%config InferMagics.stop_token_ids = [7]\n")
    run = shell.run_cell("%%infer\nhello").result
    assert len(run.outputs[0].token_ids) == 2
    assert run.trace.requests["r0"].sampling.stop_token_ids == (7,)
    assert shell.run_cell("%infer config max_tokens").result.rows[0][:2] == ("max_tokens", "2")


def test_config_defaults_hold_for_an_engine_of_the_notebook_as_well(shell):
    shell.user_ns["engine"] = speaking_engine()
    shell.run_cell("%config InferMagics.max_tokens = 2\n%config InferMagics.num_blocks = 9")
    assert len(shell.run_cell("%%infer --engine engine\nhello").result.outputs[0].token_ids) == 2


@pytest.mark.parametrize("knob", sorted(KNOBS))
def test_every_knob_has_a_default_that_config_can_set_again(shell, knob, caplog):
    before = getattr(magics_of(shell), knob)
    shell.run_cell(f"%config InferMagics.{knob} = {before!r}")
    assert not caplog.text
    assert magics_of(shell).defaults() == {}


def test_config_refuses_an_impossible_default(shell, caplog):
    shell.run_cell("%config InferMagics.max_tokens = 0")
    assert "max_tokens must be at least 1, not 0" in caplog.text
    assert magics_of(shell).max_tokens == 64


def test_help_shows_every_option(shell, capsys):
    shell.run_cell("%infer help")
    printed = capsys.readouterr().out
    assert "--kv-cache-memory-bytes" in printed
    assert "%infer stop" in printed


def test_the_question_mark_shows_the_generated_help(shell):
    text = shell.inspector.info(shell.find_cell_magic("infer"))["docstring"]
    assert "--max-num-seqs N" in text
    assert "[requests; ≥ 1, ≤ 4096; default: 16]" in " ".join(text.split())
    assert "Interrupt" in text


def test_help_as_an_option_shows_it_too(shell, capsys):
    shell.run_cell("%%infer --help\nhello")
    assert "--max-num-seqs N" in capsys.readouterr().out


# -- mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%%infer", "cell body is empty"),
        ("%%infer\n  \n", "the cell has no prompt"),
        ("%%infer --max-token 3\nhello", "did you mean --max-tokens?"),
        ("%%infer --max-tokens 0\nhello", "--max-tokens must be at least 1"),
        ("%%infer --temperature nan\nhello", "--temperature must be a finite number"),
        ("%%infer --min-tokens 9 --max-tokens 3\nhello", "min_tokens is 9, more than max_tokens 3"),
        ("%%infer --stop 'open\nhello", "no closing quotation"),
        ("%%infer -o 3x\nhello", "-o takes the name of a variable"),
        ("%%infer extra\nhello", "unexpected 'extra'"),
        ("%%infer --engine nothing\nhello", "there is no variable 'nothing'"),
        ("%%infer --engine number\nhello", "number is a int, not an Engine"),
        ("%%infer --engine engine --num-blocks 3\nhello", "--num-blocks cannot be set on an existing engine"),
        ("%%infer --num-blocks 1\n" + "x" * 80, "num_blocks"),
        ("%%infer --yaml\n- {prompt: a, id: one}\n- {prompt: b, id: one}", "'one' is already in the engine"),
        ("%%infer --yaml\nnot a list", "list of requests"),
        ("%infer statsu", "did you mean 'status'?"),
        ("%infer --max-tokens 3", "options belong to a %%infer cell"),
        ("%infer list all", "takes no more words"),
        ("%infer config max_toknes", "did you mean 'max_tokens'?"),
        ("%infer last", "there is no run yet"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_change(shell, capsys, cell, says):
    shell.user_ns.update(number=3, engine=speaking_engine())
    line = error_of(shell, cell, capsys)
    assert line.startswith("UsageError: ")
    assert says in line


def test_a_mistake_loses_no_earlier_result(shell, capsys):
    shell.run_cell("%%infer --max-tokens 2 -o run\nhello")
    before = shell.user_ns["run"]
    error_of(shell, "%%infer --max-tokens 0 -o run\nhello", capsys)
    assert shell.user_ns["run"] is before
    assert shell.run_cell("%infer last").result is before


def test_one_bad_prompt_leaves_the_engine_as_it_was(shell, capsys):
    engine = shell.user_ns["engine"] = speaking_engine(num_blocks=4)
    error_of(shell, "%%infer --engine engine\nfits\n" + "x" * 200, capsys)
    assert not engine.has_unfinished
    assert shell.run_cell("%%infer --engine engine --max-tokens 2\nfits").result.status == "finished"


def test_a_closed_engine_is_refused(shell, capsys):
    engine = shell.user_ns["engine"] = speaking_engine()
    engine.close()
    assert "closed" in error_of(shell, "%%infer --engine engine\nhello", capsys)


def test_an_unknown_model_is_one_line(shell, capsys):
    del magics_of(shell).session._make
    line = error_of(shell, "%%infer --model smolm2\nhello", capsys)
    assert "did you mean 'smollm2'?" in line


@pytest.mark.parametrize("error", [KeyError("ours"), IntegrityError("ours")])
def test_our_own_bugs_keep_their_traceback(shell, capsys, error):
    def broken(config: EngineConfig):
        raise error

    magics_of(shell).session._make = broken
    result = shell.run_cell("%%infer\nhello")
    assert result.error_in_exec is error
    assert "Traceback" in capsys.readouterr().out


def test_a_model_error_of_several_lines_is_shown_on_one(shell, capsys):
    def missing(config: EngineConfig):
        raise UnknownModelError("first\nsecond")

    magics_of(shell).session._make = missing
    assert error_of(shell, "%%infer\nhello", capsys) == "UsageError: first second"


# -- completion ----------------------------------------------------------------------------------------------------------


def completions(shell, text, cursor=None):
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        return [found.text for found in shell.Completer.completions(text, len(text) if cursor is None else cursor)]


@pytest.mark.parametrize(
    ("text", "offers"),
    [
        ("%%infer --max-t", ["--max-tokens"]),
        ("%%infer --num-blocks 8 --no-enable-p", ["--no-enable-prefix-caching"]),
        ("%%infer --policy ", ["fcfs", "guaranteed_no_evict", "lpm", "max_utilization", "priority", "static_batch"]),
        ("%%infer --batching=d", ["dynamic"]),
        ("%%infer --model smol", ["smollm2"]),
        ("%%infer -o ans", ["answer"]),
        ("%%infer --engine ", ["engine"]),
        ("%infer sta", ["status"]),
    ],
)
def test_completion_offers_what_fits_and_nothing_else(shell, text, offers):
    shell.user_ns.update(answer=42, engine=speaking_engine())
    assert completions(shell, text) == offers


def test_completion_on_the_option_line_of_a_written_cell(shell):
    text = "%%infer --max-num-s\nprompt"
    assert completions(shell, text, text.index("\n")) == ["--max-num-seqs"]


def test_completion_elsewhere_is_left_alone(shell):
    assert "--max-tokens" not in completions(shell, "%%infer\nwhat is --max-t")
    assert "max" in completions(shell, "x = ma")
    assert not completions(shell, "infer --max-tok")


def test_loading_twice_gives_one_matcher(shell):
    shell.extension_manager.reload_extension("workbench")
    assert len([matcher for matcher in shell.Completer.custom_matchers if type(matcher).__name__ == "InferMatcher"]) == 1
