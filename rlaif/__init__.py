"""AI feedback for preference learning: soft labels from a judge's log-probabilities, and what is built on them."""
