"""What an open view costs the engine: the same decode steps with and without one, in a real kernel whose messages a client reads.

    python -m benchmarks.view_cost [--model smollm2] [--batch 8] [--steps 60] [--pairs 30] [--crowd 64] [--json FILE]

Rounds with and without a view take turns, the two of a pair one after the other, the first of them by turns; a number is the median of
the pairs, and the interval beside it says where nine of ten such medians fall when the pairs are drawn anew (bootstrap): one pair on a
shared machine is off by several percent.  The client says hello, reads every message and acknowledges every tenth frame on the control
channel, as a Jupyter server and a screen do; it runs on the same machine, so its share is in the figure, and a browser's drawing is not.
Opening a view is not timed: a step counts from its start to the start of the next, and only steps in which every request decodes.
Aim: at most 3 %.

``--crowd`` is the worst case, for information: that many scripted requests, whose steps have no model in them and take less than a
millisecond.  There the view and the engine share one interpreter; 0 leaves this part out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any, NamedTuple

from benchmarks import ROOT
from workbench import Engine, Run

AIM = 0.03
SETTLE_S = 0.4  # for the first messages of a view to be read before the steps begin
ACK_FRAMES = 10  # as the screen does
CROWD_STEPS, CROWD_PAIRS = 2000, 6
DRAWS = 2000
STALL = 2  # steps that took so many times the median are left out, on both sides
RESULT = "rounds: "


class Round(NamedTuple):
    """One run in the kernel: the times of its decode steps, and what the view's threads used of the processor."""

    opened: bool
    view: str  # the comm's id
    steps_ms: list[float]
    seconds: float
    all_steps: int
    publisher_ms: float  # of processor time, all steps together
    sender_ms: float
    behind_s: float  # how long after the last step everything was packed

    @property
    def usual_ms(self) -> list[float]:
        """Without the steps in which the machine stood still: a frame costs a tenth of a step, never a whole one."""
        limit_ms = STALL * statistics.median(self.steps_ms)
        return [ms for ms in self.steps_ms if ms <= limit_ms]

    @property
    def mean_ms(self) -> float:
        return statistics.fmean(self.usual_ms)


# -- in the kernel -------------------------------------------------------------------------------------------------


def in_the_kernel(model: str, batch: int, steps: int, pairs: int) -> None:
    """Print the rounds of a real model as JSON."""
    engine = Engine(model, max_num_seqs=batch)
    prompts: list[Any] = [f"Tell me something about the number {number}." for number in range(batch)]
    _tell(_rounds(engine, prompts, steps + 1, pairs))


