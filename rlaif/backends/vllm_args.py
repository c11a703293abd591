"""Engine arguments of vLLM as the user writes them, `KEY=VALUE`; checked by name without importing vLLM."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlaif.errors import BackendNotInstalledError, ConfigError, did_you_mean

MANAGED = {
    "model": "it is the judge's name",
    "tokenizer": "prompts are tokenized with the model's own",
    "tokenizer_revision": "prompts are tokenized with the model's own",
    "revision": "write vllm:OWNER/NAME@REVISION",
    "logprobs_mode": "labels are read from raw log-probabilities",
    "runner": "a judge generates",
    "hf_token": "a secret belongs into the environment, as HF_TOKEN",
}
"""Arguments that a user cannot give, and why."""

# fmt: off
_NEUTRAL = frozenset({
    "allowed_local_media_path", "async_scheduling", "block_size", "code_revision", "compilation_config",
    "config_format", "cpu_offload_gb", "cpu_offload_params", "cudagraph_capture_sizes", "data_parallel_address",
    "data_parallel_backend", "data_parallel_external_lb", "data_parallel_hybrid_lb", "data_parallel_rank",
    "data_parallel_rpc_port", "data_parallel_size", "data_parallel_size_local", "data_parallel_start_rank",
    "device_ids", "disable_cascade_attn", "disable_custom_all_reduce", "disable_log_stats",
    "distributed_executor_backend", "distributed_timeout_seconds", "download_dir", "enable_chunked_prefill",
    "enable_dbo", "enable_expert_parallel", "enable_log_requests", "enable_prefix_caching", "enable_sleep_mode",
    "enforce_eager", "gpu_memory_utilization", "kv_cache_memory_bytes", "load_format", "master_addr",
    "master_port", "max_cudagraph_capture_size", "max_logprobs", "max_num_batched_tokens",
    "max_num_partial_prefills", "max_num_seqs", "max_parallel_loading_workers", "nnodes", "node_rank",
    "num_gpu_blocks_override", "optimization_level", "pipeline_parallel_size", "prefix_caching_hash_algo",
    "ray_workers_use_nsight", "safetensors_load_strategy", "scheduling_policy", "seed", "served_model_name",
    "show_hidden_metrics_for_version", "skip_tokenizer_init", "stream_interval", "swap_space",
    "tensor_parallel_size", "use_tqdm_on_load",
})
# fmt: on
"""Arguments about where and how fast the engine runs: another value gives the same answers, rounding aside. Any other
argument belongs to the judge's identity."""


def parse_engine_args(texts: Sequence[str], owner: str, managed: Mapping[str, str] = MANAGED) -> dict[str, Any]:
    """The arguments of `--vllm-arg KEY=VALUE`; a value is read as YAML, and so also as JSON.

    Args:
        texts: As given; hyphens in a key count as underscores.
        owner: Whose they are and what they are called, for the message.
        managed: Those that cannot be given, and why.

    Raises:
        ConfigError: One is not KEY=VALUE, comes twice, is rlaif's to set, or is none of vLLM's; all faults at once.
        BackendNotInstalledError: vLLM is missing.
    """
    import yaml

    known = engine_argument_names() if texts else ()
    values: dict[str, Any] = {}
    faults = []
    for text in texts:
        written, equals, value = text.partition("=")
        name = written.strip().replace("-", "_")
        if not equals or not name:
            faults.append(f"{text!r}: expected KEY=VALUE")
        elif name in managed:
            faults.append(f"{written}: cannot be set, {managed[name]}")
        elif name not in known:
            faults.append(f"{written}: vLLM has no such engine argument{did_you_mean(name, known)}")
        elif name in values:
            faults.append(f"{written}: given a second time")
        else:
            try:
                values[name] = yaml.safe_load(value)
            except yaml.YAMLError:
                faults.append(f"{written}: {value!r} cannot be read; expected a number, true, false, text or JSON")
    if faults:
        raise ConfigError(f"{owner}: {'; '.join(faults)}")
    return values


def identity_of(engine_args: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can change an answer."""
    return {name: value for name, value in sorted(engine_args.items()) if name not in _NEUTRAL}


def vllm_folder() -> Path:
    """Where vLLM is installed; looking costs nothing, importing it takes seconds.

    Raises:
        BackendNotInstalledError: It is missing.
    """
    found = find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        raise BackendNotInstalledError("backend 'vllm' needs an extra; run: pip install 'rlaif[vllm]'")
    return Path(found.submodule_search_locations[0])


def engine_argument_names() -> Collection[str]:
    """The fields of the installed vLLM's engine arguments, read off its source.

    Raises:
        BackendNotInstalledError: vLLM is missing.
    """
    source = vllm_folder() / "engine" / "arg_utils.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return [
        statement.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in {"EngineArgs", "AsyncEngineArgs"}
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]
