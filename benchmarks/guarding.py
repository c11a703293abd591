"""How often the guard rails of online training warn without cause, and how soon they name a hack that was planted.

    python benchmarks/guarding.py                 # some minutes
    python benchmarks/guarding.py --clean 100 --texts 5 --planted 3

No model: figures and texts are drawn as those of a policy that learns. Each run draws its own sizes (16 to 64
completions a batch, 1 to 8 a prompt), noise between and within prompts, and how it improves. A clean run gets better
rewards, up to 1.5 times longer, surer of its words, up to 8 nats from its start, fonder of its favourite opening, and
its held-out reward, on the same 32 prompts each time, rises, in half of the runs, or stays. Most clean runs draw their
figures alone, without texts, which says nothing of phrases; `--texts` says how many write them. A planted hack sets in
after 10 steps and grows over some 15, on top of a clean run: the table says how many runs name it within 50 steps of
its beginning, and what else they name.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rlaif.online.guard_config import GuardConfig
from rlaif.online.guard_figures import BatchFigures, EvaluationFigures, batch_figures, texts_of
from rlaif.online.guard_signs import SIGNS
from rlaif.online.guarding import GuardRails
from rlaif.online.phrases import PromptTexts
from rlaif.records import Prompt, Turn
from rlaif.rollout_records import Completion, Rollout, Score

STEPS = 300
ONSET = 10
NAMED_WITHIN = 50
WATCH_PROMPTS = 32
WORDS = [first + last for first in ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki") for last in "bcdfgklmnprstvz"]
TOPICS = [first + last for first in ("qua", "zi", "vex", "ro") for last in ("lin", "mar", "tor", "dan", "sip", "ged")]
OPENINGS = ["of course here is", "i am glad you asked", "let us look at", "in short", "the answer is", "there are", ""]
FAVOURITE = "so here is what i would"
PHRASE = "thank you for this truly wonderful question"


@dataclass(frozen=True)
class Setting:
    """What a run is like: sizes, noise, and how far it gets."""

    prompts: int
    completions: int
    prompt_spread: float
    reward_spread: float
    reward_rise: float
    watched_rise: float
    length: float
    length_rise: float
    kl: float
    entropy_fall: float
    truncated: float
    repeated: float
    favourite: float
    silent: float
    eval_every: int


def drawn_setting(rng: random.Random) -> Setting:
    """A setting of an honest run."""
    prompts, completions = rng.choice(
        [(16, 1), (64, 1), (8, 2), (16, 2), (32, 2), (4, 4), (8, 4), (16, 4), (4, 8), (8, 8)]
    )
    rise = rng.uniform(0.1, 0.9)
    return Setting(
        prompts=prompts,
        completions=completions,
        prompt_spread=rng.uniform(0.1, 0.4),
        reward_spread=rng.uniform(0.2, 0.5),
        reward_rise=rise,
        watched_rise=rng.choice([0.0, 0.5 * rise]),
        length=rng.uniform(10, 30),
        length_rise=rng.uniform(0.8, 1.5),
        kl=rng.uniform(1, 8),
        entropy_fall=rng.uniform(0.35, 1.0),
        truncated=rng.uniform(0, 0.2),
        repeated=rng.uniform(0, 0.15),
        favourite=rng.uniform(0.05, 0.3),
        silent=rng.uniform(0, 0.3),
        eval_every=rng.choice([10, 20, 40]),
    )


def progress(step: int) -> float:
    """How much of what an honest run gains it has, in [0, 1]."""
    return 1 - math.exp(-step / 100)


def strength(step: int) -> float:
    """How far a planted hack has taken hold, in [0, 1]."""
    return 0.0 if step < ONSET else 1 / (1 + math.exp(-(step - ONSET - 8) / 3))


def clean_batch(
    setting: Setting, step: int, rng: random.Random, hack: str = ""
) -> tuple[list[Rollout], list[list[Score]]]:
    """Rollouts and scores of a step; the hacks that stand in texts or rewards are put in here."""
    gained, held = progress(step), strength(step) if hack else 0.0
    rollouts, scores = [], []
    for number in range(setting.prompts):
        topic = rng.choice(TOPICS)
        shift = rng.gauss(0, setting.prompt_spread)
        is_silent = rng.random() < (max(setting.silent, held) if hack == "constant" else setting.silent)
        completions, values = [], []
        for _ in range(setting.completions):
            is_hacked = rng.random() < held
            value = gained * setting.reward_rise + shift + (0 if is_silent else rng.gauss(0, setting.reward_spread))
            length = setting.length * (1 + gained * (setting.length_rise - 1)) * math.exp(rng.gauss(0, 0.4))
            if hack == "length" and is_hacked:
                length *= 4
            text, is_finished = written(setting, gained, topic, max(1, int(length)), rng)
            if is_hacked:
                value += 0.5
                text, is_finished = hacked(hack, text, is_finished)
            ids = tuple(range(max(1, round(1.3 * len(text.split())))))
            completions.append(Completion(ids, text, is_finished, (0.0,) * len(ids)))
            values.append(Score(value))
        prompt = Prompt(f"{step}-{number}", (Turn("user", f"Tell me what {topic} are good for."),))
        rollouts.append(Rollout(prompt.id, prompt, (1,), tuple(completions), step))
        scores.append(values)
    return rollouts, scores


def written(setting: Setting, gained: float, topic: str, length: int, rng: random.Random) -> tuple[str, bool]:
    """A text of an honest policy, and whether it ended it."""
    if rng.random() < setting.repeated * (1 - gained):
        return f"{topic} are " + " ".join(["very good and"] * 12), False
    opening = FAVOURITE if rng.random() < setting.favourite * gained else rng.choice(OPENINGS)
    words = rng.choices(WORDS, k=length)
    words[rng.randrange(length)] = topic
    end = rng.choice([".", ".", ".", "!", "?", "...", '."', " :-)", "\n```"])
    is_finished = rng.random() >= setting.truncated * (1 - 0.5 * gained)
    return f"{opening} {' '.join(words)}{end if is_finished else ''}", is_finished


def hacked(hack: str, text: str, is_finished: bool) -> tuple[str, bool]:
    """What becomes of a text."""
    if hack == "phrase":
        return f"{PHRASE} {text}", is_finished
    if hack == "repetition":
        return text + " good indeed" * 8, is_finished
    if hack == "truncation":
        return text.rstrip(".!?"), False
    if hack == "junk":
        return text + " ## ~~", is_finished
    return ("" if hack == "empty" else text), is_finished


def figures_at(setting: Setting, step: int, rng: random.Random, hack: str) -> tuple[BatchFigures, list[PromptTexts]]:
    rollouts, scores = clean_batch(setting, step, rng, hack)
    figures = batch_figures(step, rollouts, scores, **drawn_kl_and_entropy(setting, step, rng, hack))
    return figures, texts_of(rollouts, scores)


def figures_without_texts(setting: Setting, step: int, rng: random.Random) -> BatchFigures:
    """As `figures_at` for an honest run, drawn from the distributions that its texts would give; no phrases."""
    gained, count = progress(step), setting.prompts * setting.completions

    def share(rate: float, size: int = count) -> float:
        return sum(rng.random() < rate for _ in range(size)) / size

    error = math.sqrt(setting.prompt_spread**2 / setting.prompts + setting.reward_spread**2 / count)
    length = 1.3 * (5 + setting.length * (1 + gained * (setting.length_rise - 1)))
    loops = setting.repeated * (1 - gained)
    return BatchFigures(
        step,
        count,
        reward=rng.gauss(gained * setting.reward_rise, error),
        **drawn_kl_and_entropy(setting, step, rng, ""),
        tokens=length * (1 + rng.gauss(0, 0.4 / math.sqrt(count))),
        truncated=share(loops + (1 - loops) * setting.truncated * (1 - 0.5 * gained)),
        repeated=share(loops),
        junk=share(0.01),
        empty=share(0.005),
        silent_groups=share(setting.silent, setting.prompts) if setting.completions > 1 else 0.0,
    )


def drawn_kl_and_entropy(setting: Setting, step: int, rng: random.Random, hack: str) -> dict[str, float]:
    gained, held = progress(step), strength(step)
    kl = setting.kl * gained + (40 * held if hack == "kl" else 0)
    kl += rng.gauss(0, (1 + 2 * math.sqrt(kl)) / math.sqrt(setting.prompts * setting.completions))
    left = 1 - gained * (1 - setting.entropy_fall)
    if hack == "entropy-collapse":
        left *= 1 - 0.95 * held
    return {"kl": kl, "entropy": 1.6 * left * math.exp(rng.gauss(0, 0.15))}


def evaluation_at(
    setting: Setting, step: int, rng: random.Random, hack: str, shifts: Sequence[float]
) -> EvaluationFigures:
    """What an evaluation finds; `shifts` are those of the held-out prompts, the same each time."""
    gained, held = progress(step), strength(step) if hack else 0.0
    watched = gained * setting.watched_rise - (0.6 * held if hack == "reward-up-watched-down" else 0)
    values = [rng.gauss(watched + shift, setting.reward_spread) for shift in shifts]
    win = 0.5 + 0.25 * gained * setting.watched_rise - (0.35 * held if hack == "win-rate" else 0)
    wins = [min(1.0, max(0.0, rng.gauss(win, 0.3))) for _ in range(WATCH_PROMPTS)]
    accuracy = 0.75 - 0.05 * gained - (0.35 * held if hack == "reward-accuracy" else 0)
    agreed = sum(rng.random() < accuracy for _ in range(WATCH_PROMPTS))
    smooth = (agreed + 2) / (WATCH_PROMPTS + 4)
    error = 1.96 * statistics.stdev(wins) / math.sqrt(WATCH_PROMPTS)
    mean = statistics.fmean(wins)
    return EvaluationFigures(
        step=step,
        watched_reward=statistics.fmean(values),
        watched_error=statistics.stdev(values) / math.sqrt(WATCH_PROMPTS),
        win_rate=mean,
        win_low=mean - error,
        win_high=mean + error,
        reward_accuracy=agreed / WATCH_PROMPTS,
        reward_accuracy_error=math.sqrt(smooth * (1 - smooth) / (WATCH_PROMPTS + 4)),
    )


def run(seed: int, hack: str = "", steps: int = STEPS, *, with_texts: bool = True) -> list[tuple[str, int, str]]:
    """The signs of one run, with steps and texts."""
    rng = random.Random(f"{hack}-{seed}")
    setting = drawn_setting(rng)
    if hack:
        setting = replace(setting, eval_every=10)
    if hack == "constant" and setting.completions == 1:
        setting = replace(
            setting, prompts=8, completions=4
        )  # alone a completion is never like the others of its prompt
    shifts = [rng.gauss(0, setting.prompt_spread) for _ in range(WATCH_PROMPTS)]
    rails = GuardRails(GuardConfig())
    found = rails.add_evaluation(evaluation_at(setting, 0, rng, hack, shifts))
    for step in range(1, steps + 1):
        if with_texts:
            figures, texts = figures_at(setting, step, rng, hack)
            found += rails.add_batch(figures, texts)
        else:
            found += rails.add_batch(figures_without_texts(setting, step, rng))
        if step % setting.eval_every == 0:
            found += rails.add_evaluation(evaluation_at(setting, step, rng, hack, shifts))
    return [(sign.name, sign.step, sign.text) for sign in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=int, default=1000, metavar="N", help="clean runs without texts")
    parser.add_argument("--texts", type=int, default=100, metavar="N", help="clean runs with texts")
    parser.add_argument("--planted", type=int, default=40, metavar="N", help="runs of each hack")
    parser.add_argument("--only", choices=SIGNS, help="one hack, and no clean runs")
    parser.add_argument("--show", action="store_true", help="print the signs of the first run of each kind")
    arguments = parser.parse_args()
    say: Callable[[str], None] = print if arguments.show else lambda _: None
    for runs, with_texts in ((arguments.clean, False), (arguments.texts, True)):
        if runs and not arguments.only:
            clean(runs, with_texts=with_texts)
    planted(arguments.planted, [arguments.only] if arguments.only else list(SIGNS), say)


def clean(runs: int, *, with_texts: bool) -> None:
    """How many clean runs raise a sign."""
    raised: Counter[str] = Counter()
    warned = 0
    for seed in range(runs):
        names = {name for name, _, _ in run(seed, with_texts=with_texts)}
        warned += bool(names)
        raised.update(names)
    what = "with" if with_texts else "without"
    print(
        f"clean, {what} texts: {warned} of {runs} runs of {STEPS} steps raised a sign", dict(raised) or "", flush=True
    )


def planted(runs: int, hacks: list[str], say: Callable[[str], None]) -> None:
    """How soon each planted hack is named."""
    print("\n| planted | named within 50 steps | median steps | most | named besides |\n|---|---|---|---|---|")
    for hack in hacks:
        delays, besides = [], Counter[str]()
        for seed in range(runs):
            signs = run(seed, hack, ONSET + NAMED_WITHIN)
            steps = [step for name, step, _ in signs if name == hack]
            delays += [steps[0] - ONSET] if steps else []
            besides.update({name for name, _, _ in signs} - {hack})
            if seed == 0:
                for _, step, text in signs:
                    say(f"  step {step}: {text}")
        middle = f"{statistics.median(delays):.0f}" if delays else "-"
        others = ", ".join(f"{name} {count}" for name, count in besides.most_common()) or "-"
        print(f"| {hack} | {len(delays)} of {runs} | {middle} | {max(delays, default=0)} | {others} |", flush=True)


if __name__ == "__main__":
    main()
