"""Every exception that `rlaif` raises on purpose.

    RlaifError
    ├── ConfigError (ValueError)                a flag, YAML key or argument is wrong; nothing was started
    ├── InputError (ValueError)                 an input file or row cannot be read: file, line, column, expectation
    ├── PromptError (ValueError)                a template cannot be found, parsed or rendered
    ├── ConstitutionError (ValueError)          a constitution cannot be found or read; points to the entry
    ├── CalibrationError (ValueError)           the labels at hand support no calibration: too few, of one kind, ...
    ├── RunFolderError                          the output folder is another run's, is in use, or cannot be written
    ├── HubError                                the Hugging Face hub did not take an upload; what was written stays
    ├── BudgetExceededError                     --max-cost is spent; the run stops cleanly and can be resumed
    ├── NonFiniteLossError                      training: the loss or its gradient is NaN or infinite; it stops there
    ├── DeviceMemoryError (MemoryError)         training: a micro-batch does not fit; names what makes it smaller
    ├── RewardError (ValueError)                training: a reward function failed, or what it said is no reward
    ├── BackendError                            the judge could not be asked
    │   ├── BackendNotInstalledError (ImportError)   an extra is missing; names the pip install
    │   ├── BackendUnusableError                no call can succeed (401, 403, 404, model not found): the run stops
    │   ├── RequestRefusedError                 the server refuses this one request (400, 413, 422): the row fails
    │   ├── PromptTooLongError (ValueError)     the prompt does not fit the context: the row fails
    │   ├── LogprobsUnavailableError            the server answers without log-probabilities
    │   └── TransientBackendError               worth asking again
    │       ├── RateLimitedError                429, or any answer with Retry-After
    │       ├── ServerFaultError                5xx, connection reset
    │       ├── BackendTimeoutError (TimeoutError)
    │       └── MalformedReplyError (ValueError)     a truncated or unparsable body
    ├── NoResponseError (ValueError)            of a prompt's responses none can be used: the row fails
    └── JudgmentError (ValueError)              the judge answered, and the answer is no verdict: the row fails
        ├── LabelsUnseenError                   no answer token among the returned log-probabilities
        ├── LowLabelMassError                   the answer tokens hold too little of the probability
        ├── UnreadableVerdictError              generated text without a verdict in it
        └── TooFewVerdictsError                 too few of the samples could be read

A failed comparison is data: journaled with its cause, counted, and written to `failures.jsonl`; never a tie, a 0.5 or a
skipped line. `error_name` is what stands there.
"""

from __future__ import annotations

from collections.abc import Iterable


class RlaifError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one sentence for a person.

    Attributes:
        stage: Where in a row's judging it happened, such as "ab"; None until the engine says so.
    """

    stage: str | None = None

    @property
    def error_name(self) -> str:
        """The class name, as written to `failures.jsonl`."""
        return type(self).__name__


class ConfigError(RlaifError, ValueError):
    """A flag, YAML key or argument is wrong, and nothing was started."""


class InputError(RlaifError, ValueError):
    """An input file or one of its rows cannot be read.

    Args:
        message: What was found and what was expected.
        path: The file.
        line: 1-based line (or row, in formats without lines); None when the whole file is meant.
        column: The column at fault, if one is.
    """

    def __init__(self, message: str, *, path: str, line: int | None = None, column: str | None = None) -> None:
        where = path if line is None else f"{path}, line {line}"
        super().__init__(f"{where}{f', column {column!r}' if column else ''}: {message}")
        self.reason = message
        self.path = path
        self.line = line
        self.column = column


class PromptError(RlaifError, ValueError):
    """A template cannot be found, parsed or rendered."""


class ConstitutionError(RlaifError, ValueError):
    """A constitution cannot be found or read."""


class CalibrationError(RlaifError, ValueError):
    """No calibration can be fitted to what there is; says what is missing."""


class RunFolderError(RlaifError):
    """The output folder belongs to another run, is in use by another process, or cannot be written."""


class HubError(RlaifError):
    """The Hugging Face hub did not take an upload; what was written on this machine stays."""


class BudgetExceededError(RlaifError):
    """The budget given with `--max-cost` is spent; finished work is kept."""


class NonFiniteLossError(RlaifError):
    """The loss or its gradient is NaN or infinite; training stops before it reaches the weights."""


class DeviceMemoryError(RlaifError, MemoryError):
    """A micro-batch does not fit into the device's memory."""


class RewardError(RlaifError, ValueError):
    """A reward function raised, or what it returned is no reward (NaN, infinite, too few): training stops there."""


class BackendError(RlaifError):
    """The judge could not be asked.

    Attributes:
        attempts: How many times the call was made before this was raised.
    """

    attempts: int = 1


class BackendNotInstalledError(BackendError, ImportError):
    """A backend needs an extra that is not installed."""


class BackendUnusableError(BackendError):
    """No call to this backend can succeed (wrong key, unknown model, wrong address): the run stops at once."""


class RequestRefusedError(BackendError):
    """The server refuses this one request, and would refuse it again: the row fails."""


class PromptTooLongError(BackendError, ValueError):
    """The rendered prompt does not fit the model's context: the row fails, unless truncation was asked for."""


class LogprobsUnavailableError(BackendError):
    """The server answered without the log-probabilities that `--scoring logprobs` needs."""


class TransientBackendError(BackendError):
    """The call may succeed when made again.

    Args:
        message: What happened, in the server's words where it said something.
        retry_after: Seconds the server asked to wait; None when it did not say.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(TransientBackendError):
    """The server asks for fewer calls (429)."""


class ServerFaultError(TransientBackendError):
    """The server failed (5xx), or the connection broke."""


class BackendTimeoutError(TransientBackendError, TimeoutError):
    """No answer within `--timeout` seconds."""


class MalformedReplyError(TransientBackendError, ValueError):
    """The body was cut short or cannot be parsed."""


class NoResponseError(RlaifError, ValueError):
    """A policy answered a prompt, and none of its responses can be used."""


class JudgmentError(RlaifError, ValueError):
    """The judge answered, and the answer holds no verdict."""


class LabelsUnseenError(JudgmentError):
    """None of the answer tokens is among the returned log-probabilities."""


class LowLabelMassError(JudgmentError):
    """The answer tokens hold less of the next-token probability than `--min-label-mass`."""


class UnreadableVerdictError(JudgmentError):
    """A generated reply names no verdict, or more than one."""


class TooFewVerdictsError(JudgmentError):
    """Too few of the samples drawn for one label could be read."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint to append to "unknown NAME": the nearest known names, or "" where none is near.

    >>> did_you_mean("temprature", ["temperature", "timeout"])
    " (did you mean 'temperature'?)"
    """
    import difflib  # only a mistake pays for it

    near = difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
