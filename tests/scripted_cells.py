"""What tests of the faces share: an engine without a model that speaks in bytes."""

from __future__ import annotations

import time
from collections.abc import Callable

from workbench import Engine, EngineConfig
from workbench.runners.scripted import ScriptedRunner

ANSWER = "Yes, of course. "


class ByteTokenizer:
    """A token is a byte; 256 ends a sequence, 257 opens a chat turn."""

    eos_token_ids = (256,)
    vocab_size = 258
    has_chat_template = True

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_chat(self, messages: list[dict[str, str]]) -> list[int]:
        return [257, *"".join(message["content"] for message in messages).encode(), 257]

    def decode(self, ids, skip_special_tokens: bool = True) -> str:
        return bytes(token for token in ids if token < 256).decode(errors="replace")

    def token_text(self, token: int) -> str:
        return chr(token)


class SpeakingRunner(ScriptedRunner):
    """Says ``ANSWER`` over and over; ``before_step(step)`` is called first, and ``sleep_s`` makes a step last."""

    def __init__(self, *, before_step: Callable[[int], None] | None = None, sleep_s: float = 0.0) -> None:
        super().__init__(lambda request_id, position: ANSWER.encode()[position % len(ANSWER)])
        self.before_step, self.sleep_s = before_step, sleep_s

    def execute(self, plan):
        if self.before_step is not None:
            self.before_step(plan.step)
        time.sleep(self.sleep_s)
        return super().execute(plan)


def speaking_engine(config: EngineConfig | None = None, runner: SpeakingRunner | None = None, **knobs) -> Engine:
    config = EngineConfig(**{"num_blocks": 64, **knobs}) if config is None else config
    return Engine(runner or SpeakingRunner(), tokenizer=ByteTokenizer(), config=config)
