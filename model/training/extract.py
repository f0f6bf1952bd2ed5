"""Extracts named pages of plain text from the file formats in the corpus."""

import gzip
import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

# One page of a source that is a single file: long enough for context, short enough to shuffle.
PIECE_CHARS = 20_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SKIPPED_TAGS = _words(
    "script style head nav header footer form noscript svg math button select iframe info credit "
    "license revision"
)
_BLOCK_TAGS = _words(
    "p div li ul ol dl dt dd tr table h1 h2 h3 h4 h5 h6 pre blockquote section br title item note "
    "steps list article hr td th terms screen synopsis caption figcaption body"
)
_PARAGRAPH_TAGS = _words("p pre h1 h2 h3 title")
_VOID_TAGS = _words("area base br col embed hr img input link meta source track wbr")
# Menus and page furniture of Sphinx, DocBook, mdBook and LibreOffice's help.
_SKIPPED_CLASS_PARTS = _words(
    "sphinxsidebar related headerlink navheader navfooter toc sidebar nav- breadcrumb header "
    "footer donottranslate mobile-nav"
)


class _TextParser(HTMLParser):
    """Collects the text of a page, without menus, with block elements on lines of their own."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._skipped_tag = ""
        self._skipped_depth = 0
        self._pre_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipped_tag:
            self._skipped_depth += tag == self._skipped_tag
            return
        if tag not in _VOID_TAGS and _is_furniture(tag, dict(attrs).get("class") or ""):
            self._skipped_tag, self._skipped_depth = tag, 1
            return
        self._pre_depth += tag in ("pre", "screen")
        if tag in _BLOCK_TAGS:
            self.parts.append("\n")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if not self._skipped_tag and tag in _BLOCK_TAGS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if self._skipped_tag:
            self._skipped_depth -= tag == self._skipped_tag
            if not self._skipped_depth:
                self._skipped_tag = ""
            return
        self._pre_depth -= tag in ("pre", "screen")
        if tag in _BLOCK_TAGS:
            self.parts.append("\n\n" if tag in _PARAGRAPH_TAGS else "\n")

    def handle_data(self, data: str) -> None:
        if not self._skipped_tag:
            self.parts.append(data if self._pre_depth > 0 else re.sub(r"\s+", " ", data))


def _is_furniture(tag: str, css_class: str) -> bool:
    if tag in _SKIPPED_TAGS:
        return True
    # mdBook names its sidebar on <html>; Sphinx marks text as "section".
    if tag in ("html", "body", "main") or "section" in css_class or "page-wrapper" in css_class:
        return False
    return any(part in css_class for part in _SKIPPED_CLASS_PARTS)


def html_to_text(markup: str) -> str:
    """Return the text of an HTML, XHTML or Mallard page without its navigation."""
    parser = _TextParser()
    parser.feed(re.sub(r"^\s*<\?xml[^>]*\?>", "", markup))
    parser.close()
    return "".join(parser.parts)


def rst_to_text(markup: str) -> str:
    """Return reStructuredText without directives, roles, fields and heading lines."""
    text = re.sub(r"(?m)^\.\. .*\n?", "", markup)
    text = re.sub(r"(?m)^ *:[\w -]+:.*\n", "", text)
    text = re.sub(r":[\w:+-]+:`~?!?([^`<]*?)(?: <[^>]*>)?`", r"\1", text)
    text = re.sub(r"`([^`<]*?) ?<[^>`]*>`_*", r"\1", text)
    text = re.sub(r"``([^`]*)``", r"\1", text)
    text = re.sub(r"\*\*([^*\n]+)\*\*", r"\1", text)
    text = re.sub(r"(?<!\w)\*([^*\n]+)\*", r"\1", text)
    text = re.sub(r'(?m)^([=~^"#*+-])\1{2,}\n', "", text)
    return re.sub(r"(?m)::$", ":", text)


def split_pieces(text: str, min_chars: int = PIECE_CHARS) -> Iterator[str]:
    """Cut a text into pieces of at least `min_chars`, each ending at a line end.

    An empty line is preferred where one follows within another `min_chars`.
    """
    start = 0
    while start < len(text):
        cut = text.find("\n\n", start + min_chars, start + 2 * min_chars) + 1
        if not cut:
            cut = text.find("\n", start + min_chars)
        end = cut + 1 if cut >= start + min_chars else len(text)
        yield text[start:end]
        start = end


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    for number, piece in enumerate(split_pieces(text)):
        yield f"#{number}", piece


def read_html(path: Path) -> Iterator[tuple[str, str]]:
    """Read one HTML, XHTML or Mallard page; its name is the caller's."""
    raw = path.read_bytes()
    charset = re.search(rb"charset=[\"']?([\w-]+)", raw[:2000])
    yield "", html_to_text(raw.decode(charset.group(1).decode() if charset else "utf-8", "ignore"))


def read_rst(path: Path) -> Iterator[tuple[str, str]]:
    """Read one reStructuredText page."""
    yield "", rst_to_text(path.read_text("utf-8"))


def read_code(path: Path) -> Iterator[tuple[str, str]]:
    """Read one source file as it is."""
    yield "", path.read_text("utf-8", "ignore")


def read_dictd(path: Path) -> Iterator[tuple[str, str]]:
    """Read a dictd dictionary in pieces; braces mark its cross references."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "ignore")
    yield from _pieces(re.sub(r"\{([^{}]*)\}", r"\1", text))


def read_wordnet(path: Path) -> Iterator[tuple[str, str]]:
    """Read a WordNet data file as `words: gloss` lines, in pieces. Format: wndb(5WN)."""
    lines = []
    for line in path.read_text("utf-8", "ignore").splitlines():
        if line.startswith("  ") or "|" not in line:
            continue
        head, gloss = line.split("|", 1)
        fields = head.split()
        num_words = int(fields[3], 16)
        words = ", ".join(word.replace("_", " ") for word in fields[4 : 4 + 2 * num_words : 2])
        lines.append(f"{words}: {gloss.strip()}\n")
    yield from _pieces("".join(lines))


def sword_to_text(dump: str, has_verse_lines: bool) -> str:
    """Return the text of mod2imp's output, without verse keys, notes and markup."""
    text = re.sub(r"(?m)^\$\$\$.*\n", "" if has_verse_lines else "\n", dump)
    text = re.sub(r"(?s)<note.*?</note>", "", text)
    text = re.sub(r"(?i)<(br|p|/p|l|/l|lb|div|/div|title)\b[^>]*>", "\n", text)
    return re.sub(r"[ \t]+", " ", html.unescape(re.sub(r"<[^>]+>", "", text)))


def read_sword(path: Path) -> Iterator[tuple[str, str]]:
    """Read a SWORD module, given its .conf file, in pieces.

    Raises:
        FileNotFoundError: mod2imp is not installed (Debian package libsword-utils).
    """
    program = shutil.which("mod2imp")
    if program is None:
        raise FileNotFoundError("mod2imp not found: install the Debian package libsword-utils")
    conf = path.read_text("utf-8", "ignore")
    module = re.findall(r"(?m)^\[(.+)\]", conf)[0]
    is_bible = re.search(r"(?mi)^ModDrv=z?Text", conf) is not None
    sword_root = path.parent.parent
    dump = subprocess.run(
        [program, module], env={"SWORD_PATH": str(sword_root)}, capture_output=True, check=True
    )
    text = sword_to_text(dump.stdout.decode("utf-8", "ignore"), is_bible)
    # A comment on several verses is dumped with each of them.
    yield from _pieces(text if is_bible else "\n\n".join(dict.fromkeys(re.split(r"\n\s*\n", text))))
