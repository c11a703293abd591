"""How the judge that ships as `builtin:tiny` is made: its grammar, sequences, network and training."""
