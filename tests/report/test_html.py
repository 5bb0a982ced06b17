"""The page: one file that fetches nothing, says everything, and takes nobody's words for markup."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bench.analyse.run import Run
from bench.report import content, html
from bench.report.elements import Figure, Prose, Section
from bench.report.view import View
from tests.runs import Behaviour, synthetic_run

HOSTILE = "<img src=x onerror=alert(1)>$\\frac{"
VOID = {"meta", "link", "br", "img", "input", "hr", "col", "source", "path", "use", "rect", "line", "circle"}


class Page(HTMLParser):
    """What a browser would see: elements, their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, Any], str]] = []
        self._open: list[str] = []
        self._script: dict[str, Any] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "script":
            self._script = dict(attrs)
            self.scripts.append((self._script, ""))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()
        if tag == "script":
            self._script = None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif "style" not in self._open:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    variants = {
        "plain": Behaviour(jitter=0.05, launch_sd=0.02, failing=(4,)),
        HOSTILE: Behaviour(ttft=150, first=3000, jitter=0.05),
        "broken": Behaviour(status=dict.fromkeys(range(3), ("failed", "crash_at_start", f"died of {HOSTILE}"))),
        "hot": Behaviour(status={1: ("invalid", "throttle", "97 °C")}),
    }
    text = f"scenario: synthetic\ndescription: '{HOSTILE}'\n# </script><script>alert(2)</script>\n"
    return Run.open(
        synthetic_run(tmp_path_factory.mktemp("results"), variants, requests=40, warmups=2, scenario_text=text)
    )


@pytest.fixture(scope="module")
def text(run: Run) -> str:
    return html.render([run])


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_words_between_backticks_are_code_and_nothing_else_is(page: Page) -> None:
    assert page.tags["code"] > 0
    assert "<code>" not in page.text


def test_nothing_is_fetched(page: Page, text: str) -> None:
    for name in ("src", "href", "xlink:href", "action", "data"):
        assert all(value.startswith("#") for value in page.values(name)), name
    assert not re.search(r"@import|url\((?!#)", text)
    assert page.tags["link"] == 0
    assert "default-src 'none'" in page.values("content")[2]


def test_hostile_text_is_text(page: Page) -> None:
    assert page.tags["img"] == 0
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert f"died of {HOSTILE}" in page.text
    assert "</script><script>alert(2)</script>" in page.text
    assert "500 <b>oops</b>" in page.text
    assert "Traceback <script>alert(1)</script>" in page.text


def test_data_for_scripts_is_json_that_cannot_end_its_element(page: Page) -> None:
    data = [text for attributes, text in page.scripts if attributes.get("type") == "application/json"]
    assert len(data) == 1
    assert "<" not in data[0]
    launches = json.loads(data[0])["launches"]
    assert {launch["status"] for launch in launches} == {"ok", "failed", "invalid"}
    assert all(
        len(series["v"]) == len(launch["t"]) for launch in launches for p in launch["panels"] for series in p["series"]
    )


def test_ids_are_unique_and_every_reference_finds_its_target(page: Page, text: str) -> None:
    repeated = {name: times for name, times in Counter(page.values("id")).items() if times > 1}
    assert not repeated
    references = {value[1:] for name in ("href", "xlink:href") for value in page.values(name)}
    references |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert references <= set(page.values("id"))


def test_all_sections_are_there_and_reachable(page: Page) -> None:
    sections = [name for name in page.values("id") if name.startswith("r1-")]
    assert {
        "r1-headline", "r1-summary", "r1-first-token", "r1-requests", "r1-distributions", "r1-launches", "r1-timeline",
        "r1-trouble", "r1-client", "r1-nulls", "r1-machine",
    } <= set(sections)  # fmt: skip
    assert {f"#{name}" for name in sections} <= set(page.values("href"))


def test_the_figures_of_the_table_are_those_of_the_summary(run: Run, page: Page) -> None:
    summary = run.summary().set_index(["variant", "metric"])["value"]
    assert f"{summary['plain', 'ttft.p50']:.1f}" in page.text or f"{summary['plain', 'ttft.p50']:.0f}" in page.text
    assert f"{summary[HOSTILE, 'cold_ttft']:.1f}" in page.text


