"""An EAGLE head: one decoder layer that drafts from the target's own features.

    features of layers ─► norm each ─► fc ─► g ──┐
                                                 ├─ norm, norm, concat ─► qkv ─► attend ─► out ─► g + ─► ffn ─► h ─► norm ─► head
    embedding of the token that follows ─────────┘

The entry at position t reads the target's features at t and the token at t + 1, and scores the token at t + 2.  A chain goes on with
``h`` in the place of ``g``.  Embedding and LM head are the target's; the head scores only the ids that the target often says.
On compiled kernels the head's matrices are read as int8, and the LM head is screened: a draft's time is that of reading weights.  A file
may hold two projections for that, ``screen.hidden`` and ``screen.rows``, ``[rank, hidden]`` each: their outputs for a hidden state and for
a row of the LM head have nearly the product that these have.
Sources: EAGLE (arXiv 2401.15077), EAGLE-3 (arXiv 2503.01840) for the features of several layers; trained by ``training/eagle.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import ConfigError, ModelIntegrityError
from workbench.models.batch import FlatBatch
from workbench.models.config import ModelConfig
from workbench.models.fingerprint import weights_fingerprint
from workbench.models.kernels import Kernels
from workbench.models.llama import Linear
from workbench.models.loading import LoadedModel
from workbench.models.native import NativeKernels, NativeLinear
from workbench.models.native_draft import NativeDraft, NativeVocabulary
from workbench.models.quantised import Int8, rounded
from workbench.sampler import Chosen, Draw, chances_of, drawn

HEADS = Path(__file__).with_name("heads")
FORMAT = "workbench-eagle"
REMEDY = "take another file, or speculate with ngram or suffix, which need none"
VERSIONS = ("1", "2")  # matrices in bf16; or in int8, each with a scale for every output


class Vocabulary(Protocol):
    """Tells the token that follows."""

    def choose(self, hidden: Tensor, draws: Sequence[Draw] = ()) -> Chosen:
        """A token id for each row of the normalised ``hidden``, ``[rows, size]``: the likeliest, or with ``draws`` what each falls on."""
        ...


class ScoredVocabulary(NamedTuple):
    """Every id is scored; ``ids[i]`` is the token id of score ``i``."""

    head: Linear
    ids: Tensor

    def choose(self, hidden: Tensor, draws: Sequence[Draw] = ()) -> Chosen:
        """See :class:`Vocabulary`."""
        scores = self.head(hidden).float()
        places = torch.tensor(drawn(scores, draws), device=scores.device) if draws else scores.argmax(dim=-1)
        return Chosen(self.ids[places].tolist(), chances_of(scores, places))


class EagleHead(NamedTuple):
    """The weights, ready to run on the target's path; ``tap_norms`` is ``[taps, hidden]``."""

    kernels: Kernels[Any]
    taps: tuple[int, ...]
    tap_norms: Tensor
    fc: Linear
    embedding: Tensor
    embed_norm: Tensor
    feature_norm: Tensor
    qkv: Linear
    output: Linear
    ffn_norm: Tensor
    gate_up: Linear
    down: Linear
    norm: Tensor
    vocabulary: Vocabulary
    config: ModelConfig

    def features(self, taps: Sequence[Tensor]) -> Tensor:
        """``g``, ``[tokens, hidden]``, from the residual stream that left each tapped layer."""
        eps = self.config.rms_norm_eps
        normed = [self.kernels.add_rms_norm(tap, None, norm, eps) for tap, norm in zip(taps, self.tap_norms, strict=True)]
        return self.fc(torch.cat(normed, dim=1))

    def run(self, batch: FlatBatch, g: Tensor, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Put ``batch``'s entries into ``kv``; of those that ``logits_rows`` names, ``h`` and what ``vocabulary`` is asked about.

        ``batch.input_ids`` are the tokens that follow the positions.  Only those entries go through more than attention:
        nobody reads the others' outputs.
        """
        kernels, eps, step = self.kernels, self.config.rms_norm_eps, self.kernels.prepare(batch, self.config)
        embedded = self.embedding.index_select(0, step.input_ids).to(g.dtype)
        embedded = kernels.add_rms_norm(embedded, None, self.embed_norm, eps)
        both = torch.cat([embedded, kernels.add_rms_norm(g, None, self.feature_norm, eps)], dim=1)
        attended = kernels.attend(self.qkv(both), None, True, kv, step)
        if not len(batch.logits_rows):
            return g[:0], g[:0]
        hidden = g.index_select(0, step.logits_rows)
        normed = kernels.add_rms_norm(hidden, self.output(attended.index_select(0, step.logits_rows)), self.ffn_norm, eps)
        normed = kernels.add_rms_norm(hidden, self.down(kernels.silu_mul(self.gate_up(normed))), self.norm, eps)
        return hidden, normed


def compiled_drafting(head: EagleHead) -> NativeDraft | None:
    """Reading and drafting in one call, where the whole head runs on compiled kernels."""
    kernels, config, vocabulary = head.kernels, head.config, head.vocabulary
    linears = {name: getattr(head, name) for name in ("fc", "qkv", "output", "gate_up", "down")}
    if not isinstance(kernels, NativeKernels) or not isinstance(vocabulary, NativeVocabulary):
        return None
    if not all(isinstance(linear, NativeLinear) for linear in linears.values()):
        return None
    if config.num_heads * config.head_dim % kernels.library.wb_panel():
        return None  # queries end within a panel
    norms = {name: getattr(head, name) for name in ("tap_norms", "embed_norm", "feature_norm", "ffn_norm", "norm")}
    return NativeDraft(kernels, config, linears, norms, vocabulary)


def own_head(name: str) -> Path:
    """The file of the head that comes with the package for a model.  Raises :class:`ConfigError` when there is none."""
    known = {file.name.removesuffix(".eagle.safetensors"): file for file in sorted(HEADS.glob("*.eagle.safetensors"))}
    for model, file in known.items():
        if name in (model, model.split("-")[0]):
            return file
    raise ConfigError(
        f"no EAGLE head for {name} comes with the package (there is one for {', '.join(known) or 'none'}): give a file, "
        "speculative='eagle:PATH', train one with training/eagle.py, or use ngram or suffix"
    )


def load_head(file: Path, target: LoadedModel) -> EagleHead:
    """Read a head for ``target``.

    Raises :class:`ModelIntegrityError` for a file that is no head or whose parts do not fit each other and the target, and
    :class:`ConfigError` for one that was trained for another model, or is not there.
    """
    if not file.is_file():
        raise ConfigError(f"there is no EAGLE head {str(file)!r}: give the path of a .safetensors file that training/eagle.py wrote")
    try:
        return _read(file, target)
    except ModelIntegrityError as error:
        raise ModelIntegrityError(f"{error}; {REMEDY}") from None
    except ConfigError:
        raise
    except (LookupError, ValueError) as error:
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"  # a part that is missing, or of another kind or size
        raise ModelIntegrityError(
            f"{file.name} is a damaged EAGLE head, its parts are not those of one for {target.name} ({what}); {REMEDY}"
        ) from None


def _read(file: Path, target: LoadedModel) -> EagleHead:
    try:
        with safe_open(file, framework="pt") as opened:
            facts = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise ModelIntegrityError(f"{file} is no readable safetensors file ({error})") from None
    _check(file, facts, target)
    taps, layers = tuple(int(tap) for tap in facts["taps"].split(",")), target.config.num_layers
    for tap in taps:
        if not 0 <= tap < layers:
            raise ModelIntegrityError(f"{file.name} reads layer {tap} of {target.name}, which has {layers} (0 to {layers - 1})")
    return _built(file, tensors, taps, target)


def _check(file: Path, facts: dict[str, str], target: LoadedModel) -> None:
    if facts.get("format") != FORMAT or facts.get("version") not in VERSIONS:
        formats = " or ".join(f"{FORMAT} {version}" for version in VERSIONS)
        raise ModelIntegrityError(f"{file.name} is no EAGLE head of format {formats}: train one with training/eagle.py")
    architecture = target.architecture
    found = weights_fingerprint(architecture.norm, architecture.embedding)
    if facts.get("target_fingerprint") != found:
        raise ConfigError(
            f"{file.name} was trained for {facts.get('target_name', 'another model')} (weights {facts.get('target_fingerprint')}), "
            f"but {target.name} has weights {found}: use a head that was trained for it"
        )


def _built(file: Path, tensors: dict[str, Tensor], taps: tuple[int, ...], target: LoadedModel) -> EagleHead:
    path, config, device = target.path, target.config, target.device
    hidden, heads, kv_heads, dim = config.hidden_size, config.num_heads, config.num_kv_heads, config.head_dim

    def weight(name: str, *shape: int) -> Tensor:
        found = tensors.get(name)
        if found is None or tuple(found.shape) != shape:
            held = "none" if found is None else str(tuple(found.shape))
            raise ModelIntegrityError(f"{file.name}: {name} should have the shape {shape}, not {held}")
        return found.to(device)

    def vector(name: str, *shape: int) -> Tensor:
        return weight(name, *shape).to(path.compute_dtype)

    make = rounded(8, path) if isinstance(path.kernels, NativeKernels) else path.make_linear

    def linear(name: str, *shape: int) -> Linear:
        matrix = weight(name, *shape)
        if matrix.dtype == torch.int8:
            matrix = Int8(matrix, weight(f"{name}.scale", shape[0])).values()
        return make([matrix.to(path.dtype)], None)

    screen = None
    if "screen.hidden" in tensors:
        rank = tensors["screen.hidden"].shape[0]
        screen = weight("screen.hidden", rank, hidden), weight("screen.rows", rank, hidden)
    ids, ffn = tensors["draft_ids"].long().to(device), tensors["down"].shape[1]
    return EagleHead(
        kernels=path.kernels,
        taps=taps,
        tap_norms=vector("tap_norm", len(taps), hidden),
        fc=linear("fc", hidden, len(taps) * hidden),
        embedding=target.architecture.embedding,
        embed_norm=vector("embed_norm", hidden),
        feature_norm=vector("feature_norm", hidden),
        qkv=linear("qkv", (heads + 2 * kv_heads) * dim, 2 * hidden),
        output=linear("output", hidden, heads * dim),
        ffn_norm=vector("ffn_norm", hidden),
        gate_up=linear("gate_up", 2 * ffn, hidden),
        down=linear("down", hidden, ffn),
        norm=vector("norm", hidden),
        vocabulary=_vocabulary(target, ids, screen),
        config=config,
    )


def _vocabulary(target: LoadedModel, ids: Tensor, screen: tuple[Tensor, Tensor] | None) -> Vocabulary:
    """By the rows of the target's LM head for these ids; only heads for models with tied embeddings are read."""
    if not target.config.tied_embeddings:
        raise ConfigError(f"{target.name} has an LM head of its own: EAGLE heads for models with tied embeddings only can be used")
    embedding, kernels = target.architecture.embedding, target.path.kernels
    rows = embedding.index_select(0, ids)
    if not isinstance(kernels, NativeKernels) or not NativeVocabulary.takes(embedding):
        return ScoredVocabulary(target.path.make_linear([rows], None), ids)
    if screen is None:
        return NativeVocabulary(kernels, None, kernels.make_int8_linear(*Int8.of(rows), None), embedding, ids)
    project, of_rows = screen
    projected = kernels.make_int8_linear(*Int8.of(rows.float() @ of_rows.float().T), None)
    return NativeVocabulary(kernels, kernels.make_linear([project.bfloat16()], None), projected, embedding, ids)
