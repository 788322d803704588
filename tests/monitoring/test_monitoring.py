"""A sweep as people look at it: TensorBoard's own server, and the report, in a real browser."""

import io
import json
import urllib.request
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import CHROMIUM, DIRECT, DRIVER, FIND_ALL, browser, get, tensorboard, wait_for

pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium or its driver is not installed")
RUNS = ["0/optimizer=adam", "1/optimizer=adamw", "2/optimizer=sgd"]


@pytest.fixture(scope="module")
def sweep(processes, tmp_path_factory):
    """Three short runs of a multirun."""
    folder = tmp_path_factory.mktemp("sweep")
    process = processes.start(
        folder, folder / "output.txt", "scripts/train.py", "-m", "optimizer=adam,adamw,sgd", "optimizer.lr=0.01",
        "trainer.max_epochs=2", "trainer.limit_train_batches=20", "trainer.log_every_n_steps=5",
        "trainer.accelerator=cpu", "augment=affine", f"hydra.sweep.dir={folder}/runs",
    )  # fmt: skip
    assert process.wait() == 0, process.printed()
    return folder / "runs"


@pytest.fixture(scope="module")
def server(sweep):
    with tensorboard(sweep, sweep.parent / "tensorboard.log") as url:
        wait_for(lambda: len(get(f"{url}data/runs")) == 3)
        yield url


@pytest.fixture
def opened(tmp_path):
    with browser(tmp_path / "driver.log", width=1400) as window:
        yield window


def summary_of(sweep: Path, run: str) -> dict:
    return json.loads((sweep / run.partition("/")[0] / "summary.json").read_text())


def tags(server, plugin):
    found = get(f"{server}data/plugin/{plugin}/tags")
    assert sorted(found) == RUNS
    return {run: set(names) for run, names in found.items()}


def test_every_run_has_its_readable_name_and_its_curves(server):
    for run, names in tags(server, "scalars").items():
        curves = {f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")}
        assert curves | {"learning_rate", "gradient_norm", "epoch_seconds", "train/loss_step"} <= names, run
        points = get(f"{server}data/plugin/scalars/scalars?tag=val/accuracy&run={run.replace('=', '%3D')}")
        assert [step for _, step, _ in points] == [19, 39]


def test_every_cell_of_hparams_holds_the_runs_own_result(server, sweep):
    wanted = {"allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "startIndex": 0, "sliceSize": 100}
    body = json.dumps({"experimentName": "", **wanted}).encode()
    request = urllib.request.Request(
        f"{server}data/plugin/hparams/session_groups", body, {"Content-Type": "application/json"}
    )
    with DIRECT.open(request) as answer:
        groups = {group["name"]: group for group in json.load(answer)["sessionGroups"]}
    assert sorted(groups) == RUNS
    for run, group in groups.items():
        summary = summary_of(sweep, run)
        values = {value["name"]["tag"].removeprefix("hp/"): value["value"] for value in group["metricValues"]}
        for name in ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "train_seconds", "parameters"):
            assert values[name] == pytest.approx(summary[name], rel=1e-5), (run, name)
        assert group["hparams"]["optimizer.lr"] == pytest.approx(0.01)
        assert group["hparams"]["optimizer"].lower() == run.partition("=")[2]
        assert group["hparams"]["seed"] == 0
    request = urllib.request.Request(
        f"{server}data/plugin/hparams/experiment", b'{"experimentName": ""}', {"Content-Type": "application/json"}
    )
    with DIRECT.open(request) as answer:
        columns = [info["name"] for info in json.load(answer)["hparamInfos"]]
    assert columns[:5] == ["data", "net", "optimizer", "optimizer.lr", "seed"]


def test_every_picture_can_be_fetched(server):
    for run, names in tags(server, "images").items():
        pictures = {f"confusion_{s}/{kind}" for s in ("val", "test") for kind in ("counts", "rates")}
        pictures |= {"mistakes/test", "precision_recall/test", "augmentation/before", "augmentation/after"}
        assert pictures <= names
        for name in pictures:
            query = f"tag={name}&run={run.replace('=', '%3D')}&sample=0"
            (image,) = get(f"{server}data/plugin/images/images?{query}")
            address = f"{server}data/plugin/images/individualImage?{image['query']}"
            with DIRECT.open(address) as answer:
                assert min(Image.open(io.BytesIO(answer.read())).size) > 50


def test_text_graph_curves_and_layout_are_there(server):
    for names in tags(server, "text").values():
        assert names == {"config/text_summary", "network/text_summary"}
    for run, names in tags(server, "pr_curves").items():
        assert {"pr_test/all", *(f"pr_test/{number}" for number in range(10))} <= names
        (curve,) = get(f"{server}data/plugin/pr_curves/pr_curves?tag=pr_test/all&run={run.replace('=', '%3D')}")[run]
        assert len(curve["recall"]) > 10
    for run, info in get(f"{server}data/plugin/graphs/info").items():
        assert info["run_graph"], run
        with DIRECT.open(f"{server}data/plugin/graphs/graph?run={run.replace('=', '%3D')}") as answer:
            assert b"node {" in answer.read()
    layout = get(f"{server}data/plugin/custom_scalars/layout")
    assert [chart["title"] for chart in layout["category"][0]["chart"]] == ["accuracy", "loss"]


@needs_browser
def test_the_hparams_tab_shows_a_row_a_run(server, sweep, opened):
    opened.open(f"{server}?darkMode=false#hparams")
    cells = FIND_ALL + "return found.map(cell => cell.innerText.trim());"

    def shown():
        texts = opened.run(cells, "vaadin-grid-cell-content, td, th")
        return texts if set(RUNS) <= set(texts) else None

    texts = wait_for(shown)
    for run in RUNS:
        assert any(text == f"{summary_of(sweep, run)['val/accuracy']:.5g}".ljust(7, "0")[:7] for text in texts), run
    assert "hp/val/accuracy" in texts


@needs_browser
def test_the_images_tab_shows_pictures(server, opened):
    opened.open(f"{server}?darkMode=false#images")
    script = FIND_ALL + "return found.filter(i => i.src.includes('individualImage') && i.naturalWidth > 50).length;"
    wait_for(lambda: opened.run(script, "img") >= 3)


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_the_report_opens_with_every_picture_and_asks_nobody(sweep, tmp_path, dark):
    with browser(tmp_path / "driver.log", dark=dark) as window:
        address = (sweep / "0" / "report.html").as_uri()
        window.open(address)
        pictures = window.run("return [...document.images].map(image => [image.complete, image.naturalWidth]);")
        assert len(pictures) > 3
        assert all(complete and width > 0 for complete, width in pictures)
        assert window.run("return document.querySelectorAll('svg polyline').length;") == 4
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth;")
        paper = window.run("return getComputedStyle(document.body).backgroundColor;")
        assert paper == ("rgb(20, 22, 26)" if dark else "rgb(251, 251, 250)")
        asked = window.requests()
        assert asked[0] == address
        assert all(each.startswith("data:image/png") for each in asked[1:])
        assert window.complaints() == []


@needs_browser
def test_what_a_page_asks_the_network_for_would_be_seen(server, tmp_path, opened):
    page = tmp_path / "page.html"
    page.write_text(f'<img src="{server}nothing.png"><script>console.error("heard")</script>')
    opened.open(page.as_uri())
    assert wait_for(lambda: f"{server}nothing.png" in opened.requests())
    assert any("heard" in each for each in opened.complaints())
