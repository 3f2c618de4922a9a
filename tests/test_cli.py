from __future__ import annotations

import _thread
import importlib.util
import io
import json
import os
import subprocess
import sys

import pytest
from scripted_cells import ANSWER, SpeakingRunner, speaking_engine

import workbench
from workbench import IntegrityError, UnknownModelError, load_trace
from workbench._session import Session
from workbench.cli import DONE, FAILED, INTERRUPTED, USAGE, main


@pytest.fixture
def scripted(monkeypatch):
    """``workbench infer`` on an engine without a model; call it with another runner to replace that."""

    def use(runner: SpeakingRunner | None = None) -> None:
        make = lambda self, config: speaking_engine(config.replace(model="scripted", num_blocks=config.num_blocks or 64), runner)
        monkeypatch.setattr(Session, "_make", make)

    use()
    return use


def said(capsys):
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_prompts_are_run_and_shown(scripted, capsys):
    assert main(["infer", "--max-tokens", "5", "first", "second"]) == DONE
    out, err = said(capsys)
    assert out.count(ANSWER[:5].strip()) >= 2
    assert not err


def test_json_is_all_that_is_printed(scripted, capsys):
    assert main(["infer", "--json", "--max-tokens", "3", "hello"]) == DONE
    out, err = said(capsys)
    data = json.loads(out)
    assert set(data) == {"outputs", "steps", "metrics"}
    assert data["outputs"][0]["text"] == ANSWER[:3]
    assert data["outputs"][0]["token_ids"] == list(ANSWER[:3].encode())
    assert data["outputs"][0]["finish_reason"] == "length"
    assert data["steps"][0]["decisions"][0]["reason"] == "full"
    assert data["steps"][0]["kv"]["in_use"] == 1
    assert data["metrics"]["num_steps"] == 3
    assert not err


def test_options_may_stand_between_and_after_prompts(scripted, capsys):
    assert main(["infer", "a", "--max-tokens", "2", "b", "--json"]) == DONE
    outputs = json.loads(said(capsys)[0])["outputs"]
    assert [(output["prompt"], len(output["token_ids"])) for output in outputs] == [("a", 2), ("b", 2)]


def test_a_dash_reads_prompts_from_standard_input(scripted, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo\n"))
    assert main(["infer", "--json", "--max-tokens", "1", "-"]) == DONE
    assert [output["prompt"] for output in json.loads(said(capsys)[0])["outputs"]] == ["one", "two"]


def test_words_after_two_dashes_are_prompts(scripted, capsys):
    assert main(["infer", "--json", "--max-tokens", "1", "--", "--not-an-option"]) == DONE
    assert json.loads(said(capsys)[0])["outputs"][0]["prompt"] == "--not-an-option"


def test_yaml_requests_come_from_standard_input(scripted, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("- {prompt: a, arrival_step: 2, max_tokens: 1}\n"))
    assert main(["infer", "--json", "--yaml", "-"]) == DONE
    assert json.loads(said(capsys)[0])["steps"][0]["decisions"][0]["reason"] == "not_arrived"


def test_raw_prompts_are_not_put_into_a_template(scripted, capsys):
    assert main(["infer", "--json", "--raw", "--max-tokens", "1", "ab"]) == DONE
    assert json.loads(said(capsys)[0])["outputs"][0]["prompt_token_ids"] == [97, 98]


def test_a_saved_trace_opens_again(scripted, capsys, tmp_path):
    assert main(["infer", "--max-tokens", "4", "--save", str(tmp_path / "run.wbt"), "hello"]) == DONE
    assert len(load_trace(tmp_path / "run.wbt")) == 4


def test_an_interrupt_gives_the_partial_result(scripted, capsys):
    scripted(SpeakingRunner(before_step=lambda step: _thread.interrupt_main() if step == 5 else None, sleep_s=0.01))
    assert main(["infer", "--json", "--max-tokens", "800", "hello"]) == INTERRUPTED
    output = json.loads(said(capsys)[0])["outputs"][0]
    assert output["finish_reason"] == "abort"
    assert 0 < len(output["token_ids"]) < 800


def test_markup_in_a_prompt_is_text(scripted, capsys):
    assert main(["infer", "--max-tokens", "1", "[red]bold[/red] \x1b[31m"]) == DONE
    out = said(capsys)[0]
    assert "[red]bold[/red]" in out
    assert "\x1b[31m" not in out


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["infer"], USAGE, "no prompt given"),
        (["infer", ""], USAGE, "a prompt is empty"),
        (["infer", "--max-token", "3", "x"], USAGE, "did you mean --max-tokens?"),
        (["infer", "--max-tokens", "0", "x"], USAGE, "--max-tokens must be at least 1"),
        (["infer", "--min-tokens", "9", "--max-tokens", "3", "x"], FAILED, "min_tokens is 9"),
        (["infer", "--num-blocks", "1", "x" * 100], FAILED, "num_blocks"),
        (["infer", "--yaml", "nonsense"], FAILED, "list of requests"),
        (["inferr"], USAGE, "did you mean 'infer'?"),
        (["--versoin"], USAGE, "did you mean '--version'?"),
        (["models", "fetsch"], USAGE, "did you mean 'fetch'?"),
        (["models", "fetch", "smollm3"], FAILED, "did you mean 'smollm2'?"),
        (["models", "verify", "nothing"], FAILED, "unknown model 'nothing'"),
        (["models", "--nope"], USAGE, "unrecognized arguments: --nope"),
        (["doctor", "now"], USAGE, "unrecognized arguments: now"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(scripted, capsys, words, code, says):
    assert main(words) == code
    out, err = said(capsys)
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert not out


def test_an_unknown_model_is_one_line(capsys):
    assert main(["infer", "--model", "./no-such-folder", "x"]) == FAILED
    assert "no-such-folder" in said(capsys)[1]


def test_a_model_without_network_is_one_line(scripted, capsys, monkeypatch):
    def missing(self, config):
        raise UnknownModelError("no network:\n  try again")

    monkeypatch.setattr(Session, "_make", missing)
    assert main(["infer", "x"]) == FAILED
    assert said(capsys)[1] == "workbench: no network: try again\n"


def test_our_own_bugs_are_not_hidden(scripted, monkeypatch):
    def broken(self, config):
        raise IntegrityError("ours")

    monkeypatch.setattr(Session, "_make", broken)
    with pytest.raises(IntegrityError):
        main(["infer", "x"])


def test_an_interrupt_before_the_run_is_quiet(scripted, capsys, monkeypatch):
    def interrupted(self, config):
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "_make", interrupted)
    assert main(["infer", "x"]) == INTERRUPTED
    assert said(capsys)[1] == "workbench: interrupted\n"


