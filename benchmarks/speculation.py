"""Speculative decoding: how many drafts are right, and what that is worth.

    python -m benchmarks.speculation [--table acceptance|speed|crossover] [--model smollm2] [--tokens 160] [--rounds 3] [--json FILE]

``acceptance``: tokens a round for each method and kind of prompt, greedily and at temperature 0.7, on prompts written by hand and on
prompts that the model wrote itself, as in the head's training (those are easier).  How busy the machine is changes none of it.
``speed``: batch 1, no speculation beside the EAGLE head with 1 to 6 drafts and ``auto``; ``crossover``: the same for batches of 1 to 32,
in the steps in which the whole batch decodes.  For these two, whose sides take turns and whose figures are medians, close other programs.
Every output is compared with that of no speculation; now and then one differs by rounding, as between two sizes of batch (printed too).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.speculation_runs import Ask, Counted, Finished, by_kind, finish, full_steps, self_written, written
from workbench.config import DRAFTING_MODELS
from workbench.errors import ConfigError
from workbench.events import StepRecord
from workbench.models import LoadedModel, load_model
from workbench.models.threads import default_num_threads

METHODS = "eagle,ngram,ngram:2-4,suffix,draft:skip:20,draft:int8"
DRAFTS = 4
AIM_MEAN, AIM_WORST, AIM_NGRAM_REWRITE, AIM_SPEED, AIM_LOSS = 3.0, 2.6, 2.0, 1.8, 0.03
TABLES = ("acceptance", "speed", "crossover")


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; exit status 1 when an aim is not met."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    loaded = load_model(options.model, device=options.device)
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}; {loaded.facts.path}")
    tables = {"acceptance": acceptance_table, "speed": speed_table, "crossover": crossover_table}
    results, aims = dict[str, Any](), list[tuple[str, bool]]()
    for name in TABLES if options.table == "all" else (options.table,):
        results[name] = tables[name](loaded, options, aims)
    print("\naims")
    for text, met in aims:
        print(f"  {'met    ' if met else 'NOT met'}  {text}")
    if options.json:
        options.json.write_text(json.dumps({**results, "aims": [{"aim": text, "met": met} for text, met in aims]}, indent=1))
    return int(not all(met for _, met in aims))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speculative decoding: how many drafts are right, and what that is worth.")
    parser.add_argument("--table", default="all", choices=("all", *TABLES))
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", default=METHODS, type=lambda text: text.split(","), help="of the acceptance table")
    parser.add_argument("--draft-sample-method", default="greedy", choices=("greedy", "probabilistic"), help="of heads and models")
    parser.add_argument("--temperatures", default="0,0.7", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument("--sources", default="written,self", type=lambda text: text.split(","), help="written by hand, by the model itself")
    parser.add_argument("--per-kind", default=8, type=int, help="prompts of each kind, 8 at most")
    parser.add_argument("--timed-per-kind", default=2, type=int, help="the same where time is measured")
    parser.add_argument("--batches", default="1,4,16,32", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument(
        "--drafts", default="1,2,3,4,5,6,5@0.05,auto", type=lambda text: [_drafts(part) for part in text.split(",")],
        help="K, auto, or either with a min_draft_probability: 5@0.1",
    )  # fmt: skip
    parser.add_argument("--speculative", default="eagle", help="the method whose speed is measured")
    parser.add_argument("--tokens", default=160, type=int)
    parser.add_argument("--rounds", default=3, type=int)
    parser.add_argument("--threads", default=default_num_threads(), type=int)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def _drafts(text: str) -> int | str:
    return int(text) if text.isdigit() else text


# -- acceptance --------------------------------------------------------------------------------------------------------


def acceptance_table(loaded: LoadedModel, options: argparse.Namespace, aims: list[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Tokens a round of every method, source of prompts, temperature and kind."""
    results = []
    for source in options.sources:
        asks = written(loaded, options.per_kind) if source == "written" else self_written(loaded, options.per_kind, options.threads)
        lengths = sorted(len(ask.token_ids) for ask in asks)
        name = "written by hand" if source == "written" else "written by the model itself, as in the head's training"
        print(f"\n{len(asks)} prompts {name}: {lengths[0]} to {lengths[-1]} tokens with the chat template")
        for temperature in options.temperatures:
            print(f"\n{'greedy' if not temperature else f'temperature {temperature}'}, {DRAFTS} drafts, {options.tokens} tokens of output")
            _head(asks)
            plain: Finished | None = None
            for method in (None, *options.methods):
                plain, entry = _one_method(loaded, options, asks, method, temperature, plain)
                if entry is not None:
                    results.append({"source": source, "temperature": temperature, **entry})
    _acceptance_aims(results, aims)
    return results


def _head(asks: Sequence[Ask]) -> None:
    kinds = "".join(f"{kind:>11}" for kind in dict.fromkeys(ask.kind for ask in asks))
    print(f"  {'tokens a round':<15}{'mean':>7}{'worst':>7}{kinds}{'a step':>9}   accepted at position 1 … {DRAFTS}")


