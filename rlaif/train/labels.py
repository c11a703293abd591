"""What `--labels soft|hard|human` makes of a row: the probability that the losses train towards. Numbers, no torch.

Every loss over pairs takes P(A preferred), and 1 is a hard label: this is the only place where the three differ.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlaif.records import TIE_BAND, Verdict, verdict_of
from rlaif.training_records import Labels

_SHARES = {Verdict.A: 1.0, Verdict.B: 0.0, Verdict.TIE: 0.5}


def target_prob(
    labels: Labels,
    prob_a: float | None = None,
    human_votes: Sequence[Verdict] = (),
    human_label: Verdict | None = None,
    tie_band: float = TIE_BAND,
) -> float | None:
    """The probability that A is preferred, as one row's label is to be read.

    Args:
        labels: "soft" takes `prob_a` as it is; "hard" its larger side, 1 or 0; "human" the share of the votes for A,
            a tie counting half for each, and where there are no votes the majority label as if it were the only vote.
        prob_a: The judge's P(A preferred), in [0, 1]; None where the row has none.
        human_votes: One verdict per annotator; empty where there are none.
        human_label: The majority; not looked at where there are votes.
        tie_band: Under "hard", a `prob_a` this close to 0.5 is a tie.

    Returns:
        P(A preferred), in [0, 1]; None for a tie under "hard", which has no side: the row is to be dropped and counted.

    Raises:
        ValueError: The row has no such label, or `prob_a` is NaN or outside [0, 1].

    >>> target_prob("soft", 0.55), target_prob("hard", 0.55), target_prob("hard", 0.5)
    (0.55, 1.0, None)
    >>> target_prob("human", human_votes=[Verdict.A, Verdict.A, Verdict.B, Verdict.TIE])
    0.625
    """
    if labels == "human":
        votes = tuple(human_votes) or (() if human_label is None else (human_label,))
        if not votes:
            raise ValueError("the row has no human label; expected human_votes or human_label, or use --labels soft")
        return sum(_SHARES[vote] for vote in votes) / len(votes)
    if prob_a is None:
        raise ValueError(f"the row has no prob_a, which --labels {labels} needs; label it first, or use --labels human")
    if not 0.0 <= prob_a <= 1.0:
        raise ValueError(f"prob_a must lie in [0, 1], not {prob_a}")
    if labels == "soft":
        return prob_a
    verdict = verdict_of(prob_a, tie_band)
    return None if verdict is Verdict.TIE else _SHARES[verdict]
