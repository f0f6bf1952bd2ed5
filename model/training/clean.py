"""Cleans extracted pages: tidies whitespace, drops boilerplate lines and repeated paragraphs."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

# A page shorter than this is a stub: an index, a redirect, a title.
MIN_PAGE_CHARS = 200
# A paragraph shorter than this may repeat ("See also", "Example:").
MIN_UNIQUE_PARAGRAPH_CHARS = 60
# A line on more than this share of a source's pages is furniture, not text.
MAX_LINE_SHARE = 0.03

_DROPPED_CHARACTERS = dict.fromkeys(map(ord, "\r\u00b6\u00ad\u200b\ufeff\x00"))


@dataclass(frozen=True)
class Document:
    """One page: its source (package), language code, name shared by its translations, text."""

    source: str
    language: str
    page: str
    text: str


def tidy(text: str) -> str:
    """Drop invisible characters, trailing blanks and runs of empty lines; end with one newline."""
    text = text.translate(_DROPPED_CHARACTERS).replace("\xa0", " ")
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n[ \t](?=\S)", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def drop_boilerplate(documents: list[Document]) -> Iterator[Document]:
    """Remove lines that recur on many pages of the same source and language."""
    num_pages: Counter[tuple[str, str]] = Counter()
    line_pages: Counter[tuple[str, str, str]] = Counter()
    for document in documents:
        num_pages[document.source, document.language] += 1
        for line in set(document.text.split("\n")) - {""}:
            line_pages[document.source, document.language, line] += 1
    for document in documents:
        group = document.source, document.language
        limit = max(4.0, MAX_LINE_SHARE * num_pages[group])
        lines = (x for x in document.text.split("\n") if line_pages[*group, x] <= limit)
        yield replace(document, text="\n".join(lines))


def drop_repeated_paragraphs(documents: Iterable[Document]) -> Iterator[Document]:
    """Keep each paragraph once over all documents.

    With English first, untranslated paragraphs do not count as another language.
    """
    seen: set[int] = set()
    for document in documents:
        kept = []
        for paragraph in re.split(r"\n\n+", document.text):
            paragraph = paragraph.strip("\n")
            if len(paragraph) >= MIN_UNIQUE_PARAGRAPH_CHARS:
                digest = hash(paragraph)
                if digest in seen:
                    continue
                seen.add(digest)
            kept.append(paragraph)
        yield replace(document, text="\n\n".join(kept))


def clean(documents: Iterable[Document]) -> list[Document]:
    """Return the documents that are worth learning from, cleaned, English first."""
    tidied = [replace(x, text=tidy(x.text)) for x in documents]
    prose = [x for x in tidied if x.language != "code"]
    code = [x for x in tidied if x.language == "code"]
    prose.sort(key=lambda x: x.language != "en")
    kept = [*drop_repeated_paragraphs(drop_boilerplate(prose)), *code]
    return [replace(x, text=tidy(x.text)) for x in kept if len(x.text) >= MIN_PAGE_CHARS]