def _one_method(
    loaded: LoadedModel, options: argparse.Namespace, asks: list[Ask], method: str | None, temperature: float, plain: Finished | None
) -> tuple[Finished | None, dict[str, Any] | None]:
    """Run one method and print its line; the first, ``None``, is what the others are compared with."""
    knobs = {} if method is None else {"speculative": method, "num_speculative_tokens": DRAFTS}
    if method is not None and method.startswith(DRAFTING_MODELS):
        knobs["draft_sample_method"] = options.draft_sample_method
    params = {"max_tokens": options.tokens, "temperature": temperature}
    try:
        done = finish(loaded, asks, len(asks), {"num_threads": options.threads, **knobs}, params)
    except ConfigError as error:
        print(f"  {method:<15}not here: {error}")
        return plain, None
    if method is None or plain is None:
        _print_noise(loaded, options, asks, params, done)
        return done, None
    kinds = by_kind(done, asks)
    whole = Counted([one for counted in kinds.values() for one in counted.rounds])
    lengths = {kind: counted.length for kind, counted in kinds.items()}
    mean, worst = statistics.mean(lengths.values()), min(lengths, key=lambda kind: lengths[kind])
    per_step = statistics.mean(counted.per_step for counted in kinds.values())
    same = sum(one == other for one, other in zip(plain.outputs, done.outputs, strict=True))
    row = "".join(f"{length:>11.2f}" for length in lengths.values())
    positions = " ".join(f"{rate:.2f}" for rate in whole.positions)
    remark = "" if same == len(asks) else f"   {len(asks) - same} of {len(asks)} outputs differ from those without drafts"
    print(f"  {method:<15}{mean:>7.2f}{lengths[worst]:>7.2f}{row}{per_step:>9.2f}   {positions}{remark}", flush=True)
    return plain, {
        "method": method, "mean": mean, "worst": lengths[worst], "worst_kind": worst, "kinds": lengths, "tokens_per_step": per_step,
        "positions": whole.positions, "positions_by_kind": {kind: counted.positions for kind, counted in kinds.items()},
        "rounds": len(whole.rounds), "outputs": len(asks), "outputs_equal": same,
    }  # fmt: skip


