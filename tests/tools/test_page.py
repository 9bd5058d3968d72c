"""The page of a study: whole in itself, well-formed, escaped, and its numbers those of the record."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser

import pytest

from tools import page as room
from tools.page import page, verdict

VOID = {"meta"}


def spread(median, low=None, high=None):
    return {"median": median, "low": median if low is None else low, "high": median if high is None else high}


NONE = {"median": None, "low": None, "high": None}


def group(recipe, layers, train, epochs_to=None, diverged=0, **more):
    return {
        "recipe": recipe,
        "layers": layers,
        "parameters": 12345 * layers,
        "epochs": 4,
        "seeds": [0, 1, 2],
        "diverged": diverged,
        "train_at": {"2": spread(9.87), "4": train},
        "epochs_to": NONE if epochs_to is None else spread(epochs_to, epochs_to - 1, epochs_to + 1),
        "seconds_to": NONE if epochs_to is None else spread(1.5 * epochs_to),
        "seconds": spread(77.7),
        "train": train,
        "valid": NONE,
        "test": NONE,
        "test_loss": NONE,
        "diagnosis": [
            {
                "epoch": epoch,
                "gradient": [1e-9 * 10**number for number in range(layers)],
                "sentences": ["layer 1 < 2 & so on"],
            }
            for epoch in range(3)
        ],
        "texts": [
            text("greedy", 0.987, 0.25, 345, "a <b>bold</b> & x"),
            text("drawn", 0.456, 0.5, 17, "</pre><script>x"),
        ],
        **more,
    }


def text(way, again, copied, longest, whole):
    measures = {"characters": 10000, "repeated": again, "copied": copied, "longest": longest}
    return {"way": way, **measures, "text": whole}


def run(recipe, layers, seed, diverged=None):
    train = [30.0 - seed, 9.87, 3.0, 1.5 + layers / 10][: 2 if diverged else 4]
    valid = [None] * len(train)
    return {"recipe": recipe, "layers": layers, "seed": seed, "diverged": diverged, "train": train, "valid": valid}


@pytest.fixture()
def record():
    groups = [
        group("flat<er>", 1, spread(1.234, 1.2, 1.3), 3),
        group("flat<er>", 2, spread(1.321), diverged=1),
        group("deep", 1, spread(1.5, 1.4, 1.6), 4),
        group("deep", 16, spread(1.012, 1.011, 1.013), 2),
    ]
    runs = [
        run(each["recipe"], each["layers"], seed, "nan" if each["diverged"] and seed == 2 else None)
        for each in groups
        for seed in each["seeds"]
    ]
    return {
        "date": "2020-02-02",
        "machine": {
            **{"processor": "Abacus <1>", "cores": 2, "instruction_set": None, "threads": "1"},
            **{"python": "3.9", "mxnet": "1.9.1", "numpy": "1.23", "deeprnn": "0"},
        },
        "threads_per_run": 1,
        "command": "python scripts/compare.py depth --set 'a=<b>'",
        "corpus": {
            **{"name": "te<x>t", "sha256": "ab" * 32, "unit": "char", "vocabulary": 65},
            **{"symbols": {"train": 8000, "valid": 0, "test": 0}, "characters": 8000, "repeated": 0.432},
        },
        "window": 20,
        "perplexity": 1.17,
        "planned": 12,
        "settings": {name: {"lr": 0.5, "split": [1.0, 0.0, 0.0], "max_chars": None} for name in ("flat<er>", "deep")},
        "runs": runs,
        "groups": groups,
    }


class Reader(HTMLParser):
    """Holds that tags are closed in order, and keeps tables as rows of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "small" and self.rows:
            self.handle_data("|")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_data(self, data):
        if self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def read(html):
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_it_is_well_formed_and_loads_nothing(record):
    html = page(record)
    seen = read(html).seen
    assert {"h1", "table", "svg", "details", "pre"} <= seen
    assert not seen & {"script", "link", "img", "iframe", "object", "embed"}
    assert not re.search(r"https?:|//|url\(|@import|\bsrc=|\bhref=", html)
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_text_is_escaped(record):
    html = page(record)
    for raw in ("<er>", "te<x>t", "<b>", "</pre><script>", "1 < 2 & so", "Abacus <1>"):
        assert raw not in html
    assert "a &lt;b&gt;bold&lt;/b&gt; &amp; x" in html
    assert "layer 1 &lt; 2 &amp; so on" in html


