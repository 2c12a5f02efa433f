"""Performs the due actions of the loop, one by one, until none is due.

`monitoring.next_action` gives the due action; each action is a step that can be repeated. The result is written to the
batch's record before the next action, so that an interrupted loop continues with the next action.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from health_predict.cli.console import Output
from health_predict.errors import Declined
from health_predict.monitoring.next_action import FIRST, BatchRecord, Due, LoopState, next_action
from health_predict.params import Params
from health_predict.settings import Settings
from health_predict.steps.loop.assemble import assemble
from health_predict.steps.loop.decide import decide
from health_predict.steps.loop.judge import judge
from health_predict.steps.loop.judge_answers import record_answers
from health_predict.steps.loop.monitor import monitor
from health_predict.steps.loop.recalibrate import recalibrate
from health_predict.steps.loop.score import Ask, score
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.promote import promote
from health_predict.steps.model.train import train
from health_predict.store.answered import AnswerLog, unjudged_answers
from health_predict.store.datasets import named
from health_predict.store.intake import settle
from health_predict.store.ledger import read_ledger
from health_predict.store.loop import NO_ANSWERS, read_state, write_record
from health_predict.store.reports import read_evaluation
from health_predict.workspace import Workspace
from health_predict.workspace.production import first_version
from health_predict.workspace.turn import turn


@dataclass(frozen=True)
class Loop:
    """A loop with its store, parameters and, optionally, an API.

    `log`: prediction log whose predictions are judged; None: none are. `ask`: scores encounters through an API; None:
    with the bundle. `take_up(version, batch)`: switches the API to a promoted version and returns the number of
    requests that were answered meanwhile.
    """

    settings: Settings
    params: Params
    output: Output
    workspace: Workspace
    log: AnswerLog | None = None
    ask: Ask | None = None
    take_up: Callable[[str, int], int | None] = lambda _version, _batch: None

    def run(self) -> Iterator[tuple[Due, BatchRecord | None]]:
        """Do what is due until nothing is; yields each action when it is done, with the record of its batch.

        What another process takes in meanwhile is due in the next run. An intake that was stopped half-way is
        completed first. Raises what the steps raise, and Declined while another process works on the loop; a `Declined`
        of a remedy is the end of the remedy, noted as objections.
        """
        storage = self.workspace.storage
        settle(storage, self.params.intake)
        if next_action(self._state()).action is None:
            return  # looking alone writes no turn
        with turn(storage, self.settings.actor) as renew:
            state = self._state()
            while (due := next_action(state)).action is not None:  # what an action changes is known without reading
                state, record = self._perform(due, state)
                renew()
                yield due, record

    def _state(self) -> LoopState:
        storage, log = self.workspace.storage, self.log
        return read_state(storage, unjudged_answers(storage, log, self.params.intake) if log else NO_ANSWERS)

    def _perform(self, due: Due, state: LoopState) -> tuple[LoopState, BatchRecord | None]:
        if due.action == "judge answers" and self.log and self.log.key:
            record_answers(self.workspace.storage, self.log.storage, self.log.key, self.params)
            return replace(state, unjudged_answers=0), None
        if due.action == "judge":
            judge(self.workspace, self.params)
            return replace(state, unjudged=()), None
        is_first = due.batch == FIRST
        record = state.first if is_first else next(one for one in state.open if one.batch == due.batch)
        done = self._advance(due, record)
        write_record(self.workspace.storage, done)
        if is_first:
            return replace(state, first=done, production=state.production or done.promoted), done
        unjudged = [*state.unjudged, *(number for number in state.early if number == done.batch and done.scored)]
        records = [done if one.batch == done.batch else one for one in state.open]
        return replace(state, open=records, unjudged=unjudged), done

    def _advance(self, due: Due, record: BatchRecord) -> BatchRecord:
        number = record.batch
        match due.action:
            case "monitor":
                return self._monitor(record)
            case "decide":
                decided = decide(self.workspace.storage, self.params, number)
                if decided.action != "none":
                    self.output.say(f"  {decided.action}: {' '.join(decided.reasons)}")
                return replace(record, action=decided.action, version=decided.version)
            case "score":
                score(self.workspace, number, first_version(self.workspace.storage), self.ask)
                return replace(record, scored=True)
        try:
            return self._remedy(due, record)
        except Declined as declined:
            self.output.say(f"  {declined}")
            return replace(record, objections=tuple(declined.reasons))

    def _monitor(self, record: BatchRecord) -> BatchRecord:
        try:
            found = monitor(self.workspace, self.params, record.batch)
        except Declined as waits:
            self.output.say(str(waits))
            return replace(record, waits=True)
        if found.batch != record.batch:
            self.output.say(f"batch {record.batch} was judged with batch {found.batch}")
            return replace(record, waits=True)
        self.output.say(f"batch {record.batch}: {found.drift.rows:,} encounters, {found.status}")
        for reason in found.reasons:
            self.output.say(f"  {reason}")
        if found.alarm is not None and found.alarm.raised:
            items = "; ".join(item.text for item in (*found.alarm.new, *found.alarm.worse))
            self.output.say(f"  ALARM, new or worse: {items}")
        return replace(record, monitored=True)

    def _remedy(self, due: Due, record: BatchRecord) -> BatchRecord:
        # For the version that was decided about: after a promotion and a stop, another is in production already.
        match due.action:
            case "assemble":
                assembled = assemble(self.workspace.storage, self.params, record.batch, record.version)
                return replace(record, dataset=assembled.dataset.name)
            case "recalibrate":
                found = recalibrate(self.workspace, self.params, record.batch, str(record.version))
                return replace(record, dataset=found.dataset.name, run_id=found.run_id)
            case "train":
                return replace(record, run_id=self._train(str(record.dataset)))
            case "evaluate":
                dataset = named(str(record.dataset))
                evaluate(self.workspace, self.params, self.settings.actor, record.run_id, dataset)
                return replace(record, evaluated=True)
        if self._is_overtaken(str(record.run_id)):
            return replace(record, evaluated=False)
        gate = self.params.gate
        version = promote(self.workspace, gate, self.settings.actor, record.run_id).version.version
        self.output.say(f"  version {version} is in production")
        return replace(record, promoted=version, answered_meanwhile=self.take_up(version, record.batch))

    def _is_overtaken(self, run_id: str) -> bool:
        """Has something else come into production since a run was compared with what was there."""
        ledger, report = read_ledger(self.workspace.storage), read_evaluation(self.workspace.storage, run_id)
        if report is None or report.champion == ledger.production:
            return False
        return ledger.production is None or ledger.subject(ledger.production).run_id != run_id

    def _train(self, dataset: str) -> str:
        address = self.settings.ray_address
        with self.output.training(self.params.search) as progress:
            report = train(self.workspace, self.params, "lt30", address, progress, dataset=named(dataset))
        return report.winner
