"""Playing cells: several lanes at a time, each with its own part of the servers, on as many as there are."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg2
from psycopg2 import sql
from sqlalchemy.engine import make_url

from producer.ledger.engine import open_engine
from producer.ledger.migrate import migrate
from tasks import ActionSpec, load
from tests.chaos.cell import Cell, Play
from tests.chaos.collect import collect, facts_of
from tests.chaos.deaths import DEATHS, Death
from tests.chaos.evidence import ActionFacts, Effect
from tests.chaos.judged import Judged, inconclusive, judge
from tests.chaos.lane import Crew, Lane, with_database
from tests.chaos.mutants.catalogue import FOUND
from tests.chaos.points import POINTS, Point
from tests.chaos.processes import World
from tests.chaos.scenarios.plays import SCRIPTS
from tests.chaos.scenarios.scenario import SCENARIOS, Scenario
from tests.chaos.scenarios.stage import Stage
from tests.chaos.staged import Piece, Staged
from worker.dev.servers import Postgres
from worker.lifecycle import publish

EFFECTS: tuple[Effect, ...] = ("pure", "idempotent", "keyed", "verifiable", "unsafe")
# Variants of other deaths, played for the two classes between whose rules the others' lie.
VARIANTS: AbstractSet[Death] = {"child_kill", "redis_loss"}
OF_VARIANTS: AbstractSet[Effect] = {"keyed", "unsafe"}


def _is_cell(point: Point, effect: Effect, death: Death) -> bool:
    if point.looked_up and effect != "verifiable":
        return False
    if death in VARIANTS and effect not in OF_VARIANTS:
        return False
    return point.dies != "asker" or death != "child_kill"


CELLS = tuple(
    Cell(point, effect, death)
    for point in POINTS
    for effect in EFFECTS
    for death in DEATHS
    if _is_cell(point, effect, death)
)
PIECES: tuple[Cell | Scenario, ...] = (*CELLS, *SCENARIOS)
BY_NAME = {piece.name: piece for piece in PIECES}
# Each deliberate defect, where it shows; and the same places without one.
MUTANTS = tuple(replace(BY_NAME[found.cell], mutant=mutant) for mutant, found in FOUND.items())
CONTROLS = tuple(BY_NAME[name] for name in dict.fromkeys(found.cell for found in FOUND.values()))
TEMPLATE = "chaos"
ACTION_MODULES = ["tests.chaos.actions", "tests.chaos.scenarios.actions"]


class Waiting:
    """The cells not played yet, for many lanes to take from."""

    def __init__(self, cells: Sequence[Piece]) -> None:
        """Keep them in order."""
        self._cells = list(cells)
        self._lock = threading.Lock()

    def crews(self, lanes: int) -> list[Crew]:
        """Say with which workers so many lanes should begin, by what the cells need."""
        needed = Counter(cell.crew for cell in self._cells)
        crews = list(needed)
        while len(crews) < lanes:
            crews.append(max(needed, key=lambda crew: needed[crew] / (1 + crews.count(crew))))
        return crews[: min(lanes, len(self._cells))]

    def take(self, crew: Crew) -> Piece | None:
        """Take a cell for these workers, or else the first of those that need others most; None at the end."""
        with self._lock:
            if not self._cells:
                return None
            needed = Counter(cell.crew for cell in self._cells)
            wanted = crew if crew in needed else needed.most_common(1)[0][0]
            found = next(cell for cell in self._cells if cell.crew == wanted)
            self._cells.remove(found)
            return found


@dataclass(slots=True)
class Matrix:
    """A matrix being played.

    Attributes:
        folder: For the evidence and the servers; of a short path.
        on_judged: Told of each cell, in its lane's thread.
        judged: What the cells came to.
        unclear: First tries that said nothing.
    """

    folder: Path
    on_judged: Callable[[Judged], None] = lambda _: None
    judged: list[Judged] = field(default_factory=list)
    unclear: list[Judged] = field(default_factory=list)

    def play(self, cells: Sequence[Piece], *, lanes: int) -> list[Judged]:
        """Play the cells; return what each came to, in the order of the cells."""
        waiting = Waiting(cells)
        specs = load(ACTION_MODULES)
        facts = facts_of(specs)
        with self._servers() as (postgres, world), ExitStack() as ending:
            _make_template(postgres, list(specs.values()))
            threads = []
            for number, crew in enumerate(waiting.crews(lanes)):
                lane = ending.enter_context(self._lane(f"lane-{number}", postgres, world, crew))
                threads.append(threading.Thread(target=self._play_all, args=(lane, waiting, facts)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        order = {cell: number for number, cell in enumerate(cells)}
        return sorted(self.judged, key=lambda each: order[each.cell])

    @contextmanager
    def _servers(self) -> Iterator[tuple[Postgres, World]]:
        (self.folder / "evidence").mkdir(parents=True)
        with Postgres(self.folder / "servers") as postgres:
            world = World(self.folder / "evidence")
            try:
                yield postgres, world
            finally:
                world.close()

    @contextmanager
    def _lane(self, name: str, postgres: Postgres, world: World, crew: Crew) -> Iterator[Lane]:
        database = name.replace("-", "_")
        _administer(postgres.url, sql.SQL("CREATE DATABASE {} TEMPLATE {}"), database, TEMPLATE)
        url = with_database(postgres.url, database)
        lane = Lane(self.folder / name, database_url=url, world=world, crew=crew)
        try:
            yield lane
        finally:
            lane.close()

    def _play_all(self, lane: Lane, waiting: Waiting, facts: Mapping[str, ActionFacts]) -> None:
        while (cell := waiting.take(lane.crew)) is not None:
            judged = self._play_one(lane, cell, facts)
            if judged.verdict == "inconclusive":  # a machine that was too busy, perhaps
                self.unclear.append(judged)
                judged = replace(self._play_one(lane, _again(cell), facts), cell=cell)
            self.judged.append(judged)
            self.on_judged(judged)

    def _play_one(self, lane: Lane, cell: Piece, facts: Mapping[str, ActionFacts]) -> Judged:
        folder = self.folder / "evidence" / cell.name
        folder.mkdir()
        began = time.monotonic()
        try:
            lane.ready(cell.crew, workers=cell.workers)
            play = _play_of(cell, lane, folder)
            play.run()
            collect(play, actions=facts)
            judged = judge(play)
        except Exception as error:  # noqa: BLE001  whatever it is, the other cells are played
            for member in lane.members:  # what became of them, nobody knows
                member.end()
            judged = inconclusive(cell, folder, error)
        judged.took = time.monotonic() - began
        return judged


def _play_of(piece: Piece, lane: Lane, folder: Path) -> Staged:
    if isinstance(piece, Scenario):
        return Stage(piece, lane, folder, began=time.time(), script=SCRIPTS[piece.kind])
    return Play(piece, lane, folder, began=time.time())


def _again(piece: Piece) -> Piece:
    assert isinstance(piece, Cell | Scenario)
    return replace(piece, tries=2)


def _make_template(postgres: Postgres, actions: list[ActionSpec]) -> None:
    _administer(postgres.url, sql.SQL("CREATE DATABASE {}"), TEMPLATE)
    engine = open_engine(with_database(postgres.url, TEMPLATE), connections=1, name="chaos")
    migrate(engine)
    with engine.connect() as connection:
        publish(connection, actions)
    engine.dispose()


def _administer(url: str, statement: sql.SQL, *names: str) -> None:
    connection = psycopg2.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement.format(*map(sql.Identifier, names)))
    finally:
        connection.close()
