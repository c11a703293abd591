"""What a model of transformers is to us: found and loaded, its inputs encoded and packed, its outputs read.

Judging, scoring and training use the same code for it. Knows records, tokens and errors. Importing this package loads
no torch; `batches`, `logprobs`, `rewards` and `values` do.
"""
