"""The child process of `vllm:MODEL`: hosts vLLM's asynchronous engine and answers calls over a socket.

    python -m rlaif.backends.vllm_engine FD

What is said is JSON, a message a line. First comes `{"args", "cpu_args", "cpu_env"}`, what to start the engine with;
the last two are for a CPU. Then calls come, and replies go, in any order, with the call's `id`:

    {"id", "ids", "wanted", "halves", "floor"}                        -> {"id", "first", "halves", "cached"}
    {"id", "ids", "max_tokens", "temperature", "top_p", "seed", "stops"} -> {"id", "text_ids", "is_stopped", "cached"}
    the same with "reads_logprobs": `stops` alone stop it             -> the same with "logprobs", one a token
    {"id", "weights": FOLDER}                                         -> {"id"}, when they are the model's
    {"id", "adapter": FOLDER, "number"}                               -> {"id"}, when it is what generates from now on
    {"abort"}                                                         -> nothing
    anything that fails                                               -> {"id", "refused"} or {"id", "error"}

Before the first reply: `{"ready": {...}}`, or `{"dead"}`, which ends everything at any time.

The process that was started does not run the engine: it is the keeper (`vllm_keeper`), which forks it.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NoReturn

from rlaif.backends.vllm_keeper import end_after_parent, keep

_TOP_LOGPROBS = 20
"""What an engine without `logprob_token_ids` is asked for: as many as its default `max_logprobs` allows."""

_LOWEST_LOGPROB = -1e9
"""Stands for minus infinity, which JSON lacks; NaN becomes null."""


def main() -> None:
    """Keeper, then engine."""
    link = socket.socket(fileno=int(sys.argv[1]))
    link.set_inheritable(False)
    keep(link)
    asyncio.run(_host(link))


async def _host(link: socket.socket) -> None:
    import orjson

    settings = orjson.loads(_first_line(link))
    try:
        engine, ready = _start(settings)
    except BaseException as error:  # whatever vLLM raises, pydantic's and SystemExit among it
        _say_last(link, _words(error))
    loop = asyncio.get_running_loop()
    calls = _Calls(engine, _reads_chosen_tokens())
    _, protocol = await loop.create_connection(lambda: calls, sock=link)
    protocol.send({"ready": ready})
    await protocol.ended.wait()
    os._exit(0)  # the keeper ends the rest


def _start(settings: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """vLLM's engine, and what the parent is told about it."""
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    args = dict(settings["args"])
    is_cpu = bool(current_platform.is_cpu())
    defaults: dict[str, Any] = {}
    if is_cpu:
        defaults = {name: value for name, value in settings["cpu_args"].items() if name not in args}
        args |= defaults
        env = {name: value for name, value in settings["cpu_env"].items() if name not in os.environ}
        os.environ.update(env)
        defaults |= env
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
    return engine, {
        "version": vllm.__version__,
        "platform": "cpu" if is_cpu else str(current_platform.device_name),
        "defaults": defaults,
        "context_tokens": engine.model_config.max_model_len,
        "is_exact": _reads_chosen_tokens(),
    }


def _reads_chosen_tokens() -> bool:
    """Whether this vLLM gives the log-probabilities of chosen tokens, whatever their rank."""
    import inspect

    from vllm import SamplingParams

    return "logprob_token_ids" in inspect.signature(SamplingParams).parameters


