"""One plain sentence, with the numbers, for every reason that a decision can have.

Each function takes the step's :class:`~workbench.explain.scene.Scene` and a decision with its reason, and returns the sentence.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.events import Decision, Reason, Scheduled, Verdict
from workbench.explain.scene import Scene
from workbench.render._format import plural, seconds

Teller = Callable[[Scene, Decision], str]

RULES = {
    "fcfs": "with policy fcfs the last admitted goes",
    "priority": "with policy priority the largest (priority, arrival) goes",
    "max_utilization": "with policy max_utilization the last started goes",
}
"""Who is preempted, by policy."""


_VLLM = ("fcfs", "priority")


def sentence(scene: Scene, decision: Decision) -> str:
    """What happened to one request in one step, and why."""
    return TELLERS[decision.reason](scene, decision)


def ordinal(place: int) -> str:
    """``1st``, ``2nd``, ``11th``."""
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"


def listed(names: tuple[str, ...] | list[str], most: int = 4) -> str:
    """``r1, r2 and r3``; of many names the first ones and how many more there are."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _not_run(scene: Scene, decision: Decision) -> str:
    name = decision.request_id
    return f"{name} was not admitted in step {scene.step}" if scene.waits(name) else f"{name} did not run in step {scene.step}"


def _ran(scene: Scene, decision: Decision) -> str:
    name, record = decision.request_id, scene.record
    entered = "was resumed and " if name in record.resumed else "was admitted and " if name in record.admitted else ""
    return f"{name} {entered}ran"


def _work(scene: Scene, row: Scheduled) -> str:
    """What a row of the batch did."""
    if row.kind == "verify":
        round_ = next((spec for spec in scene.record.spec if spec.request_id == row.request_id), None)
        came = f", {round_.accepted} of which were accepted" if round_ is not None else ""
        return f"it verified {plural(row.num_drafts, 'draft')}{came}"
    if row.kind == "decode":
        return f"it decoded output token {scene.output_before(row.request_id) + 1}"
    return f"it computed tokens {row.start} to {row.end - 1}"


def _full(scene: Scene, decision: Decision) -> str:
    row = scene.rows.get(decision.request_id)
    what = f": {_work(scene, row)}" if row is not None else ""
    return f"{_ran(scene, decision)} in full in step {scene.step}, {plural(decision.num_tokens, 'token')}{what}."


def _cut(scene: Scene, decision: Decision, why: str) -> str:
    return f"{_ran(scene, decision)} in part in step {scene.step}, {decision.num_tokens} of {plural(decision.needed or 0, 'token')}: {why}."


def _token_budget(scene: Scene, decision: Decision) -> str:
    if decision.verdict is Verdict.PARTIAL:
        left = "was all that was left" if decision.num_tokens == 1 else "were all that was left"
        whole = "" if scene.config.policy in _VLLM else ", in whole blocks,"
        return _cut(scene, decision, f"{decision.num_tokens}{whole} {left} of the token budget of {decision.limit}")
    used = f"{plural(len(scene.record.scheduled), 'request')} used up the token budget of {decision.limit}"
    if scene.config.policy not in _VLLM:
        left = f"{decision.available} of the token budget of {decision.limit}"
        used = f"{left} {_is(decision.available)} left, too few for a block of a prompt"
    elif scene.waits(decision.request_id):
        return f"{_not_run(scene, decision)}: {used}; it is {ordinal(decision.needed or 0)} in the queue."
    return f"{_not_run(scene, decision)}: {used}; it had {plural(decision.needed or 0, 'token')} to compute."


def _threshold(scene: Scene, decision: Decision) -> str:
    threshold = scene.config.long_prefill_token_threshold
    padded = f", and {plural(decision.num_tokens - threshold, 'placeholder draft')} came on top" if decision.num_tokens > threshold else ""
    when = " while others run or wait" if scene.config.policy in _VLLM else ", in whole blocks"
    why = f"long_prefill_token_threshold lets a request compute {threshold} in a step{when}{padded}"
    return _cut(scene, decision, why)


def _max_model_len(scene: Scene, decision: Decision) -> str:
    if decision.verdict is Verdict.PARTIAL:
        row = scene.rows[decision.request_id]
        return _cut(scene, decision, f"max_model_len {row.end + 1} leaves room for no more")
    needed = plural(decision.needed or 0, "token")
    return f"{_not_run(scene, decision)}: it had {needed} to compute, and max_model_len {decision.limit} leaves no room for more."


def _max_num_seqs(scene: Scene, decision: Decision) -> str:
    record = scene.record
    held = f" and {plural(len(record.held), 'finished one')} hold their place" if record.held else ""
    running = f"{plural(len(record.running), 'request')} run{'s' if len(record.running) == 1 else ''}{held}"
    if len(record.running) + len(record.held) < (decision.limit or 0):  # a policy may give places to requests that then get no tokens
        running = "all places are given to others"
    return f"{_not_run(scene, decision)}: {running} and max_num_seqs is {decision.limit}{_in_queue(scene, decision)}."


