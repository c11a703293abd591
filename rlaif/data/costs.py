"""What labels cost: the judge's tokens at a price, and people's reading for comparison."""

from __future__ import annotations


def cost_usd(prompt_tokens: int, completion_tokens: int, price_in: float, price_out: float) -> float:
    """The price of some tokens.

    Args:
        prompt_tokens, completion_tokens: As the server counts them.
        price_in, price_out: US dollars per million prompt and completion tokens.

    Source: Lee et al., RLAIF, arXiv:2309.00267, appendix L: a label with reasons in both orders, 830 and 61 tokens a
    call at 30 and 60 dollars per million, is 2 x (830 x 30 + 61 x 60) / 10^6 = 0.057 dollars.

    >>> round(cost_usd(2 * 830, 2 * 61, 30, 60), 3)
    0.057
    """
    return (prompt_tokens * price_in + completion_tokens * price_out) / 1e6


def human_cost_usd(words: float, usd_per_50_words: float = 0.11) -> float:
    """What the same label costs when a person reads prompt and responses.

    Args:
        words: Words to read.
        usd_per_50_words: The rate of a labeling service, in US dollars.

    Source: the same appendix, 304 words at 0.11 dollars per 50.

    >>> round(human_cost_usd(304), 2)
    0.67
    """
    return words * usd_per_50_words / 50