def _print_noise(loaded: LoadedModel, options: argparse.Namespace, asks: list[Ask], params: dict[str, Any], plain: Finished) -> None:
    """How many outputs another batch changes: rounding decides between near equals now and then, with drafts or without."""
    halved = finish(loaded, asks, max(1, len(asks) // 2), {"num_threads": options.threads}, params)
    differ = sum(one != other for one, other in zip(plain.outputs, halved.outputs, strict=True))
    print(f"  (without drafts, in batches half as large: {differ} of {len(asks)} outputs differ, by rounding)", flush=True)


def _acceptance_aims(results: list[dict[str, Any]], aims: list[tuple[str, bool]]) -> None:
    for entry in results:
        if entry["source"] == "written" and not entry["temperature"]:
            if entry["method"] == "eagle":
                text = f"eagle, {DRAFTS} drafts, greedy: {entry['mean']:.2f} tokens a round, aim {AIM_MEAN}"
                aims.append((text, entry["mean"] >= AIM_MEAN))
                text = f"… worst kind ({entry['worst_kind']}): {entry['worst']:.2f}, aim {AIM_WORST}"
                aims.append((text, entry["worst"] >= AIM_WORST))
            elif entry["method"] == "ngram":
                length = entry["kinds"]["rewrite"]
                aims.append((f"ngram on rewriting: {length:.2f} tokens a round, aim {AIM_NGRAM_REWRITE}", length >= AIM_NGRAM_REWRITE))
    greedy = [entry for entry in results if not entry["temperature"]]
    same, all_of_them = sum(entry["outputs_equal"] for entry in greedy), sum(entry["outputs"] for entry in greedy)
    if greedy:
        aims.append((f"{same} of {all_of_them} greedy outputs equal those without drafts", same == all_of_them))


# -- speed at batch 1 --------------------------------------------------------------------------------------------------


def speed_table(loaded: LoadedModel, options: argparse.Namespace, aims: list[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Wall time of the same prompts one after the other, prefill, records and what ``auto`` tries out included."""
    asks, params = written(loaded, options.timed_per_kind), {"max_tokens": options.tokens}
    sides = [0, *options.drafts]
    print(f"\nbatch 1, greedy: {len(asks)} prompts one after the other, {options.tokens} tokens each at most, {options.speculative}")
    runs: dict[int | str, list[Finished]] = {side: [] for side in sides}
    finish(loaded, asks[:1], 1, _knobs(options, 0), params)  # one that does not count
    for _ in range(options.rounds):
        for side in sides:
            runs[side].append(finish(loaded, asks, 1, _knobs(options, side), params))
    print(f"  {'drafts':<8}{'tok/s':>8}{'of none':>9}{'a round':>9}{'output':>10}   (slowest … fastest round, tok/s)")
    results = [_speed(side, runs, asks) for side in sides]
    best = max((entry for entry in results if entry["drafts"] != 0), key=lambda entry: entry["speed_up"])
    text = f"{options.speculative} at batch 1: {best['speed_up']:.2f}x with {best['drafts']} drafts, aim {AIM_SPEED}"
    aims.append((text, best["speed_up"] >= AIM_SPEED))
    aims.append(("outputs at batch 1 equal those without drafts", all(entry["equal"] for entry in results)))
    return results


def _speed(side: int | str, runs: dict[int | str, list[Finished]], asks: list[Ask]) -> dict[str, Any]:
    rates = [sum(map(len, done.outputs)) / done.seconds for done in runs[side]]
    none = statistics.median(done.seconds for done in runs[0])
    speed_up = none / statistics.median(done.seconds for done in runs[side])
    length = Counted([one for counted in by_kind(runs[side][0], asks).values() for one in counted.rounds]).length
    equal = all(done.outputs == runs[0][0].outputs for done in runs[side])
    output = "equal" if equal else "DIFFERS"
    spread = f"({min(rates):.1f} … {max(rates):.1f})"
    print(f"  {side!s:<8}{statistics.median(rates):>8.1f}{speed_up:>8.2f}x{length:>9.2f}{output:>10}   {spread}{_chosen(runs[side])}")
    return {"drafts": side, "tokens_per_s": rates, "speed_up": speed_up, "acceptance_length": length, "equal": equal}


def _knobs(options: argparse.Namespace, side: int | str) -> dict[str, Any]:
    if not side:
        return {"num_threads": options.threads}
    count, _, least = str(side).partition("@")
    drafts = {"num_speculative_tokens": _drafts(count), "min_draft_probability": float(least or 0)}
    return {"num_threads": options.threads, "speculative": options.speculative, **drafts}


def _chosen(runs: Sequence[Finished]) -> str:
    """How often ``auto`` chose which number of drafts."""
    counts = Counter(record.draft_choice.num_drafts for done in runs for record in done.records if record.draft_choice is not None)
    return f"   chose {', '.join(f'{drafts}: {count}' for drafts, count in sorted(counts.items()))}" if counts else ""


# -- larger batches ----------------------------------------------------------------------------------------------------


def crossover_table(loaded: LoadedModel, options: argparse.Namespace, aims: list[tuple[str, bool]]) -> list[dict[str, Any]]:
    """From which batch on drafts are not worth their time."""
    asks, results = written(loaded, options.per_kind), []
    for batch in options.batches:
        results += _crossover(loaded, options, list(islice(cycle(asks), batch + max(batch, 4))), batch)
    for entry in results:
        if entry["batch"] == 32 and entry["drafts"] == "auto":
            loss = 1 - entry["speed_up"]
            aims.append((f"auto at batch 32: {-loss:+.1%} beside none, aim a loss of {AIM_LOSS:.0%} at most", loss <= AIM_LOSS))
    return results


def _crossover(loaded: LoadedModel, options: argparse.Namespace, asks: list[Ask], batch: int) -> list[dict[str, Any]]:
    sides, params = [0, *options.drafts], {"max_tokens": options.tokens}
    runs: dict[int | str, list[Finished]] = {side: [] for side in sides}
    for _ in range(options.rounds):
        for side in sides:
            runs[side].append(finish(loaded, asks, batch, _knobs(options, side), params))
    print(f"\nbatch {batch}, greedy: {len(asks)} prompts, steps in which {batch} decode")
    print(f"  {'drafts':<8}{'a round':>9}{'verify ms':>11}{'draft ms':>10}{'step ms':>9}{'tok/s':>9}{'of none':>9}{'outputs equal':>15}")
    return [_crossing(side, runs, batch) for side in sides]


def _crossing(side: int | str, runs: dict[int | str, list[Finished]], batch: int) -> dict[str, Any]:
    steps = [full_steps(done.records, batch) for done in runs[side]]
    rates = [_rate(part) for part in steps]
    speed_up = statistics.median(rates) / statistics.median(_rate(full_steps(done.records, batch)) for done in runs[0])
    every = [record for part in steps for record in part]
    length = Counted([one for record in steps[0] for one in record.spec]).length
    verify, draft, step = (
        statistics.mean(part)
        for part in zip(*((record.timing.runner_ms, record.timing.draft_ms, record.duration_ms) for record in every), strict=True)
    )
    same = sum(one == other for one, other in zip(runs[0][0].outputs, runs[side][0].outputs, strict=True))
    equal = f"{same} of {len(runs[0][0].outputs)}"
    print(
        f"  {side!s:<8}{length:>9.2f}{verify:>11.1f}{draft:>10.1f}{step:>9.1f}{statistics.median(rates):>9.1f}{speed_up:>8.2f}x{equal:>15}"
        f"{_chosen(runs[side])}",
        flush=True,
    )
    return {
        "batch": batch, "drafts": side, "acceptance_length": length, "verify_ms": verify, "draft_ms": draft, "step_ms": step,
        "tokens_per_s": rates, "speed_up": speed_up, "outputs_equal": same,
    }  # fmt: skip


def _rate(records: Sequence[StepRecord]) -> float:
    """Tokens a second of these steps."""
    tokens = sum(len(sampled.token_ids) for record in records for sampled in record.sampled)
    return tokens / sum(record.duration_ms for record in records) * 1e3


if __name__ == "__main__":
    raise SystemExit(main())
