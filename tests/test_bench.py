"""The bench measures what it says: what was accepted is in Redis, and ratios are those of medians."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from loadtests.bench import durability, openload, peak, scale, settle
from loadtests.bench.__main__ import run, write
from loadtests.bench.cpu import CpuUse
from loadtests.bench.figures import Figure, Figures
from loadtests.bench.options import Options
from loadtests.bench.peak import Run, Unverified, verify
from loadtests.bench.picture import picture
from loadtests.bench.subjects import DOORBUSTER, DOORBUSTER_SOLD_OUT, ECHO, ONE_EVALSHA, SUBJECTS, Subject
from loadtests.bench.table import tables
from loadtests.bench.targets import TARGETS, Key, Target
from loadtests.bench.wrk import Load

MEASURED = (ECHO, ONE_EVALSHA, DOORBUSTER, DOORBUSTER_SOLD_OUT)
CONNECTIONS = 8
IDLE = CpuUse(0.0, 0.0, 0.0, 0.0)


def the(name: str) -> Subject:
    return next(subject for subject in SUBJECTS if subject.name == name)


def answers(subject: str, *values: float) -> Figure:
    return Figure(peak.PART, subject, peak.ANSWERS, "1/s", values)


def run_of(statuses: dict[str, int], made: int, *, broken: int = 0, late: int = 0) -> Run:
    return Run(201, Load(1_000_000, statuses, broken, late), made, IDLE, IDLE)


def short(directory: Path, part: str) -> Options:
    return Options(
        rounds=1,
        seconds=1,
        warm_up_seconds=1,
        connections=CONNECTIONS,
        subjects=MEASURED,
        reservations=5_000,
        campaigns=3,
        backlog=2_000,
        parts=(part,),
        attempts=1,
        figures=directory / "figures.json",
        picture=directory / "figures.svg",
    )


class TestARound:
    def test_of_open_loads_accounts_for_everybody_who_came(self, tmp_path: Path) -> None:
        figures = run(short(tmp_path, "open"), Console(quiet=True))
        for subject in (openload.AT_70, openload.OVERLOAD, openload.CROWDED):
            found = {one.name: one.median for one in figures.all() if one.subject == subject}
            ends = ("admitted", "refused", "overloaded", "other", "error", "unsent")
            assert sum(found[end] for end in ends) == pytest.approx(found["offered"], rel=0.05)
            assert found["admitted"] > 0
            assert found["refused without Retry-After"] == 0

    def test_of_full_stores_reserves_in_each(self, tmp_path: Path) -> None:
        figures = run(short(tmp_path, "scale"), Console(quiet=True))
        assert figures.subjects(scale.PART) == [scale.EMPTY, scale.FULL, scale.MANY]
        for one in figures.all():
            assert one.median > 0, one

    def test_of_durability_has_every_group_where_it_is_said_to_be(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The others are between these.
        ends = {name: durability.SETTINGS[name] for name in ("no fsync", durability.ON_DISKS)}
        monkeypatch.setattr(durability, "SETTINGS", ends)
        figures = run(short(tmp_path, "durability"), Console(quiet=True))
        assert figures.subjects(durability.PART) == list(ends)
        for one in figures.all():
            assert one.median > 0, one

    def test_of_settling_has_every_reservation_in_the_book(self, tmp_path: Path) -> None:
        figures = run(short(tmp_path, "settle"), Console(quiet=True))
        found = {one.name: one.median for one in figures.all() if one.part == settle.PART}
        assert found[settle.SETTLED] > 0
        assert found[settle.TOGETHER] > 0
        assert 0 < found[settle.MEANWHILE] <= 1.5

    def test_yields_figures_of_every_subject_and_accepts_what_is_in_redis(self, tmp_path: Path) -> None:
        options = short(tmp_path, "peak")
        figures = run(options, Console(quiet=True))
        assert figures.subjects(peak.PART) == list(MEASURED)
        for subject in MEASURED:
            found = {one.name: one.median for one in figures.all() if one.subject == subject}
            assert found[peak.ANSWERS] > 0
            assert (found["refused"] > 0) == (subject == DOORBUSTER_SOLD_OUT)
            assert (found["accepted"] > 0) == (subject != DOORBUSTER_SOLD_OUT)
            in_redis = found["accepted"] if the(subject).reserves else 0
            assert in_redis <= found["made"] <= in_redis + 2 * CONNECTIONS
        write(figures, options)
        written = json.loads(options.figures.read_bytes())
        assert len(written["figures"]) == len(figures.all())
        assert {"processor", "cores", "kernel", "versions"} <= set(written["machine"])
        assert options.picture.read_text() == picture(figures)


class TestOptions:
    @pytest.mark.parametrize(
        "given", [["--rounds", "0"], ["--seconds", "-1"], ["--backlog", "x"], ["--warm-up-seconds", "-1"]]
    )
    def test_what_makes_no_sense_is_refused_by_name(
        self, given: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as stopped:
            Options.parse(given)
        assert stopped.value.code == 2
        assert f"argument {given[0]}: " in capsys.readouterr().err


class TestVerify:
    def test_takes_what_was_under_way_at_the_end(self) -> None:
        verify(the(DOORBUSTER), run_of({"201": 100}, 100), CONNECTIONS)
        verify(the(DOORBUSTER), run_of({"201": 100}, 100 + 2 * CONNECTIONS), CONNECTIONS)
        verify(the(DOORBUSTER), run_of({"201": 100, "503": 1}, 100), CONNECTIONS)
        verify(the(DOORBUSTER_SOLD_OUT), run_of({"409": 100}, 0), CONNECTIONS)
        verify(the(ECHO), run_of({"201": 100}, 0), CONNECTIONS)

    @pytest.mark.parametrize(
        ("subject", "found"),
        [
            (DOORBUSTER, run_of({"201": 100}, 99)),
            (DOORBUSTER, run_of({"201": 100}, 101 + 2 * CONNECTIONS)),
            (DOORBUSTER, run_of({"201": 99, "500": 1}, 100)),
            (DOORBUSTER, run_of({"503": 100}, 0)),
            (DOORBUSTER, run_of({"201": 100}, 100, broken=1)),
            (DOORBUSTER, run_of({"201": 100}, 100, late=1)),
            (DOORBUSTER, run_of({}, 0)),
            (DOORBUSTER_SOLD_OUT, run_of({"409": 99, "201": 1}, 1)),
            (DOORBUSTER_SOLD_OUT, run_of({"409": 100}, 1)),
        ],
    )
    def test_refuses_what_was_not_done_as_answered(self, subject: str, found: Run) -> None:
        with pytest.raises(Unverified, match=subject):
            verify(the(subject), found, CONNECTIONS)


class TestARunsFigures:
    def test_who_is_turned_away_has_no_answer(self) -> None:
        found = run_of({"201": 100, "503": 900}, 100).figures()
        assert found[peak.ANSWERS, "1/s"] == 100
        assert found[peak.BUSY, "requests"] == 900


class TestFigures:
    def test_ratio_is_that_of_the_medians(self) -> None:
        figures = Figures([answers("a", 10, 90, 30), answers("b", 60, 5, 100)])
        assert figures.ratio(peak.PART, peak.ANSWERS, "a", "b") == 0.5

    def test_ratio_to_what_was_not_measured_is_none(self) -> None:
        figures = Figures([answers("a", 10), answers("nothing", 0)])
        assert figures.ratio(peak.PART, peak.ANSWERS, "a", "b") is None
        assert figures.ratio(peak.PART, peak.ANSWERS, "b", "a") is None
        assert figures.ratio(peak.PART, peak.ANSWERS, "a", "nothing") is None


class TestTargets:
    of, to = Key(peak.PART, "a", peak.ANSWERS), Key(peak.PART, "b", peak.ANSWERS)
    target = Target("a / b", of, to, least=0.5)

    def test_met_from_the_least_ratio_on(self) -> None:
        figures = Figures([answers("a", 50), answers("b", 100)])
        assert self.target.met(figures) is True
        assert replace(self.target, least=0.51).met(figures) is False

    def test_met_up_to_the_most_of_a_figure(self) -> None:
        figures = Figures([answers("a", 50, 60, 70)])
        target = Target("a", self.of, most=60)
        assert target.met(figures) is True
        assert replace(target, most=59).met(figures) is False

    def test_neither_met_nor_missed_where_not_measured(self) -> None:
        assert self.target.met(Figures([answers("a", 50)])) is None

    def test_name_subjects_that_there_are(self) -> None:
        there = {subject.name for subject in SUBJECTS}
        named = {key.subject for target in TARGETS for key in (target.of, target.to) if key is not None}
        assert named <= there | {openload.AT_70, openload.OVERLOAD, openload.CROWDED} | {
            scale.EMPTY, scale.FULL, scale.MANY
        }  # fmt: skip


class TestWhatIsShown:
    figures = Figures([answers(ECHO, 20_000, 21_000), answers(DOORBUSTER, 15_000, 16_000)])

    def test_table_has_medians_ratios_and_verdicts(self) -> None:
        console = Console(width=140, record=True, file=StringIO())
        console.print(tables(self.figures, TARGETS))
        said = console.export_text()
        for text in ("20,500", "15,500", "0.76", "MISS", "not measured"):
            assert text in said

    def test_picture_has_a_bar_for_each(self) -> None:
        drawn = ElementTree.fromstring(picture(self.figures))  # noqa: S314  (our own)
        texts = [one.text for one in drawn.iter() if one.tag.endswith("text")]
        assert {ECHO, DOORBUSTER, "20,500", "15,500"} <= set(texts)
