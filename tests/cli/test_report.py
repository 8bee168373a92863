"""The page of compare and report: well-formed, self-contained, true to its records, and usable."""
import json
import math
import pathlib
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import HealthCheck, given, settings, strategies

import browser
import conftest

EXAMPLE = conftest.ROOT / "examples" / "report.jsonl"
INPUTS = conftest.ROOT / "examples" / "report-inputs.json"
PAGE = conftest.ROOT / "examples" / "report.html"
CHART = conftest.ROOT / "docs" / "report.svg"


def read_lines(path):
    return [json.loads(line) for line in pathlib.Path(path).read_text("utf-8").splitlines() if line]


def parse(path):
    """The page as XML, which is stricter than any browser."""
    text = pathlib.Path(path).read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>\n")
    root = ElementTree.fromstring(text.split("\n", 1)[1])
    for element in root.iter():  # HTML knows elements without their namespaces
        element.tag = element.tag.split("}")[-1]
    return root


def text_of(element):
    return "".join(element.itertext())


def rows_of(table):
    """[(name, [exact values])]: a cell without a number is None."""
    rows = []
    for row in table.iter("tr"):
        cells = [c for c in row if c.tag == "td" and c.get("class") == "n"]
        if not cells:
            continue
        data = [c.find("data") for c in cells]
        head = row.find("th")
        rows.append((None if head is None else text_of(head),
                     [None if d is None else float(d.get("value")) for d in data]))
    return rows


def shown_pairs(table):
    for data in table.iter("data"):
        yield float(data.get("value")), data.text


def tables_of(page, summary):
    found = [d for d in page.iter("details") if d.get("class") == "data" and
             text_of(d.find("summary")) == summary]
    assert found, f"no table '{summary}'"
    return [d.find(".//table") for d in found]


def get(record, *keys):
    return [record.get(key) for key in keys]


@pytest.fixture(scope="module")
def made(nybble, stories, tmp_path_factory):
    """A page of three checkpoints, with all that it was made of."""
    folder = tmp_path_factory.mktemp("report")
    text = (conftest.ROOT / "examples" / "tinystories.txt").read_text("utf-8")
    (folder / "calib.txt").write_text(text[:20000], "utf-8")
    (folder / "eval.txt").write_text(text[100000:106000], "utf-8")
    samples = ["--calib", folder / "calib.txt", "--num-samples", 8, "--sequence-length", 128]
    for name, more in (("rtn 3", ["--method", "rtn"]), ("gptq-3", []), ("pass-3", ["--refine", 0])):
        nybble("quantize", stories, "-o", folder / name, "--weight-bits", 3, "--group-size", 32,
               "--recipe", conftest.ROOT / "examples" / "stories-recipe.json", *samples, *more)
    nybble("calibrate", stories, *samples, "-o", folder / "inputs.json")
    done = nybble("compare", stories, folder / "rtn 3", folder / "gptq-3", folder / "pass-3",
                  "--text", folder / "eval.txt", "--window", 128, "--prompt", "Once upon a time",
                  "--new-tokens", 12, "--html", folder / "page.html", "--points",
                  folder / "points.jsonl", "--ranges", folder / "inputs.json", "--chart",
                  folder / "chart.svg", "--json")
    return folder, json.loads(done.stdout)


