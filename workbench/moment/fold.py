"""Records folded into the state that they lead to."""

from __future__ import annotations

from workbench.events import BlockEvent, Command, Decision, Reason, Sampled, StepRecord
from workbench.findings.moment import BlockMoment, BlockStatus, MomentData, RequestMoment
from workbench.moment.pool import Pool, forgets
from workbench.rebuild import originals
from workbench.render.moment import moment_html, moment_text
from workbench.state import Status
from workbench.trace import Trace


class Moment(MomentData, frozen=True, kw_only=True):
    """The state at one step, as a board; its fields are those of :class:`~workbench.findings.moment.MomentData`."""

    def __repr__(self) -> str:
        return moment_text(self)

    def _repr_html_(self) -> str:
        return moment_html(self)


class Fold:
    """Goes through records in order: ``plan`` up to the instant after planning, ``commit`` over the rest of the step."""

    def __init__(self, trace: Trace, first: StepRecord, pool: type[Pool] = Pool) -> None:
        self.block_size = trace.config.block_size
        self._evicts_first = trace.config.policy == "lpm"  # a radix cache makes blocks blank before the pool gives them up
        self.prompts = {name: request.num_prompt_tokens for name, request in originals(trace).items()}
        sizes = [command.before["num_blocks"] for command in first.commands if "num_blocks" in command.before]
        self.pool = pool(sizes[0] if sizes else first.kv.total, from_the_start=not first.step)
        self.first_step = first.step
        self.outputs: dict[str, list[Sampled]] = {}
        self.computed: dict[str, int] = {}
        self.in_sight: set[str] = set()  # requests whose beginning lies in the trace
        self.admitted: set[str] = set()  # requests whose present table began in the trace
        self.known: dict[str, int] = {}  # known tokens of requests that sampled, where the beginning is not in the trace
        self._num_applied = 0
        self._restarted: list[str] = []  # by an edit of their prompt before the present step

    def plan(self, record: StepRecord) -> None:
        """Follow a record up to the instant after planning, its tokens taken in."""
        if record.commands:
            self._num_applied = self._commands(record)
        end = max(end_of_planning(record), self._num_applied)
        for event in record.block_events[self._num_applied : end]:
            self.pool.apply(event)
        self._num_applied = end
        for name in self._restarted:
            if not self.pool.tables.get(name, True):  # it waits as if it had never run
                del self.pool.tables[name]
        self._restarted.clear()
        if record.kv.total != self.pool.size:
            self.pool.resize(record.kv.total, ())
        self.in_sight.update([arrival.request_id for arrival in record.arrived])
        if self.first_step:
            self._look_back(record)
        for row in record.scheduled:
            self.computed[row.request_id] = row.end
        for round_ in record.spec:
            self.computed[round_.request_id] -= round_.proposed - round_.accepted
        for sampled in record.sampled:
            if sampled.request_id not in self.outputs:
                self.outputs[sampled.request_id] = []
            self.outputs[sampled.request_id].append(sampled)

    def commit(self, record: StepRecord) -> None:
        """Follow what the commit freed."""
        for event in record.block_events[self._num_applied :]:
            self.pool.apply(event)
        self._num_applied = 0

    def _commands(self, record: StepRecord) -> int:
        """Follow the commands before a step, and apply the events that are surely theirs; returns how many."""
        events, done = record.block_events, 0
        abandoned = False  # then nobody knows where the events of the attempt end
        for command in record.commands:
            abandoned = abandoned or command.kind == "abandoned"
            if command.kind == "edit" and "prompt_token_ids" in command.after:
                self._edited(command)
            elif command.kind == "knobs" and isinstance(command.after.get("num_blocks"), int):
                if abandoned:
                    self.pool.forget_order()
                while self._evicts_first and done < len(events) and forgets(events[done]):
                    self.pool.apply(events[done])
                    done += 1
                done += self.pool.resize(command.after["num_blocks"], events[done:])
            while done < len(events) and _caused_by(command, events[done]):
                self.pool.apply(events[done])
                done += 1
        return done

    def _edited(self, command: Command) -> None:
        prompt, name = command.after["prompt_token_ids"], command.request_id
        self.prompts[name] = len(prompt)
        if list(prompt) != list(command.before.get("prompt_token_ids", ())):
            self.outputs[name] = []
            self.in_sight.add(name)
            self._restarted.append(name)

    def _look_back(self, record: StepRecord) -> None:
        """What a row that sampled tells of a request whose beginning is not there: all tokens known so far end with it."""
        self.admitted.update(record.admitted)
        rows = {row.request_id: row for row in record.scheduled}
        for sampled in record.sampled:
            row = rows.get(sampled.request_id)
            if row is not None and row.request_id not in self.in_sight:
                self.known[row.request_id] = row.end - row.num_drafts + len(sampled.token_ids)

    # -- the view --------------------------------------------------------------------------------------------------

    def wasted_slots(self, record: StepRecord) -> int | None:
        """Slots of tables that hold no token, in the step planned last; ``None`` if a table is unknown."""
        wasted = 0
        for name in (*record.running, *record.held):
            computed = self.computed.get(name)
            if computed is None or (self.first_step and name not in self.in_sight and name not in self.admitted):
                return None
            wasted += len(self.pool.tables.get(name, ())) * self.block_size - computed
        return wasted

    def moment(self, record: StepRecord) -> Moment:
        """The state as it is now, in ``record``."""
        pending = tuple([decision.request_id for decision in record.decisions if decision.reason is Reason.NOT_ARRIVED])
        requests = self._requests(record, pending)
        blocks, unknown = self._blocks(record)
        wasted = None
        if not unknown and all(one.block_ids is not None and one.num_computed_tokens is not None for one in requests):
            wasted = sum(len(one.block_ids or ()) * self.block_size - (one.num_computed_tokens or 0) for one in requests)
        cut = [one.request_id for one in requests if not one.text_complete]
        if cut:
            unknown = (*unknown, f"what {', '.join(cut)} did before step {self.first_step}, where this trace begins")
        return Moment(
            record=record,
            block_size=self.block_size,
            running=record.running,
            waiting=record.waiting,
            held=record.held,
            pending=pending,
            requests=requests,
            blocks=blocks,
            wasted_slots=wasted,
            unknown=unknown,
        )

    def _requests(self, record: StepRecord, pending: tuple[str, ...]) -> tuple[RequestMoment, ...]:
        statuses = dict.fromkeys(record.running, Status.RUNNING) | dict.fromkeys(record.held, Status.HELD)
        for name in record.waiting:
            statuses[name] = Status.PREEMPTED if name in self.pool.tables else Status.WAITING
        statuses.update(dict.fromkeys(pending, Status.PENDING))
        ends = {end.request_id: end.reason for end in record.finished}
        decisions = {decision.request_id: decision for decision in record.decisions}
        return tuple(
            [
                self._request(name, statuses.get(name, Status.FINISHED), decisions.get(name), ends.get(name))
                for name in dict.fromkeys([*statuses, *ends])
            ]
        )

    def _request(self, name: str, status: Status, decision: Decision | None, ending: str | None) -> RequestMoment:
        prompt, outputs = self.prompts.get(name), self.outputs.get(name, ())
        whole = not self.first_step or name in self.in_sight or status is Status.PENDING
        if whole:
            output: int | None = sum([len(sampled.token_ids) for sampled in outputs])
            known = None if prompt is None or output is None else prompt + output
        else:
            known = self.known.get(name)
            output = None if prompt is None or known is None else known - prompt
        holds = status in (Status.RUNNING, Status.HELD)
        begun = whole or name in self.admitted or not holds
        return RequestMoment(
            request_id=name,
            status=status,
            num_prompt_tokens=prompt,
            num_tokens=known,
            num_computed_tokens=self.computed.get(name) if holds else 0,
            num_output_tokens=output,
            text="".join([sampled.text for sampled in outputs]),
            text_complete=whole,
            decision=decision,
            finish_reason=ending,
            block_ids=tuple(self.pool.tables.get(name, ())) if begun else None,
        )

    def _blocks(self, record: StepRecord) -> tuple[tuple[BlockMoment, ...], tuple[str, ...]]:
        pool, unknown = self.pool, tuple[str, ...]()
        touched: dict[int, tuple[str, ...]] = {}
        for event in record.block_events:
            touched[event.block_id] = (*touched.get(event.block_id, ()), event.kind)
        used, cached = record.kv.in_use - len(pool.owners), record.kv.cached - len(pool.hashes.keys() - pool.owners.keys())
        rest: BlockStatus = "unknown" if used or cached else "free"
        unsure = pool.idle()
        if used or cached:
            unsure |= pool.doubtful.difference(pool.owners)
            cached += len(unsure & pool.hashes.keys())
            where = f"lies before step {self.first_step}, where this trace begins" if self.first_step else "is not in this trace"
            more = [f"{count} more {what}" for count, what in ((used, "in use"), (cached, "cached")) if count > 0]
            unknown = (f"which blocks are {' and '.join(more) or 'in use'}: what happened to them {where}",)
        retired, found = set(pool.retired), []
        for block_id in range(1, pool.highest + 1):
            if block_id in retired:
                continue
            status: BlockStatus = rest if block_id in unsure else "in use" if block_id in pool.owners else "cached"
            owners = tuple(pool.owners.get(block_id, ()))
            found.append(BlockMoment(block_id, status, owners, pool.hashes.get(block_id, ""), touched.get(block_id, ())))
        return tuple(found), unknown


def end_of_planning(record: StepRecord) -> int:
    """How many of a record's block events came before its tokens were taken in.

    After planning, tables are freed whose requests end in the step, and (SGLang's cache only) blocks are given up for equal ones.
    """
    events, cut = record.block_events, len(record.block_events)
    for i in range(len(events) - 1):
        here, after = events[i], events[i + 1]
        if here.kind in ("hit", "shared") and after.kind == "freed" and _swapped(here, after):
            cut = i
            break
    if not record.finished:
        return cut
    ended = {end.request_id for end in record.finished}.intersection(record.running)
    place = cut
    while place and events[place - 1].kind in ("freed", "cached") and events[place - 1].request_id in ended:
        place -= 1
        cut = place if events[place].kind == "freed" else cut
    return cut


def _swapped(here: BlockEvent, after: BlockEvent) -> bool:
    return here.request_id == after.request_id and here.block_id != after.block_id


def _caused_by(command: Command, event: BlockEvent) -> bool:
    empties = command.kind == "reset" or command.after.get("enable_prefix_caching") is False
    if empties and forgets(event):
        return True
    if command.kind == "reset":
        return event.kind == "freed"
    return (command.kind == "abort" or command.restarts) and event.kind == "freed" and event.request_id == command.request_id
