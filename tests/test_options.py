from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench._knobs import knobs
from workbench._options import KNOBS, HelpRequested, OptionError, Options, from_user, one_line, option_value
from workbench.config import EngineConfig
from workbench.errors import ConfigError, IntegrityError, RequestError, UnknownModelError
from workbench.request import SamplingParams


def read(*words):
    return Options("%%infer").read(words)


@pytest.mark.parametrize("settings", [EngineConfig, SamplingParams])
def test_every_knob_is_an_option(settings):
    flags = Options("%%infer").flags()
    assert {knob.flag for knob in knobs(settings)} <= set(flags)


def test_help_gives_doc_unit_range_and_default():
    text = " ".join(Options("%%infer").format_help().split())
    assert "Requests that may run at once [requests; ≥ 1, ≤ 4096; default: 16]" in text
    assert "{fcfs,priority,guaranteed_no_evict,max_utilization,static_batch,lpm}" in text


def test_only_what_was_typed_comes_back():
    chosen = read("--num-blocks", "48", "--temperature", "0.5")
    assert (chosen.config, chosen.sampling) == ({"num_blocks": 48}, {"temperature": 0.5})


def test_typed_values_win_over_defaults():
    config, sampling = read("--max-tokens", "9").settings({"max_tokens": 3, "num_blocks": 7, "model": "other"})
    assert (sampling.max_tokens, config.num_blocks, config.model) == (9, 7, "other")


def test_the_seed_option_is_the_engines():
    config, sampling = read("--seed", "7").settings()
    assert (config.seed, sampling.seed) == (7, None)


def test_on_an_existing_engine_the_seed_is_the_requests():
    assert read("--seed", "7", "--max-tokens", "2").on_existing_engine() == {"seed": 7, "max_tokens": 2}


def test_engine_knobs_are_refused_on_an_existing_engine():
    with pytest.raises(OptionError, match="--num-blocks cannot be set on an existing engine"):
        read("--num-blocks", "7").on_existing_engine()


def test_switches_have_a_no_form():
    assert read("--no-enable-prefix-caching").config == {"enable_prefix_caching": False}
    assert read("--debug").config == {"debug": True}


def test_list_options_repeat_and_ids_take_commas():
    chosen = read("--stop", "a,b", "--stop", r"\n", "--stop-token-ids", "1,2", "--stop-token-ids=3", "--logit-bias", "5:-1.5,6:2")
    assert chosen.sampling == {"stop": ("a,b", "\n"), "stop_token_ids": (1, 2, 3), "logit_bias": {5: -1.5, 6: 2.0}}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max-token", "8"], "unknown option --max-token: did you mean --max-tokens?"),
        (["--max_tokens=8"], "unknown option --max_tokens: did you mean --max-tokens?"),
        (["--zzz"], "unknown option --zzz: see %%infer --help"),
        (["stray"], "unexpected 'stray': options start with --, see %%infer --help"),
        (["--max-tokens"], "--max-tokens: expected one argument"),
        (["--max-tokens", "many"], "--max-tokens takes a whole number, not 'many'"),
        (["--max-tokens", "0"], "--max-tokens must be at least 1, not 0"),
        (["--top-p", "nan"], "--top-p must be a finite number, not nan"),
        (["--temperature", "inf"], "--temperature must be a finite number, not inf"),
        (["--batching", "lifo"], "--batching must be one of 'continuous', 'static', 'dynamic', not 'lifo'"),
        (["--logit-bias", "5"], "--logit-bias takes token ids with a bias each, as in 198:-100,7:2.5, not '5'"),
        (["--stop-token-ids", "x"], "--stop-token-ids takes token ids, as in 2,198, not 'x'"),
    ],
)
def test_a_wrong_option_says_what_to_change(words, says):
    with pytest.raises(OptionError) as caught:
        read(*words)
    assert one_line(caught.value) == says


def test_contradictions_come_from_the_settings_classes():
    with pytest.raises(RequestError, match="min_tokens is 9, more than max_tokens 8"):
        read("--min-tokens", "9", "--max-tokens", "8").settings()
    with pytest.raises(ConfigError, match="without chunked prefill"):
        read("--no-enable-chunked-prefill", "--max-model-len", "512").settings()


def test_asking_for_help_is_no_error():
    with pytest.raises(HelpRequested, match="--max-num-seqs"):
        read("--help")


def test_our_own_bugs_are_not_the_users():
    assert from_user(UnknownModelError("x"))
    assert not from_user(IntegrityError("x"))
    assert not from_user(KeyError("x"))


def test_a_message_of_several_lines_is_shown_on_one():
    assert one_line(ConfigError("a\n  b")) == "a b"


@given(st.sampled_from(sorted(KNOBS)), st.text(max_size=12))
def test_any_text_is_a_value_or_an_option_error(name, text):
    try:
        value = option_value(KNOBS[name], text)
    except OptionError:
        return
    settings = SamplingParams if name in SamplingParams.__struct_fields__ and name not in EngineConfig.__struct_fields__ else EngineConfig
    try:
        made = settings(**{name: value})
    except (ConfigError, RequestError):
        return  # a contradiction with another knob's default
    assert msgspec.structs.asdict(made)[name] == value
