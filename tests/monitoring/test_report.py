"""The page about a run: complete, escaped, and without a word to the network."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from experiments.monitoring.report_page import _ticks, render
from experiments.monitoring.worst_predictions import WrongPrediction

EVIL = "<script>alert(1)</script>\"' onload=x &amp; \x00\u202e</pre></style><img src=http://example.org/x>"
POINTS = {"train/loss": [[10, 2.0], [20, 1.0]], "val/loss": [[10, 1.5], [20, float("nan")], [30, 1.2]]}


class Page(HTMLParser):
    """Tags, attributes and texts, and whether every element that is opened is closed."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self.opened = [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.opened.pop()

    def handle_endtag(self, tag):
        assert self.opened.pop() == tag

    def handle_data(self, data):
        self.text += data


def page(folder, **changes):
    picture = Image.new("RGB", (28, 28), "red")
    content = {
        "config": {"name": "mlp-digits", "optimizer": {"lr": 0.1}},
        "summary": {"status": "finished", "test/accuracy": 0.9, "val/accuracy": 0.8, "steps": 30, "seed": 0},
        "folder": folder,
        "network": "MLP(...)",
        "points": POINTS,
        "stage": "test",
        "class_names": ["cat", "dog"],
        "matrix": np.array([[3, 1], [0, 0]]),
        "mistakes": [WrongPrediction(picture, "cat", "dog", 0.75)],
    }
    text = render(**{**content, **changes})
    parsed = Page(text)
    assert parsed.opened == []
    return text, parsed


def test_it_shows_what_there_is(tmp_path):
    _, parsed = page(tmp_path)
    for words in (
        "mlp-digits",
        "finished",
        "90.00%",
        "80.00%",
        "cat → dog (1)",
        "→ dog 75.0%",
        "lr: 0.1",
        "MLP(...)",
    ):
        assert words in re.sub(r"\s+", " ", parsed.text), words
    assert parsed.tags.count("polyline") == 2
    assert parsed.tags.count("circle") == 4  # the value that is not finite is left out
    assert parsed.tags.count("img") == 1


@pytest.mark.parametrize("classes", [2, 100])
def test_no_text_of_a_run_becomes_markup(tmp_path, classes):
    names = [f"{number}{EVIL}" for number in range(classes)]
    rng = np.random.default_rng(0)
    (tmp_path / "overrides.yaml").write_text("- " + repr("name=</pre><script>"))
    (tmp_path / "environment.json").write_text('{"started": "</pre><script>", "command": ["<script>"]}')
    text, parsed = page(
        tmp_path,
        config={"name": EVIL, EVIL: [EVIL, {EVIL: EVIL}]},
        summary={"status": EVIL, "error": EVIL, "device": EVIL, "seed": EVIL, f"test/{EVIL}": 0.5},
        network=EVIL,
        points={f"train/{EVIL}": [[1, 2.0]], f"val/{EVIL}": [[1, 2.0]]},
        class_names=names,
        matrix=rng.integers(0, 9, (classes, classes)),
        mistakes=[WrongPrediction(Image.new("L", (300, 200)), names[0], names[1], 0.5)],
    )
    assert "script" not in parsed.tags
    assert not [each for each in parsed.attributes if each[1].startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for _, name, value in parsed.attributes if name == "src")
    assert not {"href", "action", "srcset", "data"} & {name for _, name, _ in parsed.attributes}
    assert "\x00" not in text
    assert "\u202e" not in text


def test_the_browser_may_load_nothing(tmp_path):
    text, parsed = page(tmp_path)
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in parsed.attributes
    assert "url(" not in text
    assert "@import" not in text
    assert not re.findall(r"https?://", text)


@pytest.mark.parametrize(
    "changes",
    [
        {"points": {}, "matrix": None, "mistakes": None, "class_names": []},
        {"summary": {"status": "failed", "error": "ValueError: no"}, "matrix": None, "mistakes": None},
        {"summary": {"status": "pruned", "val/accuracy": None}, "stage": "val", "mistakes": []},
        {"points": {"train/loss": [[5, float("nan")]], "val/loss": [[5, 1e30], [6, -1e30]]}},
        {"points": {"val/loss": [[0, 0.0]]}},
        {"points": {"val/loss": [[step, step**0.5] for step in range(2000)]}},
        {"matrix": np.zeros((2, 2), int)},
        {"matrix": np.ones((2000, 2000), int), "class_names": [str(n) for n in range(2000)]},
    ],
    ids=["nothing", "failed", "pruned", "not finite", "one point", "many points", "empty matrix", "2000 classes"],
)
def test_it_is_whole_whatever_is_missing(tmp_path, changes):
    text, _ = page(tmp_path, **changes)
    assert "nan" not in text.lower().replace("finance", "")
    assert len(text) < 2_000_000


def test_ticks_are_round_and_cover_the_range():
    assert _ticks(0, 100) == pytest.approx([0, 20, 40, 60, 80, 100])
    assert _ticks(0.912, 0.934) == pytest.approx([0.915, 0.92, 0.925, 0.93])
    assert _ticks(3, 3)


def test_a_run_does_not_fail_for_want_of_a_page(tmp_path, caplog, monkeypatch):
    import experiments
    from experiments.training.run import train

    def fail(**_):
        raise RuntimeError("no paper")

    monkeypatch.setattr("experiments.monitoring.report.render", fail)
    config = experiments.compose(
        "debug=fast", "trainer.accelerator=cpu", "logger=none", f"run_dir={tmp_path / 'run'}"
    )
    assert train(config)["status"] == "finished"
    assert "no report was written: RuntimeError: no paper" in caplog.text
