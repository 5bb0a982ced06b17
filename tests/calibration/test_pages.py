from pathlib import Path


def table(page: str) -> list[str]:
    return [line for line in Path(page).read_text(encoding="utf-8").splitlines() if line.startswith("| launch SD")]


def test_the_readme_quotes_the_calibration_page_to_the_letter() -> None:
    quoted = table("README.md")
    assert len(quoted) == 7
    assert set(quoted) <= set(table("docs/calibration.md"))
