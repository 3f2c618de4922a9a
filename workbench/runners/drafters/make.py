"""The drafter that ``EngineConfig.speculative`` describes, for a loaded target."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, MethodType

from torch import Tensor

from workbench.errors import ConfigError
from workbench.models.eagle import load_head, own_head
from workbench.models.llama import Llama
from workbench.models.loading import LoadedModel
from workbench.models.quantised import quantised
from workbench.runners.drafters.base import TorchDrafter, as_asked, likeliest
from workbench.runners.drafters.eagle import EagleDrafter
from workbench.runners.drafters.model import ModelDrafter, load_draft_model
from workbench.runners.drafters.own import OwnDrafter
from workbench.runners.drafters.synthetic import SyntheticDrafter
from workbench.runners.drafters.tokens import TokenDrafter
from workbench.speculative.methods import FORMS, TOKEN_METHODS, make_proposer, method_name, synthetic_rate


def make_drafter(
    method: str,
    target: LoadedModel,
    *,
    draws: bool = False,
    least: float = 0.0,
    max_model_len: int | None = None,
    trust_remote_code: bool = False,
) -> TorchDrafter:
    """The drafter for requests of at most ``max_model_len`` tokens, prompt and output (by default as many as the target reads).

    ``draws``: whether models and heads draw their drafts as the target draws its tokens, instead of taking the likeliest.
    ``least``: they stop drafting where the chance that all drafts so far are right falls below it.
    ``trust_remote_code``: whether a draft model from the hub may run its own Python code while loading.
    Raises :class:`ConfigError` for a method that does not exist, is not written well, or does not fit ``target``, and
    :class:`ModelIntegrityError` for a file that does not hold what it should.
    """
    name, _, rest = method.partition(":")
    if method_name(method) in TOKEN_METHODS:
        return TokenDrafter(make_proposer(method))
    if name == "eagle":
        if method == "eagle:":
            raise _badly_written(method, name)
        return EagleDrafter(load_head(Path(rest).expanduser() if rest else own_head(target.name), target), target, draws=draws, least=least)
    if name == "synthetic":
        return SyntheticDrafter(synthetic_rate(method), target.architecture)
    choose = as_asked if draws else likeliest
    if skip := re.fullmatch(r"draft:skip:([0-9]{1,6})", method):
        return OwnDrafter(first_layers(target, int(skip[1])), choose, least)
    if rest in ("int8", "int4"):
        return OwnDrafter(quantised(target, 8 if rest == "int8" else 4), choose, least)
    if not rest or re.fullmatch(r"skip(:.*)?|int[0-9]*", rest):  # a model of such a name can be given by its path
        raise _badly_written(method, "draft")
    draft = load_draft_model(rest, target, max_model_len, trust_remote_code=trust_remote_code)
    return ModelDrafter(draft, choose, least)


def _badly_written(method: str, name: str) -> ConfigError:
    return ConfigError(f"speculative method {method!r} is not one: write {FORMS[name]}")


def first_layers(target: LoadedModel, count: int) -> Llama:
    """The target without its later layers.  Raises :class:`ConfigError` for a count that leaves none, or all."""
    whole = target.architecture
    if not 0 < count < len(whole.layers):
        raise ConfigError(
            f"draft:skip:{count} keeps {count} layers of {target.name}, which has {len(whole.layers)}: keep 1 to {len(whole.layers) - 1}"
        )
    return Llama(whole.config, whole.kernels, whole.embedding, whole.layers[:count], whole.norm, whole.head)


def weight_bytes_of(drafter: TorchDrafter, target: LoadedModel) -> int:
    """Memory of the tensors that ``drafter`` keeps and ``target`` does not: another model, a head, a rounded copy.

    They are looked for, not worked out: how many bytes a weight takes is up to the kernels that read it.
    """
    shared = _tensors(target).keys()
    return sum(tensor.nbytes for place, tensor in _tensors(drafter).items() if place not in shared)


def _tensors(root: object) -> dict[int, Tensor]:
    """Every tensor within reach of ``root``, through our own objects, containers, and what functions close over; by identity."""
    found: dict[int, object] = {}
    left = [root]
    while left:
        one = left.pop()
        if id(one) not in found:
            found[id(one)] = one  # kept, or another object could come to have its id
            left += _parts(one)
    return {place: one for place, one in found.items() if isinstance(one, Tensor)}


def _parts(one: object) -> Iterable[object]:
    if isinstance(one, FunctionType):
        return [cell.cell_contents for cell in one.__closure__ or ()]
    if isinstance(one, MethodType):
        return [one.__self__]
    if isinstance(one, dict):
        return one.values()
    if isinstance(one, tuple | list):
        return one
    return vars(one).values() if type(one).__module__.startswith("workbench.") and hasattr(one, "__dict__") else ()