def hostile_records():
    """Names, texts and commands that want to be markup, and numbers at the edge."""
    evil = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "a' onfocus='alert(1)",
            "]]></style><!--", "\x00\x01\x1b[31mred", "\u202egnp.exe\u2066", "&amp;&lt;&#60;", "",
            "\U0001f600" * 40, "名前" * 30, "x" * 400, "javascript:alert(1)", "\ufffe\uffff\ufdd0"]
    records = [{"schema": "nybble.point/1", "name": evil[0], "base": True, "perplexity": 5.0,
                "bits_per_weight": 16, "bytes": 1e9, "sample": {"prompt": evil[1], "text": evil[2]},
                "weights": [{"kind": evil[1], "low": -1e-30, "high": 1e30, "counts": [0, 1e30, 1]},
                            {"kind": "", "low": 0, "high": 1, "counts": [0]}]}]
    for i, name in enumerate(evil):
        records.append({
            "schema": "nybble.point/1", "name": name, "method": name, "command": name,
            "bits_per_weight": 2 + i / 3, "perplexity": [5 + i, 1e30, None, 1e-30][i % 4],
            "kl": [0.1, 0, -1, 1e-30][i % 4], "bytes": [10**9, 0, -5, 1e30][i % 4],
            "layer_bytes": [1, 1e30, None, -1][i % 4], "top1": 0.5,
            "settings": {name.replace("\0", ""): name, "a": None, "b": [1], "c": True},
            "sample": {"prompt": name, "text": name + "\n" + evil[-1 - i]},
            "scales": [{"kind": name, "low": -8, "high": 2, "counts": [1, 2, 3]}],
            "layers": [{"module": f"m.{b}.mlp.experts.{e}.{name}", "loss": 0.5 * (b + 1),
                        "pass_loss": 1, "rtn_loss": [2, 0, 1e30][e], "output_error": 0.1,
                        "expert": e, "routed_tokens": 100 * e * b}
                       for b in (0, 2) for e in range(3)]})
    return records


