"""The draft head's training on a tiny random target: generation, the chain's attention, restart, export."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).parent.parent))

from training.data import Batches, Texts, without_loops
from training.eagle import Project, parse
from training.evaluate import rounds
from training.export import export_head, exported
from training.generate import Chat, Limits, Sequence, Task, Writer, write_all
from training.head import MATRICES, Chain, Drafter, Head, attend_chain, shifted
from training.loops import closed
from training.loops import kept as kept_tokens
from training.screen import Moment, kept, projections
from training.settings import Settings
from training.target import Shape, from_weights, load_target, rotary, rotate
from training.train import DraftLoss, Trainer, draft_chunk, target_labels
from workbench.models.fingerprint import weights_fingerprint
from workbench.models.quantised import Int8

CPU = torch.device("cpu")
SHAPE = Shape(
    num_layers=3, hidden_size=32, num_heads=4, num_kv_heads=2, head_dim=8, ffn_size=48, vocab_size=200, rms_norm_eps=1e-5, rope_theta=1e4
)
WORDS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(chr(33 + index) for index in range(94)),
    *(chr(192 + index) for index in range(103)),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_weights(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def matrix(*size):
        return torch.randn(*size, generator=generator) * 0.3

    weights = {"model.embed_tokens.weight": matrix(SHAPE.vocab_size, SHAPE.hidden_size), "model.norm.weight": 1 + 0.1 * matrix(32)}
    kv, hidden, ffn = SHAPE.num_kv_heads * SHAPE.head_dim, SHAPE.hidden_size, SHAPE.ffn_size
    for layer in range(SHAPE.num_layers):
        at = f"model.layers.{layer}"
        weights |= {f"{at}.input_layernorm.weight": 1 + matrix(hidden), f"{at}.post_attention_layernorm.weight": 1 + matrix(hidden)}
        sizes = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (kv, 32), "self_attn.v_proj": (kv, 32), "self_attn.o_proj": (32, 32)}
        sizes |= {"mlp.gate_proj": (ffn, 32), "mlp.up_proj": (ffn, 32), "mlp.down_proj": (32, ffn)}
        weights |= {f"{at}.{name}.weight": matrix(*size) for name, size in sizes.items()}
    return weights


@pytest.fixture(scope="module")
def target():
    return from_weights(SHAPE, random_weights(), CPU, torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tiny target in Hugging Face layout."""
    folder = tmp_path_factory.mktemp("target")
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": 3, "hidden_size": 32, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48, "vocab_size": 200, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
        "tie_word_embeddings": True, "max_position_embeddings": 512, "hidden_act": "silu", "dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    save_file(random_weights(), folder / "model.safetensors", {"format": "pt"})
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="!"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(WORDS[:3])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def random_texts(count=12, seed=0):
    generator = np.random.default_rng(seed)
    return Texts.of(
        [
            Sequence(0, 0.0, generator.integers(3, 200, size=length).astype(np.uint16), int(generator.integers(2, length - 4)))
            for length in generator.integers(10, 30, size=count)
        ]
    )


