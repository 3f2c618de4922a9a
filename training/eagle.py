"""Train the draft head of the embedded model, on text that the model writes itself.

    python -m training.eagle --work DIR [--model FOLDER] [--stage all] [--minutes-generate 5] [--minutes-train 9] …

Stages, each leaving its result in DIR and going on where it stopped: ``generate`` (text, held-out text), ``train`` (checkpoints),
``evaluate`` (eval.json), ``export`` (the head and its card).  Every field of ``Settings`` is an option.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.data import Batches, Texts, without_loops
from training.evaluate import acceptance, line, table
from training.export import card, export_head, exported
from training.generate import Chat, Limits, Sequence, Task, Writer, write_all
from training.head import Head
from training.prompts import KINDS, RAW, draw, min_tokens
from training.screen import Moment, projections
from training.settings import Settings
from training.target import load_target
from training.train import Trainer
from workbench.models.fingerprint import weights_fingerprint

STAGES = ("generate", "train", "evaluate", "export")
NAME = "smollm2-135m-instruct"
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
COVERAGE_AT = (4096, 8192, 12288, 16384, 24576, 32768)


def say(text: str) -> None:
    print(text, flush=True)


def chat_of(tokenizer: Tokenizer) -> Chat:
    """The ids of the target's chat template around a user's words."""

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    end = tokenizer.token_to_id("<|im_end|>")
    forbidden = [tokenizer.token_to_id(name) for name in ("<|endoftext|>", "<|im_start|>")]
    prefix = ids(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
    return Chat(prefix, ids("<|im_end|>\n<|im_start|>assistant\n"), end, [token for token in forbidden if token is not None])


class TaskSource:
    """Tasks with drawn openings; for training without end, or a fixed number of each kind, to be answered greedily."""

    def __init__(self, settings: Settings, tokenizer: Tokenizer, seed: int) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.generator = np.random.default_rng([settings.seed, seed])
        self.known: dict[str, list[int]] = {}

    def task(self, kind: int, opening: str, temperature: float) -> Task:
        if opening not in self.known:
            self.known[opening] = self.tokenizer.encode(opening, add_special_tokens=False).ids
        return Task(kind, self.known[opening], min_tokens(opening), temperature, raw=kind == RAW)

    def endless(self, count: int) -> list[Task]:
        greedy = self.generator.random(count) < self.settings.greedy_share
        sampled = self.generator.uniform(self.settings.temperatures[0], self.settings.temperatures[-1], count)
        temperatures = np.where(greedy, 0.0, sampled)
        drawn = draw(self.generator, count)
        return [self.task(kind, opening, float(t)) for (kind, opening), t in zip(drawn, temperatures, strict=True)]

    def held_out(self) -> list[Task]:
        kinds = [draw(self.generator, self.settings.held_out_per_kind, kind) for kind in range(len(KINDS))]
        return [self.task(kind, opening, 0.0) for of_kind in kinds for kind, opening in of_kind]


class Project:
    """The files in the working folder and the stages that fill them."""

    def __init__(self, settings: Settings, work: Path, model: Path, device: torch.device) -> None:
        self.settings, self.work, self.model, self.device = settings, work, model, device
        work.mkdir(parents=True, exist_ok=True)
        self.target = load_target(model, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
        if max(settings.taps) >= self.target.shape.num_layers:
            raise SystemExit(f"taps {settings.taps} of a target with {self.target.shape.num_layers} layers: choose smaller ones (--taps)")
        self.held_out_file, self.progress_file = work / "held_out.npz", work / "generate.json"
        self.checkpoint, self.vocab_file, self.eval_file = work / "checkpoint.pt", work / "vocab.json", work / "eval.json"
        self.moment_file = work / "moment.pt"
        self.head_file, self.card_file = work / f"{NAME}.eagle.safetensors", work / f"{NAME}.eagle.md"

    def shards(self) -> list[Path]:
        return sorted(self.work.glob("text-*.npz"))

    # -- generate ----------------------------------------------------------------------------------------------------------------------

    def generate(self) -> None:
        settings, progress = self.settings, _read(self.progress_file, {"seconds": 0.0})
        seconds = 60 * settings.minutes_generate - progress["seconds"]
        if self.held_out_file.exists() and seconds <= 0:
            say(f"generate: done before ({len(self.shards())} files)")
            return
        tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        limits = Limits(settings.user_end, settings.answer, settings.min_p, settings.user_temperature)
        writer = Writer(self.target, chat_of(tokenizer), limits, settings.slots, settings.seed + len(self.shards()))
        if not self.held_out_file.exists():
            self._write_held_out(writer, TaskSource(settings, tokenizer, 0))
        held_out = Texts.load(self.held_out_file)
        self._write_text(writer, TaskSource(settings, tokenizer, 1 + len(self.shards())), set(held_out.prompts()), seconds, progress)
        self._report_text()
        del writer
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _write_held_out(self, writer: Writer, source: TaskSource) -> None:
        started, tasks, written = time.monotonic(), source.held_out(), []
        total = len(tasks)

        def next_tasks(count: int) -> list[Task]:
            taken, tasks[:count] = tasks[:count], []
            return taken

        write_all(writer, next_tasks, written.extend, seconds=max(120.0, 60 * self.settings.minutes_generate))
        Texts.of(written).save(self.held_out_file)
        say(f"generate: {len(written)} of {total} held-out sequences in {time.monotonic() - started:.1f} s")

    def _write_text(self, writer: Writer, source: TaskSource, avoided: set[bytes], seconds: float, progress: dict[str, Any]) -> None:
        before, kept = progress["seconds"], []
        started = last_line = last_saved = time.monotonic()
        tokens = answer_tokens = 0

        def save() -> None:
            if kept:
                Texts.of(kept).save(self.work / f"text-{len(self.shards()):04d}.npz")
                kept.clear()
            _write(self.progress_file, {"seconds": before + time.monotonic() - started})

        def deliver(sequences: list[Sequence]) -> None:
            nonlocal tokens, answer_tokens, last_line, last_saved
            fresh = [s for s in sequences if s.tokens[: s.answer_start].tobytes() not in avoided and len(s.tokens) - s.answer_start > 2]
            kept.extend(fresh)
            tokens += sum(len(sequence.tokens) for sequence in fresh)
            answer_tokens += sum(len(sequence.tokens) - sequence.answer_start for sequence in fresh)
            now = time.monotonic()
            if now - last_line > 10:
                speed, left = answer_tokens / (now - started), seconds - (now - started)
                millions = f"{tokens / 1e6:.1f} M tokens, {answer_tokens / 1e6:.1f} M of answers"
                say(f"generate: {millions} ({speed / 1000:.1f}k/s), {left:.0f} s left")
                last_line = now
            if now - last_saved > 45:
                save()
                last_saved = now

        write_all(writer, source.endless, deliver, seconds=seconds)
        save()

    def _report_text(self) -> None:
        texts = Texts.load(*self.shards())
        say(f"generate: {len(texts)} sequences, {len(texts.tokens):,} tokens, {texts.num_answer_tokens:,} of answers")
        tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        for index, name in enumerate(KINDS):
            of_kind = np.flatnonzero(texts.kinds == index)
            if len(of_kind):
                answers = texts.lengths[of_kind] - texts.answer_starts[of_kind]
                prompt = tokenizer.decode(texts.sequence(of_kind[0])[: texts.answer_starts[of_kind[0]]].tolist()[-60:])
                answer = tokenizer.decode(texts.sequence(of_kind[0])[texts.answer_starts[of_kind[0]] :].tolist()[:40])
                say(f"  {name}: {len(of_kind)}, answers of {answers.mean():.0f} tokens; {prompt[-160:]!r} -> {answer[:120]!r}")

    # -- train -------------------------------------------------------------------------------------------------------------------------

    def draft_ids(self, count: int) -> Tensor:
        """The ``count`` ids that answers hold most often, in order; how often is found out once, and kept."""
        vocab_size = self.target.shape.vocab_size
        if not self.vocab_file.exists():
            counts = self.texts.answer_counts(vocab_size)
            order = np.argsort(-counts, kind="stable")
            specials = order < 3  # end of text, start and end of a turn: always drafted
            order = np.concatenate([order[specials], order[~specials]])
            covered = np.cumsum(counts[order]) / counts.sum()
            sizes = sorted({*COVERAGE_AT, self.settings.draft_vocab, self.settings.shipped_vocab})
            coverage = {size: float(covered[min(size, vocab_size) - 1]) for size in sizes}
            say(f"draft vocabulary covers {coverage}")
            _write(self.vocab_file, {"coverage": coverage, "order": order.tolist()})
        ids = _read(self.vocab_file)["order"][: min(count, vocab_size)]
        return torch.tensor(sorted(ids), device=self.device)

    def trained_ids(self) -> Tensor:
        """The ids that the loss goes over."""
        return self.draft_ids(self.settings.draft_vocab)

    def shipped_ids(self) -> Tensor:
        """The ids that the exported head drafts from."""
        return self.draft_ids(self.settings.shipped_vocab)

    @cached_property
    def texts(self) -> Texts:
        """What was written, each answer up to where it begins to go round."""
        whole = Texts.load(*self.shards())
        texts = without_loops(whole, self.device)
        share = 1 - texts.num_answer_tokens / max(whole.num_answer_tokens, 1)
        say(f"texts: {texts.num_answer_tokens:,} answer tokens; {share:.1%} were left out, as they went round in circles")
        return texts

    @cached_property
    def held_out(self) -> Texts:
        """The same of what was held out."""
        return without_loops(Texts.load(self.held_out_file), self.device)

    def head(self) -> Head:
        settings = self.settings
        return Head(self.target.shape, len(settings.taps), settings.ffn_size, self.target.norm, settings.seed)

    def _batches(self, texts: Texts) -> Batches:
        return Batches(texts, self.device, self.settings.batch_tokens, self.settings.chunk)

    def trainer(self) -> Trainer:
        settings, head = self.settings, self.head()
        if settings.start_from:
            weights, taps, facts = exported(Path(settings.start_from))
            head.go_on_from_(weights, taps, settings.taps)
            say(f"train: begins with {settings.start_from}, a head of {facts['steps']} steps")
        if self.device.type == "cuda" and settings.use_compiler:
            self.target.compile()
        trainer = Trainer(settings, self.target, head, self.trained_ids(), self._batches(self.texts))
        if self.checkpoint.exists():
            trainer.restore(self.checkpoint)
            say(f"train: continues at step {trainer.step} after {trainer.seconds:.0f} s")
        return trainer

    def train(self, most_steps: int | None = None) -> None:
        held_out = self.held_out
        some = np.concatenate([np.flatnonzero(held_out.kinds == kind)[:24] for kind in range(len(KINDS))])
        trainer = self.trainer()
        say(f"train: {trainer.head.num_parameters:,} parameters on {len(trainer.batches.texts):,} sequences")
        trainer.run(self.checkpoint, self._batches(held_out.chosen(some)), self.trained_ids(), most_steps)
        say(f"train: stopped at step {trainer.step}, {trainer.tokens:,} tokens, {trainer.seconds:.0f} s")

    def trained(self) -> tuple[Head, dict[str, Any]]:
        """The head of the checkpoint, rounded as it is exported, and where its training stood."""
        if not self.checkpoint.exists():
            raise SystemExit(f"{self.checkpoint} is missing: run --stage train first")
        stored, head = torch.load(self.checkpoint, map_location=self.device, weights_only=True), self.head()
        head.load_state_dict(stored["head"])
        head.round_()
        return head, stored["state"]

    # -- evaluate and export -----------------------------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        started, (head, state) = time.monotonic(), self.trained()
        moment = Moment()
        result = acceptance(head, self.target, self._batches(self.held_out), self.shipped_ids(), self.settings, moment.add)
        torch.save(moment.mean.cpu(), self.moment_file)
        _write(self.eval_file, {"step": state["step"], "result": result})
        say(f"{table(result)}\nevaluate: {line(result)} ({time.monotonic() - started:.1f} s)")

    def export(self) -> None:
        head, state = self.trained()
        facts: dict[str, Any] = {"target_name": NAME, "steps": state["step"], "train_tokens": state["tokens"]}
        if not self.moment_file.exists():
            raise SystemExit(f"{self.moment_file} is missing: run --stage evaluate first")
        ids = self.shipped_ids()
        moment = torch.load(self.moment_file, weights_only=True).to(self.device)
        screen = projections(moment, self.target.head[ids], self.settings.screen_rank)
        export_head(self.head_file, head, self.target, ids, screen, self.settings, facts)
        vocab, texts = _read(self.vocab_file), self.texts
        facts |= {
            "target_fingerprint": weights_fingerprint(self.target.norm, self.target.embedding),
            "started_from": exported(Path(self.settings.start_from))[2] if self.settings.start_from else None,
            "train_seconds": state["seconds"],
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "a CPU",
            "data": {"sequences": len(texts), "answer_tokens": texts.num_answer_tokens},
            "coverage": vocab["coverage"],
            "num_ids": len(ids),
        }
        size = self.head_file.stat().st_size
        result = _read(self.eval_file)["result"]
        self.card_file.write_text(card(self.settings, result, facts, head.num_parameters, size), encoding="utf-8")
        say(f"export: {self.head_file} ({size / 1e6:.2f} MB) and {self.card_file.name}")


def _read(path: Path, otherwise: dict[str, Any] | None = None) -> dict[str, Any]:
    if not path.exists() and otherwise is not None:
        return otherwise
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def _value(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return text.lower() in ("1", "true", "yes")
    if isinstance(default, tuple):
        return tuple(type(default[0])(part) for part in text.split(","))
    return type(default)(text)


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, Settings]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of all results")
    parser.add_argument("--model", type=Path, help="folder of the target (default: fetched)")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name.replace('_', '-')}", metavar=str(field.default))
    options = parser.parse_args(arguments)
    given = {f.name: _value(getattr(options, f.name), f.default) for f in dataclasses.fields(Settings) if getattr(options, f.name)}
    return options, Settings(**given)


def main(arguments: list[str] | None = None) -> None:
    options, settings = parse(arguments)
    if options.model is None:
        from workbench.models.store import fetch

        options.model = fetch("smollm2")
    project = Project(settings, options.work, options.model, torch.device(options.device))
    text = json.dumps(dataclasses.asdict(settings))
    (options.work / "settings.json").write_text(text, encoding="utf-8")
    say(f"{text}\n{options.model} on {options.device}, torch {torch.__version__}")
    for stage in STAGES if options.stage == "all" else (options.stage,):
        started = time.monotonic()
        getattr(project, stage)()
        say(f"== {stage}: {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
