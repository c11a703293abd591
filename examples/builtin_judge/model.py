"""The judge's network while it trains: a Llama decoder that returns hidden states, throw-away heads, and the export.

Written out, not taken from transformers, for two reasons: a block mask with restarting positions lets several questions
share one context, and the heads read middle layers. `export` writes what `LlamaForCausalLM` loads; a test compares
both. The policy trains the same `Decoder`, without heads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .principles import KIND_NAMES
from .sequences import SEGMENTS, TRAITS


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int = 2048
    width: int = 128
    layers: int = 5
    heads: int = 4
    hidden: int = 384
    theta: float = 10_000.0
    positions: int = 2048
    eps: float = 1e-5


class Layer(nn.Module):
    """Attention and gated feed-forward, each behind an RMS norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, hidden = shape.width, shape.hidden
        self.norm_1 = nn.Parameter(torch.ones(width))
        self.norm_2 = nn.Parameter(torch.ones(width))
        self.q = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.k = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.v = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.o = nn.Parameter(torch.zeros(width, width))
        self.gate = nn.Parameter(torch.randn(hidden, width) * width**-0.5)
        self.up = nn.Parameter(torch.randn(hidden, width) * width**-0.5)
        self.down = nn.Parameter(torch.zeros(width, hidden))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, width); cos, sin (B, 1, T, head); mask (B, 1, T, T), True where a row may look."""
        batch, length, width = x.shape
        normed = F.rms_norm(x, (width,), self.norm_1, self.shape.eps)
        q, k, v = (
            F.linear(normed, weight).view(batch, length, self.shape.heads, -1).transpose(1, 2)
            for weight in (self.q, self.k, self.v)
        )
        attended = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v, attn_mask=mask)
        x = x + F.linear(attended.transpose(1, 2).reshape(batch, length, width), self.o)
        normed = F.rms_norm(x, (width,), self.norm_2, self.shape.eps)
        return x + F.linear(F.silu(F.linear(normed, self.gate)) * F.linear(normed, self.up), self.down)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions in the halves convention of transformers."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Decoder(nn.Module):
    """The network itself: embedding, layers, norm, and the embedding again as the output layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.randn(shape.vocabulary, shape.width) * 0.05)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.Parameter(torch.ones(shape.width))
        head = shape.width // shape.heads
        frequencies = shape.theta ** -(torch.arange(0, head, 2).float() / head)
        angles = torch.outer(torch.arange(shape.positions).float(), frequencies)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def hidden_states(self, ids: Tensor, positions: Tensor, mask: Tensor) -> list[Tensor]:
        """The stream after each layer, (B, T, width) each; the last one normed. ids, positions (B, T)."""
        x = F.embedding(ids, self.embedding)
        cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        states = []
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
            states.append(x)
        states[-1] = F.rms_norm(x, (self.shape.width,), self.norm, self.shape.eps)
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits (..., vocabulary) of normed last states (..., width)."""
        return F.linear(hidden, self.embedding)

    def matrices(self) -> list[nn.Parameter]:
        """What Muon trains: the layers' matrices."""
        return [p for p in self.layers.parameters() if p.ndim == 2]

    def others(self) -> list[nn.Parameter]:
        """What AdamW trains: embedding, norms and heads."""
        own = {id(p) for p in self.matrices()}
        return [p for p in self.parameters() if id(p) not in own]


class JudgeNetwork(Decoder):
    """The decoder and its throw-away heads.

    The heads read the layers at which the decoder needs what they teach: segment (1), whether a token also stands in
    the prompt (2), traits of a response and kinds of a question (`layers - 2`, the third). One layer below the last,
    where the answer is given, two more read the question's kinds again and the difference of the responses' traits:
    what is left for the last layer is to multiply the two.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.segment_head = nn.Linear(shape.width, len(set(SEGMENTS.values())))
        self.match_head = nn.Linear(shape.width, 1)
        self.trait_head = nn.Linear(shape.width, TRAITS)
        self.kind_head = nn.Linear(shape.width, len(KIND_NAMES))
        self.asked_head = nn.Linear(shape.width, len(KIND_NAMES))
        self.difference_head = nn.Linear(shape.width, TRAITS)


def export(network: Decoder, folder: Path, tokens: dict[str, int]) -> None:
    """Write config.json, generation_config.json and fp16 model.safetensors. `tokens`: ids of bos, eos and pad."""
    from safetensors.torch import save_file

    shape = network.shape
    names = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj"}
    names |= {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    names |= {"norm_1": "input_layernorm", "norm_2": "post_attention_layernorm"}
    weights = {"model.embed_tokens.weight": network.embedding, "model.norm.weight": network.norm}
    for number, layer in enumerate(network.layers):
        for own, theirs in names.items():
            weights[f"model.layers.{number}.{theirs}.weight"] = getattr(layer, own)
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: weight.detach().half().contiguous() for name, weight in weights.items()}
    save_file(halves, str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.width // shape.heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "mlp_bias": False,
        "torch_dtype": "float16",
        "bos_token_id": tokens["bos"],
        "eos_token_id": tokens["eos"],
        "pad_token_id": tokens["pad"],
    }
    _write_json(folder / "config.json", config)
    generation = {f"{name}_token_id": number for name, number in tokens.items()}
    _write_json(folder / "generation_config.json", {**generation, "do_sample": False})


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
