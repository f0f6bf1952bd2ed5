"""What a notebook shows: short reprs, the heat map as HTML, data frames, and a progress bar."""

import builtins
import math
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import evascore
from contract.settings import REPOSITORY
from evascore.notebook.frames import PandasMissing
from evascore.notebook.progress import TqdmMissing, reported
from evascore.results import batch, job, line, score, with_text
from evascore.shades import SHADES

BIT = -math.log(2)
TEXT = "é<b>\n😀".encode()


def scored(text: bytes = TEXT, bits: float = 2.0, **fields: object) -> evascore.Score:
    reply = {
        "num_bytes": len(text),
        "num_chars": len(text.decode()),
        "log_likelihood_nats": BIT * bits * len(text),
        "bits_per_byte": bits,
        "byte_perplexity": 2**bits,
        "is_greedy": False,
        "model": {"name": "demo", "fingerprint": "f" * 12},
        "bytes": {
            "log_prob_nats": [BIT * bits] * len(text),
            "rank": [1] * len(text),
            "entropy_bits": [1.0] * len(text),
        },
        **fields,
    }
    return with_text(score(reply), text)


class Page(HTMLParser):
    """The text of a page, and whether all of its elements are closed."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.open = "", []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, _: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_repr_is_one_short_line_without_the_text():
    shown = repr(scored())
    assert shown.startswith("Score(num_bytes=10, num_chars=6, log_likelihood_nats=-13.8629,")
    assert "model='demo'" in shown
    assert "é" not in shown
    assert "\n" not in shown
    assert len(repr(scored(b"x" * 5000))) < 300


@pytest.mark.parametrize("kind", [bytes, bytearray, bytes.decode])
def test_score_keeps_a_text_of_every_type_as_bytes(kind):
    given = kind(TEXT)
    kept = with_text(scored(), given)
    assert type(kept.scored_text) is builtins.bytes
    assert list(kept.characters()) == list(scored().characters())


def test_repr_of_all_answers_is_short():
    links = {"self": "/x", "events": "/x/events"}
    reply = {"id": "a" * 32, "state": "SUCCESS", "links": links, "result": {"x": "y" * 5000}}
    assert len(repr(job(reply))) < 200
    counts = {"total": 3, "completed": 2, "failed": 1}
    uploaded = {
        **{"id": "b", "status": "completed", "created_at": "t", "deadline_at": "t"},
        **{"request_counts": counts, "num_bytes": 9, "links": links},
    }
    assert "Counts(total=3, completed=2, failed=1)" in repr(batch(uploaded))


def test_heat_map_has_each_character_once_and_no_markup_of_the_text():
    page = Page(scored()._repr_html_())
    assert page.open == []
    assert "é<b>↵😀" in page.text


def test_heat_map_has_a_colour_by_surprisal():
    likely, surprising = scored(bits=0.5)._repr_html_(), scored(bits=9.0)._repr_html_()
    darkest = SHADES[-1].background
    assert surprising.count(darkest) == likely.count(darkest) + 6


def test_score_without_its_text_is_shown_as_a_table_alone():
    shown = scored(bytes=None)._repr_html_()
    assert "bits per byte" in shown
    assert "<span" not in shown


def test_long_text_is_cut_with_a_note():
    shown = scored(b"x" * 30_000)._repr_html_()
    assert "only the first 20,000 characters" in shown
    assert shown.count("title=") == 20_000


def test_inks_can_be_read_on_their_backgrounds():
    def luminance(colour: str) -> float:
        named = {"black": "#000000", "white": "#ffffff"}.get(colour, colour)
        parts = [int(named[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for shade in SHADES[1:]:
        low, high = sorted(map(luminance, (shade.background, shade.ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_frame_of_a_score_has_a_row_for_each_character():
    frame = scored().to_frame()
    assert list(frame["character"]) == ["é", "<", "b", ">", "\n", "😀"]
    assert list(frame["start"]) == [0, 2, 3, 4, 5, 6]
    assert frame["bits"].sum() == pytest.approx(20)


def test_frame_of_spans_has_their_text():
    span = {"start": 0, "end": 2, "num_bytes": 2, "log_likelihood_nats": -1.0, "bits_per_byte": 1}
    frame = scored(spans=[span]).to_frame()
    assert list(frame["text"]) == ["é"]


def test_frame_of_a_score_without_parts_says_what_to_ask_for():
    with pytest.raises(evascore.NotInResult, match=r'outputs=\["bytes"\]'):
        scored(bytes=None).to_frame()


def test_frame_of_many_has_a_row_for_each_text_and_the_codes_of_errors():
    missing = evascore.NotText("Not a text.")
    too_large = evascore.TextTooLarge({"type": "text_too_large", "detail": "Too large."})
    of_batch = line(
        {"index": 0, "status": "SUCCESS", "custom_id": "a", "result": dict(scored().raw)}
    )
    away = evascore.ServiceUnreachable("Away.")
    frame = evascore.to_frame([scored(), missing, too_large, of_batch, away])
    codes = ["", "not_text", "text_too_large", "", "service_unreachable"]
    assert list(frame["error"].fillna("")) == codes
    assert list(frame["custom_id"].fillna("")) == ["", "", "", "a", ""]
    assert list(frame["bits_per_byte"].fillna(-1)) == [2, -1, -1, 2, -1]


def test_frame_of_nothing_has_its_columns():
    assert "bits_per_byte" in evascore.to_frame([]).columns


@pytest.mark.parametrize(
    ("package", "call", "error"),
    [
        ("pandas", lambda: evascore.to_frame([]), PandasMissing),
        ("tqdm", lambda: reported(True, []).__enter__(), TqdmMissing),
    ],
)
def test_package_that_is_missing_is_named_with_the_command(monkeypatch, package, call, error):
    real = builtins.__import__

    def without(name, *args):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(error, match=r"pip install 'evascore\[notebook\]'"):
        call()


def test_import_of_the_client_imports_neither_pandas_nor_tqdm():
    code = "import sys, evascore; sys.exit(bool({'pandas', 'tqdm'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY / "client", check=True)


def test_bar_counts_to_the_number_of_texts(capsys):
    with reported(True, ["a"] * 40) as report:
        report(32)
        report(40)
    assert "40/40" in capsys.readouterr().err


def test_function_gets_the_number_done():
    counts: list[int] = []
    with reported(counts.append, []) as report:
        report(32)
    assert counts == [32]
