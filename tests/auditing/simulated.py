"""Simulated judges whose temperature, slot bias and length slope are known, as tables to fit a calibration to."""

from __future__ import annotations

import numpy as np

from rlaif.auditing.table import AuditTable


def simulated_judge(
    seed: int,
    rows: int,
    temperature: float = 1.0,
    slot_bias: float = 0.0,
    length_slope: float = 0.0,
    *,
    noise: float = 0.0,
    orders: str = "both",
) -> AuditTable:
    """People prefer A with probability 1 / (1 + exp(-s)), s drawn; a judge without T, b and k says just that.

    Args:
        seed: Of every draw.
        rows: How many, each a cluster of its own.
        temperature, slot_bias, length_slope: T, b and k: the judge's logits are T * (s +/- b - k * length).
        noise: Standard deviation of what the judge adds to s, in each order anew.
        orders: "both", "ab", "ba", or "random": one of the two a row.
    """
    rng = np.random.default_rng(seed)
    length_a, length_b = (np.exp(rng.normal(6.0, 0.8, rows)).astype(np.int64) for _ in range(2))
    lengths = np.log((length_a + 1) / (length_b + 1))
    preference = rng.normal(0.0, 1.5, rows)
    logits = [
        temperature * (preference + noise * rng.normal(size=rows) + sign * slot_bias - length_slope * lengths)
        for sign in (1, -1)
    ]
    prob_ab, prob_ba = (1.0 / (1.0 + np.exp(-each)) for each in logits)
    human = (rng.random(rows) < 1.0 / (1.0 + np.exp(-preference))).astype(np.float64)
    is_ab = {"ab": np.ones(rows, bool), "ba": np.zeros(rows, bool)}.get(orders, rng.random(rows) < 0.5)
    if orders != "both":
        prob_ab, prob_ba = np.where(is_ab, prob_ab, np.nan), np.where(is_ab, np.nan, prob_ba)
    prob_a = np.nanmean(np.stack([prob_ab, prob_ba]), axis=0)
    three, nothing = np.zeros((rows, 3), np.int64), np.zeros(rows, np.bool_)
    ids = np.array([f"row {n}" for n in range(rows)], dtype=object)
    return AuditTable(
        ids, np.arange(rows), prob_a, prob_ab, prob_ba, human, three, np.ones(rows), length_a, length_b,
        three, three, nothing, nothing, {}, {},
    )  # fmt: skip
