"""The numbers of a run in words, chosen and worded once for the HTML, the plain text and the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

from workbench.config import EngineConfig
from workbench.metrics import Percentiles, RequestMetrics, RunMetrics
from workbench.render._format import NONE, ms, number, percent, plural, seconds, shorten, token_ids
from workbench.speculative.measured import SpeculationMetrics
from workbench.trace import Trace

COLUMNS = ("request", "prompt", "cached", "output", "queue", "TTFT", "ITL p50", "ITL max", "E2E", "preempted", "finish")
LONGEST_PROBLEM = 200  # characters of what a proposer raised; the record has all of it


class Result(NamedTuple):
    """One look at a run: a run works its figures out on every access, and may still be growing."""

    trace: Trace
    metrics: RunMetrics
    outputs: list[Any]
    status: str
    error: BaseException | None
    failed_step: int | None = None  # the step in which it was raised, if it was raised in one
    name: str = "run"  # the Python variable that holds it


def result_of(run: Any) -> Result:
    """Look at a run once; a :class:`Result` is its own."""
    if isinstance(run, Result):
        return run
    name = str(getattr(run, "name", ""))  # of what no variable holds, as far as we know, in words
    variable = name if name.isidentifier() else "run"
    return Result(run.trace, run.metrics, list(run.outputs), str(run.status), run.error, getattr(run, "failed_step", None), variable)


def model_line(trace: Any) -> str:
    """``smollm2 · bfloat16 · cpu``, as far as it is known."""
    known = (trace.model.name, trace.model.dtype, trace.model.device)
    return " · ".join(part for part in known if part and part != "none")


def headline(metrics: Any) -> list[tuple[str, str]]:
    """``(value, what it is)`` of the figures that describe a run at a glance."""
    usual, worst = ms(metrics.itl_ms.p50), ms(metrics.itl_ms.p99)
    itl = f"{usual.removesuffix(' ms') if worst.endswith(' ms') else usual} / {worst}" if metrics.itl_ms.count else NONE
    figures = [
        (ms(metrics.ttft_ms.p50), "TTFT p50"),
        (itl, "ITL p50 / p99"),
        (f"{number(metrics.output_tokens_per_s)} tok/s", "output"),
        (percent(metrics.prefix_cache_hit_rate), "prefix hits"),
        (f"{metrics.num_preemptions:,}", "preemptions" if metrics.num_preemptions != 1 else "preemption"),
    ]
    if metrics.mean_acceptance_length is not None:
        figures.append((number(metrics.mean_acceptance_length, 2), "tokens per verify"))
    return figures


def speculation(result: Result) -> list[str]:
    """What speculation gave, and that proposing failed, a sentence each; nothing when there was none."""
    config, metrics = result.trace.config, result.metrics
    if not config.max_drafts and metrics.acceptance_rate is None:
        return []
    failed = [record for record in result.trace.records if record.draft_problem]
    method = method_in_words(config)
    found = [f"Speculation{f' ({method})' if method else ''}: {accepted(metrics)}."]
    if failed:
        problem = shorten(failed[0].draft_problem, LONGEST_PROBLEM).rstrip(".")
        found.append(f"Proposing drafts failed after {plural(len(failed), 'step')}, first after step {failed[0].step}: {problem}.")
    return found


def method_in_words(config: EngineConfig) -> str:
    """How drafts are proposed and how many, ``eagle, 4 drafts``; empty without speculation."""
    width = config.num_speculative_tokens
    drafts = f"auto, at most {plural(config.max_drafts, 'draft')}" if width == "auto" else plural(config.max_drafts, "draft")
    return ", ".join(part for part in (config.speculative, drafts if config.max_drafts else "") if part)


def accepted(metrics: SpeculationMetrics) -> str:
    """How many drafts were right, and what that gave, in words."""
    if metrics.acceptance_rate is None:
        return "no draft was verified"
    gain = f"speed-up {NONE}" + (f" ({metrics.speed_up_missing})" if metrics.speed_up_missing else "")
    if metrics.speed_up_measured is not None:
        gain = f"{number(metrics.speed_up_measured)} times as fast as plain steps, {number(metrics.speed_up_predicted)} predicted"
    length = f"{number(metrics.mean_acceptance_length)} tokens per verification"
    return f"{percent(metrics.acceptance_rate)} of the drafts accepted, {length}; {gain}"


def extent(metrics: Any) -> str:
    """``41 steps in 1.9 s``."""
    return f"{plural(metrics.num_steps, 'step')} in {seconds(metrics.duration_s)}" if metrics.num_steps else "no steps"


def request_line(completion: Any) -> str:
    """One request's numbers: ``TTFT 212 ms · ITL 19 ms · 32 tokens · 16 of 38 prompt tokens cached · stop``."""
    one: RequestMetrics | None = completion.metrics
    ending = ending_of(completion)
    if one is None:
        return ending
    parts = [f"TTFT {ms(one.ttft_ms)}"] if one.ttft_ms is not None else []
    if one.itl_ms:
        parts.append(f"ITL {ms(Percentiles.of(one.itl_ms).p50)}")
    parts.append(plural(one.num_output_tokens, "token"))
    if one.num_cached_tokens:
        parts.append(f"{one.num_cached_tokens:,} of {plural(one.num_prompt_tokens, 'prompt token')} cached")
    if one.num_preemptions:
        parts.append(plural(one.num_preemptions, "preemption"))
    return " · ".join([*parts, ending])


