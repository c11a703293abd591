"""Backend names to backends; each is imported only when it is asked for.

Others register theirs under the entry point group "rlaif.backends": a callable that takes (model, config) and returns a
`Backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import entry_points

from rlaif.backends.base import Backend
from rlaif.backends.config import ModelConfig
from rlaif.errors import ConfigError, did_you_mean

DEMONSTRATION_WARNING = (
    "builtin:tiny is a demonstration judge: it shows how the pipeline works, and is not meant to label anyone's data"
)
POLICY_DEMONSTRATION_WARNING = (
    "builtin:tiny-policy is a demonstration policy: it knows a made-up world only, and shows how the pipeline works"
)

BackendFactory = Callable[[str, ModelConfig], Backend]


def _openai(model: str, config: ModelConfig) -> Backend:
    from rlaif.backends.openai_api import OpenAIBackend

    return OpenAIBackend(model, base_urls=config.base_url, endpoint=config.endpoint, timeout=config.timeout)


def _hf(model: str, config: ModelConfig) -> Backend:
    from rlaif.backends.hf import HfBackend

    return HfBackend(
        model,
        device=config.device,
        dtype=config.dtype,
        max_batch_tokens=config.batch_tokens,
        truncate=config.truncate,
    )


def _hf_reward(model: str, config: ModelConfig) -> Backend:
    from rlaif.backends.hf_reward import HfRewardBackend

    return HfRewardBackend(
        model,
        device=config.device,
        dtype=config.dtype,
        max_batch_tokens=config.batch_tokens,
        truncate=config.truncate,
    )


def _vllm(model: str, config: ModelConfig) -> Backend:
    from rlaif.backends.vllm import VllmBackend

    return VllmBackend(model, dtype=config.dtype, truncate=config.truncate, engine_args=config.vllm_arg)


def _builtin(model: str, config: ModelConfig) -> Backend:
    from rlaif.backends.builtin import BuiltinBackend

    return BuiltinBackend(model, max_batch_tokens=config.batch_tokens, truncate=config.truncate)


def _fake(model: str, config: ModelConfig) -> Backend:
    from rlaif.backends.fake import FakeBackend

    return FakeBackend.named(model)


_OWN: dict[str, BackendFactory] = {
    "openai": _openai,
    "vllm": _vllm,
    "hf": _hf,
    "hf-reward": _hf_reward,
    "builtin": _builtin,
    "fake": _fake,
}


def open_backend(spec: str, config: ModelConfig, *, word: str = "judge") -> Backend:
    """The backend that BACKEND:MODEL names; `word` is what messages call it.

    Raises:
        ConfigError: There is no such backend, or the model's name is missing.
        BackendNotInstalledError: The backend needs an extra.
    """
    factory, model = _found(spec, word)
    return factory(model, config)


def check_spec(spec: str, *, word: str = "judge") -> None:
    """See that BACKEND:MODEL names a backend that there is (and a model, of those that ship), without opening it.

    Raises:
        ConfigError: It does not.
    """
    kind, _, model = spec.partition(":")
    _found(spec, word)
    if kind == "builtin":
        from rlaif.backends.builtin import builtin_folder

        builtin_folder(model)


def _found(spec: str, word: str) -> tuple[BackendFactory, str]:
    kind, colon, model = spec.partition(":")
    others = {entry.name: entry for entry in entry_points(group="rlaif.backends")} if kind not in _OWN else {}
    known = sorted({*_OWN, *others})
    if not colon or not model:
        raise ConfigError(f"{word} {spec!r}: expected BACKEND:MODEL with BACKEND one of {', '.join(known)}")
    if kind in _OWN:
        return _OWN[kind], model
    if kind in others:
        factory: BackendFactory = others[kind].load()
        return factory, model
    raise ConfigError(
        f"{word} {spec!r}: unknown backend {kind!r}{did_you_mean(kind, known)}; known: {', '.join(known)}"
    )


def is_reward_model(spec: str) -> bool:
    """Whether a judge, by its name, is one of our reward models."""
    return spec.startswith("hf-reward:")


def demonstration_warnings(specs: Iterable[str]) -> list[str]:
    """What is to be said of judges and policies, by their names, that are there to show the pipeline; each once."""
    named = {spec for spec in specs if is_demonstration(spec)}
    is_policy = {spec == "builtin:tiny-policy" for spec in named}
    texts = {False: DEMONSTRATION_WARNING, True: POLICY_DEMONSTRATION_WARNING}
    return [texts[each] for each in sorted(is_policy)]


def is_demonstration(spec: str) -> bool:
    """Whether a judge or policy, by its name, is there to show the pipeline and not to make anyone's data."""
    return spec.startswith("builtin:")
