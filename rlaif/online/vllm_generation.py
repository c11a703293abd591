"""Completions written by vLLM, in a process of its own that gets the policy's weights after each optimizer step.

What is said to that process stands in `backends.vllm_engine`. Weights go through a folder on this machine; an adapter
goes alone, and the engine keeps the base that it began with.

vLLM reports log-probabilities in one of two ways, chosen when it starts: of the model, or of what a token was drawn
from. The one holds at temperature 1 whatever the nucleus, the other at any temperature without a nucleus; a
temperature and a nucleus together are refused.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from rlaif.backends.vllm_args import MANAGED, parse_engine_args, vllm_folder
from rlaif.backends.vllm_process import EngineProcess, engine_settings, tell_defaults
from rlaif.errors import BackendError, BackendUnusableError, ConfigError, RequestRefusedError
from rlaif.models.loading import ModelSource
from rlaif.online.generation import OnFinished, RolloutJob, Written, broken, unheard

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from rlaif.train.models import Trained

_GPU_SHARE = 0.3
"""Of a GPU's memory, unless the user says otherwise: the policy is trained on the rest."""

_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM sets room aside for."""

_MANAGED = MANAGED | {
    "model": "it is --model",
    "tokenizer": "prompts are tokenized with the policy's own",
    "tokenizer_revision": "prompts are tokenized with the policy's own",
    "revision": "it is that of --model",
    "logprobs_mode": "it follows from --rollout-temperature",
    "runner": "the policy generates",
    "enable_lora": "it follows from --lora-rank",
    "max_loras": "it follows from --lora-rank",
    "max_lora_rank": "it follows from --lora-rank",
    "quantization": "the policy would not be trained as it writes",
}


class VllmGenerator:
    """Writes with the weights of the last `sync_weights`; before the first, with those of the model's folder.

    The process starts with the first use, which takes a minute or so. Numbers differ from those of the model that is
    trained by rounding.

    Args:
        model: The policy that is trained, perhaps with a LoRA adapter, not wrapped for several processes.
        source: What it was loaded from.
        stops: Tokens that end a completion.
        temperature, top_p: Of all jobs; greedy ones are welcome besides.
        engine_args: KEY=VALUE each, for vLLM's AsyncEngineArgs.

    Raises:
        BackendNotInstalledError: vLLM is missing.
        ConfigError: An engine argument is wrong, the installed vLLM cannot do what is asked, or the policy is trained
            on quantized weights.
    """

    def __init__(
        self,
        model: nn.Module,
        source: ModelSource,
        stops: frozenset[int],
        *,
        temperature: float,
        top_p: float = 1.0,
        engine_args: Sequence[str] = (),
    ) -> None:
        folder = vllm_folder()
        self._policy, self._source, self._stops = model, source, stops
        self._temperature, self._top_p = temperature, top_p
        self._rank = _adapter_rank(model)
        self._arguments = parse_engine_args(engine_args, "rollout_vllm_arg", _MANAGED)
        self._check(folder)
        self._process: EngineProcess | None = None
        self._said: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self._ended = ""
        self._last_number = 0

    def generate(self, jobs: Sequence[RolloutJob], *, on_finished: OnFinished = unheard) -> list[Written]:
        """See `Generator`.

        Raises:
            BackendUnusableError: vLLM does not start, or has died.
            RequestRefusedError: It does not take a prompt.
            BackendError: It failed on a job, or the policy's numbers are none.
            ValueError: A job has another temperature or nucleus than the generator was made for.
        """
        numbers = {self._next_number(): index for index in range(len(jobs))}
        messages = [{"id": number, **self._message(jobs[index])} for number, index in numbers.items()]
        found: dict[int, Written] = {}
        self._send(messages)
        try:
            while numbers:
                message = self._hear(numbers)
                index = numbers.pop(message["id"])
                found[index] = self._written(message)
                on_finished(index, found[index])
        except BaseException:
            if self._process is not None:
                self._process.send([{"abort": number} for number in numbers])  # those that are still written
            raise
        return [found[index] for index in range(len(jobs))]

    def sync_weights(self, step: int) -> None:
        """See `Generator`; returns when the engine has them.

        Raises:
            BackendUnusableError: vLLM does not start, has died, or does not take the weights.
        """
        with tempfile.TemporaryDirectory(prefix="rlaif-weights-") as name:
            number = self._next_number()
            if self._rank is None:
                _save_weights(cast("PreTrainedModel", self._policy), Path(name), self._dtype)
                message: dict[str, Any] = {"id": number, "weights": name}
            else:
                _save_adapter(cast("Trained", self._policy), Path(name))
                message = {"id": number, "adapter": name, "number": number}
            self._send([message])
            reply = self._hear({number})
        if (words := reply.get("refused") or reply.get("error")) is not None:
            raise BackendUnusableError(f"vLLM did not take the weights of step {step}: {words}")

    def close(self) -> None:
        """End vLLM's processes; it writes no more."""
        self._stop("it was closed")

    @property
    def process_id(self) -> int | None:
        """Of the parent of vLLM's processes; None where there are none."""
        return None if self._process is None else self._process.pid

    @property
    def _dtype(self) -> str:
        return cast(str, self._arguments.get("dtype", self._source.dtype))

    def _check(self, folder: Path) -> None:
        faults = []
        if self._temperature != 1.0 and self._top_p != 1.0:
            faults.append(
                f"a temperature of {self._temperature:g} with a top-p of {self._top_p:g}: vLLM gives log-probabilities "
                "before both or after both, expected --rollout-top-p 1 or --rollout-temperature 1"
            )
        if any(getattr(part, "is_quantized", False) for part in self._policy.modules()):
            faults.append(
                "the policy is trained on quantized weights, and vLLM would write with others; drop --quantize"
            )
        if self._rank is None and not _takes_weights(folder):
            faults.append(
                "the installed vLLM cannot take new weights while it runs; expected a newer one (0.32 can), or a "
                "policy with an adapter (--lora-rank)"
            )
        if self._rank is not None and self._rank > _RANKS[-1]:
            faults.append(f"an adapter of rank {self._rank}: vLLM takes at most {_RANKS[-1]}")
        if self._dtype not in {"float32", "bfloat16", "float16"}:
            faults.append(f"dtype={self._dtype}: expected float32, bfloat16 or float16")
        if faults:
            raise ConfigError(f"rollouts by vLLM: {'; '.join(faults)} (or --rollouts hf)")

    # The process.

    def _settings(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            # Of the model as it is, or of what the token was drawn from: the latter leaves out what no nucleus holds.
            "logprobs_mode": "raw_logprobs" if self._temperature == 1.0 else "processed_logprobs",
            **self._arguments,
        }
        if self._source.device == "cuda" and "kv_cache_memory_bytes" not in arguments:
            arguments.setdefault("gpu_memory_utilization", _GPU_SHARE)
        if self._rank is not None:
            room = next(rank for rank in _RANKS if rank >= self._rank)
            arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": room}
        return engine_settings(self._source, arguments)

    def _send(self, messages: Sequence[Mapping[str, Any]]) -> None:
        if self._ended:  # another process would begin with other weights
            raise BackendUnusableError(f"rollouts: vLLM writes no more: {self._ended}")
        if self._process is None:
            self._start()
        assert self._process is not None
        self._process.send(messages)

    def _start(self) -> None:
        try:
            self._process = EngineProcess(self._settings(), self._take, self._end)
        except OSError as error:
            raise BackendUnusableError(f"rollouts: a process for vLLM cannot be started: {error}") from error
        message = self._said.get()
        if "dead" in message:
            self._stop(message["dead"])
            raise BackendUnusableError(f"rollouts: vLLM does not start: {message['dead']}")
        tell_defaults("rollouts", message["ready"], "--rollout-vllm-arg")

    def _stop(self, why: str) -> None:
        self._ended = self._ended or why
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _take(self, messages: Sequence[Mapping[str, Any]]) -> None:
        for message in messages:
            self._said.put(message)

    def _end(self, why: str) -> None:
        self._said.put({"dead": why})

    def _hear(self, awaited: Mapping[int, int] | set[int]) -> Mapping[str, Any]:
        """The next reply to one of these; what came too late for an earlier call is dropped."""
        while True:
            message = self._said.get()
            if "dead" in message:
                self._stop(message["dead"])
                raise BackendUnusableError(f"rollouts: vLLM's process has died: {message['dead']}")
            if message["id"] in awaited:
                return message

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    # What is said.

    def _message(self, job: RolloutJob) -> dict[str, Any]:
        if job.temperature != 0 and (job.temperature, job.top_p) != (self._temperature, self._top_p):
            raise ValueError(
                f"a job at temperature {job.temperature:g} and top-p {job.top_p:g}; expected "
                f"{self._temperature:g} and {self._top_p:g}, which this generator's log-probabilities are read at"
            )
        return {
            "ids": list(job.prompt_ids),
            "max_tokens": job.max_tokens,
            "temperature": job.temperature,
            "top_p": job.top_p,
            "seed": job.seed % (1 << 63),
            "stops": sorted(self._stops),
            "reads_logprobs": True,
        }

    def _written(self, message: Mapping[str, Any]) -> Written:
        if "refused" in message:
            raise RequestRefusedError(f"rollouts: vLLM does not take a prompt: {message['refused']}")
        if "error" in message:
            raise BackendError(f"rollouts: vLLM failed on a completion: {message['error']}")
        ids, logprobs = message["text_ids"], message["logprobs"]
        if None in logprobs:
            raise broken(logprobs.index(None))
        return Written(tuple(ids), tuple(logprobs), message["is_stopped"])


