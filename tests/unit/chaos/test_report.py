"""The report on a run: a verdict for each way in which one can end, and a page that nothing from a run can break."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.chaos.checker.judge import INVARIANTS
from tests.chaos.report import words
from tests.chaos.report.__main__ import STATUS, main, write_report
from tests.chaos.report.growth import (
    JUDGED_SECONDS,
    LEAST,
    MOST_SAMPLES,
    WARM_UP_SECONDS,
    growths,
    theil_sen,
    thinned,
)
from tests.chaos.report.inputs import Process, Sample, read_all
from tests.chaos.report.series import timeline_of
from tests.chaos.strict import UnreadableEvidence
from tests.houses import ROOT
from tests.unit.chaos import folders
from tests.unit.chaos.story import Story

HOSTILE = "<script>alert('&\"')</script>"
MIB = 1024.0
LIFE_SECONDS = 600


def stormy(*, bit: bool = True, quota: int = 1) -> Story:
    story = Story(expect_faults=True)
    story.quotas = {"kill_worker": quota}
    first = story.accepted("chaos.keyed").claimed().intended().requested("applied", "dropped")
    story.fault("sigkill", "worker-1.1")
    first.rescued().claimed("w2").intended().requested("deduped", "answered").settled()
    story.struck("kill_worker", bit=bit)
    story.accepted("chaos.pure").claimed().intended().settled()
    return story


def sample(at: float, *, rss_mib: float, done: int = 0, name: str = "worker-1.1") -> dict[str, Any]:
    process = {"name": name, "pid": 7, "rss_kib": int(rss_mib * MIB), "fds": 40, "threads": 12, "connections": 9}
    postgres = {"host:7": 1, "host:7 lease": 1, "surefoot-producer": 2}
    states = {"queued": 3, "running": 1, "succeeded": done}
    return {"at": at, "processes": [process], "postgres": postgres, "redis_clients": 9, "states": states, "done": done}


def write(
    folder: Path,
    story: Story,
    *,
    grows_by: float = 0.0,
    figures: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run of ten minutes whose worker grows by so many MiB a minute."""
    evidence = story.evidence()
    began = evidence.run.began
    folders.write(folder, replace(evidence, run=replace(evidence.run, ended=began + LIFE_SECONDS)))
    lines = [
        json.dumps(sample(began + at, rss_mib=100 + grows_by * at / 60, done=at)) for at in range(0, LIFE_SECONDS, 5)
    ]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    held = {"throughput_ratio": {"value": 0.9, "unit": "", "target": "≥ 0.8", "held": True}}
    (folder / "figures.json").write_text(json.dumps(held if figures is None else figures))
    told = {
        "seed": 1,
        "size": "slice",
        "command": "make chaos",
        "versions": {"python": "3.13"},
        "kinds": {"kill_worker": "SIGKILL"},
    }
    (folder / "plan.json").write_text(json.dumps(told | dict(plan or {})))
    return folder


def reported(folder: Path) -> dict[str, Any]:
    result = CliRunner().invoke(main, [str(folder)])
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert result.output.splitlines()[0] == f"{report['verdict']}: {folder}/report.html"
    return report | {"status": result.exit_code}


# ---- a verdict for each end ------------------------------------------------------------------------------------


def test_a_run_that_held(tmp_path: Path) -> None:
    report = reported(write(tmp_path, stormy()))
    assert (report["verdict"], report["why"], report["status"]) == ("held", [], 0)
    assert (
        report["run"] | {"seed": 1, "size": "slice", "command": "make chaos", "jobs": 2, "faults": 1} == report["run"]
    )
    assert [(each["struck"], each["bit"], each["enough"]) for each in report["faults"]] == [(1, 1, True)]
    assert {each["verdict"] for each in report["invariants"]} == {"held", "nothing to judge"}


def test_a_run_that_broke_a_promise(tmp_path: Path) -> None:
    story = stormy()
    story.jobs[0].decision["result"] = {"another": True}
    report = reported(write(tmp_path, story))
    assert (report["verdict"], report["status"]) == ("broken", 1)
    assert report["why"][0].startswith("I4 was broken once. First: expected the result that the world answered;")
    assert next(each for each in report["invariants"] if each["id"] == "I4")["verdict"] == "broken"
    assert report["findings"][0]["job"] == story.jobs[0].id


