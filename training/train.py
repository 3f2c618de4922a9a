"""The training loop: target features, the chain's passes, soft cross-entropy, checkpoints; everything by the clock."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.data import Batch, Batches
from training.evaluate import acceptance, line
from training.head import Drafter, Head, shifted
from training.target import Target, wide_logits

if TYPE_CHECKING:
    from training.settings import Settings

Chunk = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def draft_chunk(normed: Tensor, rows: Tensor, labels: Tensor, best: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted soft cross-entropy of a chunk, its gradient by ``normed``, and whether the best token is the target's best."""
    logits = (normed @ rows.T).float()
    total = logits.logsumexp(dim=-1, keepdim=True)
    wanted = labels.float()
    loss = ((total[:, 0] - (wanted * logits).sum(dim=-1)) * weights).sum()
    difference = ((logits - total).exp() - wanted) * weights[:, None]
    return loss, difference.to(rows.dtype) @ rows, (logits.argmax(dim=-1) == best) & (weights > 0)


class DraftLoss(torch.autograd.Function):
    """``draft_chunk`` over chunks: logits live for one chunk only, as the gradient is made on the way forward."""

    @staticmethod
    def forward(ctx, normed, rows, labels, best, weights, chunk, function):
        loss, grad, agreed = 0.0, torch.empty_like(normed), []
        for start in range(0, len(normed), chunk):
            here = slice(start, start + chunk)
            part, grad[here], hits = function(normed[here], rows, labels[here], best[here], weights[here])
            loss = loss + part
            agreed.append(hits.sum())
        ctx.save_for_backward(grad)
        agreement = torch.stack(agreed).sum()
        ctx.mark_non_differentiable(agreement)
        return loss, agreement

    @staticmethod
    def backward(ctx, grad_loss, _):
        (grad,) = ctx.saved_tensors
        return grad * grad_loss.to(grad.dtype), None, None, None, None, None, None


def fastest_chunk(device: torch.device, dtype: torch.dtype, chunk: int, hidden: int, vocab: int, use_compiler: bool) -> Chunk:
    """``draft_chunk``, compiled where the compiler works and agrees."""
    if device.type != "cuda" or not use_compiler:
        return draft_chunk
    try:
        started, compiled = time.monotonic(), torch.compile(draft_chunk, dynamic=False)
        normed, rows = torch.randn(chunk, hidden, device=device, dtype=dtype), torch.randn(vocab, hidden, device=device, dtype=dtype) * 0.1
        labels = torch.randn(chunk, vocab, device=device).softmax(-1).to(dtype)
        best, weights = labels.argmax(-1), torch.full((chunk,), 1.0 / chunk, device=device)
        with torch.no_grad():
            ours, theirs = (function(normed, rows, labels, best, weights) for function in (draft_chunk, compiled))
        difference = ((ours[1] - theirs[1]).float().norm() / ours[1].float().norm()).item()
        print(f"loss compiled in {time.monotonic() - started:.1f} s (relative difference {difference:.1e})", flush=True)
        return compiled if difference < 0.02 else draft_chunk
    except Exception as error:
        print(f"loss runs eagerly, as compiling failed ({type(error).__name__})", flush=True)
        return draft_chunk


def target_labels(normed: Tensor, rows: Tensor, chunk: int, extra: int, hard_share: float) -> tuple[Tensor, Tensor]:
    """The target's distribution over the draft ids for each row of ``normed``, a little of it moved to its best id, and the best ids;
    followed by ``extra`` rows of zeros."""
    labels = torch.zeros(len(normed) + extra, len(rows), dtype=normed.dtype, device=normed.device)
    best = torch.zeros(len(normed) + extra, dtype=torch.long, device=normed.device)
    for start in range(0, len(normed), chunk):
        logits = wide_logits(normed[start : start + chunk], rows)
        end = start + len(logits)
        best[start:end] = logits.argmax(dim=-1)
        labels[start:end] = logits.softmax(dim=-1).mul_(1.0 - hard_share)
        labels[start:end].scatter_add_(1, best[start:end, None], torch.full_like(labels[start:end, :1], hard_share))
    return labels, best


def optimizers(settings: Settings, matrices: list[Tensor], vectors: list[Tensor], *, fused: bool) -> list[torch.optim.Optimizer]:
    """AdamW for all, or Muon for the matrices with steps as large as AdamW's would be."""
    decay, rest = settings.weight_decay, {"params": vectors, "weight_decay": 0.0}
    common = {"lr": settings.learning_rate, "betas": (0.9, 0.95), "fused": fused}
    if settings.optimizer == "adamw":
        return [torch.optim.AdamW([{"params": matrices, "weight_decay": decay}, rest], **common)]
    if settings.optimizer != "muon":
        raise SystemExit(f"no optimizer {settings.optimizer!r}: choose adamw or muon")
    muon = torch.optim.Muon(matrices, lr=settings.learning_rate, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW([rest], **common)]


@contextmanager
def interrupts_after_a_step() -> Iterator[list[int]]:
    """Interrupts go into the list, to be looked at between steps: one in the middle of a step would leave half of it in the checkpoint."""
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