def _adapter_rank(model: nn.Module) -> int | None:
    """Of a policy with an adapter; None without one."""
    configs = getattr(model, "peft_config", None)
    return None if configs is None else int(configs["default"].r)


def _takes_weights(folder: Path) -> bool:
    """Whether the installed vLLM loads other weights while it runs, by its source: importing it takes seconds."""
    source = folder / "v1" / "worker" / "gpu_model_runner.py"
    with suppress(OSError):
        _, _, rest = source.read_text(encoding="utf-8").partition("def reload_weights(")
        return "weights_path" in rest.partition(") ->")[0]
    return False


def _save_weights(model: PreTrainedModel, folder: Path, dtype: str) -> None:
    """Write a policy's own weights in the engine's number type; those that are one stay one."""
    import torch

    from rlaif.train.values import values_detached

    cast_of: dict[tuple[int, torch.Size], torch.Tensor] = {}

    def in_dtype(value: torch.Tensor) -> torch.Tensor:
        value = value.detach()
        key = value.data_ptr(), value.shape
        if key not in cast_of:
            cast_of[key] = value.to("cpu", getattr(torch, dtype) if value.is_floating_point() else value.dtype)
        return cast_of[key]

    with values_detached(model):
        model.save_pretrained(folder, state_dict={name: in_dtype(one) for name, one in model.state_dict().items()})


def _save_adapter(model: Trained, folder: Path) -> None:
    from rlaif.train.values import values_detached

    with values_detached(model):
        model.save_pretrained(folder, save_embedding_layers=False)