def crowd_in_the_kernel(batch: int, steps: int, pairs: int) -> None:
    """Print the rounds of scripted requests as JSON."""
    from workbench.runners.scripted import ScriptedRunner

    runner = ScriptedRunner(lambda name, position: (position * 7 + len(name)) % 97)
    engine = Engine(runner, max_num_seqs=batch, num_blocks=batch * (steps // 16 + 4))
    prompts: list[Any] = [list(range(number, number + 32)) for number in range(batch)]
    _tell(_rounds(engine, prompts, steps + 1, pairs))


def _rounds(engine: Engine, prompts: list[Any], tokens: int, pairs: int) -> list[Round]:
    _round(engine, prompts, min(tokens, 16), opened=True)  # does not count
    found = []
    for number in range(pairs):
        for opened in (False, True) if number % 2 else (True, False):
            found.append(_round(engine, prompts, tokens, opened=opened))
    return found


def _round(engine: Engine, prompts: list[Any], tokens: int, *, opened: bool) -> Round:
    from workbench.view import View

    run = engine.run(prompts, max_tokens=tokens, ignore_eos=True, paused=True)
    view = View(run) if opened else None
    sleep(SETTLE_S)
    before = [_cpu_ms("workbench view"), _cpu_ms("IOPub")]
    began_s = monotonic()
    run.resume()
    seconds = monotonic() - began_s
    while view is not None and len(view.sources[0].packer) < len(run.trace):
        sleep(0.002)
    behind_s = monotonic() - began_s - seconds
    used = [_cpu_ms("workbench view") - before[0], _cpu_ms("IOPub") - before[1]]
    name = ""
    if view is not None:
        name = str(view.model_id)
        view.close()
    return Round(opened, name, _decode_steps_ms(run), seconds, len(run.trace), *used, behind_s)


def _decode_steps_ms(run: Run) -> list[float]:
    """From the start of each decode step of all requests to that of the next, everything between them included."""
    starts = [record.start_s for record in run.trace if all(row.kind == "decode" for row in record.scheduled) and not record.finished]
    return [(later - earlier) * 1e3 for earlier, later in pairwise(starts)]


def _cpu_ms(name: str) -> float:
    """Processor time that the living threads of a name have used; 0 where the system does not say (it does on Linux)."""
    files = [Path(f"/proc/self/task/{thread.native_id}/schedstat") for thread in threading.enumerate() if thread.name == name]
    return sum(int(file.read_text().split()[0]) for file in files if file.exists()) / 1e6


def _tell(rounds: Sequence[Round]) -> None:
    print(RESULT + json.dumps(rounds))


# -- outside -------------------------------------------------------------------------------------------------------


class Client:
    """Runs cells in a kernel and costs what a Jupyter server and a screen cost it, while they last.

    Every message is read and its header unpacked; views are greeted, and every tenth frame is acknowledged, on the control channel.
    The rest is unpacked when all is over.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._session = kernel.client.session
        self._num_frames = 0

    def rounds(self, function: Callable[..., None], *arguments: object) -> list[Round]:
        """Call a function of this module in the kernel, and read the rounds that it prints."""
        code = f"from benchmarks import view_cost\nview_cost.{function.__name__}{arguments!r}"
        own = self._messages(self._kernel.start(code))
        problems = ["\n".join(message["content"]["traceback"]) for message in own if message["msg_type"] == "error"]
        if problems:
            raise RuntimeError(problems[0])
        said = "".join(message["content"]["text"] for message in own if message["msg_type"] == "stream")
        return [Round(*each) for each in json.loads(said[said.index(RESULT) + len(RESULT) :].splitlines()[0])]

    def _messages(self, request: str) -> list[dict[str, Any]]:
        """All messages until ``request`` has ended; those that are its own."""
        socket, kept, over = self._kernel.client.iopub_channel.socket, [], False
        while not over:
            _, parts = self._session.feed_identities(socket.recv_multipart())
            kept.append(parts)
            head = self._session.deserialize(parts, content=False)
            if head["msg_type"] == "comm_open":
                self._greet(self._session.unpack(head["content"]))
            elif head["msg_type"] == "comm_msg":
                self._acknowledge(head["content"])
            elif head["msg_type"] == "status" and head["parent_header"].get("msg_id") == request:
                over = self._session.unpack(head["content"])["execution_state"] == "idle"
        found = [self._session.deserialize(parts) for parts in kept]
        self._kernel.seen += found
        return [message for message in found if message["parent_header"].get("msg_id") == request]

    def _greet(self, content: dict[str, Any]) -> None:
        if content["data"].get("state", {}).get("_model_name") == "AnyModel":
            self._kernel.ask(content["comm_id"], "hello", control=True, have=-1)

    def _acknowledge(self, packed: bytes) -> None:
        self._num_frames += 1
        if self._num_frames % ACK_FRAMES == 0:
            content = self._session.unpack(packed)
            self._kernel.ask(content["comm_id"], "ack", control=True, seq=content["data"].get("content", {}).get("seq", 0))

    def traffic(self, view: str) -> tuple[int, int]:
        """Messages and bytes that a view sent."""
        sizes = [len(json.dumps(content)) + sum(map(len, buffers)) for content, buffers in self._kernel.frames(view)]
        return len(sizes), sum(sizes)


def report(title: str, rounds: Sequence[Round], client: Client) -> dict[str, Any]:
    """Print what a set of rounds shows, and return it as plain data."""
    pairs = [(one, other) if one.opened else (other, one) for one, other in zip(rounds[::2], rounds[1::2], strict=True)]
    losses = [opened.mean_ms / closed.mean_ms - 1 for opened, closed in pairs]
    usual = [statistics.median(opened.steps_ms) / statistics.median(closed.steps_ms) - 1 for opened, closed in pairs]
    opened = [each for each, _ in pairs]
    low, high = _interval(losses)
    print(f"\n{title}, {len(pairs)} pairs of {len(opened[0].steps_ms)} steps, load {os.getloadavg()[0]:.1f}")
    for name, side in (("without a view", [each for _, each in pairs]), ("with a view", opened)):
        means = [each.mean_ms for each in side]
        stalls = sum(len(each.steps_ms) - len(each.usual_ms) for each in side)
        span = f"{min(means):.3f} … {max(means):.3f}"
        print(f"  {name:<16}{statistics.median(means):>9.3f} ms a step   ({span}; {stalls} steps of twice the median left out)")
    median_step = statistics.median(usual)
    found = {"loss": statistics.median(losses), "interval": [low, high], "loss_of_the_median_step": median_step, **costs(opened, client)}
    spread = f"nine of ten {low:+.1%} … {high:+.1%}; pairs {min(losses):+.1%} … {max(losses):+.1%}; of the median step {median_step:+.1%}"
    print(f"  loss of speed   {found['loss']:>+9.1%}   ({spread})")
    print(f"  {found['messages_per_s']:.1f} messages and {found['bytes_per_s'] / 1e3:.1f} kB a second")
    print(f"  processor time a step: publisher {found['publisher_ms']:.3f} ms, the kernel's socket thread {found['sender_ms']:.3f} ms")
    if found["behind_s"] > 0.1:
        print(f"  the last step is packed {found['behind_s']:.1f} s after it was taken")
    return {**found, "losses": losses}


def _interval(losses: Sequence[float]) -> tuple[float, float]:
    """Between which bounds nine of ten medians of pairs drawn anew lie."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(losses, k=len(losses))) for _ in range(DRAWS))
    return medians[DRAWS // 20], medians[-DRAWS // 20]


def costs(opened: Sequence[Round], client: Client) -> dict[str, float]:
    """Medians over the rounds with a view: what it sent a second, and the processor time of its threads by step."""
    traffic = [client.traffic(each.view) for each in opened]
    each_round = {
        "messages_per_s": [count / each.seconds for each, (count, _) in zip(opened, traffic, strict=True)],
        "bytes_per_s": [size / each.seconds for each, (_, size) in zip(opened, traffic, strict=True)],
        "publisher_ms": [each.publisher_ms / each.all_steps for each in opened],
        "sender_ms": [each.sender_ms / each.all_steps for each in opened],
        "behind_s": [each.behind_s for each in opened],
    }
    return {name: statistics.median(values) for name, values in each_round.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run it; exit status 1 when the loss is above the aim."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--crowd", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    sys.path.append(str(ROOT / "tests"))
    from view_kernel import view_kernel

    with view_kernel() as kernel:
        client, results = Client(kernel), {}
        model = client.rounds(in_the_kernel, options.model, options.batch, options.steps, options.pairs)
        results["model"] = report(f"{options.model}, batch {options.batch}", model, client)
        if options.crowd:
            crowd = client.rounds(crowd_in_the_kernel, options.crowd, CROWD_STEPS, min(options.pairs, CROWD_PAIRS))
            results["crowd"] = report(f"scripted, batch {options.crowd}", crowd, client)
    loss = results["model"]["loss"]
    verdict = "aim met" if loss <= AIM else "ABOVE THE AIM"
    print(f"\nan open view costs {loss:+.1%} of the speed at batch {options.batch} ({verdict}: {AIM:.0%})")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return int(loss > AIM)


if __name__ == "__main__":
    raise SystemExit(main())
