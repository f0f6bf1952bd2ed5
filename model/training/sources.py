"""Lists the texts that the demo checkpoint is trained on, with their licences."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from model.training import extract

Page = tuple[str, str]
"""Name of a page and its plain text."""

_LIBREOFFICE_LANGUAGES = ("en-us", "de", "es", "fr")
_LANGUAGES = {"en", "de", "es", "fr"}


@dataclass(frozen=True)
class Source:
    """One group of files of one Debian package that share a licence and a format.

    `files` is a regular expression on the path inside the unpacked package. Its group `page` names
    the page, without the language, so that translations of a page share a name; its group
    `language`, where it has one, gives the language, else `language` does. `read` turns a file
    into pages. `max_train_bytes` bounds what enters the training mixture.
    """

    package: str
    licence: str
    files: str
    read: Callable[[Path], Iterator[Page]]
    language: str = "en"
    max_train_bytes: int = 3_000_000
    is_unseen: bool = False

    def match(self, path: str) -> tuple[str, str] | None:
        """Return (language, page) of a file of this source, None for any other file."""
        match = re.fullmatch(self.files, path)
        if match is None:
            return None
        groups = match.groupdict()
        language = _language_code(groups["language"]) if "language" in groups else self.language
        if language not in _LANGUAGES | {"code"}:
            return None
        return language, groups.get("page", "")


def _language_code(folder: str) -> str:
    """Map a folder name such as `pt_BR`, `en-US` or gettext's `C` to a two-letter code."""
    return "en" if folder == "C" else re.split("[-_@]", folder)[0]


def _libreoffice(package_language: str) -> Source:
    return Source(
        package=f"libreoffice-help-{package_language}",
        licence="MPL-2.0",
        files=r"usr/share/libreoffice/help/(?P<language>[^/]+)/text/(?P<page>.*\.html)",
        read=extract.read_html,
        max_train_bytes=2_000_000 if package_language == "en-us" else 4_000_000,
    )


SOURCES: tuple[Source, ...] = (
    # Literary English: commentaries and the World English Bible.
    Source(
        "sword-comm-tdavid",
        "public domain",
        r"usr/share/sword/mods\.d/(?P<page>.*)\.conf",
        extract.read_sword,
        max_train_bytes=5_000_000,
    ),
    Source(
        "sword-comm-mhcc",
        "public domain",
        r"usr/share/sword/mods\.d/(?P<page>.*)\.conf",
        extract.read_sword,
    ),
    Source(
        "sword-text-web",
        "public domain",
        r"usr/share/sword/mods\.d/(?P<page>.*)\.conf",
        extract.read_sword,
    ),
    Source(
        "sword-comm-scofield",
        "public domain",
        r"usr/share/sword/mods\.d/(?P<page>.*)\.conf",
        extract.read_sword,
    ),
    Source(
        "sword-dict-naves",
        "public domain",
        r"usr/share/sword/mods\.d/(?P<page>.*)\.conf",
        extract.read_sword,
        max_train_bytes=500_000,
    ),
    Source(
        "sword-text-sparv",
        "public domain",
        r"usr/share/sword/mods\.d/(?P<page>.*)\.conf",
        extract.read_sword,
        language="es",
        max_train_bytes=2_000_000,
    ),
    # Dictionaries. The Devil's Dictionary is never trained on: it tests an unseen source.
    Source(
        "dict-jargon",
        "public domain",
        r"usr/share/dictd/(?P<page>.*)\.dict\.dz",
        extract.read_dictd,
    ),
    Source(
        "dict-devil",
        "public domain",
        r"usr/share/dictd/(?P<page>.*)\.dict\.dz",
        extract.read_dictd,
        is_unseen=True,
    ),
    Source(
        "wordnet-base",
        "WordNet 3.0 licence",
        r"usr/share/wordnet/(?P<page>data\..*)",
        extract.read_wordnet,
    ),
    # Technical English.
    Source(
        "python3.11-doc",
        "PSF-2.0",
        r"usr/share/doc/python3\.11/html/_sources/(?P<page>.*\.rst)\.txt",
        extract.read_rst,
        max_train_bytes=4_000_000,
    ),
    Source(
        "python-django-doc",
        "BSD-3-Clause",
        r"usr/share/doc/python-django-doc/html/(?P<page>.*\.html)",
        extract.read_html,
    ),
    Source(
        "postgresql-doc-15",
        "PostgreSQL",
        r"usr/share/doc/postgresql-doc-15/html/(?P<page>.*\.html)",
        extract.read_html,
    ),
    Source(
        "rust-doc",
        "MIT or Apache-2.0",
        r"usr/share/doc/rust-doc/html/(?P<page>(?:book|reference|rust-by-example|nomicon|rustc"
        r"|rustdoc|edition-guide|embedded-book|unstable-book)/(?!(?:.*/)?print\.html).*\.html)",
        extract.read_html,
    ),
    # Manuals that exist in several languages.
    *map(_libreoffice, _LIBREOFFICE_LANGUAGES),
    Source(
        "gnome-user-docs",
        "CC-BY-SA-3.0",
        r"usr/share/help/(?P<language>[^/]+)/(?P<page>.*\.page)",
        extract.read_html,
    ),
    Source(
        "debian-handbook",
        "CC-BY-SA-3.0 (of the offered GPL-2+ or CC-BY-SA-3.0)",
        r"usr/share/doc/debian-handbook/html/(?P<language>[^/]+)/(?P<page>.*\.html)",
        extract.read_html,
    ),
    # Python code.
    *(
        Source(
            package,
            "PSF-2.0",
            r"usr/lib/python3\.11/(?P<page>(?!(?:.*/)?(?:test|tests|encodings|idle_test)/).*\.py)",
            extract.read_code,
            language="code",
            max_train_bytes=2_500_000,
        )
        for package in ("libpython3.11-stdlib", "libpython3.11-minimal")
    ),
)