def test_forward_is_that_of_transformers(folder):
    from transformers import LlamaForCausalLM

    target, reference = load_target(folder, CPU, torch.float32), LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens = torch.randint(0, 200, (2, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(tokens, output_hidden_states=True)
        taps, normed = target.forward(tokens, (0, 1))
    torch.testing.assert_close(normed @ target.head.T, expected.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(taps[:, :, 1], expected.hidden_states[2], atol=1e-4, rtol=1e-4)


def test_greedy_generation_is_that_of_a_naive_loop(target):
    chat, limits = Chat([1, 50, 51], [2, 60, 61], 2, [0, 1]), Limits(user_end=12, answer=14, min_p=0.02, user_temperature=1.0)
    writer, written = Writer(target, chat, limits, slots=3, seed=5), []
    tasks = [Task(kind, [70 + kind, 80], 2, 0.0, raw=kind == 4) for kind in range(9)]

    def next_tasks(count):
        taken, tasks[:count] = tasks[:count], []
        return taken

    write_all(writer, next_tasks, written.extend, seconds=60, steps_between=4)
    assert sorted(sequence.kind for sequence in written) == list(range(9))
    for kind, _, tokens, answer_start in written:
        row = tokens[:answer_start].tolist()
        assert row == [74, 80] if kind == 4 else row[:5] == [1, 50, 51, 70 + kind, 80] and row[-3:] == [2, 60, 61] and len(row) <= 15
        while len(row) < answer_start + 14 and (len(row) == answer_start or row[-1] != 2):
            row.append(int((target.forward(torch.tensor([row]), (0,))[1][0, -1] @ target.head.T).argmax()))
        end = int(kept_tokens(torch.tensor([row[answer_start:]])))  # an answer may be ended from there on
        assert len(tokens) == len(row) or len(tokens) >= answer_start + end
        assert tokens.tolist() == row[: len(tokens)]


def test_an_answer_that_goes_round_is_ended_and_its_slot_writes_the_next(target):
    chat, limits = Chat([1, 50, 51], [2, 60, 61], 2, [0, 1]), Limits(user_end=12, answer=120, min_p=0.02, user_temperature=1.0)
    writer, written = Writer(target, chat, limits, slots=2, seed=5), []
    tasks = [Task(kind, [70 + kind, 80], 2, 0.0, raw=False) for kind in range(5)]

    def next_tasks(count):
        taken, tasks[:count] = tasks[:count], []
        return taken

    write_all(writer, next_tasks, written.extend, seconds=60, steps_between=4)
    assert len(written) == 5
    assert min(len(tokens) - start for _, _, tokens, start in written) < 60  # the little model does go round
    for _, _, tokens, start in written:
        end = start + int(kept_tokens(torch.from_numpy(tokens[start:].astype(np.int64))[None]))
        assert len(tokens) < end + 5 or tokens[-1] == 2


def test_attention_of_a_pass_is_that_of_a_growing_key_list():
    torch.manual_seed(0)
    length, passes = 7, 4
    inputs = [(torch.randn(2, length, 4, 8), torch.randn(2, length, 2, 8), torch.randn(2, length, 2, 8)) for _ in range(passes)]
    chain = Chain()
    outputs = [attend_chain(*one, chain) for one in inputs]
    for row, origin, index in np.ndindex(2, length, passes):
        keys = [*inputs[0][1][row, : origin + 1], *(inputs[j][1][row, origin] for j in range(1, index + 1))]
        values = [*inputs[0][2][row, : origin + 1], *(inputs[j][2][row, origin] for j in range(1, index + 1))]
        for head in range(4):
            query = inputs[index][0][row, origin, head]
            weights = torch.stack([query @ key[head // 2] / 8**0.5 for key in keys]).softmax(0)
            expected = sum(weight * value[head // 2] for weight, value in zip(weights, values, strict=True))
            torch.testing.assert_close(outputs[index][row, origin, head], expected, atol=1e-5, rtol=1e-5)


def test_chain_of_passes_is_the_drafting_of_inference(target):
    """Step by step with a KV list: real entries up to the origin, then the head's own output fed back at the next positions."""
    head, taps, passes = Head(SHAPE, 2, SHAPE.ffn_size, target.norm, seed=3), (0, 2), 3
    tokens = torch.randint(3, 200, (1, 9), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        tapped, _ = target.forward(tokens, taps)
        drafter = Drafter(head, target, torch.float32)
        feature, outputs = drafter.features(tapped), []
        real = feature[0]
        for index in range(passes):
            feature = drafter.advance(shifted(tokens, 1 + index), feature)
            outputs.append(feature[0])

        def norm(x, weight):
            return x / (x.pow(2).mean() + 1e-5).sqrt() * weight

        def one(token, g, position, keys, values):
            x = torch.cat([norm(target.embedding[token], head.embed_norm), norm(g, head.feature_norm)])
            query, key, value = (head.qkv @ x).view(-1, 8).split([4, 2, 2])
            turn = rotary(torch.tensor(position), 8, SHAPE.rope_theta)
            query = rotate(query, turn)
            keys.append(rotate(key, turn))
            values.append(value)
            scores = torch.stack([(query.view(2, 2, 8) * key[:, None]).sum(-1) for key in keys]) / 8**0.5
            mixed = (scores.softmax(0)[..., None] * torch.stack(values)[:, :, None]).sum(0)
            h = g + head.output @ mixed.flatten()
            gate, up = (head.gate_up @ norm(h, head.ffn_norm)).chunk(2)
            return h + head.down @ (torch.nn.functional.silu(gate) * up)

        for origin in range(9 - passes):
            keys, values = [], []
            for position in range(origin + 1):
                h = one(tokens[0, position + 1], real[position], position, keys, values)
            for index in range(passes):
                if index:
                    h = one(tokens[0, origin + 1 + index], h, origin + index, keys, values)
                torch.testing.assert_close(outputs[index][origin], h, atol=1e-4, rtol=1e-4)


def test_loss_and_its_gradient_are_those_of_cross_entropy():
    torch.manual_seed(1)
    normed, rows = torch.randn(8, 16, requires_grad=True), torch.randn(30, 16)
    labels, best = target_labels(torch.randn(8, 16), rows, 4, 0, 0.2)
    weights = torch.rand(8)
    torch.testing.assert_close(labels.sum(-1), torch.ones(8))
    loss, _ = DraftLoss.apply(normed, rows, labels, best, weights, 4, draft_chunk)
    (grad,) = torch.autograd.grad(2 * loss, normed)
    expected = (-(labels * (normed @ rows.T).log_softmax(-1)).sum(-1) * weights).sum()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grad, torch.autograd.grad(2 * expected, normed)[0])


def test_origins_are_those_whose_next_token_is_an_answers_and_labels_follow():
    texts = random_texts()
    for batch in Batches(texts, CPU, budget=100, chunk=8).in_order():
        width, at = batch.tokens.shape[1], 0
        for row, index in enumerate(batch.indices):
            sequence, start = texts.sequence(index), texts.answer_starts[index]
            assert batch.tokens[row, : len(sequence)].tolist() == sequence.tolist()
            for origin in range(start - 1, len(sequence) - 1):
                assert batch.origins[at] == row * width + origin
                assert batch.remaining[at] == len(sequence) - 2 - origin
                at += 1
        assert not batch.remaining[at:].any()


def test_texts_survive_the_disk(tmp_path):
    texts = random_texts()
    for name, part in (("a", range(5)), ("b", range(5, 12))):
        texts.chosen(np.array(part)).save(tmp_path / name)
    for name, value in vars(Texts.load(tmp_path / "a", tmp_path / "b")).items():
        np.testing.assert_array_equal(value, getattr(texts, name))


def test_rounds_go_on_after_what_was_accepted():
    assert rounds(np.array([2, 9, 9, 0, 1, 0]), np.array([5, 4, 3, 2, 1, 0]), 4) == (5, 3)
    assert rounds(np.array([2, 9, 9, 0, 1, 0]), np.array([5, 4, 3, 2, 1, 0]), 1) == (5, 3)


def project(folder, work, **changes):
    options = (
        "--minutes-generate 0.02 --slots 8 --user-end 160 --answer 12 --held-out-per-kind 1 --taps 0,1,2 --draft-vocab 64 --ffn-size 48 "
        "--shipped-vocab 80 --screen-rank 16 --batch-tokens 256 --chunk 32 --draft-len 3 --passes 3"
    )
    _, settings = parse(["--work", str(work), *options.split()])
    return Project(dataclasses.replace(settings, **changes), work, folder, CPU)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_restarts_where_it_stopped_and_its_export_reads_back(folder, tmp_path, optimizer):
    first = project(folder, tmp_path)
    first.generate()
    whole, halves = [tmp_path / name for name in ("whole.pt", "checkpoint.pt")]
    first.checkpoint = whole
    fixed = {"minutes_train": 1e9, "optimizer": optimizer}
    first.settings = dataclasses.replace(first.settings, **fixed)
    first.train(most_steps=4)
    for _ in range(2):
        project(folder, tmp_path, **fixed).train(most_steps=2)
    expected, restarted = (torch.load(path, weights_only=True) for path in (whole, halves))
    assert expected["state"]["step"] == restarted["state"]["step"] == 4
    assert expected["state"]["next_batch"] == restarted["state"]["next_batch"]
    for name, tensor in expected["head"].items():
        torch.testing.assert_close(restarted["head"][name], tensor)

    last = project(folder, tmp_path)
    last.evaluate()
    last.export()
    with safe_open(last.head_file, "pt") as file:
        metadata, shapes = file.metadata(), {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        ids = file.get_tensor("draft_ids")
        matrices = {name: Int8(file.get_tensor(name), file.get_tensor(f"{name}.scale")) for name in MATRICES}
    rounded, _ = last.trained()
    for name, matrix in matrices.items():
        torch.testing.assert_close(matrix.values(), rounded.get_parameter(name).detach())
        assert (matrix.values() - expected["head"][name]).abs().max() <= expected["head"][name].abs().max() / 200
    assert shapes == {
        "tap_norm": (3, 32), "fc": (32, 96), "embed_norm": (32,), "feature_norm": (32,), "qkv": (64, 64), "output": (32, 32),
        "ffn_norm": (32,), "gate_up": (96, 32), "down": (32, 48), "norm": (32,), "draft_ids": (80,),
        "screen.hidden": (16, 32), "screen.rows": (16, 32),
        "fc.scale": (32,), "qkv.scale": (64,), "output.scale": (32,), "gate_up.scale": (96,), "down.scale": (32,),
    }  # fmt: skip
    assert ids.dtype == torch.int32
    assert (ids.diff() > 0).all()
    assert {0, 1, 2} <= set(ids.tolist())
    assert (metadata["format"], metadata["taps"], metadata["steps"], metadata["num_heads"]) == ("workbench-eagle", "0,1,2", "4", "4")
    assert metadata["target_fingerprint"] == weights_fingerprint(last.target.norm, last.target.embedding)
    assert "Apache-2.0" in last.card_file.read_text()
    assert (tmp_path / "eval.json").exists()


def test_an_interrupt_ends_training_after_the_step_under_way_with_a_checkpoint(folder, tmp_path):
    work = project(folder, tmp_path, minutes_train=1e9)
    work.generate()
    trainer, advance = work.trainer(), Trainer.advance

    def interrupted(self, batch):
        result = advance(self, batch)
        if self.step == 3:
            signal.raise_signal(signal.SIGINT)
        return result

    trainer.advance = interrupted.__get__(trainer)
    trainer.run(work.checkpoint, work._batches(work.held_out), work.trained_ids())
    assert torch.load(work.checkpoint, weights_only=True)["state"]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_default_head_fits_the_package():
    shape = Shape(30, 576, 9, 3, 64, 1536, 49152, 1e-5, 1e5)
    head = Head(shape, len(Settings().taps), Settings().ffn_size, torch.ones(576), seed=0)
    assert head.num_parameters + 4 * Settings().shipped_vocab + 4 * 576 * Settings().screen_rank <= 11_900_000  # bytes


def test_fingerprint_is_that_of_the_values_and_tells_targets_apart():
    norm, embedding = torch.randn(8), torch.randn(300, 8).bfloat16()
    name = weights_fingerprint(norm.bfloat16(), embedding)
    assert len(name) == 16
    assert name == weights_fingerprint(norm.bfloat16().float(), embedding.float().T.contiguous().T)
    assert name != weights_fingerprint(norm.bfloat16(), embedding + 1)
    assert name != weights_fingerprint(norm.bfloat16() + 1, embedding)
    assert name != weights_fingerprint(norm.bfloat16(), torch.cat([embedding, embedding[:1]]))


def test_an_answer_is_cut_where_it_begins_to_go_round():
    def naive(said):
        for end in range(1, len(said) + 1):
            for period in range(1, 97):
                again = max(period, 12)
                if end >= period + again and said[end - again : end] == said[end - again - period : end - period]:
                    return end
        return len(said)

    generator = np.random.default_rng(5)
    answers = []
    for _ in range(60):
        stretch, period = generator.integers(0, 3, int(generator.integers(0, 40))), int(generator.integers(1, 60))
        answers.append([*stretch.tolist(), *(generator.integers(0, 9, period).tolist() * 9)][:160])
    sequences = [Sequence(0, 0.0, np.array([5, 5, *said], np.uint16), 2) for said in answers]
    cut = without_loops(Texts.of(sequences), torch.device("cpu"))
    assert [int(length) - 2 for length in cut.lengths] == [naive(said) for said in answers]
    for said in answers:
        row, ends = torch.tensor([[5, 5, *said]]), torch.arange(2, 3 + len(said))
        first = closed(row.expand(len(ends), -1), torch.full_like(ends, 2), ends).int().argmax().item()
        assert (first or len(said)) == naive(said)
    assert all(sequence.tokens[: len(cut.sequence(i))].tolist() == cut.sequence(i).tolist() for i, sequence in enumerate(sequences))


def test_a_larger_head_that_begins_with_a_smaller_one_says_the_same(target, tmp_path):
    small, file = Head(SHAPE, 2, 24, target.norm, seed=3), tmp_path / "small.safetensors"
    small.round_()
    screen = torch.zeros(2, 4, 32)
    export_head(file, small, target, torch.arange(64), (screen[0], screen[1]), Settings(taps=(0, 2)), {"steps": 7})
    weights, taps, facts = exported(file)
    assert (taps, facts["steps"]) == ((0, 2), "7")
    large = Head(SHAPE, 3, 48, target.norm, seed=4)
    large.go_on_from_(weights, taps, (0, 1, 2))
    tokens = torch.randint(3, 200, (2, 9), generator=torch.Generator().manual_seed(2))

    def said(head, own_taps):
        drafter = Drafter(head, target, torch.float32)
        return drafter.normed(drafter.advance(shifted(tokens, 1), drafter.features(target.forward(tokens, own_taps)[0])))

    with torch.no_grad():
        torch.testing.assert_close(said(large, (0, 1, 2)), said(small, taps), atol=2e-2, rtol=2e-2)
        with pytest.raises(SystemExit, match="does not fit"):
            large.go_on_from_(weights, taps, (0, 1, 3))


def test_projections_have_the_least_error_that_their_rank_allows_and_keep_the_best():
    generator = torch.Generator().manual_seed(6)
    states = torch.randn(400, 24, generator=generator) * torch.logspace(0, -2, 24)
    rows = torch.randn(90, 24, generator=generator) @ torch.diag(torch.logspace(-1, 0, 24))
    scores, moment = (states @ rows.T).double(), Moment()
    for part in states.split(37):
        moment.add(part)
    values = torch.linalg.svdvals(scores)
    for rank in (2, 8, 24):
        of_states, of_rows = projections(moment.mean, rows, rank)
        error = (scores - ((states @ of_states.T) @ (rows @ of_rows.T).T).double()).norm()
        assert error <= 1.01 * values[rank:].norm() + 1e-3 * values[0]
        assert error >= 0.99 * values[rank:].norm() - 1e-3 * values[0]
    assert kept(states, rows, *projections(moment.mean, rows, 24), candidates=1) == 1.0
    assert kept(states, rows, *projections(moment.mean, rows, 2), candidates=1) < 1.0