def test_the_models_are_listed(capsys):
    assert main(["models"]) == DONE
    assert "smollm2" in said(capsys)[0]


@pytest.mark.model
def test_a_fetched_model_verifies(capsys):
    assert main(["models", "fetch", "--quiet"]) == DONE
    assert main(["models", "verify", "smollm2"]) == DONE
    assert said(capsys)[0] == "smollm2: ready\n"


def test_doctor_describes_the_machine_and_the_model(capsys):
    code = main(["doctor"])
    out = said(capsys)[0]
    assert code in (DONE, FAILED)
    for topic in ("workbench", "torch", "threads", "memory", "path", "smollm2"):
        assert topic in out


def test_doctor_survives_what_it_finds_broken(monkeypatch):
    from workbench import doctor

    def _broken_part():
        raise RuntimeError("no such thing")
        yield

    monkeypatch.setattr(doctor, "_CHECKS", (_broken_part,))
    found = doctor.findings()
    assert found == [("broken part", "could not be checked: RuntimeError: no such thing", "wrong")]
    assert "1 to repair" in doctor.report(found)


def test_lab_opens_the_first_notebook(monkeypatch):
    class Replaced(Exception):
        pass

    def execv(program, command):
        assert command[:6] == [program, "-m", "jupyterlab", "--no-browser", "--port", "8899"]
        assert command[-1].endswith("00_start.ipynb")
        raise Replaced

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # as if JupyterLab were installed
    with pytest.raises(Replaced):
        main(["lab", "--no-browser", "--port", "8899"])


def test_lab_without_jupyterlab_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["lab"]) == FAILED
    assert "inference-workbench[lab]" in said(capsys)[1]


def test_version_and_help(capsys):
    assert main(["--version"]) == DONE
    assert said(capsys)[0] == f"workbench {workbench.__version__}\n"
    assert main(["--help"]) == DONE
    assert "workbench infer" in said(capsys)[0]
    assert main(["infer", "--help"]) == DONE
    assert "--max-num-seqs N" in said(capsys)[0]
    assert main([]) == USAGE


def test_the_module_is_a_demonstration():
    done = subprocess.run([sys.executable, "-m", "workbench"], capture_output=True, text=True, timeout=60, check=True)
    assert "preempted" in done.stdout
    assert "workbench infer" in done.stdout
    assert not done.stderr
