"""Lives, and changes that would have helped, in plain sentences: text that stands on every face of them, not yet escaped."""

from __future__ import annotations

from workbench.events import Decision, Reason, Verdict
from workbench.findings.why import TRIED, CounterfactualData, LifeData, Segment
from workbench.render._format import ms, plural

# -- a change ----------------------------------------------------------------------------------------------------------


def change_sentence(found: CounterfactualData) -> str:
    """The change and its effect in one sentence."""
    return f"{_change(found)} {_effect(found)} in step {found.step}."


def _change(found: CounterfactualData) -> str:
    new, old, values = found.after, found.before, f"({found.knob} {found.after} instead of {found.before})"
    match found.knob:
        case "num_blocks":
            return f"With {plural(new - old, 'more block')} {values}"
        case "max_num_batched_tokens":
            return f"With a token budget of {new} instead of {old} ({found.knob})"
        case "max_num_seqs" if new > old:
            return f"With {plural(new - old, 'more place')} in the batch {values}"
        case "max_num_seqs":
            return f"With a batch of {plural(new, 'request')} instead of {old} ({found.knob})"
        case "long_prefill_token_threshold":
            return f"With chunks of at most {plural(new, 'token')} instead of {old or 'any number'} ({found.knob})"
        case "enable_chunked_prefill":
            return f"With chunked prefill on {values}"
        case "reserve_full_prompt":
            return f"With blocks for its first chunk only, not for its whole prompt {values},"
        case "batch_window_steps":
            return f"With a batch window of {plural(new, 'step')} instead of {old} ({found.knob})"
        case _:
            return f"With {found.knob} {new} instead of {old}"


def _effect(found: CounterfactualData) -> str:
    if found.goal == "run in full":
        whose = "'s prefill" if found.part == "prefill" else ""
        return f"{found.request_id}{whose} would have run in full"
    return f"{found.request_id} would have {'kept running' if found.verdict is Verdict.PREEMPTED else 'run'}"


def no_single_knob(decision: Decision) -> str:
    """The sentence for a request that no change of one knob would have let run."""
    more = "run in full" if decision.verdict is Verdict.PARTIAL else "run"
    return f"No single knob would have let {decision.request_id} {more}: {', '.join(TRIED[:-1])} and {TRIED[-1]} were tried, each alone."


# -- a life ------------------------------------------------------------------------------------------------------------

WORDS = {
    Reason.TOKEN_BUDGET: "for the token budget",
    Reason.MAX_MODEL_LEN: "at max_model_len",
    Reason.MAX_NUM_SEQS: "for a place (max_num_seqs)",
    Reason.NO_FREE_BLOCKS: "for blocks",
    Reason.HEAD_OF_LINE: "behind another",
    Reason.PREEMPTION_IN_STEP: "while others were preempted",
    Reason.CHUNKED_PREFILL_OFF: "for a budget that holds its whole prompt",
    Reason.SPECULATIVE_PADDING: "for room for placeholder drafts",
    Reason.NOT_ARRIVED: "before its arrival",
    Reason.BATCH_NOT_FULL: "for a full batch",
    Reason.BATCH_RUNNING: "for the running batch to end",
    Reason.PREEMPTED_FOR: "when it was preempted",
    Reason.NEVER_FITS: "when it was rejected, because it can never fit",
    Reason.RESERVED_TO_COMPLETION: "for blocks that others had reserved",
    Reason.SIBLING_PREFIX: "for a sibling to compute their common beginning",
    Reason.PREFILL_FIRST: "while prompts went first",
    Reason.MEMORY_ESTIMATE: "for memory that others were expected to need",
    Reason.UNTIL_ONE_FINISHES: "for one to leave the full batch",
    Reason.RETRACTED: "when it was retracted",
    Reason.PLACE_TAKEN: "when another took its place",
}
"""What a request waits for, after a number of steps."""

_CAUSES = (Reason.PREEMPTED_FOR, Reason.RETRACTED, Reason.PLACE_TAKEN)  # of losing its blocks, not of waiting


def note(segment: Segment) -> str:
    """The particulars of a segment."""
    match segment.kind:
        case "prefill":
            return f"{plural(segment.tokens, 'token')} in {plural(segment.chunks, 'chunk')}{_cached(segment)}"
        case "decode":
            drafts = f", {segment.accepted} of {plural(segment.proposed, 'draft')} accepted" if segment.rounds else ""
            return f"{plural(segment.output, 'output token')}{drafts}{_cached(segment)}"
        case "finished":
            return segment.cause
        case "not arrived" | "held":
            return ""
        case _:
            return "; ".join(part for part in (segment.cause, _waits(segment)) if part)


def _waits(segment: Segment) -> str:
    return ", ".join(f"{count} {WORDS[reason]}" for reason, count in segment.reasons if reason not in _CAUSES)


def _cached(segment: Segment) -> str:
    return f", {segment.cached} more from the prefix cache" if segment.cached else ""


def life_story(lived: LifeData) -> str:
    """A life in one paragraph."""
    name, parts = lived.request_id, [_clause(segment) for segment in lived.segments if segment.kind != "finished"]
    output = sum(segment.output for segment in lived.segments)
    if lived.finish_reason is None:
        parts.append("and had not ended when the trace did" if parts else "did nothing in this trace")
    elif lived.finish_reason == "abort":
        parts.append(f"{'and ' if parts else ''}was aborted with {plural(output, 'output token')}")
    else:
        parts.append(f"and finished in step {lived.finished_step} ({lived.segments[-1].cause}) with {plural(output, 'output token')}")
    return f"{name} {', '.join(parts)}."


def _clause(segment: Segment) -> str:
    steps = plural(segment.num_steps, "step")
    particulars = note(segment)
    inside = f" ({particulars})" if particulars else ""
    match segment.kind:
        case "not arrived":
            return f"was expected for {steps}"
        case "queue":
            return f"waited {steps}{inside}"
        case "prefill":
            return f"prefilled from step {segment.start} on in {ms(segment.ms)}{inside}"
        case "decode":
            return f"decoded for {steps} in {ms(segment.ms)}{inside}"
        case "idle":
            return f"stood still in the batch for {steps}{inside}"
        case "preempted":
            waits = _waits(segment)
            return f"was preempted in step {segment.start} {segment.cause}, waited {steps}" + (f" ({waits})" if waits else "")
        case _:
            return f"was held by its batch for {steps}"
