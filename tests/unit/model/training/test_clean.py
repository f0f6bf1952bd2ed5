"""Cleaning keeps each text once and drops furniture."""

from model.training.clean import MIN_PAGE_CHARS, Document, clean, drop_boilerplate, tidy

PARAGRAPH = "This paragraph is long enough to count as a text of its own, and more than once. "


def page(number: int, text: str, language: str = "en", source: str = "manual") -> Document:
    return Document(source, language, f"{number}.html", text)


def test_tidy_drops_invisible_characters_and_empty_lines():
    assert tidy("\ufeffa\xa0b \t\r\n\n\n\nso\u00adft\n") == "a b\n\nsoft\n"


def test_lines_on_many_pages_of_a_source_are_dropped():
    pages = [page(n, f"Next page\ntext number {n}") for n in range(200)]
    other_source = page(0, "Next page\nother text", source="other")

    texts = [x.text for x in drop_boilerplate([*pages, other_source])]

    assert texts[:2] == ["text number 0", "text number 1"]
    assert texts[-1] == "Next page\nother text"


def test_untranslated_paragraph_counts_as_english_only():
    german = page(1, PARAGRAPH + "\n\n" + "Dieser Absatz ist übersetzt und lang genug. " * 6, "de")
    english = page(1, PARAGRAPH + "\n\n" + "An English paragraph, which comes first. " * 6)

    cleaned = clean([german, english])

    assert [x.language for x in cleaned] == ["en", "de"]
    assert PARAGRAPH.strip() in cleaned[0].text
    assert PARAGRAPH.strip() not in cleaned[1].text


def test_short_pages_are_dropped():
    assert clean([page(1, "x" * (MIN_PAGE_CHARS - 1))]) == []


def test_code_keeps_its_indentation():
    code = "def f():\n    return 1\n\n\n" * 20

    [cleaned] = clean([page(1, code, "code"), page(2, "short")])

    assert cleaned.text.startswith("def f():\n    return 1\n\ndef f():")
