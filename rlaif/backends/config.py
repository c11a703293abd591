"""Which models are asked, and how they are reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class ModelConfig:
    """Where models run.

    Only `endpoint`, `dtype`, `truncate` and some of `vllm_arg` can change an answer.
    """

    base_url: tuple[str, ...] = ()
    """Address of an OpenAI-compatible server, up to and with /v1; given more than once, replicas of one model."""

    endpoint: Literal["chat", "completions"] = "chat"
    """Endpoint of an OpenAI-compatible server: chat applies the model's template, completions takes plain text."""

    timeout: Annotated[float, "above 0"] = 60.0
    """Seconds until a call counts as lost and is made again."""

    device: str = "auto"
    """Device of an hf or hf-reward model: auto, cpu, cuda, cuda:1, mps; vLLM takes the GPUs it sees."""

    dtype: str = "auto"
    """Number type of an in-process model: auto (as saved; float32 on a CPU), float32, bfloat16, float16."""

    batch_tokens: Annotated[int, "at least 1"] = 16384
    """Most tokens in one batch of an hf, hf-reward or builtin model; vLLM has max_num_batched_tokens."""

    vllm_arg: tuple[str, ...] = ()
    """Engine argument of vLLM as KEY=VALUE, such as tensor_parallel_size=2; given more than once, several."""

    truncate: bool = False
    """Cut a prompt that does not fit the context in the middle of its longest text (for hf-reward, at the
    start), instead of failing the row."""


@dataclass(frozen=True)
class _Judges:
    """Declared apart, so that it stands before the options of `ModelConfig`."""

    judge: tuple[str, ...] = ("builtin:tiny",)
    """Judge to ask, BACKEND:MODEL (openai:NAME, vllm:PATH_OR_NAME, hf:PATH_OR_NAME, hf-reward:PATH for a reward
    model, builtin:tiny); given more than once, a panel."""


@dataclass(frozen=True)
class BackendConfig(ModelConfig, _Judges):
    """The judge, and where it runs."""

    def __post_init__(self) -> None:
        if not self.judge:
            raise ValueError("judge: at least one is needed")
