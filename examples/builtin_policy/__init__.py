"""How the generator that ships as `builtin:tiny-policy` is made: what it says and revises, and its training."""
