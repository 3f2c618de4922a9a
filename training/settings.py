"""The whole configuration of a training run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Every field is an option of the command line; all of them are printed, saved, and exported with the head."""

    seed: int = 20240127
    # generate
    minutes_generate: float = 5.0
    slots: int = 2048
    user_end: int = 184  # position where a user's turn ends at the latest: a prompt is at most 190 tokens
    answer: int = 320
    greedy_share: float = 0.65
    temperatures: tuple[float, ...] = (0.7, 1.0)  # of the other answers, between these
    user_temperature: float = 1.0
    min_p: float = 0.02
    held_out_per_kind: int = 256
    # train
    minutes_train: float = 9.0
    start_from: str = ""  # an exported head to go on from; it may be smaller
    taps: tuple[int, ...] = (2, 8, 14, 20, 26, 29)
    ffn_size: int = 3072  # twice the target's: the matrices are shipped in one byte a weight
    draft_vocab: int = 16384  # ids that the loss goes over
    passes: int = 5
    pass_discount: float = 0.85
    hard_share: float = 0.2
    optimizer: str = "muon"  # or "adamw"
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    batch_tokens: int = 16384
    chunk: int = 2048
    use_compiler: bool = True
    # evaluate and export
    draft_len: int = 6
    shipped_vocab: int = 32768  # ids that the head drafts from
    screen_rank: int = 128  # numbers by which each of them is scored roughly
