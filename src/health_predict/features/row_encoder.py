"""Encodes one encounter as the model's input vector, with an `Encoder` laid out to cost few interpreter steps.

The contributions of all fields are chained to one list. Slots that only one field touches are numbers in that field's
part. A field that touches shared slots has two more entries in its part: its sums and its lower bounds for them. For
each side of a joint that a field gives, its part has an entry: the left side's is the joint's pairs by right label, the
right side's is the label. The shared slots are at the end of the list.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import getitem, itemgetter
from typing import Any

import msgspec

from health_predict.features.diagnoses import normalise, settle
from health_predict.features.encoder import CodeTable, Contribution, CountTable, Encoder, JointTable, Slot

_Part = tuple[Any, ...]  # one field's part of the list
_Side = tuple[JointTable, bool]  # of a joint; True: the left one
_LAID_OUT = 1_000  # fields with whole numbers up to this maximum keep the parts of all that were seen


class RowEncoder:
    """Encodes one encounter at a time. Not for several threads at once."""

    def __init__(self, encoder: Encoder):
        tables: dict[str, CountTable | CodeTable] = {**encoder.counts, **encoder.codes}
        touched = {name: _touched(table) for name, table in tables.items()}
        users = Counter(slot for summed, bounded in touched.values() for slot in summed | bounded)
        own = {
            name: sorted(slot for slot in summed - bounded if users[slot] == 1)
            for name, (summed, bounded) in touched.items()
        }
        shares = {name: bool((summed | bounded) - set(own[name])) for name, (summed, bounded) in touched.items()}
        place: dict[Slot, int] = {}
        added: list[int] = []  # places of sums for shared slots; lower bounds follow each
        sides = {name: _sides(table, encoder.joints) for name, table in tables.items()}
        given: dict[tuple[int, bool], int] = {}  # place of each side of a joint
        length = 0
        for name in tables:
            place |= {slot: length + position for position, slot in enumerate(own[name])}
            length += len(own[name])
            if shares[name]:
                added.append(length)
                length += 2
            given |= {side: length + nth for nth, side in enumerate(sides[name])}
            length += len(sides[name])
        shared = [slot for slot in range(encoder.slots) if slot not in place]
        place |= {slot: length + position for position, slot in enumerate(shared)}
        joints = [_placed(joint, place) for joint in encoder.joints]

        self._fields = tuple(tables)
        self._unknown: list[str] = []
        self._tables = [
            _parts(
                name,
                table,
                own[name],
                shares[name],
                [(joints[j], left) for j, left in sides[name]],
                place,
                self._unknown,
            )
            for name, table in tables.items()
        ]
        self._zeros = [0.0] * len(shared)
        self._sums, self._maxima = _getter(added), _getter([position + 1 for position in added])
        self._joints = [(given[j, True], given[j, False], joint.otherwise) for j, joint in enumerate(joints)]
        self._combinations = [(place[slot], _getter([place[p] for p in parts])) for slot, parts in encoder.combinations]
        self._ratios = [(place[slot], place[over], place[under]) for slot, over, under in encoder.ratios]
        self._outputs = _getter([place[slot] for slot in range(len(encoder.outputs))])

    def encode(self, encounter: Mapping[str, Any]) -> tuple[tuple[float, ...], list[str]]:
        """The encoder's outputs before `Encoder.finish`, and the names of the code fields with an unknown value.

        An absent field counts as missing, a value in no table as unknown.
        """
        self._unknown.clear()  # first, so that names from an encounter that failed are not kept
        x: list[Any] = [*chain.from_iterable(map(getitem, self._tables, map(encounter.get, self._fields)))]
        if self._unknown and (settled := settle(encounter, self._fields)) != encounter:  # it has codes of ICD-10-CM
            return self.encode(settled)
        x += self._zeros
        for left, right, otherwise in self._joints:
            place, amount = x[left].get(x[right], otherwise)
            x[place] += amount
        for place, amount in chain.from_iterable(self._sums(x)):
            x[place] += amount
        for place, amount in chain.from_iterable(self._maxima(x)):
            if x[place] < amount:  # noqa: PLR1730  # a call of max costs twice as much
                x[place] = amount
        for place, parts in self._combinations:
            x[place] += sum(parts(x))
        for place, numerator, denominator in self._ratios:
            x[place] = x[numerator] / max(x[denominator], 1.0)
        return self._outputs(x), self._unknown[:]


class _Numbers(dict[Any, _Part]):
    """The part of each number, made when it is first asked for; those of small whole numbers are kept."""

    def __init__(self, table: CountTable, part: Callable[[Contribution], _Part]):
        super().__init__()
        self._table, self._part = table, part
        self._kept = range(int(table.maximum) + 1 if _is_laid_out(table) else 0)

    def __missing__(self, value: float | None) -> _Part:
        part = self._part(self._table.find(value))
        if value is None or (type(value) is int and value in self._kept):
            self[value] = part
        return part


class _Codes(dict[Any, _Part]):
    """The part of each known value, made when it is first asked for, and kept; other spellings have the same part. An
    unknown value is noted, and has a part too."""

    def __init__(self, table: CodeTable, part: Callable[[Contribution], _Part], note: Callable[[], None]):
        super().__init__({None: part(table.missing)})
        self._table, self._part, self._note = table, part, note
        self._unknown = part(table.unknown)

    def __missing__(self, value: Any) -> _Part:
        found = self._table.known.get(value)
        if found is not None:
            part = self[value] = self._part(found)
            return part
        canonical = normalise(str(value)) if self._table.keys == "icd9" else None
        if canonical in self._table.known:
            return self[canonical]
        self._note()
        return self._unknown


def _is_laid_out(table: CountTable) -> bool:
    return isinstance(table.maximum, int) and table.maximum <= _LAID_OUT


def _parts(
    name: str,
    table: CountTable | CodeTable,
    own: Sequence[Slot],
    shares: bool,
    sides: Sequence[_Side],
    place: Mapping[Slot, int],
    unknown: list[str],
) -> dict[Any, _Part]:
    """The field's part of the list, by value; an unknown value appends the field's name to `unknown`."""

    def part(contribution: Contribution) -> _Part:
        numbers = dict.fromkeys(own, 0.0)
        added = []
        for slot, amount in contribution.sums:
            if slot in numbers:
                numbers[slot] += amount
            else:
                added.append((place[slot], amount))
        reached = [(place[slot], amount) for slot, amount in contribution.maxima]
        labels = dict(contribution.labels)
        ends = [joint.pairs.get(labels[joint.left], {}) if left else labels[joint.right] for joint, left in sides]
        return (*numbers.values(), *((tuple(added), tuple(reached)) if shares else ()), *ends)

    if isinstance(table, CountTable):
        return _Numbers(table, part)
    return _Codes(table, part, lambda: unknown.append(name))


def _sides(table: CountTable | CodeTable, joints: Sequence[JointTable]) -> list[tuple[int, bool]]:
    """The sides whose label the field gives, each as the number of its joint, and whether it is the left one."""
    labelled = dict(table.missing.labels) if isinstance(table, CodeTable) else {}
    both = ((number, joint, left) for number, joint in enumerate(joints) for left in (True, False))
    return [(number, left) for number, joint, left in both if (joint.left if left else joint.right) in labelled]


def _placed(joint: JointTable, place: Mapping[Slot, int]) -> JointTable:
    """The joint with places of the list in place of slots."""
    pairs = {
        left: {right: (place[slot], amount) for right, (slot, amount) in found.items()}
        for left, found in joint.pairs.items()
    }
    slot, amount = joint.otherwise
    return msgspec.structs.replace(joint, pairs=pairs, otherwise=(place[slot], amount))


def _touched(table: CountTable | CodeTable) -> tuple[set[Slot], set[Slot]]:
    """Slots that the table's values add to, and slots that they bound from below."""
    summed = {slot for contribution in table.contributions for slot, _ in contribution.sums}
    return summed, {slot for contribution in table.contributions for slot, _ in contribution.maxima}


def _getter(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """The items at these places, always as a tuple."""
    return itemgetter(*places) if len(places) > 1 else lambda items: tuple(items[place] for place in places)