class Trainer:
    """The head, its optimiser and where training stands; ``save`` and ``restore`` keep all of it."""

    def __init__(self, settings: Settings, target: Target, head: Head, draft_ids: Tensor, batches: Batches) -> None:
        self.settings, self.target, self.head, self.batches = settings, target, head, batches
        self.rows = target.head[draft_ids].contiguous()
        matrices = [parameter for parameter in head.parameters() if parameter.dim() == 2 and parameter is not head.tap_norm]
        vectors = [parameter for parameter in head.parameters() if not any(parameter is matrix for matrix in matrices)]
        self.optimizers = optimizers(settings, matrices, vectors, fused=target.device.type == "cuda")
        self.step, self.epoch, self.next_batch, self.seconds, self.tokens = 0, 0, 0, 0.0, 0
        self.chunk = fastest_chunk(
            target.device, target.dtype, settings.chunk, target.shape.hidden_size, len(self.rows), settings.use_compiler
        )

    def loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of one batch; per pass, how many best tokens were the target's and how many were asked for."""
        settings, passes = self.settings, self.settings.passes
        with torch.no_grad():
            taps, normed = self.target.forward(batch.tokens, settings.taps)
            labels, best = target_labels(
                normed.flatten(0, 1).index_select(0, batch.origins), self.rows, settings.chunk, passes + 1, settings.hard_share
            )
        drafter = Drafter(self.head, self.target, self.target.dtype)
        feature, total, agreed, asked = drafter.features(taps), torch.zeros((), device=self.target.device), [], []
        discounts = [settings.pass_discount**index for index in range(passes)]
        for index in range(passes):
            feature = drafter.advance(shifted(batch.tokens, 1 + index), feature)
            counted = batch.remaining > index
            count = counted.sum()
            weights = counted.float() * (discounts[index] / sum(discounts)) / count.clamp(min=1)
            chosen = drafter.normed(feature.flatten(0, 1).index_select(0, batch.origins))
            ahead = slice(1 + index, 1 + index + len(chosen))
            loss, hits = DraftLoss.apply(chosen, self.rows, labels[ahead], best[ahead], weights, settings.chunk, self.chunk)
            total = total + loss
            agreed.append(hits)
            asked.append(count)
        return total, torch.stack(agreed), torch.stack(asked)

    def rate(self) -> float:
        """The learning rate now: a short rise by steps, then a cosine to zero over the time that training may take."""
        done = min(self.seconds / (60 * self.settings.minutes_train), 1.0)
        rise = min((self.step + 1) / self.settings.warmup_steps, 1.0)
        return self.settings.learning_rate * rise * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * done)))

    def advance(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the optimiser."""
        rate = self.rate()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        loss, agreed, asked = self.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += batch.num_tokens
        return loss.detach(), agreed, asked

    def save(self, path: Path) -> None:
        state = {name: getattr(self, name) for name in ("step", "epoch", "next_batch", "seconds", "tokens")}
        fresh = path.with_name(path.name + ".part")
        torch.save(
            {"head": self.head.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in self.optimizers], "state": state}, fresh
        )
        os.replace(fresh, path)

    def restore(self, path: Path) -> None:
        stored = torch.load(path, map_location=self.target.device, weights_only=True)
        self.head.load_state_dict(stored["head"])
        for optimizer, state in zip(self.optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for name, value in stored["state"].items():
            setattr(self, name, value)

    def run(self, checkpoint: Path, held_out: Batches, draft_ids: Tensor, most_steps: int | None = None) -> None:
        """Train until the minutes are used, or until an interrupt; a checkpoint and a look at ``held_out`` about every minute."""
        with interrupts_after_a_step() as interrupts:
            self._run(checkpoint, held_out, draft_ids, most_steps, interrupts)

    def _run(self, checkpoint: Path, held_out: Batches, draft_ids: Tensor, most_steps: int | None, interrupts: list[int]) -> None:
        settings, before = self.settings, self.seconds
        started = last_saved = last_line = time.monotonic()
        tokens_at_line, window = self.tokens, []
        batches = self.batches.plan(settings.seed, self.epoch)
        last_step = math.inf if most_steps is None else self.step + most_steps
        while self.seconds < 60 * settings.minutes_train and self.step < last_step and not interrupts:
            if self.next_batch >= len(batches):
                self.epoch, self.next_batch = self.epoch + 1, 0
                batches = self.batches.plan(settings.seed, self.epoch)
            window.append(self.advance(self.batches.batch(batches[self.next_batch])))
            self.next_batch += 1
            if len(window) == 20 or (self.step < 5 and len(window)):
                loss = torch.stack([part[0] for part in window]).mean().item()  # also keeps the clock honest: it waits for the device
                rates = (torch.stack([part[1] for part in window]).sum(0) / torch.stack([part[2] for part in window]).sum(0)).tolist()
                window = []
                now = time.monotonic()
                if not math.isfinite(loss):
                    raise SystemExit(f"the loss is {loss} at step {self.step}: start again from {checkpoint} with a lower learning rate")
                if now - last_line > 5 or self.step < 5:
                    speed = (self.tokens - tokens_at_line) / (now - last_line)
                    print(
                        f"train: step {self.step}, epoch {self.epoch + self.next_batch / len(batches):.2f}, loss {loss:.4f}, agree "
                        f"{' '.join(f'{rate:.3f}' for rate in rates)}, rate {self.rate():.2e}, {speed / 1000:.0f}k tokens/s, "
                        f"{60 * settings.minutes_train - self.seconds:.0f} s left",
                        flush=True,
                    )
                    tokens_at_line, last_line = self.tokens, now
            self.seconds = before + time.monotonic() - started
            if time.monotonic() - last_saved > 60:
                self.save(checkpoint)
                print(f"held out: {line(acceptance(self.head, self.target, held_out, draft_ids, settings))}", flush=True)
                last_saved = time.monotonic()
        self.save(checkpoint)
