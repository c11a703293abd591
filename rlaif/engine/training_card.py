"""The model card of a trained model: `README.md`, for the person who finds the folder a year later. Pure: facts in,
text out. What came from the data or the user is never live in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from rlaif.data.markdown import code, fence, inline, one_line, plain, table
from rlaif.data.training_methods import RowKind
from rlaif.engine.training_metrics import shown, title_of
from rlaif.training_records import Labels

if TYPE_CHECKING:
    from rlaif.data.training_selection import FilterCounts, SplitCounts
    from rlaif.engine.training_origin import DataOrigin
    from rlaif.train.items import Truncation

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""OWNER/NAME: a name alone may be that of a folder."""

_METHODS = {
    "sft": "A language model trained to imitate responses (supervised fine-tuning): their tokens became likelier.",
    "rm": "A reward model: it reads a prompt with one response and answers with a number, the reward. The difference "
    "of two rewards is the log-odds that the first response is preferred (Bradley-Terry).",
    "dpo": "A language model trained on preferences between responses with DPO: what it makes likelier than its "
    "reference does is what the labels prefer.",
    "gdpo": "A language model trained on preferences with GDPO: DPO by the geometric mean, in which an unsure label "
    "moves little.",
    "ipo": "A language model trained on preferences with IPO: the lead of the preferred response is drawn to a finite "
    "goal, not to infinity.",
    "cdpo": "A language model trained on preferences with cDPO: DPO that takes a share of the labels to be flipped.",
    "robust-dpo": "A language model trained on preferences with robust DPO: a loss whose expectation is not moved by a "
    "known share of flipped labels.",
    "kto": "A language model trained with KTO on single responses that are desirable or not.",
    "hpo": "A language model trained with HPO: on preferences, and to make responses likelier the more their auxiliary "
    "rewards lead those of other responses to the prompt.",
    "simpo": "A language model trained on preferences with SimPO: by the mean log-probability of a token, without a "
    "reference.",
    "rrhf": "A language model trained with RRHF to rank responses as they are rated, and to imitate the best of them.",
}
"""What a model of a method is, in a sentence."""

_LABELS = {
    "soft": "the judge's probability itself: a 0.55 counts as a 0.55",
    "hard": "the judge's verdict, as if it were certain; ties left out",
    "human": "the share of people's votes",
}

_ROW_LABELS = {
    RowKind.CANDIDATES: "the ratings of each prompt's responses",
    RowKind.FEEDBACK: "desirable or not, a response at a time",
    RowKind.DEMONSTRATIONS: "none: all responses are imitated",
}


