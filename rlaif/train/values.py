"""What predicts returns while a policy is trained: a value head on the policy's own states, or a critic of its own.

Either is a part of the policy's module, `value_head` or `critic`: so one optimizer, one wrapper for several processes
and one backward pass have it all. It is attached after an adapter, which freezes what it finds, and is no part of what
the finished policy is. How a critic is read stands in `models.values`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlaif.errors import RunFolderError
from rlaif.models.batches import Batch
from rlaif.models.loading import ModelSource, reward_shift
from rlaif.models.logprobs import upcast
from rlaif.models.reading import unwrapped
from rlaif.models.values import predictor_values
from rlaif.train.config import AdapterConfig
from rlaif.train.models import load_reward_model_for_training

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rlaif.train.models import Trained

_HEAD = "value_head"
_CRITIC = "critic"
_PARTS = (_HEAD, _CRITIC)


class ValueHead(nn.Linear):
    """V of a hidden state: one linear layer in float32 that begins at 0, whatever the state; without dropout.

    Args:
        width: Numbers of a hidden state.
    """

    def __init__(self, width: int, device: torch.device | None = None) -> None:
        super().__init__(width, 1, device=device, dtype=torch.float32)
        with torch.no_grad():
            self.weight.zero_()
            self.bias.zero_()

    def forward(self, states: Tensor) -> Tensor:
        """`states` (..., D) of any number type -> (...,), float32, also under autocast."""
        with torch.autocast(states.device.type, enabled=False):
            return upcast(functional.linear(states.to(self.weight.dtype), self.weight, self.bias)).squeeze(-1)


def attach_value_head(model: Trained) -> ValueHead:
    """Give a policy a value head on the states that its output layer reads; it is trained in full.

    Args:
        model: Not wrapped, with its adapter if it is to have one.
    """
    _refuse_second(model)
    layer = cast(nn.Module, model.get_output_embeddings())
    width = getattr(layer, "in_features", None) or model.config.get_text_config().hidden_size
    head = ValueHead(width, next(layer.parameters()).device)
    model.add_module(_HEAD, head)
    return head


def load_critic(source: ModelSource) -> PreTrainedModel:
    """A critic to train, in full and in float32; its dropout is off.

    Args:
        source: A reward model, whose rewards less their shift are the first values; or a causal model, whose values
            begin at 0.

    Raises:
        ConfigError, BackendUnusableError: As `load_reward_model_for_training`; also where a recorded shift is no
            number.
    """
    shift = reward_shift(source.config)
    critic = cast("PreTrainedModel", load_reward_model_for_training(source, AdapterConfig(), seed=0))
    if any(kind.endswith("ForSequenceClassification") for kind in source.config.architectures or ()):
        critic.config.reward_shift = shift
    else:
        with torch.no_grad():
            for parameter in cast(nn.Module, critic.score).parameters():
                parameter.zero_()
    return critic


def attach_critic(model: Trained, critic: PreTrainedModel) -> None:
    """Make a critic a part of the policy that it is trained with.

    Args:
        model: Not wrapped, with its adapter if it is to have one.
        critic: As `load_critic` gives it, for the same token ids (`check_reference`), on the model's device.
    """
    _refuse_second(model)
    model.add_module(_CRITIC, critic)


def value_reader(model: nn.Module, batch: Batch) -> Callable[[Tensor], Tensor]:
    """What `token_logprobs` takes as `read_values`, of a policy with a value head or a critic.

    A critic is computed within the policy's forward too: where weights are split, they are whole there.

    Args:
        model: Perhaps wrapped.
        batch: That `token_logprobs` is asked about; a critic reads it, a value head the policy's states.

    Raises:
        TypeError: The model has neither.
    """
    name, part = _attached(model)
    if name == _HEAD:
        return cast(ValueHead, part)
    return lambda states: predictor_values(part, batch)


def value_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the value head or the critic, on the CPU, under the names that they have in the policy.

    Args:
        model: Perhaps wrapped, its weights whole.

    Raises:
        TypeError: It has neither.
    """
    name, part = _attached(model)
    return {
        f"{name}.{key}": value.detach().to("cpu", copy=True).contiguous() for key, value in part.state_dict().items()
    }


def load_value_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put the weights of `value_state` back.

    Args:
        model: With the same kind of part, its weights whole.

    Raises:
        RunFolderError: They are of another value head or critic; the model is as it was.
        TypeError: The model has neither.
    """
    name, part = _attached(model)
    own = {f"{name}.{key}": tuple(value.shape) for key, value in part.state_dict().items()}
    saved = {key: tuple(value.shape) for key, value in tensors.items()}
    if differing := sorted(key for key in own.keys() | saved.keys() if own.get(key) != saved.get(key)):
        first = differing[0]
        raise RunFolderError(
            f"the saved values are of another model: {len(differing):,} weights differ, such as {first}, "
            f"{saved.get(first, 'missing')} there and {own.get(first, 'missing')} here; expected the checkpoint of a "
            "run with the same model and value settings"
        )
    part.load_state_dict({key.removeprefix(f"{name}."): value for key, value in tensors.items()})


def without_values(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of a policy's weights by name, those that are its own.

    Args:
        state: As `state_dict` of a policy that is not wrapped.
    """
    return {name: value for name, value in state.items() if name.partition(".")[0] not in _PARTS}


@contextlib.contextmanager
def values_detached(model: nn.Module) -> Iterator[None]:
    """Within, a policy has neither value head nor critic, and is saved and merged as any other.

    Args:
        model: Not wrapped; with one of them, or neither.
    """
    held = {name: model.get_submodule(name) for name in _PARTS if hasattr(model, name)}
    for name in held:
        delattr(model, name)
    try:
        yield
    finally:
        for name, part in held.items():
            model.add_module(name, part)


def _attached(model: nn.Module) -> tuple[str, nn.Module]:
    for name in _PARTS:
        with contextlib.suppress(AttributeError):
            return name, unwrapped(model, name).get_submodule(name)
    raise TypeError(f"{type(model).__name__} has neither a value head nor a critic; attach one first")


def _refuse_second(model: nn.Module) -> None:
    assert not any(hasattr(model, name) for name in _PARTS), "the policy already has a value head or a critic"
