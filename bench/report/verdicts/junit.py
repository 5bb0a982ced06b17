"""A gate's verdict as JUnit XML: a suite per comparison, a case per gated metric."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from bench.judge.compare import Comparison
from bench.judge.decide import Verdict
from bench.judge.gate import Judgement
from bench.judge.result import Result
from bench.report.numbers import moved, span
from bench.report.verdicts.sentences import losses, name

# What XML 1.0 cannot carry, and an engine's log may.
_FORBIDDEN = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def render(gate: Judgement) -> str:
    """FAIL is a failure, INVALID an error, INCONCLUSIVE skipped; an advisory FAIL passes and says so on its stderr."""
    root = ET.Element("testsuites", name=_clean(f"firsttoken {gate.scenario}"))
    for comparison in gate.comparisons:
        root.append(_suite(gate, comparison))
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _suite(gate: Judgement, comparison: Comparison) -> ET.Element:
    suite = ET.Element("testsuite", name=_clean(f"{gate.scenario} {name(comparison)}"))
    if comparison.refused:
        case = ET.SubElement(suite, "testcase", classname=_clean(gate.scenario), name=_clean(name(comparison)))
        ET.SubElement(case, "error", message="not comparable").text = _clean(comparison.refused)
    for result in comparison.gated:
        _case(suite, gate, comparison, result)
    if lost := losses(comparison):
        ET.SubElement(suite, "system-out").text = _clean("\n".join(lost))
    for key, tag in (
        ("tests", "testcase"),
        ("failures", ".//failure"),
        ("errors", ".//error"),
        ("skipped", ".//skipped"),
    ):
        suite.set(key, str(len(suite.findall(tag))))
    return suite


def _case(suite: ET.Element, gate: Judgement, comparison: Comparison, result: Result) -> None:
    case = ET.SubElement(
        suite,
        "testcase",
        classname=_clean(f"{gate.scenario}.{comparison.b.label}"),
        name=result.metric.id,
    )
    message = _clean(f"{result.metric.title} {moved(result)} ({span(result)}): {result.reason}")
    match result.verdict:
        case Verdict.FAIL if not gate.advisory:
            ET.SubElement(case, "failure", type="regression", message=message)
        case Verdict.FAIL:
            ET.SubElement(case, "system-err").text = _clean(f"ADVISORY FAIL: {message}")
        case Verdict.INVALID:
            ET.SubElement(case, "error", type="invalid", message=message)
        case Verdict.INCONCLUSIVE:
            ET.SubElement(case, "skipped", message=message)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