def _in_queue(scene: Scene, decision: Decision) -> str:
    return f"; it is {ordinal(decision.needed or 0)} in the queue" if scene.waits(decision.request_id) else ""


def _no_free_blocks(scene: Scene, decision: Decision) -> str:
    need = f"it needs {plural(decision.needed or 0, 'block')} and {decision.available} {_is(decision.available)} free"
    if decision.blocker is None:
        return f"{_not_run(scene, decision)}: {need}, of {scene.pool}."
    held = scene.holds(decision.blocker)
    most = f"{decision.blocker} holds the most" + (f", {held}" if held is not None else "")
    return f"{_not_run(scene, decision)}: {need}; {most}."


def _head_of_line(scene: Scene, decision: Decision) -> str:
    place = f", {ordinal(scene.place(decision))} in the queue" if scene.waits(decision.request_id) else ""
    return f"{_not_run(scene, decision)}: it waits behind {decision.blocker}{place}, and nobody overtakes in the queue."


def _preemption_in_step(scene: Scene, decision: Decision) -> str:
    if scene.config.policy not in _VLLM:
        return f"{_not_run(scene, decision)}: {listed(scene.record.preempted)} lost the blocks that it had, and nobody joins such a step."
    if not scene.waits(decision.request_id):
        return f"{_not_run(scene, decision)}: {decision.blocker}, before it in the batch, had to go itself, and planning ended there."
    return f"{_not_run(scene, decision)}: nobody is admitted in a step that preempts, and {listed(scene.record.preempted)} had to go."


def _chunked_prefill_off(scene: Scene, decision: Decision) -> str:
    fit = f"chunked prefill is off and its {plural(decision.needed or 0, 'token')} do not fit the {decision.available} that are left"
    return f"{_not_run(scene, decision)}: {fit} of the token budget of {decision.limit}."


def _padding(scene: Scene, decision: Decision) -> str:
    width = scene.config.padding_drafts
    need = f"with {plural(width, 'placeholder draft')} it needs {plural(decision.needed or 0, 'token')}, and {decision.available} are left"
    return f"{_not_run(scene, decision)}: {need} of the token budget of {decision.limit}."


def _not_arrived(scene: Scene, decision: Decision) -> str:
    name = decision.request_id
    if decision.needed is not None and decision.needed > scene.step:
        return f"{name} was not there in step {scene.step}: it arrives in step {decision.needed}."
    due = scene.request(name).arrival_s
    began = seconds(scene.record.start_s)
    return f"{name} was not there in step {scene.step}: it arrives at {seconds(due)}, and the step began at {began}."


def _batch_not_full(scene: Scene, decision: Decision) -> str:
    waiting = f"{decision.available} {'waits' if decision.available == 1 else 'wait'}"
    size = plural(decision.needed or 0, "request")
    lead = f"{_not_run(scene, decision)}: a {scene.config.batching} batch starts with {size} and {waiting}"
    if scene.config.batching == "dynamic":
        return f"{lead}; it starts with those that are there in {plural(decision.limit or 0, 'step')}."
    return f"{lead}; more are still to arrive."


def _batch_running(scene: Scene, decision: Decision) -> str:
    if scene.config.policy == "static_batch":
        rule = f"with policy static_batch prompts are computed only while nobody generates, and {decision.available} of at most"
        return f"{_not_run(scene, decision)}: {rule} {decision.limit} do, {decision.blocker} first."
    members = (*scene.record.running, *scene.record.held)
    batch = f"the {scene.config.batching} batch of {listed(members)}" if members else f"the batch of {decision.blocker}"
    size = f"{decision.available} of at most {decision.limit}"
    return f"{_not_run(scene, decision)}: {batch} ({size}) is not done, and nobody joins before it is."


def _preempted_for(scene: Scene, decision: Decision) -> str:
    name, other = decision.request_id, decision.blocker
    free = f"{decision.available or 0} {'was' if decision.available == 1 else 'were'} free"
    need = f"needed {plural(decision.needed or 0, 'more block')} and {free}"
    rule = RULES.get(scene.config.policy, f"policy {scene.config.policy} chose it")
    if other == name:
        lead = f"{name} was preempted in step {scene.step}: it {need}; {rule}, which was itself"
    else:
        lead = f"{name} was preempted in step {scene.step} for {other}, which {need}; {rule}"
    if scene.config.policy == "priority":
        lead += _priorities(scene, name, other)
    return f"{lead}.  {_losses(scene, name)}"