def test_a_run_that_missed_a_figure(tmp_path: Path) -> None:
    missed = {"drain_seconds": {"value": 130.0, "unit": "s", "target": "≤ 120", "held": False}}
    report = reported(write(tmp_path, stormy(), figures=missed))
    assert (report["verdict"], report["status"]) == ("broken", 1)
    assert report["why"] == ["From the last fault to rest: 130.0 s, and it was to be ≤ 120."]


@pytest.mark.parametrize("story", [stormy(bit=False), stormy(quota=2)], ids=["not felt", "too few"])
def test_a_run_whose_faults_were_hardly_felt_is_inconclusive_and_fails(story: Story, tmp_path: Path) -> None:
    report = reported(write(tmp_path, story))
    assert (report["verdict"], report["status"]) == ("inconclusive", 2)
    assert report["why"][0].startswith("Too few were felt: fault kill_worker: ")
    assert not report["faults"][0]["enough"]


def test_a_run_in_which_a_process_only_grew(tmp_path: Path) -> None:
    report = reported(write(tmp_path, stormy(), grows_by=5.0))
    assert (report["verdict"], report["status"]) == ("growing", 1)
    (why,) = report["why"]
    assert why.startswith("worker-1.1 (pid 7) grew by 39.")
    assert why.endswith("is allowed.")
    assert report["growth"]["growing"] == 1


def test_a_broken_promise_is_said_before_growth_and_doubt(tmp_path: Path) -> None:
    story = stormy(bit=False)
    story.jobs[0].decision["result"] = {"another": True}
    report = reported(write(tmp_path, story, grows_by=5.0))
    assert report["verdict"] == "broken"
    assert [why.split()[0] for why in report["why"]] == ["I4", "worker-1.1", "Too"]


def test_a_long_run_without_a_worker_that_lived_long_enough_is_inconclusive(tmp_path: Path) -> None:
    story = stormy()
    story.quotas = {}
    folder = write(tmp_path, story)
    (folder / "samples.jsonl").write_text("")
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"ended": run["began"] + 1_000.0}))
    report = reported(folder)
    assert (report["verdict"], report["why"]) == (
        "inconclusive",
        ["No worker lived long enough for its growth to be judged."],
    )


def test_a_folder_that_cannot_be_read_has_no_report(tmp_path: Path) -> None:
    folder = write(tmp_path, stormy())
    (folder / "samples.jsonl").write_text("{}\n")
    result = CliRunner().invoke(main, [str(folder)])
    assert (result.exit_code, result.output.startswith("unreadable: ")) == (3, True)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(("file", "text"), [("plan.json", "[]"), ("figures.json", "{"), ("samples.jsonl", "x\n")])
def test_what_stands_beside_the_evidence_is_refused_by_its_name(file: str, text: str, tmp_path: Path) -> None:
    (write(tmp_path, stormy()) / file).write_text(text)
    with pytest.raises(UnreadableEvidence, match=file.partition(".")[0]):
        read_all(tmp_path)


def test_what_was_odd_is_told_with_its_moment(tmp_path: Path) -> None:
    folder = write(tmp_path, stormy())
    began = json.loads((folder / "run.json").read_text())["began"]
    (folder / "oddities.jsonl").write_text(json.dumps({"at": began + 2.5, "what": HOSTILE}) + "\n")
    assert reported(folder)["oddities"] == [f"2.5 s: {HOSTILE}"]
    page = (folder / "report.html").read_text()
    assert ("What was odd" in page, HOSTILE in page) == (True, False)


def test_a_run_that_was_cut_off_is_reported_with_what_is_there(tmp_path: Path) -> None:
    folder = write(tmp_path, stormy())
    for file in ("plan.json", "figures.json", "samples.jsonl"):
        (folder / file).unlink()
    report = reported(folder)
    assert (report["verdict"], report["figures"], report["run"]["seed"]) == ("held", [], None)


