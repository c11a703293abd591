"""Training from preferences: losses, the one trainer that carries them, and what it takes from a row.

Knows models, records and errors; asks no judge and reads no run folder. Importing this package loads no torch.
"""