def test_every_section_and_figure_could_be_made(page: Page) -> None:
    assert "could not be" not in page.text.replace("could not be taken", "")


def test_one_broken_section_or_figure_does_not_cost_the_others(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(view: View) -> None:
        raise ZeroDivisionError("<b>by nothing</b>")

    def undrawable() -> str:
        raise ValueError("<b>log of zero</b>")

    figure = Section("one", "One", (Figure(undrawable, undrawable, "caption", "alt"),))
    prose = Section("two", "Two", (Prose(("kept",)),))
    monkeypatch.setattr(content, "order", lambda view: (broken, lambda view: figure, lambda view: prose))
    page = Page(html.render([small_run]))
    assert "ZeroDivisionError: <b>by nothing</b>" in page.text
    assert "could not be drawn: ValueError: <b>log of zero</b>" in page.text
    assert "kept" in page.text


def test_what_does_not_count_is_listed_with_its_reason(page: Page) -> None:
    assert "4 of 12 launches do not count" in page.text
    assert "97 °C" in page.text
    assert "3 failed requests" in page.text
    assert "cuda graphs" in page.text or "cuda_graphs" in page.text


def test_every_drawing_says_in_words_what_it_shows_and_fits_a_phone(page: Page, text: str) -> None:
    assert page.values("role").count("img") == page.tags["svg"] > 0
    assert all(page.values("aria-label"))
    widths = {box.split()[2] for box in re.findall(r'viewBox="([^"]+)"', text)}
    assert widths == {"900", "360"}


def test_drawings_take_their_colours_from_the_page(text: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "var(--v0)" in drawn
    assert not re.search(r"#0[1-7][0-9a-f]{4}\b", drawn)
    assert "DejaVu" not in drawn


def test_the_page_stays_small(text: str) -> None:
    assert len(text.encode()) < 700_000


def test_an_emulated_run_is_stamped_on_every_section(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_run.manifest, "emulated", "orin-nx on this CPU")
    text = html.render([small_run])
    page = Page(text)
    assert "EMULATED" in page.text
    assert text.count('class="emulated"') == len([name for name in page.values("id") if name.startswith("r1-")])


def test_runs_of_one_name_are_told_apart_by_their_time(small_run: Run) -> None:
    bar = html.render([small_run, small_run]).split("</header>")[0]
    title, began = small_run.manifest.scenario, (small_run.manifest.created or "")[11:16]
    assert re.fullmatch(r"\d\d:\d\d", began)
    assert bar.count(f">{title} {began}</a>") == 2


def test_several_runs_share_one_page_without_clashing_and_the_same_run_looks_the_same(small_run: Run) -> None:
    text = html.render([small_run, Run.open(small_run.path)])
    page = Page(text)
    assert {"r1-summary", "r2-summary"} <= set(page.values("id"))
    assert not [name for name, times in Counter(page.values("id")).items() if times > 1]
    first, second = (re.sub(r"\bg\d+-|\br\d-", "", part) for part in text.split("<article")[1:])
    assert first.partition("</article>")[0].partition(">")[2] == second.partition("</article>")[0].partition(">")[2]


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_run_with_next_to_nothing_in_it_still_makes_a_page(tmp_path: Path, blocks: int) -> None:
    failed = Behaviour(status={0: ("failed", "not_ready", "no answer")})
    run = Run.open(synthetic_run(tmp_path, {"a": failed}, blocks=blocks, requests=1, samples=False, scenario_text=""))
    assert "no figure to report" in Page(html.render([run])).text


def test_one_request_and_one_token_make_a_page_without_a_tail(tmp_path: Path) -> None:
    run = Run.open(synthetic_run(tmp_path, {"a": Behaviour()}, blocks=1, requests=1, tokens=1))
    page = Page(html.render([run]))
    assert "too few for p90, p95 or p99" in page.text


def test_a_page_is_written_whole(tmp_path: Path, small_run: Run) -> None:
    path = html.write(small_run, tmp_path / "reports" / "page.html")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]
