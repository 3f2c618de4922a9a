"""From a folder in Hugging Face layout to a ``Llama`` ready to run, and the facts about it."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import ConfigError, ModelIntegrityError
from workbench.events import ModelFacts
from workbench.models.config import ModelConfig, read_config
from workbench.models.linear import MakeLinear
from workbench.models.llama import Layer, Linear, Llama
from workbench.models.paths import Path as ExecutionPath
from workbench.models.paths import choose_path

if TYPE_CHECKING:
    from workbench.tokenizer import Tokenizer

DTYPES = {"auto": torch.bfloat16, "bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class LoadedModel:
    """A model in memory: ``architecture`` runs it, ``facts`` describe it.  Engines that use the same one share its weights."""

    def __init__(self, folder: Path, config: ModelConfig, path: ExecutionPath, architecture: Llama, facts: ModelFacts) -> None:
        self.folder, self.config, self.path = folder, config, path
        self.architecture, self.facts, self.name = architecture, facts, facts.name

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, read when it is first asked for."""
        from workbench.tokenizer import load_tokenizer

        return load_tokenizer(self.folder)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an output."""
        return self.tokenizer.eos_token_ids

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.architecture.embedding.device

    def __repr__(self) -> str:
        return f"LoadedModel({self.name!r}, {self.facts.dtype} on {self.facts.device}, {self.facts.num_parameters:,} parameters)"


def load_folder(
    folder: Path, *, name: str | None = None, dtype: str = "auto", device: str = "auto", trust_remote_code: bool = False
) -> LoadedModel:
    """Load the model in ``folder`` (``config.json`` and safetensors).

    Raises :class:`UnsupportedModelError` for an architecture that we do not run, :class:`ModelIntegrityError` for missing or
    misshapen weights, :class:`ConfigError` for a device that is not there or a model that does not fit memory.
    """
    config = read_config(folder, trust_remote_code=trust_remote_code)
    path = choose_path(_device(device), DTYPES[dtype], config)
    try:
        with torch.inference_mode():
            source = _Weights(folder, path, _device(device))
            architecture = _build(config, source, path)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ConfigError(f"{folder.name} does not fit the memory of {device}: choose a smaller model or another device") from None
    facts = _facts(config, path, source, name or folder.name, _device(device))
    return LoadedModel(folder, config, path, architecture, facts)


def layers_with(loaded: LoadedModel, make_linear: MakeLinear) -> list[Layer]:
    """The model's layers with projections of another kind, made from the checkpoint's weights; norms are shared.

    Raises :class:`ModelIntegrityError` when the checkpoint is gone, :class:`ConfigError` when memory does not hold them.
    """
    path = loaded.path._replace(make_linear=make_linear)
    try:
        with torch.inference_mode():
            source = _Weights(loaded.folder, path, loaded.device)
            made = [_layer(loaded.config, source, path, index) for index in range(loaded.config.num_layers)]
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ConfigError(f"a second copy of {loaded.name} does not fit memory: choose a smaller model or other drafts") from None
    owned = zip(loaded.architecture.layers, made, strict=True)
    return [own._replace(qkv=new.qkv, output=new.output, gate_up=new.gate_up, down=new.down) for own, new in owned]


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error)


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is 'cuda', but torch finds no CUDA device: use device='cpu' or install a CUDA build of torch")
    return torch.device(device)


class _Weights:
    """The checkpoint's tensors by name, read from memory-mapped safetensors as they are asked for."""

    def __init__(self, folder: Path, path: ExecutionPath, device: torch.device) -> None:
        self._folder, self._dtype, self._device = folder, path.dtype, device
        self._open = {name: _open(file) for file in _shards(folder) for name in [file.name]}
        self._where = {key: file for file in self._open.values() for key in file.keys()}  # noqa: SIM118 (not a dict)
        self.num_parameters = 0

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __call__(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor in the model's dtype, on its device."""
        if name not in self._where:
            raise ModelIntegrityError(f"{self._folder.name} holds no weight {name!r} of shape {shape}: download the model again")
        tensor: Tensor = self._where[name].get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise ModelIntegrityError(f"{name} of {self._folder.name} has shape {tuple(tensor.shape)}, config.json asks for {shape}")
        self.num_parameters += tensor.numel()
        return tensor.to(self._device, self._dtype)


def _shards(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [folder / Path(name).name for name in names]
    return [folder / "model.safetensors"]


def _open(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="pt")
    except FileNotFoundError:
        raise ModelIntegrityError(f"{file.parent} has no {file.name}: only weights in safetensors files are read") from None
    except (SafetensorError, OSError) as error:
        raise ModelIntegrityError(f"{file} is no readable safetensors file ({error}): download the model again") from None


def _build(config: ModelConfig, weight: _Weights, path: ExecutionPath) -> Llama:
    embedding = weight("model.embed_tokens.weight", (config.vocab_size, config.hidden_size))
    layers = [_layer(config, weight, path, index) for index in range(config.num_layers)]
    tied = config.tied_embeddings or "lm_head.weight" not in weight
    head = embedding if tied else weight("lm_head.weight", (config.vocab_size, config.hidden_size))
    norm = weight("model.norm.weight", (config.hidden_size,)).to(path.compute_dtype)
    return Llama(config, path.kernels, embedding, layers, norm, path.make_linear([head], None))


def _layer(config: ModelConfig, weight: _Weights, path: ExecutionPath, index: int) -> Layer:
    at, hidden, dim = f"model.layers.{index}.", config.hidden_size, config.head_dim
    queries, keys = config.num_heads * dim, config.num_kv_heads * dim

    def vector(name: str, size: int) -> Tensor:
        return weight(at + name, (size,)).to(path.compute_dtype)

    def fused(parts: tuple[tuple[str, int], ...], inputs: int, has_bias: bool) -> Linear:
        matrices = [weight(f"{at}{name}.weight", (size, inputs)) for name, size in parts]
        bias = torch.cat([vector(f"{name}.bias", size) for name, size in parts]) if has_bias else None
        return path.make_linear(matrices, bias)

    attention, mlp = "self_attn.", "mlp."
    qkv = ((attention + "q_proj", queries), (attention + "k_proj", keys), (attention + "v_proj", keys))
    gate_up = ((mlp + "gate_proj", config.ffn_size), (mlp + "up_proj", config.ffn_size))
    return Layer(
        input_norm=vector("input_layernorm.weight", hidden),
        qkv=fused(qkv, hidden, config.qkv_bias),
        qk_norms=(vector(attention + "q_norm.weight", dim), vector(attention + "k_norm.weight", dim)) if config.qk_norm else None,
        rotate=config.rope_layers[index],
        output=fused(((attention + "o_proj", hidden),), queries, config.output_bias),
        ffn_norm=vector("post_attention_layernorm.weight", hidden),
        gate_up=fused(gate_up, hidden, config.mlp_bias),
        down=fused(((mlp + "down_proj", hidden),), config.ffn_size, config.mlp_bias),
    )


def _facts(config: ModelConfig, path: ExecutionPath, source: _Weights, name: str, device: torch.device) -> ModelFacts:
    size = path.dtype.itemsize
    return ModelFacts(
        name=name,
        architecture=config.architecture,
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        vocab_size=config.vocab_size,
        num_parameters=source.num_parameters,
        max_model_len=config.max_positions,
        dtype=str(path.dtype).removeprefix("torch."),
        device=device.type,
        weight_bytes=source.num_parameters * size,
        kv_bytes_per_token=config.kv_values_per_token * size,
        path=path.description,
    )