def test_the_tables_hold_the_records_numbers(record):
    rows = read(page(record)).rows
    assert rows[0][:6] == ["recipe", "layers", "parameters", "epochs to 1.17", "seconds to 1.17", "seconds in all"]
    assert rows[1] == ["flat<er>", "1", "12,345", "3|2 to 4", "4.5 s", "77.7 s", "1.234|1.200 to 1.300", "0 of 3"]
    assert rows[2] == ["", "2", "24,690", "never", "never", "77.7 s", "1.321", "1 of 3"]
    assert rows[4][1:3] == ["16", "197,520"] and rows[4][6] == "1.012|1.011 to 1.013"
    assert rows[5] == ["recipe", "layers", "2", "4"]
    assert rows[6] == ["flat<er>", "1", "9.870", "1.234|1.200 to 1.300"]
    texts = next(row for row in rows if row[2:] == ["greedy", "drawn"])
    assert rows[rows.index(texts) + 1][2:] == [
        "98.7% again|25.0% copied, longest 345",
        "45.6% again|50.0% copied, longest 17",
    ]


def test_more_than_the_texts_own_repetition_and_five_points_is_marked(record):
    html = page(record)
    assert '<span class="over">98.7% again' in html and "<span>45.6% again" in html
    record["corpus"]["repeated"] = 0.40
    assert '<span class="over">45.6% again' in page(record)


def test_held_out_parts_have_columns_and_curves_where_there_are_any(record):
    for each in record["groups"]:
        each["test"], each["test_loss"], each["valid"] = spread(5.4321), spread(1.69231), spread(5.5)
    for each in record["runs"]:
        each["valid"] = [6.0] * len(each["train"])
    html = page(record)
    assert "test loss, nats" in html and "1.6923" in html and "5.432" in html
    assert html.count("validation perplexity</h3>") == 2


def test_what_is_missing_is_left_out(record):
    for each in record["groups"]:
        each["diagnosis"], each["texts"] = [], []
    html = page(record)
    read(html)
    assert "the gradient reaches" not in html and "What they write" not in html
    record["planned"] = 30
    assert "12 of 30 runs are over" in page(record)


def test_unquoted_texts_are_measured_only(record):
    for each in record["groups"]:
        for text in each["texts"]:
            del text["text"]
    html = page(record)
    assert "98.7% again" in html and "bold" not in html


def test_gradients_share_one_scale_and_what_is_not_finite_is_grey(record):
    record["groups"][1]["diagnosis"][0]["gradient"] = [None, 0.0]
    html = page(record)
    rects = re.findall(r'fill="([^"]+)"><title>epoch (\d), layer (\d+): ([^<]+)</title>', html)
    assert len(rects) == 3 * (1 + 2 + 1 + 16)
    colours = {value: colour for colour, _, _, value in rects}
    assert colours["not finite"] == "var(--none)" and colours["0.0e+00"] == "var(--none)"
    assert colours["1.0e-09"] == room.HEAT[0] and colours["1.0e+06"] == room.HEAT[-1]


def test_verdicts():
    def of(*groups):
        return verdict(groups, 1.17)

    pays = of(group("r", 1, spread(1.05), 20), group("r", 2, spread(1.01), 6))
    assert pays[0] == "Depth pays"
    assert "2 layers end at a training perplexity of 1.010, 1 layer at 1.050: more than the seeds are apart." in pays
    assert "2 layers reach a training perplexity of 1.17 first, after 6 epochs and 9.0 s." in pays
    assert pays[-1] == "None of 6 runs diverged."
    near = of(group("r", 1, spread(1.05, 1.02, 1.07)), group("r", 2, spread(1.04, 1.03, 1.05)))
    assert near[0] == "Depth pays, within the spread"
    assert near[2] == "No deeper stack ends more than 0.01 above 1 layer."
    assert near[-2] == "No depth reaches a training perplexity of 1.17."
    some = of(group("r", 1, spread(1.05), 9), group("r", 2, spread(1.01)), group("r", 8, spread(277.0), diverged=2))
    assert some[0] == "Depth pays up to 2 layers" and "8 layers end more than 0.01 above 1 layer, at 277." in some
    assert some[-2].endswith("; 2 and 8 layers never.") and some[-1] == "2 of 9 runs diverged, with 8 layers."
    assert of(group("r", 1, spread(1.17)), group("r", 2, spread(1.31)))[0] == "Depth does not pay"
    assert of(group("r", 1, NONE), group("r", 2, NONE))[0] == "No depth learns"
    assert of(group("r", 3, spread(1.2)))[0] == "3 layers alone"
    held_out = of(group("r", 1, spread(2.0), test=spread(5.0)), group("r", 2, spread(1.5), test=spread(5.5)))
    assert held_out[0] == "Depth does not pay" and "test perplexity of 5.000" in held_out[1]


def test_labels_stay_apart_and_inside():
    assert room._apart([10, 11, 12, 200], 15, 0, 205) == [10, 25, 40, 200]
    assert room._apart([195, 200, 204], 15, 0, 205) == [175, 190, 205]


def test_the_page_does_not_change_the_record(record):
    before = copy.deepcopy(record)
    page(record)
    assert record == before