# ---- the page --------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser makes of the page, as far as it matters here."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed((folder / "report.html").read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def addresses(self) -> Iterator[str | None]:
        for _, attributes in self.tags:
            yield from (attributes[name] for name in ("src", "href", "srcset", "action") if name in attributes)


def test_the_page_says_the_verdict_first_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    write_report(write(tmp_path, stormy()), tmp_path)
    page = Page(tmp_path)
    tags = [tag for tag, _ in page.tags]
    assert tags.index("h1") < tags.index("h2")
    assert page.said[page.said.index("Held") + 1 :]
    assert (list(page.addresses()), "script" in tags, "link" in tags) == ([], False, False)
    assert "url(" not in (tmp_path / "report.html").read_text()
    assert tags.count("svg") >= 2


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    story = stormy()
    story.quotas = {HOSTILE: 0}
    story.struck(HOSTILE)
    story.faults[-1] = replace(story.faults[-1], target=HOSTILE)
    story.faults[-2] = replace(story.faults[-2], target=HOSTILE)
    story.jobs[0].decision["error"] = {"type": HOSTILE}
    hostile = dict.fromkeys(("command", "machine", "size"), HOSTILE)
    more = {"versions": {HOSTILE: HOSTILE}, "kinds": {HOSTILE: HOSTILE}, "not_here": {HOSTILE: HOSTILE}}
    figure = {HOSTILE: {"value": 1.0, "unit": HOSTILE, "target": HOSTILE, "held": False}}
    folder = write(tmp_path, story, plan=hostile | more, figures=figure)
    lines = (folder / "samples.jsonl").read_text().replace("worker-1.1", json.dumps(HOSTILE)[1:-1])
    (folder / "samples.jsonl").write_text(lines)
    write_report(folder, folder)
    page = Page(folder)
    assert "script" not in [tag for tag, _ in page.tags]
    assert sum(HOSTILE in said for said in page.said) > 10
    assert "<script" not in (folder / "report.html").read_text()


def test_report_and_page_may_lie_elsewhere_under_another_name(tmp_path: Path) -> None:
    folder = write(tmp_path, stormy())
    result = CliRunner().invoke(main, [str(folder), "--into", str(tmp_path / "docs"), "--name", "seed-1"])
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["seed-1.html", "seed-1.json"]


def test_the_timeline_has_every_fault_and_every_recovery(tmp_path: Path) -> None:
    drawn = timeline_of(read_all(write(tmp_path, stormy())))
    assert [(mark.kind, mark.felt) for mark in drawn.marks] == [("kill_worker", "bit")]
    assert [round(seconds, 1) for _, seconds in drawn.recovered] == [5.2]
    assert drawn.storm == (drawn.marks[0].began, drawn.marks[0].ended)
    assert {round(rate, 6) for piece in drawn.throughput for _, rate in piece} == {1.0}
    assert {name: points[0][1] for name, points in drawn.backlog.items()} == {
        "in doubt": 0.0,
        "in hand": 1.0,
        "waiting": 0.0,
        "queued": 3.0,
    }
    assert {name: lines[0][0][1] for name, lines in drawn.connections.items()} == {
        "workers to Postgres": 2.0,
        "others to Postgres": 2.0,
        "to Redis": 9.0,
    }


def test_the_data_has_what_the_page_draws_of_faults_and_recoveries(tmp_path: Path) -> None:
    folder = write(tmp_path, stormy())
    drawn, told = timeline_of(read_all(folder)), reported(folder)["timeline"]
    assert [fault[:2] for fault in told["faults"]] == [["kill_worker", drawn.marks[0].target]]
    assert told["recovered"] == [[round(at, 1), round(seconds, 1)] for at, seconds in drawn.recovered]


def test_a_process_has_its_memory_and_its_own_connections_over_time(tmp_path: Path) -> None:
    (place,) = timeline_of(read_all(write(tmp_path, stormy()))).places
    assert (place.name, place.lives, place.files, place.threads) == ("worker-1", 1, 40, 12)
    assert {value for line in place.memory for _, value in line} == {100.0}
    assert {value for line in place.connections for _, value in line} == {2.0}