def ending_of(completion: Any) -> str:
    """How a completion ended, in a word or two."""
    if completion.finish_reason is None:
        return "unfinished"
    return f"stop at {completion.stop_reason!r}" if completion.stop_reason is not None else str(completion.finish_reason)


def table(metrics: Any) -> list[tuple[str, ...]]:
    """Rows under :data:`COLUMNS`, one per request; times in milliseconds."""
    return [_row(one) for one in metrics.requests]


def _row(one: RequestMetrics) -> tuple[str, ...]:
    itl = Percentiles.of(one.itl_ms)
    counts = (f"{one.num_prompt_tokens:,}", f"{one.num_cached_tokens:,}", f"{one.num_output_tokens:,}")
    times = (number(one.queue_ms), number(one.ttft_ms), number(itl.p50), number(max(one.itl_ms, default=None)), number(one.e2e_ms))
    return (one.request_id, *counts, *times, str(one.num_preemptions), one.finish_reason or "unfinished")


def families(result: Result) -> Iterator[tuple[str, list[Any]]]:
    """Completions grouped by the prompt that they belong to (``n`` > 1 gives several), with that prompt's id."""
    requests = result.trace.requests

    def family(completion: Any) -> str:
        request = requests.get(completion.request_id)
        return (request.parent if request is not None else None) or str(completion.request_id)

    for name, members in groupby(result.outputs, key=family):
        yield name, list(members)


def prompt_of(completion: Any) -> str:
    """What was asked: text, or a look at the token ids where there was none."""
    return str(completion.prompt) if completion.prompt is not None else token_ids(completion.prompt_token_ids)


def text_of(completion: Any) -> str:
    """What came out: text, or a look at the token ids where nothing can turn them into text."""
    return str(completion.text) if completion.text or not completion.token_ids else token_ids(completion.token_ids)


def trouble(result: Result) -> str:
    """Why a run did not come to its end, in a sentence; empty when it did."""
    if result.error is not None:
        where = "" if result.failed_step is None else f"Step {result.failed_step} failed with "
        return f"{where}{type(result.error).__name__}: {result.error}"
    cut = sum(completion.finish_reason in (None, "abort") for completion in result.outputs)
    return f"Stopped before the end: {plural(cut, 'request')} unfinished." if result.status == "stopped" and cut else ""
