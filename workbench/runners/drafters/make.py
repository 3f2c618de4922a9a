"""The drafter that ``EngineConfig.speculative`` describes, for a loaded target."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.errors import ConfigError
from workbench.models.eagle import load_head, own_head
from workbench.models.llama import Llama
from workbench.models.loading import LoadedModel
from workbench.models.quantised import quantised
from workbench.runners.drafters.base import TorchDrafter
from workbench.runners.drafters.eagle import EagleDrafter
from workbench.runners.drafters.model import ModelDrafter, load_draft_model
from workbench.runners.drafters.own import OwnDrafter
from workbench.runners.drafters.synthetic import SyntheticDrafter
from workbench.runners.drafters.tokens import TokenDrafter
from workbench.speculative.methods import FORMS, TOKEN_METHODS, make_proposer, method_name, synthetic_rate


def make_drafter(method: str, target: LoadedModel, *, max_model_len: int | None = None) -> TorchDrafter:
    """The drafter for requests of at most ``max_model_len`` tokens, prompt and output (by default as many as the target reads).

    Raises :class:`ConfigError` for a method that does not exist, is not written well, or does not fit ``target``.
    """
    name, _, rest = method.partition(":")
    if method_name(method) in TOKEN_METHODS:
        return TokenDrafter(make_proposer(method))
    if name == "eagle":
        return EagleDrafter(load_head(Path(rest).expanduser() if rest else own_head(target.name), target), target)
    if name == "synthetic":
        return SyntheticDrafter(synthetic_rate(method), target.architecture)
    return _draft(method, rest, target, max_model_len)


def _draft(method: str, rest: str, target: LoadedModel, max_model_len: int | None) -> TorchDrafter:
    if skip := re.fullmatch(r"skip:([0-9]{1,6})", rest):
        return OwnDrafter(first_layers(target, int(skip[1])))
    if rest in ("int8", "int4"):
        return OwnDrafter(quantised(target, 8 if rest == "int8" else 4))
    if not rest or re.fullmatch(r"skip(:.*)?|int[0-9]*", rest):  # a model of such a name can be given by its path
        raise ConfigError(f"speculative method {method!r} is not one: write {FORMS['draft']}")
    return ModelDrafter(load_draft_model(rest, target, max_model_len))


def first_layers(target: LoadedModel, count: int) -> Llama:
    """The target without its later layers.  Raises :class:`ConfigError` for a count that leaves none, or all."""
    whole = target.architecture
    if not 0 < count < len(whole.layers):
        raise ConfigError(
            f"draft:skip:{count} keeps {count} layers of {target.name}, which has {len(whole.layers)}: keep 1 to {len(whole.layers) - 1}"
        )
    return Llama(whole.config, whole.kernels, whole.embedding, whole.layers[:count], whole.norm, whole.head)