def test_the_page_on_reports_has_every_verdict_with_its_exit_status() -> None:
    page = (ROOT / "docs/chaos/reports.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    assert {row[0]: int(row[2]) for row in rows[1:]} == STATUS
    assert words.VERDICTS.keys() == STATUS.keys()
    assert (WARM_UP_SECONDS, JUDGED_SECONDS) == (120.0, 180.0)  # "two minutes … three more"


def test_every_invariant_is_told_in_words() -> None:
    assert words.INVARIANTS.keys() == INVARIANTS.keys()


# ---- growth ----------------------------------------------------------------------------------------------------


def lives(*levels: float, every: float = 1.0, name: str = "worker-1.1") -> list[Sample]:
    """Return a process's samples with so many MiB."""
    return [
        Sample(
            at=number * every,
            processes=(Process(name=name, pid=7, rss_kib=int(mib * MIB), fds=40, threads=12, connections=9),),
            postgres={},
            redis_clients=0,
            states={},
            done=0,
        )
        for number, mib in enumerate(levels)
    ]


def memory(samples: list[Sample]) -> tuple[float | None, bool]:
    found = next(each for each in growths(samples) if each.measure == "rss_kib")
    return found.per_minute, found.is_growing


def test_a_steady_leak_is_growth_and_a_warm_up_is_none() -> None:
    per_minute, is_growing = memory(lives(*(100 + second / 12 for second in range(600))))
    assert per_minute == pytest.approx(5 * MIB, rel=0.01)
    assert is_growing
    assert memory(lives(*(min(100 + second, 200) for second in range(600)))) == (0.0, False)


def test_bursts_that_are_given_back_are_no_growth() -> None:
    levels = [100 + (80 if second % 50 < 20 else 0) for second in range(600)]
    assert not memory(lives(*levels))[1]


def test_a_leak_shows_through_bursts() -> None:
    levels = [100 + second / 12 + (80 if second % 50 < 20 else 0) for second in range(600)]
    assert memory(lives(*levels))[1]


def test_growth_within_a_fifth_is_allowed_and_so_is_little_of_a_small_process() -> None:
    assert not memory(lives(*(500 + second / 12 for second in range(600))))[1]
    assert not memory(lives(*(20 + second / 60 for second in range(600))))[1]
    assert LEAST["rss_kib"] == 16 * MIB


def test_who_was_not_watched_for_long_enough_is_not_judged() -> None:
    assert memory(lives(*(100 + second for second in range(290)))) == (None, False)
    assert growths(lives(*range(100, 200))) == []


@pytest.mark.parametrize("measure", ["fds", "threads", "connections"])
def test_open_files_threads_and_connections_are_judged_as_memory_is(measure: str) -> None:
    def with_so_many(sample: Sample, count: int) -> Sample:
        more: dict[str, Any] = {measure: count}
        return replace(sample, processes=(replace(sample.processes[0], **more),))

    samples = [with_so_many(each, 40 + number // 10) for number, each in enumerate(lives(*[100.0] * 600))]
    assert {each.measure for each in growths(samples) if each.is_growing} == {measure}


@pytest.mark.parametrize(("name", "judged"), [("worker-2, child.7", True), ("effect server.7", False)])
def test_children_of_workers_are_judged_and_a_world_that_keeps_books_is_not(name: str, *, judged: bool) -> None:
    assert bool(growths(lives(*(100 + second for second in range(600)), name=name))) is judged


def test_a_slope_is_the_median_of_all_pairs() -> None:
    assert theil_sen([(0, 0.0), (1, 2.0), (2, 4.0), (3, 600.0)]) == pytest.approx(101.0, rel=1)
    assert theil_sen([(float(at), 2.0 * at) for at in range(2_000)]) == pytest.approx(2.0)
    assert theil_sen([(1, 5.0)]) == 0.0


def test_fewer_points_keep_the_first_and_the_last() -> None:
    points = [(float(at), 0.0) for at in range(1_001)]
    kept = thinned(points, MOST_SAMPLES)
    assert (len(kept), kept[0], kept[-1]) == (MOST_SAMPLES, points[0], points[-1])