@pytest.fixture(scope="module")
def hostile(nybble, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    lines = "".join(json.dumps(r) + "\n" for r in hostile_records())
    (folder / "points.jsonl").write_text(lines, "utf-8")
    nybble("report", folder / "points.jsonl", "-o", folder / "page.html", "--chart",
           folder / "chart.svg", "--title", "<b>bold</b>")
    return folder / "page.html"


@pytest.fixture(scope="module")
def window():
    window = browser.Browser()
    yield window
    window.close()


def check_self_contained(root):
    ids = [e.get("id") for e in root.iter() if e.get("id")]
    assert len(ids) == len(set(ids)), "an id is there twice"
    for element in root.iter():
        assert element.tag.split("}")[-1] not in ("script", "img", "iframe", "object", "embed"), \
            element.tag
        for name, value in element.attrib.items():
            name = name.split("}")[-1]
            assert not name.startswith("on"), (element.tag, name)
            assert name not in ("src", "srcset", "action", "data", "poster"), (element.tag, name)
            if name == "href":
                assert value == "data:," or value[0] == "#" and value[1:] in ids, value
            if name in ("aria-labelledby", "for"):
                assert value in ids, value
        if element.tag.endswith("style"):
            assert not re.search(r"url\(|@import|@font-face|expression", element.text)


# ---- What stands in the file ----------------------------------------------------------------

def test_page_is_well_formed_and_loads_nothing(made, hostile):
    folder, _ = made
    for path in (folder / "page.html", hostile, PAGE):
        check_self_contained(parse(path))
    for path in (folder / "chart.svg", hostile.parent / "chart.svg", CHART):
        root = ElementTree.parse(path).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox")
        check_self_contained(root)


def test_points_are_those_of_compare(made):
    folder, compared = made
    points = read_lines(folder / "points.jsonl")
    page = parse(folder / "page.html")
    table = page.find(f".//*[@id='points']")
    keys = ("bits_per_weight", "bytes", "perplexity", "kl", "top1")
    assert rows_of(table) == [(p["name"], get(p, *keys)) for p in points]
    assert [p["name"] for p in points] == ["stories260k", "rtn 3", "gptq-3", "pass-3"]
    for point, row in zip(points, compared["models"]):
        for key in keys[:3]:
            assert math.isclose(point[key], row[key], rel_tol=1e-8), (point["name"], key)
    assert rows_of(tables_of(page, "Sizes as a table")[0]) == [
        (p["name"], get(p, "bytes", "layer_bytes")) for p in points]


def test_layers_are_those_of_the_certificates(made):
    folder, _ = made
    page = parse(folder / "page.html")
    tables = tables_of(page, "Errors of layers as a table")
    assert len(tables) == 2  # the rounded one had no Hessian
    for name, table in zip(("gptq-3", "pass-3"), tables):
        layers = json.loads((folder / name / "nybble_report.json").read_text())["layers"]
        keys = ("bits_per_weight", "tokens", "rtn_loss", "pass_loss", "loss", "output_error")
        assert rows_of(table) == [(layer["module"], get(layer, *keys)) for layer in layers]
        assert len(layers) == 35


def test_ranges_are_those_of_calibrate(made):
    folder, _ = made
    layers = json.loads((folder / "inputs.json").read_text())["layers"]
    keys = ("tokens", "min", "max", "absmax", "percentile", "mse", "entropy")
    table = tables_of(parse(folder / "page.html"), "Ranges of inputs as a table")[0]
    assert rows_of(table) == [(name, get(layer, *keys)) for name, layer in layers.items()]


def test_histograms_count_every_weight_and_scale(made, stories):
    import safetensors.numpy
    folder, _ = made
    page = parse(folder / "page.html")
    shown = {}
    for kind, (low, high, count) in rows_of(tables_of(page, "Weights as a table")[0]):
        shown.setdefault(kind, []).append((low, high, count))
    tensors = safetensors.numpy.load_file(stories / "model.safetensors")
    wanted = {}
    for name, tensor in tensors.items():
        if re.search(r"\.layers\.\d+\..*_proj\.weight$", name):
            wanted.setdefault(name.split(".")[-2], []).append(tensor.ravel())
    assert set(shown) == set(wanted) and len(wanted) == 7
    for kind, bins in shown.items():
        for low, high, count in bins:
            assert count == sum(((t >= low) & (t < high)).sum() for t in wanted[kind]), kind
        assert sum(b[2] for b in bins) == sum(t.size for t in wanted[kind])

    scales = {}
    for name, (low, high, count) in rows_of(tables_of(page, "Scales as a table")[0]):
        scales[name] = scales.get(name, 0) + count
    packed = safetensors.numpy.load_file(folder / "gptq-3" / "model.safetensors")
    count = sum(t.size for n, t in packed.items() if n.endswith("weight_scale"))
    assert scales == {"rtn 3": count, "gptq-3": count, "pass-3": count}


def test_texts_and_commands_are_shown(made, nybble, stories):
    folder, _ = made
    page = parse(folder / "page.html")
    told = [text_of(a.find("p")) for a in page.iter("article")]
    for path, text in zip((stories, folder / "rtn 3", folder / "gptq-3", folder / "pass-3"), told):
        done = nybble("generate", path, "--prompt", "Once upon a time", "--max-tokens", 12)
        assert text == done.stdout.removesuffix("\n"), path
    commands = [text_of(p) for p in page.iter("pre")]
    report = json.loads((folder / "rtn 3" / "nybble_report.json").read_text())
    assert commands[0] == report["command"] and len(commands) == 3
    import shlex
    words = shlex.split(commands[0])
    assert words[:2] == ["nybble", "quantize"] and words[words.index("-o") + 1] == str(folder / "rtn 3")


def test_page_of_a_sweep_shows_its_results(made, nybble, stories, tmp_path):
    folder, _ = made
    spec = {"model": str(stories), "settings": {"group_size": -1, "symmetric": False},
            "calibration": {"files": [str(folder / "calib.txt")], "num_samples": 4,
                            "sequence_length": 64},
            "eval": {"text": str(folder / "eval.txt"), "window": 128, "max_tokens": 512, "kl": True},
            "grid": {"weight_bits": [4, 3], "refine": [0, 2]}, "points": [{"method": "int4"}]}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    nybble("sweep", tmp_path / "spec.json", "-o", tmp_path / "results", "--html",
           tmp_path / "page.html")
    points = read_lines(tmp_path / "results" / "results.jsonl")
    page = parse(tmp_path / "page.html")
    check_self_contained(page)
    keys = ("bits_per_weight", "bytes", "perplexity", "kl", "top1")
    assert len(points) == 6
    assert rows_of(page.find(".//*[@id='points']")) == [(p["name"], get(p, *keys)) for p in points]
    assert len(tables_of(page, "Errors of layers as a table")) >= 4
    shown = [text_of(p).strip().splitlines() for p in page.iter("pre")]
    assert shown == [[*filter(None, get(p, "calibrate", "command"))] for p in points[1:]]


def test_numbers_for_people_have_four_digits(made):
    folder, _ = made
    pairs = list(shown_pairs(parse(folder / "page.html")))
    assert len(pairs) > 1000
    units = {"bytes": 1, "KiB": 1024, "MiB": 1 << 20, "GiB": 1 << 30, "%": 0.01}
    for exact, shown in pairs:
        number, _, unit = shown.replace(",", "").partition(" ")
        assert abs(float(number) * units.get(unit, 1) - exact) <= 5.1e-4 * abs(exact), (exact, shown)


def ticks_of(svg, anchor):
    """[(place, number)] of an axis."""
    along = "x" if anchor == "mid" else "y"
    return [(float(t.get(along)), float(t.text.replace(",", ""))) for t in svg.iter("text")
            if t.get("class") == f"tick {anchor}"]


def check_axis(ticks, log):
    """The line through an axis' ticks, on which all of them have to lie."""
    scale = math.log if log else float
    (a, x), (b, y) = ticks[0], ticks[-1]
    slope = (b - a) / (scale(y) - scale(x))
    for place, number in ticks:
        assert abs(a + slope * (scale(number) - scale(x)) - place) < 0.2, ticks
        digits = f"{number:.12e}".split("e")[0].rstrip("0").replace(".", "")
        assert len(digits) <= 2, f"{number} is no round number"
    return lambda value: a + slope * (scale(value) - scale(x))


@pytest.mark.parametrize("source", ["made", "example"])
def test_marks_stand_where_their_numbers_belong(made, source):
    folder, _ = made
    page = parse(folder / "page.html" if source == "made" else PAGE)
    points = read_lines(folder / "points.jsonl" if source == "made" else EXAMPLE)
    charts = [s for s in page.iter("svg") if s.get("role") == "group"]
    assert len(charts) == 4  # two measures, for wide and narrow screens
    for i, svg in enumerate(charts):
        measure = "perplexity" if i < 2 else "kl"
        log = any("log scale" in (t.text or "") for t in svg.iter("text"))
        x = check_axis(ticks_of(svg, "mid"), False)
        y = check_axis([(p - 4, n) for p, n in ticks_of(svg, "end")], log)
        links = [a for a in svg.iter("a")]
        assert len(links) == len(points) - 1
        for link in links:
            point = points[int(link.get("href").removeprefix("#p"))]
            hit = link.find("circle")
            assert abs(float(hit.get("cx")) - x(point["bits_per_weight"])) < 0.5
            assert abs(float(hit.get("cy")) - y(point[measure])) < 0.5
            assert text_of(link.find("title")).startswith(point["name"])
        line = [p for p in svg.iter("path") if p.get("class") == "front"][0].get("d")
        rest, best = sorted(points[1:], key=lambda p: (p["bits_per_weight"], p[measure])), []
        for point in rest:
            if not best or point[measure] < best[-1][measure]:
                best.append(point)
        drawn = [tuple(map(float, part.split())) for part in re.split("[ML]", line)[1:]]
        assert len(drawn) == len(best)
        for (px, py), point in zip(drawn, best):
            assert abs(px - x(point["bits_per_weight"])) < 0.5 and abs(py - y(point[measure])) < 0.5


@pytest.mark.parametrize("source", ["made", "example"])
def test_small_pictures_show_the_numbers_of_their_titles(made, source):
    folder, _ = made
    page = parse(folder / "page.html" if source == "made" else PAGE)
    count = 0
    for svg in page.iter("svg"):
        marks = [u for u in svg.iter("use") if u.find("title") is not None]
        if svg.get("class") != "panel" or not marks:
            continue
        ys = [(p - 4, n) for p, n in ticks_of(svg, "end")]
        y = check_axis(ys, abs(ys[0][0] - 2 * ys[1][0] + ys[2][0]) > 0.3 or
                       not math.isclose(ys[1][1] - ys[0][1], ys[2][1] - ys[1][1]))
        x = check_axis(ticks_of(svg, "mid"), False)
        lines = [tuple(map(float, part.split())) for p in svg.iter("path")
                 if p.get("class").startswith("line ") for part in re.split("[ML]", p.get("d"))[1:]]
        places = []
        for mark in marks:
            block, value = re.match(r"block (\d+), .*: (\S+)$", mark.find("title").text).groups()
            place = re.match(r"translate\((\S+) (\S+)\) scale\((1|0\.6)\)$", mark.get("transform"))
            places.append((float(place[1]), float(place[2])))
            assert abs(places[-1][0] - x(int(block))) < 0.3
            assert abs(places[-1][1] - y(float(value.replace(",", "")))) < 0.5
        assert places == lines
        count += len(marks)
    assert count >= 35 * 3


def boxes_of(svg):
    """[(text, x0, y0, x1, y1)] of the names in a chart, with generous letters."""
    for text in svg.iter("text"):
        if text.get("class") == "label mid":
            wide = 5.6 * len(text.text)
            x, y = float(text.get("x")), float(text.get("y"))
            yield text.text, x - wide / 2, y - 9, x + wide / 2, y + 2


def test_names_in_charts_do_not_overlap(made):
    folder, _ = made
    count = 0
    for path in (folder / "page.html", PAGE):
        for svg in parse(path).iter("svg"):
            boxes = list(boxes_of(svg)) if svg.get("role") == "group" else []
            count += len(boxes)
            for i, a in enumerate(boxes):
                assert a[1] >= 0 and a[3] <= float(svg.get("viewBox").split()[2])
                for b in boxes[:i]:
                    assert a[1] >= b[3] or b[1] >= a[3] or a[2] >= b[4] or b[2] >= a[4], (a, b)
    assert count >= 30, f"only {count} names in the charts"


# ---- The same records give the same page ----------------------------------------------------

def test_report_of_the_points_is_the_page_of_compare(made, nybble, tmp_path):
    folder, _ = made
    nybble("report", folder / "points.jsonl", folder / "inputs.json", "-o", tmp_path / "page.html",
           "--chart", tmp_path / "chart.svg")
    assert (tmp_path / "page.html").read_bytes() == (folder / "page.html").read_bytes()
    assert (tmp_path / "chart.svg").read_bytes() == (folder / "chart.svg").read_bytes()


def test_committed_example_is_what_its_records_give(nybble, tmp_path):
    nybble("report", EXAMPLE, INPUTS, "-o", tmp_path / "page.html", "--chart",
           tmp_path / "chart.svg")
    assert (tmp_path / "page.html").read_bytes() == PAGE.read_bytes(), "run examples/report"
    assert (tmp_path / "chart.svg").read_bytes() == CHART.read_bytes(), "run examples/report"


# ---- Faults ---------------------------------------------------------------------------------

POINT = {"schema": "nybble.point/1", "name": "a", "bits_per_weight": 4, "perplexity": 7}

FAULTS = [
    ("", "not JSON"),
    ("{", "not JSON"),
    ("[]", "not an object"),
    ("7", "not JSON"),
    ('{"schema": "nybble.point/1"}', "'name' is not there"),
    ('{"schema": "other/1"}', "schema 'other/1', want nybble.point/1"),
    (json.dumps({**POINT, "kl": "x"}), "line 1: 'kl' is not a number"),
    (json.dumps({**POINT, "kl": 1e31}), "'kl' is not a number in [-1e30, 1e30]"),
    (json.dumps(POINT) + "\n" + json.dumps({**POINT, "layers": {}}), "line 2: 'layers' is not a list"),
    (json.dumps({**POINT, "layers": [7]}), "'layers' is not a list of objects"),
    (json.dumps({**POINT, "layers": [{}]}), "'module' is not there"),
    (json.dumps({**POINT, "layers": [{"module": "a.9999.b"}]}), "block 9999"),
    (json.dumps({**POINT, "layers": [{"module": "a", "expert": -1}]}), "'expert' is not"),
    (json.dumps({**POINT, "weights": [{"kind": "a", "low": 1, "high": 1, "counts": [1]}]}), "low"),
    (json.dumps({**POINT, "weights": [{"kind": "a", "low": 0, "high": 1, "counts": [-1]}]}), "counts"),
    (json.dumps({**POINT, "scales": [{"kind": "a", "low": 0, "high": 1, "counts": []}]}), "counts"),
    (json.dumps({**POINT, "base": True}) + "\n" + json.dumps({**POINT, "base": True}), "2 records"),
    ('{"schema": "nybble.activations/1"}', "'layers' is not an object"),
]


@pytest.mark.parametrize("text,wanted", FAULTS)
def test_faults_name_file_and_reason(nybble, tmp_path, text, wanted):
    (tmp_path / "in.jsonl").write_text(text, "utf-8")
    done = nybble("report", tmp_path / "in.jsonl", "-o", tmp_path / "page.html", ok=False)
    assert done.returncode == 1 and wanted in done.stderr, done.stderr
    assert not (tmp_path / "page.html").exists()


def test_files_are_not_replaced_unasked(nybble, stories, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    text = conftest.ROOT / "examples" / "tinystories.txt"
    for args in (("report", EXAMPLE, "-o", tmp_path / "page.html"),
                 ("compare", stories, "--text", text, "--html", tmp_path / "page.html")):
        done = nybble(*args, ok=False)
        assert done.returncode == 1 and "--force" in done.stderr
        assert (tmp_path / "page.html").read_text() == "mine"
    assert nybble("report", EXAMPLE, ok=False).returncode == 2
    assert nybble("compare", stories, "--text", text, "--prompt", "a", ok=False).returncode == 2
    nybble("report", EXAMPLE, "-o", tmp_path / "page.html", "--force")
    assert (tmp_path / "page.html").stat().st_size > 10000


@settings(max_examples=40, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_damaged_records_never_break_the_page(nybble, tmp_path, data):
    good = "".join(json.dumps(r) + "\n" for r in hostile_records()[:4]).encode()
    at = data.draw(strategies.integers(0, len(good) - 1))
    bad = good[:at] + data.draw(strategies.binary(max_size=4)) + \
        good[at + data.draw(strategies.integers(0, 9)):]
    (tmp_path / "in.jsonl").write_bytes(bad)
    done = nybble("report", tmp_path / "in.jsonl", "-o", tmp_path / "out.html", "--force", ok=False)
    assert done.returncode in (0, 1), done.stderr
    if done.returncode == 0:
        check_self_contained(parse(tmp_path / "out.html"))


# ---- In a browser ---------------------------------------------------------------------------

# Everything that can be seen and reached by Tab; details that are closed hide what is in them.
REACHABLE = """[...document.querySelectorAll('a[href], summary, [tabindex="0"]')].filter(
    e => e.checkVisibility({contentVisibilityAuto: true}) && e.getClientRects().length > 0)"""


def pages(made, hostile):
    return [made[0] / "page.html", hostile, PAGE]


def test_page_is_quiet_and_fits_a_telephone(window, made, hostile):
    for path in pages(made, hostile):
        for width in (360, 1280):
            window.open(path, width=width)
            window.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            size = window.run("[document.documentElement.scrollWidth, document.body.scrollWidth]")
            print(path.name, width, size)
            assert max(size) <= width
            shown = window.run("getComputedStyle(document.querySelector('svg.narrow')).display")
            assert (shown != "none") == (width == 360)
            outside = window.run("""[...document.querySelectorAll('svg use')].filter(u => {
                if (!u.checkVisibility()) return false;
                const a = u.getBoundingClientRect(), b = u.ownerSVGElement.getBoundingClientRect();
                return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 ||
                       a.bottom > b.bottom + 1 || a.width < 2 }).length""")
            assert outside == 0, f"{outside} marks are outside of their pictures"
            small = window.run("""Math.min(...[...document.querySelectorAll('svg text')].filter(
                t => t.checkVisibility()).map(t => parseFloat(getComputedStyle(t).fontSize) *
                t.ownerSVGElement.getScreenCTM().a))""")
            print("smallest text", small)
            assert small >= 9.0
        assert window.console == [], window.console
        assert [u for u in window.requests if not u.startswith(("file:", "data:"))] == []
        assert window.run("document.title.length") > 0
        assert window.run("document.scripts.length") == 0


def test_every_point_is_reached_by_tab_and_seen(window, made, hostile):
    for path in pages(made, hostile):
        window.open(path)
        count = window.run(f"window.wanted = {REACHABLE}; wanted.length")
        points = window.run("wanted.filter(e => e.classList.contains('pt')).length")
        assert points >= 6, points
        order, unseen = [], []
        for _ in range(count + 3):
            window.press_tab()
            at = window.run("wanted.indexOf(document.activeElement)")
            if at < 0:
                break
            order.append(at)
            if not window.run("""(e => { const s = getComputedStyle(e.matches('.pt') ?
                    e.querySelector('.hit') : e), f = document.activeElement;
                    return e.matches('.pt') ? s.stroke !== 'none' &&
                    getComputedStyle(e.querySelector('.tip')).display !== 'none' :
                    s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2
                    })(document.activeElement)"""):
                unseen.append(at)
        assert sorted(set(order)) == list(range(count)), (path, count, order)
        assert order[:count] == list(range(count)), "the order of Tab is not that of the page"
        assert unseen == []


CONTRAST = """(() => {
    const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const seen = element => { // the colour behind an element
        for (let e = element; e; e = e.parentElement) {
            const s = getComputedStyle(e), c = rgb(e.tagName === 'rect' ? s.fill : s.backgroundColor);
            if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
        }
        return [255, 255, 255];
    };
    const out = [];
    for (const e of document.querySelectorAll('h1,h2,h3,p,a,th,td,li,summary,figcaption,pre,span,' +
                                              'footer,svg text')) {
        if (!e.checkVisibility()) continue;
        const s = getComputedStyle(e), svg = e.tagName === 'text';
        const behind = svg && e.closest('.tip') ? seen(e.closest('.tip').querySelector('rect'))
                                                : seen(svg ? e.ownerSVGElement : e);
        out.push(['text', e.tagName + ' ' + e.className, rgb(svg ? s.fill : s.color), behind]);
    }
    for (const e of document.querySelectorAll('svg use, rect.part, path.line, path.front, path.base')) {
        if (!e.checkVisibility()) continue;
        const s = getComputedStyle(e), line = e.tagName === 'path';
        out.push(['mark', e.tagName + ' ' + e.getAttribute('class'), rgb(line ? s.stroke : s.fill),
                  seen(e.ownerSVGElement)]);
    }
    return out.map(JSON.stringify).filter((v, i, all) => all.indexOf(v) === i).map(JSON.parse);
})()"""


def luminance(colour):
    parts = [c / 255 for c in colour]
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_contrast_in_both_schemes(window, hostile):
    backgrounds = set()
    for scheme in ("light", "dark"):
        worst = {"text": 99, "mark": 99}
        for path in (hostile, PAGE):
            window.open(path, scheme=scheme)
            window.run("document.querySelectorAll('details').forEach(d => d.open = true)")
            found = window.run(CONTRAST)
            assert {kind for kind, *_ in found} == {"text", "mark"} and len(found) > 15
            for kind, name, front, behind in found:
                value = contrast(front[:3], behind)
                worst[kind] = min(worst[kind], value)
                assert value >= (4.5 if kind == "text" else 3.0), (scheme, name, front, behind, value)
                backgrounds.add((scheme, tuple(behind)))
        print(scheme, "least contrast", worst)
    assert len({b for s, b in backgrounds if s == "light"} & {b for s, b in backgrounds if s == "dark"}) == 0


# Machado, Oliveira and Fernandes 2009, in linear light, at full strength.
BLINDNESS = {
    "none": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
                   (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
                     (-0.011820, 0.042940, 0.968881)),
}


def lab(colour, matrix):
    linear = [c / 255 / 12.92 if c <= 10.3 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    r, g, b = (min(max(sum(m * c for m, c in zip(row, linear)), 0), 1) for row in matrix)
    xyz = ((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505, 0.2126 * r + 0.7152 * g + 0.0722 * b,
           (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089)
    f = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def test_first_series_differ_for_every_eye(window):
    for scheme in ("light", "dark"):
        window.open(PAGE, scheme=scheme)
        colours = window.run("""[0,1,2,3,4].map(i => { const e = document.createElement('i');
            e.style.color = `var(--s${i})`; document.body.append(e);
            return getComputedStyle(e).color.match(/\\d+/g).map(Number) })""")
        marks = window.run("[...document.querySelectorAll('defs path')].map(p => p.getAttribute('d'))")
        assert len(set(marks)) == 8
        for name, matrix in BLINDNESS.items():
            seen = [lab(c, matrix) for c in colours]
            least = min(math.dist(a, b) for i, a in enumerate(seen) for b in seen[:i])
            print(scheme, name, f"least distance {least:.1f}, want 20")
            assert least >= 20


def test_page_can_be_printed(window):
    window.open(PAGE, width=700, media="print")
    assert window.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    hidden = window.run("""[...document.querySelectorAll('table')].filter(
        t => t.getBoundingClientRect().height === 0).length""")
    assert hidden == 0, f"{hidden} tables would not be printed"
