"""Loading of models: what happens at the same time in several threads."""

from __future__ import annotations

import threading
from pathlib import Path

import rlaif.backends
from rlaif.models.loading import find_model, load_model

SHIPPED = Path(rlaif.backends.__file__).parent / "builtin_model"


def test_models_can_be_loaded_at_the_same_time() -> None:
    # A panel's judges, or the policies of one run, load in a thread each; transformers alone leaves one of two models
    # without weights then ("Cannot copy out of meta tensor").
    sources = [find_model(str(SHIPPED), device="cpu", dtype="auto") for _ in range(3)]
    start = threading.Barrier(len(sources))
    found: list[bool | Exception] = []

    def load(number: int) -> None:
        start.wait()
        try:
            model = load_model(sources[number])
            found.append(all(weights.device.type == "cpu" for weights in model.parameters()))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(len(sources))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * len(sources)
