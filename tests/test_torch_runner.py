"""``TorchRunner``: from plan rows to tokens, drafts, log-probabilities and clear errors."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch

from workbench.errors import ConfigError, EngineClosedError
from workbench.models.loading import LoadedModel
from workbench.plan import PlanRow, StepOutput, StepPlan
from workbench.request import Request, SamplingParams
from workbench.runners.base import Runner
from workbench.runners.torch_runner import TorchRunner, kv_bytes_per_block

PROMPT = [5, 17, 3, 88, 42, 9, 61]
BLOCKS = [3, 1, 4, 2, 6, 5]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return tiny.load("llama", tmp_path_factory.mktemp("models"))


@pytest.fixture
def runner(loaded: LoadedModel) -> TorchRunner:
    return TorchRunner(loaded, num_blocks=12, block_size=4)


def request(request_id: str = "r", prompt: list[int] = PROMPT, **sampling: Any) -> Request:
    return Request(id=request_id, prompt_token_ids=tuple(prompt), sampling=SamplingParams.of(**{"seed": 1, **sampling}))


def execute(runner: TorchRunner, *rows: PlanRow) -> StepOutput:
    return runner.execute(StepPlan(0, runner.block_size, rows))


def generate(runner: TorchRunner, asked: Request, count: int, blocks: list[int] = BLOCKS) -> list[int]:
    """Prefill in one chunk, then decode one by one; returns the output."""
    known = list(asked.prompt_token_ids)
    start = 0
    for _ in range(count):
        output = execute(runner, PlanRow(asked, "decode" if start else "prefill", start, len(known), known, blocks, True))
        start = len(known)
        known += output.token_ids[0]
    return known[len(asked.prompt_token_ids) :]


def test_it_is_a_runner_and_states_its_facts(runner: TorchRunner) -> None:
    assert isinstance(runner, Runner)
    assert (runner.facts.architecture, runner.facts.num_layers, runner.facts.dtype) == ("Llama", 3, "float32")
    assert runner.facts.num_parameters == sum(parameter.numel() for parameter in tiny.reference("llama").parameters())


def test_block_bytes_are_those_of_the_tensors(runner: TorchRunner) -> None:
    assert kv_bytes_per_block(runner.loaded, 4) * 13 == sum(layer.nbytes for layer in runner.kv)
    assert kv_bytes_per_block(runner.facts, 4) == kv_bytes_per_block(runner.loaded, 4)


def test_greedy_tokens_are_those_of_transformers(runner: TorchRunner) -> None:
    theirs = tiny.reference("llama").generate(torch.tensor([PROMPT]), max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert generate(runner, request(), 12) == theirs[0, len(PROMPT) :].tolist()


def test_row_that_does_not_sample_returns_no_token(runner: TorchRunner) -> None:
    output = execute(runner, PlanRow(request(), "prefill", 0, 4, PROMPT, BLOCKS, False))
    assert output.token_ids == [[]]
    assert min(output.prepare_ms, output.forward_ms, output.sample_ms) >= 0


def test_logits_are_kept_only_when_asked(runner: TorchRunner) -> None:
    row = PlanRow(request(), "prefill", 0, len(PROMPT), PROMPT, BLOCKS, True)
    execute(runner, row)
    assert runner.last_logits is None
    runner.keep_logits = True
    execute(runner, row)
    assert runner.last_logits is not None
    assert tiny.relative_error(runner.last_logits, tiny.reference_logits("llama", PROMPT)[-1:]) <= 1e-4


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_p": 0.9}, {"repetition_penalty": 1.3}])
@pytest.mark.parametrize("right", [0, 1, 2, 3])
def test_drafts_never_change_the_tokens(right: int, sampling: dict[str, Any], runner: TorchRunner) -> None:
    """``right`` of three drafts are right; as many are accepted, and one more token is emitted."""
    asked = request(**sampling)
    expected = generate(runner, asked, 5)
    known = [*PROMPT, expected[0]]
    drafts = tuple(token if index < right else (token + 1) % 101 for index, token in enumerate(expected[1:4]))
    row = PlanRow(asked, "verify", len(PROMPT), len(known) + 3, known, BLOCKS, True, drafts)
    assert execute(runner, row).token_ids == [expected[1 : right + 2]]


def test_padding_drafts_are_never_accepted(runner: TorchRunner) -> None:
    expected = generate(runner, request(repetition_penalty=1.2), 3)
    known = [*PROMPT, expected[0]]
    row = PlanRow(request(repetition_penalty=1.2), "verify", len(PROMPT), len(known) + 2, known, BLOCKS, True, (-1, -1))
    assert execute(runner, row).token_ids == [[expected[1]]]


def test_prefill_decode_and_verify_share_one_pass(runner: TorchRunner) -> None:
    alone = generate(runner, request("a"), 3, [1, 2, 3])
    known = [*PROMPT, alone[0]]
    output = execute(
        runner,
        PlanRow(request("a"), "decode", len(PROMPT), len(PROMPT) + 1, known, [1, 2, 3], True),
        PlanRow(request("b"), "prefill", 0, 3, PROMPT, [7, 8], False),
        PlanRow(request("c"), "prefill", 0, len(PROMPT), PROMPT, [4, 5, 6], True),
        PlanRow(request("a"), "verify", len(PROMPT), len(known) + 1, known, [1, 2, 3], True, (alone[1],)),
    )
    assert output.token_ids == [[alone[1]], [], [alone[0]], alone[1:3]]


@pytest.mark.parametrize("chunks", [(7,), (3, 4), (1, 1, 5), (6, 1)])
def test_chunks_add_up_to_the_log_probabilities_of_the_prompt(chunks: tuple[int, ...], runner: TorchRunner) -> None:
    asked, found, start = request(prompt_logprobs=2), [], 0
    for size in chunks:
        output = execute(runner, PlanRow(asked, "prefill", start, start + size, PROMPT, BLOCKS, start + size == len(PROMPT)))
        assert output.prompt_logprobs is not None
        found += output.prompt_logprobs[0]
        start += size
    expected = tiny.reference_logits("llama", PROMPT).log_softmax(-1)
    assert [entry.token_id for entry in found] == PROMPT[1:]
    wanted = [expected[at, token].item() for at, token in enumerate(PROMPT[1:])]
    assert [entry.logprob for entry in found] == pytest.approx(wanted, abs=1e-4)
    assert all(len(entry.top_ids) == 2 for entry in found)


def test_log_probabilities_of_outputs_follow_the_rows(runner: TorchRunner) -> None:
    tables = {1: [1, 2], 3: [3, 4]}
    rows = [PlanRow(request(str(n), logprobs=n), "prefill", 0, len(PROMPT), PROMPT, blocks, True) for n, blocks in tables.items()]
    output = execute(runner, *rows)
    assert output.logprobs is not None
    assert [[len(entry.top_ids) for entry in row] for row in output.logprobs] == [[1], [3]]
    assert [row[0].token_id for row in output.logprobs] == [tokens[0] for tokens in output.token_ids]


def test_engines_of_different_block_sizes_share_one_model(loaded: LoadedModel) -> None:
    small, large = TorchRunner(loaded, num_blocks=30, block_size=1), TorchRunner(loaded, num_blocks=3, block_size=16)
    assert generate(small, request(), 6, list(range(1, 20))) == generate(large, request(), 6, [2, 1])


def test_thread_count_holds_for_the_step_only(loaded: LoadedModel) -> None:
    before = torch.get_num_threads()
    generate(TorchRunner(loaded, num_blocks=8, block_size=4, num_threads=1), request(), 1)
    assert torch.get_num_threads() == before


def test_pool_larger_than_memory_is_a_clear_error(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigError, match=r"KV blocks of 1024 tokens need .* GB.*lower num_blocks"):
        TorchRunner(loaded, num_blocks=10**12, block_size=1024)


def test_closed_runner_says_so_and_may_be_closed_twice(runner: TorchRunner) -> None:
    runner.close()
    runner.close()
    with pytest.raises(EngineClosedError, match="closed"):
        execute(runner, PlanRow(request(), "prefill", 0, len(PROMPT), PROMPT, BLOCKS, True))