def _losses(scene: Scene, name: str) -> str:
    return f"It lost {plural(scene.computed(name), 'computed token')} and let go of {plural(given_up(scene, name), 'block')}."


def _is(count: int | None) -> str:
    return "is" if count == 1 else "are"


def _priorities(scene: Scene, name: str, other: str | None) -> str:
    mine = scene.request(name).priority
    if other is None or other == name:
        return f" (priority {mine})"
    return f" (priority {mine}, that of {other} is {scene.request(other).priority})"


def given_up(scene: Scene, request_id: str) -> int:
    """Blocks that a request let go of in the step."""
    return sum(event.kind == "freed" and event.request_id == request_id for event in scene.record.block_events)


def _never_fits(scene: Scene, decision: Decision) -> str:
    name, limit = decision.request_id, decision.limit or 0
    if scene.config.enable_chunked_prefill or limit != scene.record.tokens.limit or scene.known_blocks(name) > scene.pool:
        why = f"it needs {plural(decision.needed or 0, 'block')} and the pool has {limit}, whoever else runs"
    else:
        why = f"chunked prefill is off, and its {plural(decision.needed or 0, 'token')} are more than the token budget of {limit}"
    return f"{name} was rejected in step {scene.step}, for it can never run: {why}."


def _reserved(scene: Scene, decision: Decision) -> str:
    need = f"to its end it may need {plural(decision.needed or 0, 'block')}, and {decision.available} of {decision.limit}"
    most = f"; {decision.blocker} has reserved the most" if decision.blocker is not None else ""
    return f"{_not_run(scene, decision)}: {need} {_is(decision.available)} not in use or reserved{most}."


def _sibling(scene: Scene, decision: Decision) -> str:
    return f"{_not_run(scene, decision)}: {decision.blocker} is to compute the same beginning first, which spares it the work."


def _prefill_first(scene: Scene, decision: Decision) -> str:
    prompts = plural(decision.available or 0, "prompt")
    return f"{_not_run(scene, decision)}: this step computes prompts only, {prompts} from {decision.blocker} on; decoding goes on after."


def _memory_estimate(scene: Scene, decision: Decision) -> str:
    left = f"of the pool's {decision.limit} tokens {decision.available} {_is(decision.available)} expected to be left by those that run"
    return f"{_not_run(scene, decision)}: it is expected to need {plural(decision.needed or 0, 'token')}, and {left}."


def _until_one_finishes(scene: Scene, decision: Decision) -> str:
    full = f"the batch of {plural(decision.limit or 0, 'request')} was found full before, and nobody has left it since"
    return f"{_not_run(scene, decision)}: {full}{_in_queue(scene, decision)}."


def _place_taken(scene: Scene, decision: Decision) -> str:
    lead = f"{decision.request_id} was paused in step {scene.step}: {decision.blocker}, ahead of it by priority or arrival, took its place"
    return f"{lead}, and max_num_seqs is {scene.config.max_num_seqs}.  {_losses(scene, decision.request_id)}"


def _retracted(scene: Scene, decision: Decision) -> str:
    name = decision.request_id
    need = f"the next tokens of all needed {plural(decision.needed or 0, 'more block')} and {decision.available} were free"
    rule = "the one with the fewest output tokens goes"
    return f"{name} was retracted in step {scene.step}: {need}; with policy {scene.config.policy} {rule}.  {_losses(scene, name)}"


TELLERS: dict[Reason, Teller] = {
    Reason.FULL: _full,
    Reason.TOKEN_BUDGET: _token_budget,
    Reason.LONG_PREFILL_THRESHOLD: _threshold,
    Reason.MAX_MODEL_LEN: _max_model_len,
    Reason.MAX_NUM_SEQS: _max_num_seqs,
    Reason.NO_FREE_BLOCKS: _no_free_blocks,
    Reason.HEAD_OF_LINE: _head_of_line,
    Reason.PREEMPTION_IN_STEP: _preemption_in_step,
    Reason.CHUNKED_PREFILL_OFF: _chunked_prefill_off,
    Reason.SPECULATIVE_PADDING: _padding,
    Reason.NOT_ARRIVED: _not_arrived,
    Reason.BATCH_NOT_FULL: _batch_not_full,
    Reason.BATCH_RUNNING: _batch_running,
    Reason.PREEMPTED_FOR: _preempted_for,
    Reason.NEVER_FITS: _never_fits,
    Reason.RESERVED_TO_COMPLETION: _reserved,
    Reason.SIBLING_PREFIX: _sibling,
    Reason.PREFILL_FIRST: _prefill_first,
    Reason.MEMORY_ESTIMATE: _memory_estimate,
    Reason.UNTIL_ONE_FINISHES: _until_one_finishes,
    Reason.PLACE_TAKEN: _place_taken,
    Reason.RETRACTED: _retracted,
}
