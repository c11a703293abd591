"""Training from preferences: losses, the one trainer that carries them, and what a row becomes before it gets there.

Knows records, tokens and errors; asks no judge and reads no run folder. Importing this package loads no torch; its
modules do, but for `labels`.
"""
