"""What invariants, figures and verdicts mean to somebody who has not read the checker."""

from __future__ import annotations

from collections.abc import Mapping

INVARIANTS: Mapping[str, str] = {
    "I0": "The evidence does not contradict itself.",
    "I1": "Nothing that was accepted is lost: a job for every key, an end for every job, every follow-up and tick.",
    "I2": "Nothing happens that nobody asked for, and no request leaves before its intent is on record.",
    "I3": "No effect happens twice.",
    "I4": "What succeeded has happened, with the result that the world answered; what did not has no result.",
    "I5": "What was given up has not happened, or is in doubt on record.",
    "I6": "Whatever may have happened is shown as such, and nothing else is.",
    "I7": "A job makes legal moves only, and its row is the sum of its events.",
    "I8": "A job that has moved on takes no writes from whoever had it.",
    "I9": "A job has one owner at a time, and no more attempts and crashes than its policy allows.",
    "I12": "Retries keep their delays.",
    "I13": "The history has no gap, and two looks at it see the same.",
    "I15": "What a dead worker left is taken up in time.",
    "I16": "Nothing is left behind: no lease, ring, connection or process.",
    "I17": "Nothing begins after its deadline.",
    "I18": "What was cancelled stays cancelled, and only what somebody cancelled is.",
    "I19": "Turns of a conversation follow one another, and each is said once.",
    "I20": "What people have to approve runs under an approval of its own, used up once, or not at all.",
    "I21": "What an attempt reserves of a budget is settled once, and shares are the sum of their attempts.",
    "I22": "No request leaves once its attempt was taken over, where nobody is held between look and request.",
}
FIGURES: Mapping[str, str] = {
    "jobs": "jobs",
    "faults": "faults",
    "faults_that_bit": "faults that bit",
    "kinds": "kinds of faults",
    "in_doubt": "jobs left in doubt",
    "in_doubt_share": "share of jobs left in doubt",
    "in_doubt_in_calm": "doubts before the first fault, deadlines aside",
    "calm_throughput": "throughput in calm",
    "storm_throughput": "throughput in the storm",
    "between_faults_throughput": "throughput between faults",
    "throughput_ratio": "throughput between faults, of that in calm",
    "drain_seconds": "from the last fault to rest",
    "orphans": "orphaned processes",
    "leaked_connections": "connections leaked",
    "workers_that_did_not_end": "workers that did not end when told to",
    "seconds": "the whole run",
}
VERDICTS: Mapping[str, str] = {
    "held": "Every promise was kept.",
    "broken": "A promise was broken.",
    "growing": "Every promise was kept, but a process only grew.",
    "inconclusive": "Nothing was broken, and that proves too little.",
}
MEASURES: Mapping[str, str] = {"rss_kib": "memory", "fds": "open files", "threads": "threads", "connections": "sockets"}


def of_figure(name: str) -> str:
    """Return a figure's name in words; one that is new here is read as it is."""
    return FIGURES.get(name, name.replace("_", " "))
