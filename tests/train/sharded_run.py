"""What `torchrun` runs: `rlaif` with the arguments given, its weights split by FSDP on CPUs too.

accelerate splits nothing on a CPU. Told that these processes have a GPU each, it does as it does there, on gloo.
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from rlaif.cli.main import main
from rlaif.engine import training_results

make_state = AcceleratorState.__init__


def make_state_as_of_gpus(self: AcceleratorState, *given: Any, **more: Any) -> None:
    PartialState(cpu=True)
    if not AcceleratorState._shared_state:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    make_state(self, *given, **more)


if __name__ == "__main__":
    AcceleratorState.__init__ = make_state_as_of_gpus
    training_results.plot_curves = lambda *given, **more: []  # not what this is about
    sys.exit(main(sys.argv[1:]))
