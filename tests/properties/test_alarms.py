"""A finding is told once: nothing is both new and known, and a report says nothing new about itself."""

from dataclasses import replace
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from health_predict.monitoring.alarms import Watched, news
from health_predict.monitoring.measures import Kind, Measure
from health_predict.params import Params

PARAMS = Params()
SETTINGS = settings(max_examples=100, deadline=None)

keys = st.tuples(st.sampled_from(get_args(Kind)), st.sampled_from(["age", "race", "diag_1", "payer_code"]))


@st.composite
def measured(draw) -> tuple[Measure, ...]:
    """Any measures, found where they are beyond their limit."""
    chosen = draw(st.lists(keys, unique=True, max_size=8))
    levels = [draw(st.floats(-0.2, 2.0)) for _ in chosen]
    return tuple(
        Measure(kind, subject, level, 0.1, 0.02, level >= 0.1, draw(st.sampled_from([0.0, 0.02, 0.2, 1.0])), subject)
        for (kind, subject), level in zip(chosen, levels, strict=True)
    )


@st.composite
def streams(draw) -> list[Watched]:
    """Reports of batches in their order, under versions that may come back."""
    return [
        Watched(
            name=f"batch {number}",
            version=draw(st.sampled_from("12")),
            trained_on="",
            batches=(number,),
            learnt=tuple(range(1, draw(st.integers(1, number)))),
            measures=draw(measured()),
        )
        for number in range(1, draw(st.integers(2, 6)))
    ]


@SETTINGS
@given(stream=streams())
def test_every_finding_is_either_new_or_worse_or_known(stream):
    report = stream[-1]
    alarm = news(report, stream[:-1], PARAMS)
    told = [(item.kind, item.subject) for items in (alarm.new, alarm.worse, alarm.known) for item in items]
    assert sorted(told) == sorted(one.key for one in report.measures if one.found)
    assert not {(item.kind, item.subject) for item in alarm.gone} & set(told)
    assert not alarm.raised or alarm.new or alarm.worse


@SETTINGS
@given(stream=streams())
def test_the_same_report_twice_has_nothing_new(stream):
    again = replace(stream[-1], name="again", batches=())
    alarm = news(again, stream, PARAMS)
    assert not alarm.new
    assert not alarm.worse
    assert not alarm.gone
    assert not alarm.raised
    assert not alarm.changed


@SETTINGS
@given(stream=streams(), data=st.data())
def test_the_order_of_measures_does_not_matter(stream, data):
    shuffled = [replace(one, measures=tuple(data.draw(st.permutations(one.measures)))) for one in stream]
    assert news(shuffled[-1], shuffled[:-1], PARAMS) == news(stream[-1], stream[:-1], PARAMS)