class _Calls(asyncio.Protocol):
    """The parent's calls, each a task; replies made in one turn of the event loop are written at once."""

    def __init__(self, engine: Any, is_exact: bool) -> None:
        import orjson
        from vllm.v1.engine.exceptions import EngineDeadError

        self._engine = engine
        self._is_exact = is_exact
        self._loads, self._dumps = orjson.loads, orjson.dumps
        self._dead = EngineDeadError
        self._refusals = _refusals()
        self._prompt = _prompt_maker()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._received: list[bytes] = []
        self._replies: list[bytes] = []
        self._requests = 0
        self._adapter: Any = None
        self._score_params = lru_cache(256)(self._make_score_params)
        self.ended = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()

    def data_received(self, data: bytes) -> None:
        head, end, rest = data.rpartition(b"\n")
        if not end:
            self._received.append(rest)
            return
        lines = b"".join([*self._received, head]).split(b"\n")
        self._received = [rest] if rest else []
        for line in lines:
            self._take(self._loads(line))

    def send(self, message: Mapping[str, Any]) -> None:
        if not self._replies:
            asyncio.get_running_loop().call_soon(self._flush)
        self._replies.append(self._dumps(message))

    def _flush(self) -> None:
        self._replies.append(b"")
        self._transport.write(b"\n".join(self._replies))
        self._replies = []

    def _take(self, message: Mapping[str, Any]) -> None:
        if "abort" in message:
            if (running := self._tasks.get(message["abort"])) is not None:
                running.cancel()
            return
        task = asyncio.ensure_future(self._answer(message))
        self._tasks[message["id"]] = task

    async def _answer(self, message: Mapping[str, Any]) -> None:
        number = message["id"]
        try:
            reply = await self._work(message)
        except asyncio.CancelledError:
            return
        except self._dead as error:
            self.send({"dead": _words(error)})
            return
        except self._refusals as error:
            reply = {"refused": _words(error)}
        except Exception as error:
            reply = {"error": _words(error.__cause__ or error)}
        finally:
            self._tasks.pop(number, None)
        self.send({"id": number, **reply})

    async def _work(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if "wanted" in message:
            return await self._score(message)
        if "weights" in message:
            return await self._take_weights(message["weights"])
        if "adapter" in message:
            return await self._take_adapter(message["adapter"], message["number"])
        return await self._generate(message)

    async def _score(self, message: Mapping[str, Any]) -> dict[str, Any]:
        first, cached = await self._read(message["ids"], tuple(message["wanted"]))
        heads = {token: logprob for token, logprob in first.items() if logprob is not None}
        followed = [half for half in message["halves"] if heads.get(half["head"], -math.inf) >= message["floor"]]
        halves = await asyncio.gather(
            *(self._read([*message["ids"], half["head"]], tuple(half["tails"])) for half in followed)
        )
        return {
            "first": list(first.items()),
            "halves": [[half["head"], list(found.items())] for half, (found, _) in zip(followed, halves, strict=True)],
            "cached": cached,
        }

    async def _read(self, ids: list[int], wanted: tuple[int, ...]) -> tuple[dict[int, float | None], int]:
        """Log-probabilities of the next token, and how many of the prompt's tokens were not computed again."""
        result = await self._run(ids, self._score_params(wanted))
        found = {int(token): _number(entry.logprob) for token, entry in result.outputs[0].logprobs[0].items()}
        if self._is_exact:
            found = {token: found[token] for token in wanted}
        return found, _cached(result)

    async def _generate(self, message: Mapping[str, Any]) -> dict[str, Any]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        reads_logprobs = message.get("reads_logprobs", False)
        params = SamplingParams(
            max_tokens=message["max_tokens"],
            temperature=message["temperature"],
            top_p=message["top_p"],
            seed=message["seed"],
            stop_token_ids=message["stops"],
            ignore_eos=reads_logprobs,
            logprobs=0 if reads_logprobs else None,  # of the token itself and no others
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        result = await self._run(message["ids"], params, self._adapter)
        output = result.outputs[0]
        ids = list(output.token_ids)
        found = {"text_ids": ids, "is_stopped": output.finish_reason == "stop", "cached": _cached(result)}
        if reads_logprobs:
            found["logprobs"] = [_number(at[token].logprob) for at, token in zip(output.logprobs, ids, strict=True)]
        return found

    async def _take_weights(self, folder: str) -> dict[str, Any]:
        """Answer with other weights of the same model; what was computed with the earlier ones is forgotten."""
        await self._engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        await self._engine.reset_prefix_cache()
        return {}

    async def _take_adapter(self, folder: str, number: int) -> dict[str, Any]:
        """Generate with this adapter and no longer with the one before it."""
        from vllm.lora.request import LoRARequest

        # What is cached of a prompt is filed under the adapter's name, so each has one of its own.
        adapter, before = LoRARequest(f"adapter-{number}", number, folder), self._adapter
        if before is not None:
            await self._engine.remove_lora(before.lora_int_id)
        await self._engine.add_lora(adapter)
        self._adapter = adapter
        return {}

    def _make_score_params(self, wanted: Sequence[int]) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        read = {"logprob_token_ids": list(wanted)} if self._is_exact else {"logprobs": _TOP_LOGPROBS}
        return SamplingParams(
            max_tokens=1, temperature=0.0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **read
        )

    async def _run(self, ids: list[int], params: Any, adapter: Any = None) -> Any:
        self._requests += 1
        replies = self._engine.generate(self._prompt(ids), params, str(self._requests), lora_request=adapter)
        return [reply async for reply in replies][-1]  # FINAL_ONLY: there is one


def _prompt_maker() -> Callable[[list[int]], Any]:
    """Token ids as vLLM's engine takes them; the newer form spares it half the time it spends on a call."""
    try:
        from vllm.inputs.engine import tokens_input
    except ImportError:
        return lambda ids: {"prompt_token_ids": ids}
    return tokens_input  # type: ignore[no-any-return]


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a request that it does not take."""
    try:
        from vllm.exceptions import VLLMClientError
    except ImportError:
        return (ValueError,)
    return (ValueError, VLLMClientError)


def _number(logprob: float) -> float | None:
    return None if math.isnan(logprob) else max(logprob, _LOWEST_LOGPROB)


def _cached(result: Any) -> int:
    return getattr(result, "num_cached_tokens", None) or 0


def _first_line(link: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        if not (byte := link.recv(1)):
            os._exit(0)
        line += byte
    return bytes(line)


def _say_last(link: socket.socket, words: str) -> NoReturn:
    import orjson

    with suppress(OSError):
        link.sendall(orjson.dumps({"dead": words}) + b"\n")
    os._exit(1)


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {' '.join(line.strip() for line in lines)}"[:500] if lines else repr(error)


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # what multiprocessing calls it in the processes it spawns
    end_after_parent()
