"""What a candidate reward that fails a check raises: a stage for programs, a reason for the model that wrote it."""

STAGES = (
    "terms",
    "lint",
    "isolation",
    "worker",
    "time",
    "memory",
    "load",
    "trace",
    "output",
    "determinism",
    "smoke",
    "export",
    "verify",
    "artifact",
)
"""Where a candidate can be refused, in the order in which it meets the checks."""


class CandidateRefused(ValueError):  # noqa: N818  (a fixed name: it is an answer, not a fault)
    """A candidate reward did not pass a check. Nothing of it runs in this process.

    Attributes:
        stage: which check refused it, one of :data:`STAGES`.
        reason: what is wrong, where, and how to repair it; written for the model that wrote the candidate.

    Example:
        >>> refused = CandidateRefused("lint", "line 2: remove the import of 'os'.")
        >>> refused.stage, str(refused)
        ('lint', "refused at stage 'lint': line 2: remove the import of 'os'.")
    """

    def __init__(self, stage: str, reason: str) -> None:
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}.")
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"refused at stage {self.stage!r}: {self.reason}"
