"""A checkpoint that cannot be written."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rlaif.errors import RunFolderError
from rlaif.train.checkpoints import writing


def test_what_cannot_be_written_is_said_whoever_writes(tmp_path: Path) -> None:
    at = tmp_path / "checkpoint-4"
    missing = tmp_path / "no" / "folder" / "weights"
    said = r"checkpoint-4: cannot be written \(.*\); what was saved before is as it was"
    with pytest.raises(RunFolderError, match=said), writing(at):
        save_file({"weight": torch.zeros(2)}, missing)
    with pytest.raises(RunFolderError, match=said), writing(at):
        torch.save({"weight": torch.zeros(2)}, missing)
    with pytest.raises(RunFolderError, match="No space left"), writing(at):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_other_faults_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError), writing(tmp_path):
        raise torch.OutOfMemoryError("the device is full")
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("x")
