"""Which launches of a run others were on the processors with, from the checks that they were recorded with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bench.record.launches import Check, LaunchRecord

RULES = ("contention", "foreign_cpu")
TOO_SHORT = "too short a window to tell"


@dataclass(frozen=True, slots=True)
class Crowd:
    """Launches by what neighbours did to them: `waited` for them, ran `beside` them, or not known (`open`, and why)."""

    launches: int
    waited: tuple[LaunchRecord, ...] = ()
    beside: tuple[LaunchRecord, ...] = ()
    open: tuple[LaunchRecord, ...] = ()

    @property
    def contended(self) -> str | None:
        """The sentence that comes before any figure, where engines had to wait for other programs."""
        if not self.waited:
            return None
        return (
            f"in {self._of(self.waited)} the engine's threads waited for other programs' use of the processors, up to "
            f"{_most(self.waited, 'contention')} of their time"
        )

    @property
    def accompanied(self) -> str | None:
        """What is to be said where others ran, and the engine did not wait for them."""
        if not self.beside:
            return None
        size = _most(self.beside, "foreign_cpu")
        return f"other programs ran beside {self._of(self.beside)}, with up to {size} of the machine's processor time"

    @property
    def unknown(self) -> str | None:
        """What is to be said where nobody knows."""
        if not self.open:
            return None
        checks = (check for record in self.open for check in _checks(record) if check.status == "unknown")
        why = next(check.evidence for check in checks)
        return f"whether other programs had the processors is not known of {self._of(self.open)}: {why}"

    def _of(self, some: tuple[LaunchRecord, ...]) -> str:
        return "the only launch" if self.launches == 1 else f"{len(some)} of {self.launches} launches"


def crowd(records: Iterable[LaunchRecord]) -> Crowd:
    """The launches that were measured, sorted by what their checks say of neighbours; a failed one has no figure."""
    measured = [record for record in records if record.status in ("ok", "invalid")]
    judged = [record for record in measured if any(check.name in RULES for check in record.checks)]
    waited = [record for record in judged if _found(record, "contention")]
    beside = [record for record in judged if record not in waited and _found(record, "foreign_cpu")]
    rest = [record for record in judged if record not in waited and record not in beside]
    unknown = [record for record in rest if any(check.status == "unknown" for check in _checks(record))]
    return Crowd(len(judged), tuple(waited), tuple(beside), tuple(unknown))


def crowded(record: LaunchRecord) -> bool:
    """Whether others were on the processors with a launch, or may have been: too short a look to tell is no comfort."""
    return any(
        check.status in ("warning", "violated") or (check.status == "unknown" and TOO_SHORT in check.evidence)
        for check in _checks(record)
    )


_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")


def _most(records: Iterable[LaunchRecord], rule: str) -> str:
    """The largest share that this rule's evidence names."""
    checks = (check for record in records for check in _checks(record, rule))
    shares = [match[1] for check in checks if (match := _SHARE.search(check.evidence))]
    return f"{max(shares, key=float)} %" if shares else "an unknown part"


def _found(record: LaunchRecord, rule: str) -> bool:
    return any(check.status in ("warning", "violated") for check in _checks(record, rule))


def _checks(record: LaunchRecord, *names: str) -> list[Check]:
    return [check for check in record.checks if check.name in (names or RULES)]
