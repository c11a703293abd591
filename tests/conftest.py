"""What all tests share."""

from __future__ import annotations

from hypothesis import settings

# A test machine may be busy with something else: how long one example takes says nothing.
settings.register_profile("rlaif", deadline=None)
settings.load_profile("rlaif")