@dataclass(frozen=True, slots=True)
class HeldOutResult:
    """A figure on held-out rows.

    Attributes:
        name: As in metrics.jsonl, without "eval_".
        value: After training.
        low, high: 95 % interval, where there is one.
        before: The same before training, where it was measured.
        n: What it is a mean over, where that is not all held-out rows.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    before: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class ModelCardFacts:
    """All that a model card tells.

    Attributes:
        title: The model's name.
        method: Such as "dpo".
        base_model, base_fingerprint: Name (no machine path) and SHA-256 or commit of the model it started from.
        source, source_sha256: What the input was called, and the fingerprint of its content.
        kind: What its rows hold.
        labels: What pairs were trained on.
        filtered, split: Rows left out and why; rows and prompts on each side.
        command: What makes the model again.
        seed: Of every random draw.
        versions: Of the packages.
        steps, epochs: Optimizer steps, and times each row was seen.
        tokens: Seen in training, prompts and responses.
        skipped: Rows that could not be read, in failures.jsonl.
        joined: Rows of one response that joined another row of their prompt.
        origin: The run whose labels these are; None for a file.
        truncation: What was cut; None where nothing could be.
        settings: Those that differ from their defaults, by name.
        reference: Name of the reference where it is another model than `base_model`; None else.
        results: On held-out rows.
        reward_shift: What is subtracted from a reward model's raw scores; None for other models.
        curves: Paths of the plots, relative to the card.
        has_chat_template: Whether the tokenizer has one.
        end_token: Text of the token that ends a response, at which a reward model is read.
        is_adapter: Whether the folder holds an adapter for `base_model`, not a whole model.
        best_step: The step whose weights were kept, where that is not the last.
        seconds, device: Wall time of all sessions, and where.
        notes: Further sentences, such as how rows were computed.
    """

    title: str
    method: str
    base_model: str
    base_fingerprint: str
    source: str
    source_sha256: str
    kind: RowKind
    labels: Labels
    filtered: FilterCounts
    split: SplitCounts
    command: str
    seed: int
    versions: Mapping[str, str]
    steps: int
    epochs: float
    tokens: int
    skipped: int = 0
    joined: int = 0
    origin: DataOrigin | None = None
    truncation: Truncation | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None
    results: tuple[HeldOutResult, ...] = ()
    reward_shift: float | None = None
    curves: tuple[str, ...] = ()
    has_chat_template: bool = True
    end_token: str = ""
    is_adapter: bool = False
    best_step: int | None = None
    seconds: float | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def is_reward_model(self) -> bool:
        return self.method == "rm"


def render_model_card(facts: ModelCardFacts) -> str:
    """The text of `README.md`, with the YAML header that the hub reads."""
    sections = [
        f"---\n{yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True)}---",
        f"# {inline(facts.title)}",
        _introduction(facts),
        _use_section(facts),
        _results_section(facts),
        _curves_section(facts),
        _data_section(facts),
        _training_section(facts),
        f"## How to make it again\n\n{fence(facts.command, 'sh')}\n\nThe same command on this folder resumes or "
        "confirms the run. `run.json` holds all settings, `metrics.jsonl` every figure that was logged.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _header(facts: ModelCardFacts) -> dict[str, Any]:
    kind = "reward-model" if facts.is_reward_model else "preference-training"
    header: dict[str, Any] = {}
    if _HUB_NAME.fullmatch(facts.base_model):  # the hub refuses a card that names anything else
        header["base_model"] = facts.base_model
        header["base_model_relation"] = "adapter" if facts.is_adapter else "finetune"
    header |= {
        "library_name": "peft" if facts.is_adapter else "transformers",
        "pipeline_tag": "text-classification" if facts.is_reward_model else "text-generation",
        "tags": ["rlaif", "ai-feedback", *([kind] if facts.method != "sft" else []), facts.method],
    }
    if facts.source.startswith("hf://"):
        header["datasets"] = [one_line(facts.source.removeprefix("hf://").partition("@")[0].partition(":")[0])]
    return header


def _introduction(facts: ModelCardFacts) -> str:
    text = f"{_METHODS[facts.method]} It started from {code(facts.base_model)}"
    if facts.reference is not None:
        text += f" and was held to {code(facts.reference)}"
    text += "."
    if facts.is_adapter:
        text += " This folder holds an adapter (LoRA), which goes on top of that model."
    if facts.method != "sft":
        whose = "the judge" if facts.origin is not None and facts.labels != "human" else "whoever made the labels"
        text += f" It learnt what the labels say: the tastes and mistakes of {whose} are in the model."
    if facts.origin is not None and facts.origin.is_demonstration:
        text += (
            "\n\n> **Warning: trained on labels of the demonstration judge.** `builtin:tiny` is a model of a few "
            "million parameters that ships with rlaif to show and test the pipeline, and its labels say little about "
            "the responses. Do not use this model for anything else."
        )
    return text


def _use_section(facts: ModelCardFacts) -> str:
    return _reward_model_use(facts) if facts.is_reward_model else policy_use(facts.base_model, facts.is_adapter)


def policy_use(base_model: str, is_adapter: bool) -> str:
    """The section of a card that says how a language model is loaded.

    Args:
        base_model: Name of the model it started from.
        is_adapter: Whether the folder holds an adapter for that.
    """
    shipped = base_model.removeprefix("builtin:") if base_model.startswith("builtin:") else None
    if is_adapter and shipped is not None:
        load = (
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            "from rlaif.backends.builtin import builtin_folder\n\n"
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
            f"base = AutoModelForCausalLM.from_pretrained(builtin_folder({shipped!r}))\n"
            'model = PeftModel.from_pretrained(base, "FOLDER")'
        )
    elif is_adapter:
        load = (
            "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
            'model = AutoPeftModelForCausalLM.from_pretrained("FOLDER")'
        )
    else:
        load = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
            'model = AutoModelForCausalLM.from_pretrained("FOLDER")'
        )
    return f"## How to use it\n\n{fence(load, 'python')}"


def _reward_model_use(facts: ModelCardFacts) -> str:
    shift = facts.reward_shift or 0.0
    text = (
        'messages = [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]\n'
        "text = tokenizer.apply_chat_template(messages, tokenize=False).rstrip()\n"
        f"text = text.removesuffix({facts.end_token!r}) + {facts.end_token!r}  # the reward is read at the end\n"
        'inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")\n'
        if facts.has_chat_template
        else f'inputs = tokenizer("PROMPT" + "RESPONSE" + {facts.end_token!r}, return_tensors="pt")\n'
    )
    load = (
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\n'
        'model = AutoModelForSequenceClassification.from_pretrained("FOLDER")\n'
        f"{text}"
        "reward = model(**inputs).logits[0, 0].item() - model.config.reward_shift"
    )
    return (
        "## How to use it\n\nAs a judge that labels, rates, serves rewards and is audited like any other:\n\n"
        f"{fence('rlaif label comparisons.jsonl -o runs/by-reward --judge hf-reward:FOLDER', 'sh')}\n\n"
        f"Or with transformers alone, a response at a time:\n\n{fence(load, 'python')}\n\n"
        f"{shift:.6g} is subtracted from the raw scores (`reward_shift` in `config.json`), so that reference "
        "responses have a mean reward of 0. Only differences between responses to one prompt were trained."
    )


def _results_section(facts: ModelCardFacts) -> str:
    counts = facts.split
    if not facts.results:
        why = "no prompt was held out" if not counts.held_out_rows else "no figure was measured"
        return f"## Results\n\nNone: {why}. Whether the model is any good, nothing in this folder tells."
    is_compared = any(result.before is not None for result in facts.results)
    rows = []
    for result in facts.results:
        after = shown(result.name, result.value)
        if result.low is not None and result.high is not None:
            after += f" ({shown(result.name, result.low)} to {shown(result.name, result.high)})"
        before = "" if result.before is None else shown(result.name, result.before)
        size = f"{result.n or counts.held_out_rows:,}"
        rows.append((title_of(result.name), *([before] if is_compared else []), after, size))
    head = ("On held-out prompts", *(["Before training"] if is_compared else []), "After", "Over")
    shift = " Rewards are those before the shift." if facts.is_reward_model else ""
    interval = " In brackets: the 95 % interval." if any(result.low is not None for result in facts.results) else ""
    return (
        f"## Results\n\n{table(head, rows)}\n\nOver {_rows(counts.held_out_rows, counts.held_out_prompts)} that were "
        f"not trained on, against the labels as they were trained on unless it says otherwise.{interval}{shift}"
    )


def _curves_section(facts: ModelCardFacts) -> str:
    return curves_section(facts.curves)


def curves_section(curves: Sequence[str]) -> str:
    """The section of a card with plots, by their paths relative to it; "" without any."""
    if not curves:
        return ""
    images = "\n".join(f"![{_alt(path)}]({path})" for path in curves)
    return f"## Curves\n\n{images}"


def _alt(path: str) -> str:
    """What a plot is called by those who do not see it: "learning rate" for curves/learning_rate.png."""
    return path.rpartition("/")[2].partition(".")[0].replace("_", " ")


def _data_section(facts: ModelCardFacts) -> str:
    counts = facts.split
    dropped = ((str(reason), count) for reason, count in facts.filtered.dropped.items() if count)
    rows = [
        ("Input", code(facts.source)),
        ("Input content (SHA-256)", code(facts.source_sha256)),
        ("What a row is", str(facts.kind)),
        ("Labels", _LABELS[facts.labels] if facts.kind is RowKind.PAIRS else _ROW_LABELS[facts.kind]),
        ("Trained on", _rows(counts.train_rows, counts.train_prompts)),
        ("Held out", _rows(counts.held_out_rows, counts.held_out_prompts)),
        *((f"Left out: {inline(reason)}", f"{count:,}") for reason, count in dropped),
        *([("Could not be read, in `failures.jsonl`", f"{facts.skipped:,}")] if facts.skipped else []),
        *([("Joined to another row of their prompt", f"{facts.joined:,}")] if facts.joined else []),
    ]
    if facts.truncation is not None:
        rows.append(("Truncation", inline(str(facts.truncation))))
    return f"## Data\n\n{table(('', ''), rows)}{_origin(facts.origin)}"


def _origin(origin: DataOrigin | None) -> str:
    """The run that the labels come from."""
    if origin is None:
        return ""
    constitution = (
        [
            (
                "Constitution",
                f"{code(origin.constitution)} (SHA-256 {code(origin.constitution_fingerprint or 'unknown')})",
            )
        ]
        if origin.constitution is not None
        else []
    )
    rows = [
        (f"Run of {code(f'rlaif {origin.command}')} (id, SHA-256)", code(origin.run_id)),
        ("Judge" if len(origin.judges) == 1 else "Judges", ", ".join(map(code, origin.judges))),
        ("Task", code(origin.task)),
        ("Prompt template (SHA-256)", code(origin.template)),
        *constitution,
        ("Calibrated to people's labels", "yes" if origin.is_calibrated else "no"),
        ("Rows without a label in that run", f"{origin.failures:,}"),
        *([] if origin.status == "finished" else [("State of that run", inline(origin.status))]),
    ]
    return f"\n\nThe labels were made by rlaif:\n\n{table(('', ''), rows)}"


def _training_section(facts: ModelCardFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    rows = [
        ("Method", code(facts.method)),
        ("Started from", code(facts.base_model)),
        ("Its fingerprint", code(facts.base_fingerprint)),
        ("Optimizer steps", f"{facts.steps:,} ({facts.epochs:.4g} epochs)"),
        *([("Weights kept are those of step", f"{facts.best_step:,}")] if facts.best_step is not None else []),
        ("Tokens seen", f"{facts.tokens:,}"),
        *([("Wall time", f"{facts.seconds:,.1f} seconds")] if facts.seconds is not None else []),
        *([("Device", code(facts.device))] if facts.device is not None else []),
        ("Seed", str(facts.seed)),
        ("Versions", code(versions)),
        *((code(f"--{name.replace('_', '-')}"), code(plain(value))) for name, value in facts.settings.items()),
    ]
    notes = "".join(f"\n\n{inline(note)}" for note in facts.notes)
    changed = " The flags above are those that differ from their defaults." if facts.settings else ""
    return f"## Training\n\n{table(('', ''), rows)}\n\nAll settings are in `run.json`.{changed}{notes}"


def _rows(rows: int, prompts: int) -> str:
    return f"{rows:,} rows of {prompts:,} prompts"
