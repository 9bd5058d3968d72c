"""The page of a study: whole in itself, well-formed, escaped, and its numbers those of the record."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from tools import charts
from tools.inline_svg import svg
from tools.page import page
from tools.verdicts import verdict

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
    assert not seen & {"script", "link", "img", "image", "iframe", "object", "embed"}
    # A drawing may refer to a part of itself, and to nothing else.
    assert not re.search(r"https?:|//|url\(|@import|\bsrc=|\bhref=\"(?!#)", html)
    names = re.findall(r' id="([^"]+)"', html)
    assert {name[1:] for name in re.findall(r'href="(#[^"]+)"', html)} <= set(names)
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_text_is_escaped(record):
    html = page(record)
    for raw in ("<er>", "te<x>t", "<b>", "</pre><script>", "1 < 2 & so", "Abacus <1>"):
        assert raw not in html
    assert "a &lt;b&gt;bold&lt;/b&gt; &amp; x" in html
    assert "layer 1 &lt; 2 &amp; so on" in html


def test_the_tables_hold_the_records_numbers(record):
    rows = read(page(record)).rows
    # What tells the depths apart comes first.
    assert rows[0][:5] == ["recipe", "layers", "training perplexity", "parameters", "epochs to 1.17"]
    assert rows[0][5:] == ["seconds to 1.17", "seconds in all", "diverged"]
    one = "1 layer"
    assert rows[1] == ["flat<er>", one, "1.234|1.200 to 1.300", "12,345", "3|2 to 4", "4.5 s", "77.7 s", "0 of 3"]
    assert rows[2] == ["flat<er>", "2 layers", "1.321", "24,690", "never", "never", "77.7 s", "1 of 3"]
    assert rows[4][1:4] == ["16 layers", "1.012|1.011 to 1.013", "197,520"]
    assert rows[5] == ["recipe", "layers", "2", "4"]
    assert rows[6] == ["flat<er>", one, "9.870", "1.234|1.200 to 1.300"]
    texts = next(row for row in rows if row[2:] == ["greedy", "drawn"])
    assert rows[rows.index(texts) + 1][2:] == [
        "98.7% again|25.0% copied, longest 345",
        "45.6% again|50.0% copied, longest 17",
    ]


def test_each_number_carries_its_heading_for_screens_too_narrow_for_a_table(record):
    html = page(record)
    assert re.search(r'<td data-head="training perplexity"><span>1\.234</span>', html)
    assert html.count('data-head="diverged"') == len(record["groups"])
    assert "display: grid" in html[html.index("@media (max-width") :]


def test_a_perplexity_that_no_depth_reaches_has_no_columns(record):
    for each in record["groups"]:
        each["epochs_to"] = each["seconds_to"] = NONE
    html = page(record)
    assert "epochs to 1.17" not in html and "No depth reaches a training perplexity of 1.17." in html


def test_several_records_are_on_one_page(record):
    other = copy.deepcopy(record)
    other["corpus"]["name"] = "another"
    html = page(record, other)
    read(html)
    assert html.count("<section>") == 2 and ">another</h2>" in html
    assert "<title>Does depth pay? te&lt;x&gt;t, another</title>" in html


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
    cells = re.findall(r'fill="([^"]+)"><title>epoch (\d), layer (\d+): ([^<]+)</title>', html)
    assert len(cells) == 3 * (1 + 2 + 1 + 16)
    colours = {value: colour for colour, _, _, value in cells}
    assert colours["not finite"] == "var(--none)" and colours["0.0e+00"] == "var(--none)"
    heat = charts.heat_colours()
    assert colours["1.0e-09"] == to_hex(heat(0.0)) and colours["1.0e+06"] == to_hex(heat(1.0))


# The drawings


def labels(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_curve_is_the_median_in_a_band_and_carries_its_depth(record):
    record["perplexity"] = 2
    figure = charts.perplexity_chart(record, "flat<er>", "train", [1, 2, 16])
    axes = figure.axes[0]
    assert axes.get_yscale() == "log" and axes.get_xlabel() == "epoch"
    curves = {line.get_color(): line for line in axes.lines if len(line.get_xdata()) == 4}
    one = curves[charts.DEPTH_COLOURS[0]]
    assert list(one.get_xdata()) == [1, 2, 3, 4]
    assert np.exp(one.get_ydata()) == pytest.approx([29, 9.87, 3, 1.6])  # the middle one of 30, 29 and 28
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert np.exp([band.min(), band.max()]) == pytest.approx([1.6, 30])
    assert set(labels(figure)) == {"2", "1 layer", "2 layers"}  # the line at the goal, and the curves
    assert axes.get_yticks() == pytest.approx(np.log([float(text.get_text()) for text in axes.get_yticklabels()]))


def test_a_run_that_diverged_ends_the_curve(record):
    for each in record["runs"]:
        if each["layers"] == 2:
            each["train"], each["valid"] = each["train"][:2], [None] * 2
    axes = charts.perplexity_chart(record, "flat<er>", "train", [1, 2]).axes[0]
    two = [line for line in axes.lines if line.get_color() == charts.DEPTH_COLOURS[1]]
    assert sorted(len(line.get_xdata()) for line in two) == [2, 2]  # two epochs, and the line to the label


@pytest.mark.parametrize("layers", [1, 16, 128])
def test_no_label_is_cut_off(record, layers):
    for each in (*record["groups"], *record["runs"]):
        if each["layers"] == 16:
            each["layers"] = layers
            each["diagnosis"] = [{"epoch": 100, "gradient": [1.0] * layers, "sentences": []}]
    figures = [charts.perplexity_chart(record, "deep", "train", [1, 2, layers])]
    figures += [charts.gradient_chart(record["groups"][-1], -16, 0), charts.gradient_scale(-16, 0)]
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        axes = figure.axes[0]
        for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label):
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= 0 and box.y0 >= -1, text
                assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height + 1, text


def test_the_map_has_the_top_layer_above_and_an_epoch_a_column(record):
    figure = charts.gradient_chart(record["groups"][3], -9, 6)
    axes = figure.axes[0]
    (mesh,) = axes.collections
    values = mesh.get_array().reshape(16, 3)
    assert list(values[:, 0]) == pytest.approx(list(range(-9, 7)))  # 1e-9 in layer 1, and ten times that in each above
    assert axes.get_ylim() == (0.5, 16.5) and (mesh.norm.vmin, mesh.norm.vmax) == (-9, 6)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["1", "16"]


def test_the_svg_is_well_formed_speaks_text_and_takes_the_pages_colours(record):
    text = svg(charts.perplexity_chart(record, "deep", "train", [1, 2, 16]), "a < b")
    root = ElementTree.fromstring(text)
    assert (root.get("role"), root.get("aria-label"), root.get("viewBox")) == ("img", "a < b", "0 0 390 300")
    words = {element.text for element in root.iter("text")}
    assert {"16 layers", "1 layer", "epoch", "1"} <= words
    colours = {element.get(name) for element in root.iter() for name in ("fill", "stroke")} - {None, "none"}
    assert colours and all(colour.startswith("var(--") for colour in colours)
    assert not any(element.get("style") or element.tag == "style" for element in root.iter())


def test_many_depths_come_dashed_in_the_same_colours(record):
    depths = [*range(1, 9), 16]
    axes = charts.perplexity_chart(record, "deep", "train", depths).axes[0]
    dashed = next(line for line in axes.lines if len(line.get_xdata()) == 4 and line.is_dashed())
    assert dashed.get_color() == charts.DEPTH_COLOURS[depths.index(16) % charts.COLOUR_COUNT]


# The verdicts


def test_verdicts():
    def of(*groups):
        return verdict(groups, 1.17)

    pays = of(group("r", 1, spread(1.05), 20), group("r", 2, spread(1.01), 6))
    assert pays[0] == "Depth pays on training text, at unequal size"
    assert "2 layers end at a training perplexity of 1.010, 1 layer at 1.050: more than the seeds are apart." in pays
    assert "2 layers reach a training perplexity of 1.17 first, after 6 epochs and 9.0 s." in pays
    assert pays[-1] == "None of 6 runs diverged."
    near = of(group("r", 1, spread(1.05, 1.02, 1.07)), group("r", 2, spread(1.04, 1.03, 1.05)))
    assert near[0] == "Depth pays on training text, at unequal size, within the spread"
    assert near[2] == "No deeper stack ends more than 0.01 above 1 layer."
    assert near[-2] == "No depth reaches a training perplexity of 1.17."
    some = of(group("r", 1, spread(1.05), 9), group("r", 2, spread(1.01)), group("r", 8, spread(277.0), diverged=2))
    assert some[0].startswith("Depth pays up to 2 layers on ")
    assert "8 layers end more than 0.01 above 1 layer, at 277." in some
    assert some[-2].endswith("; 2 and 8 layers never.") and some[-1] == "2 of 9 runs diverged, with 8 layers."
    assert of(group("r", 1, spread(1.17)), group("r", 2, spread(1.31)))[0].startswith("Depth does not pay on training")
    assert of(group("r", 1, NONE), group("r", 2, NONE))[0] == "No depth learns"
    assert of(group("r", 3, spread(1.2)))[0] == "3 layers alone"
    held_out = of(group("r", 1, spread(2.0), test=spread(5.0)), group("r", 2, spread(1.5), test=spread(5.5)))
    assert held_out[0] == "Depth does not pay on held-out text, at unequal size"
    assert "test perplexity of 5.000" in held_out[1]


def test_networks_of_nearly_as_many_parameters_are_of_equal_size():
    groups = [group("r", 1, spread(1.05), parameters=100_000), group("r", 2, spread(1.01), parameters=104_000)]
    assert verdict(groups, 1.17)[0] == "Depth pays on training text, at equal size"
    groups[1]["parameters"] = 106_000
    assert verdict(groups, 1.17)[0] == "Depth pays on training text, at unequal size"
    groups[1]["parameters"] = None  # all its runs diverged
    assert verdict(groups, 1.17)[0] == "Depth pays on training text"


@pytest.mark.parametrize(("seeds", "counted"), [([0], "1 seed"), ([0, 1], "2 seeds")])
def test_under_three_seeds_there_is_no_verdict(seeds, counted):
    for other in (1.01, 1.31):
        groups = [group("r", 1, spread(1.05), 9, seeds=seeds), group("r", 2, spread(other), 7, seeds=seeds)]
        headline, *sentences = verdict(groups, 1.17)
        assert headline == f"No verdict from {counted}, on training text, at unequal size"
        assert "Whether that is more than seeds differ by takes 3 seeds or more." in sentences
        assert not any("pays" in sentence or "apart" in sentence for sentence in (headline, *sentences))
        assert "1.050" in sentences[0] and perplexity_of(other) in sentences[0]


def perplexity_of(value):
    return f"{value:.3f}"


def test_labels_stay_apart_and_inside():
    assert charts.spread_out([10, 11, 12, 200], 15, 0, 205) == [10, 25, 40, 200]
    assert charts.spread_out([195, 200, 204], 15, 0, 205) == [175, 190, 205]


def test_the_page_does_not_change_the_record(record):
    before = copy.deepcopy(record)
    page(record)
    assert record == before
