"""Settings of the guard rails of online training. What they do stands in `guarding`. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True)
class GuardConfig:
    """What is watched while a policy learns from a reward, and what happens when it looks like reward hacking."""

    guards: Literal["on", "off"] = "on"
    """Watch KL, entropy, lengths, loops, trailing symbols, shared phrases and held-out rewards, and warn by name of
    signs of reward hacking."""

    stop_on_hack: bool = False
    """Stop at the first sign of reward hacking, with a checkpoint; without this they are warnings."""

    watch_judge: tuple[str, ...] = ()
    """Judge or reward model that is never trained against, BACKEND:MODEL; its reward on --watch-prompts is the check
    on the trained one's. Given more than once, a panel."""

    watch_prompts: Annotated[int, "at least 1"] = 32
    """Held-out prompts that the policy answers at each evaluation."""

    watch_every: Annotated[int, "at least 1"] | None = None
    """Steps between these evaluations (default: as --eval-every)."""

    max_kl: Annotated[float, "above 0"] | None = None
    """Divergence from the start, in nats a completion, from which on to warn (default: 0.25 for each token that a
    completion had at the start, at least 10)."""

    suite: str = "mini"
    """Questions asked before and after training, for what it cost elsewhere: mini, none, or a .jsonl file of prompt,
    right and wrong."""
