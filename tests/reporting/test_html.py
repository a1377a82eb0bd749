"""results.html: whole, self-contained, escaped, and there also where results are not."""

import base64
import dataclasses
import hashlib
import json
import math
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest
from made_report import MODELS, QUOTED, SCRIPT, audited_claims, demo_params, make_report, with_status
from made_results import RUN, made_inputs, made_params, make_results
from markupsafe import Markup

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.reporting.audit import audit_of_tables
from tiny_imagenet.reporting.claims import claims_audit
from tiny_imagenet.reporting.html import model_pages, results_html
from tiny_imagenet.reporting.html.charts import charts
from tiny_imagenet.reporting.html.formats import FILTERS, code, points, verdict
from tiny_imagenet.reporting.html.provenance import facts, shared
from tiny_imagenet.repository.records import RunRecord

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
_VOID = {"meta", "link", "img", "br", "path", "use"}


class Page(HTMLParser):
    """Every element with its attributes and the text that it holds; every tag is closed where it has to be."""

    def __init__(self, text):
        super().__init__()
        self._open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"twice in <{tag}>: {names}"
        element = {"tag": tag, "attributes": dict(attributes), "text": ""}
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append((tag, element))

    def handle_startendtag(self, tag, attributes):
        assert tag in _VOID
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, element in self._open:
            element["text"] += data

    def all(self, tag, **attributes):
        return [
            element
            for element in self.elements
            if element["tag"] == tag and attributes.items() <= element["attributes"].items()
        ]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Return the arguments with which the page is made, of five models; their files stay as they are."""
    return make_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def text(arguments):
    return results_html(**arguments)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.fixture(autouse=True)
def quick_charts(monkeypatch):
    """Draw no charts but those of `page`, which is made before: they take most of the time."""
    monkeypatch.setattr(model_pages, "charts", lambda *_: {"accuracy": Markup("<svg></svg>")})


def words(page):
    return " ".join(page.all("body")[0]["text"].split())


# --- one file that needs no other ---


def test_the_page_is_well_formed_and_each_anchor_has_its_id(page):
    ids = [element["attributes"]["id"] for element in page.elements if "id" in element["attributes"]]
    assert len(ids) == len(set(ids))
    anchors = {link["attributes"]["href"] for link in page.all("a")}
    assert {f"#model-{model}" for model in MODELS} <= anchors
    assert {anchor.removeprefix("#") for anchor in anchors} <= set(ids)


def test_nothing_is_fetched(text, page):
    for element in page.elements:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert re.match(r"#|data:", element["attributes"].get(name) or "#"), element["attributes"][name]
    assert "@import" not in text
    assert "url(" not in text
    images = page.all("img")
    assert len(images) == 9 + 4 * len(MODELS)
    for image in images:
        kind, _, content = image["attributes"]["src"].partition(";base64,")
        assert kind in {"data:image/png", "data:image/svg+xml", "data:image/webp"}
        assert base64.b64decode(content, validate=True)
        assert image["attributes"]["alt"]


def test_no_drawing_of_a_file_is_put_into_the_page_itself(text):
    assert "460.8" not in text  # the size that stands in every SVG of the fixture


def test_its_policy_allows_its_own_style_and_script_and_no_others(page):
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["attributes"]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (element,) = page.all(tag)
        digest = base64.b64encode(hashlib.sha256(element["text"].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not any(
        name == "style" or name.startswith("on") for element in page.elements for name in element["attributes"]
    )


def test_the_page_has_styles_for_phones_dark_mode_and_print(page):
    assert page.all("meta", name="viewport")
    assert page.all("html", lang="en")
    style = page.all("style")[0]["text"]
    assert "@media print" in style
    assert "::details-content" in style  # what is folded is printed
    assert "prefers-color-scheme: dark" in style


# --- what it says ---


def test_each_model_has_a_complete_section(page, arguments):
    for row in arguments["inputs"].table.rows:
        section = page.all("section", id=f"model-{row['model']}")[0]["text"]
        commit = "with uncommitted changes" if row["model"] == "model_2" else "nothing uncommitted"
        for part in (
            f"{100 * row['val_accuracy']:.2f} %",
            f"{100 * row['val_accuracy_low']:.1f}{DASH}{100 * row['val_accuracy_high']:.1f}",
            "max_pooling2d (MaxPooling2D)",
            "(None, 31, 31, 32)",
            "2,509,000",
            f"run of {row['model']}",
            "optimizer.learning_rate",
            "keras 3.15.1",
            "b" * 32,
            commit,
        ):
            assert part in section


def test_the_table_has_the_paper_beside_ours(page):
    table = page.all("table", **{"class": "sortable results"})[0]["text"]
    row = " ".join(table[table.index("model_4") :].split())
    for part in ("38.61", f"37.7{DASH}39.6", "35.61", "48.61", "37.52", "63.61", "± 0.40 (3)", "8,866,376", "random"):
        assert part in row


def test_the_page_opens_with_the_table_and_its_figures_and_the_audit_comes_after(page, text):
    assert [section["attributes"]["id"] for section in page.all("section")][:3] == ["results", "differences", "audit"]
    first = [image["attributes"]["alt"] for image in page.all("img")][:3]
    assert first == ["accuracy beside paper", "training accuracy", "validation accuracy"]
    assert text.index("accuracy beside paper") < text.index('id="differences"') < text.index("parameters</figcaption>")


def test_beside_other_images_there_is_no_published_number_and_the_audit_is_a_sentence(arguments):
    demo = made_inputs(demo_params(), arguments["root"])
    page = Page(results_html(**arguments | {"inputs": demo}))
    table = page.all("table", **{"class": "sortable results"})[0]["text"]
    assert "38.61" in table  # ours
    assert "24.88" not in table
    assert "paper protocol" in table
    section = page.all("section", id="audit")[0]["text"]
    assert "needs the profile paper on all of Tiny ImageNet" in section
    assert "cannot be tested here" not in section
    assert not page.all("ul", **{"class": "claims"})


def test_the_page_says_whether_it_is_comparable_and_what_the_profile_changes(arguments, page):
    assert "Compare the column 'paper protocol'" in words(page)
    assert not page.all("section", id="profile")
    demo = made_inputs(demo_params(), arguments["root"])
    changed_page = Page(results_html(**arguments | {"inputs": demo}))
    assert "not comparable with the paper's" in words(changed_page)
    section = changed_page.all("section", id="profile")[0]["text"]
    assert "epochs: 15 → 6 (all models)" in section
    assert "0.99 → 0.9 (model_3, model_4, model_5)" in section


def test_a_momentum_is_no_change_of_a_model_whose_layers_are_not_known_yet(tmp_path):
    arguments = make_report(tmp_path, ["model_3"])
    page = Page(results_html(**arguments | {"inputs": made_inputs(demo_params(), tmp_path)}))
    assert "0.99 → 0.9 (model_3)" in page.all("section", id="profile")[0]["text"]
    for model in MODELS:
        section = page.all("section", id=f"model-{model}")[0]["text"]
        assert "epochs 15 → 6" in section
        assert ("batch_normalization_momentum 0.99 → 0.9" in section) == (model == "model_3")


def test_the_mean_of_seeds_is_shown_only_if_there_are_several(arguments, page):
    assert "mean ± std (n)" in words(page)
    without = made_inputs(arguments["inputs"].params, arguments["root"])
    assert "mean ± std (n)" not in words(Page(results_html(**arguments | {"inputs": without})))


def test_a_verdict_is_a_symbol_and_a_word():
    assert re.sub("<[^>]+>", "", verdict("reproduced")) == "✓ reproduced"
    assert re.sub("<[^>]+>", "", verdict("does not hold")) == "✗ does not hold"
    symbols = {re.sub("<[^>]+>", "", verdict(word))[0] for word in ("reproduced", "above", "below", "does not hold",
                                                                    "cannot be tested here", "new")}  # fmt: skip
    assert len(symbols) == 6


def test_the_audit_and_the_paired_tests_are_complete(page, arguments):
    audit = page.all("section", id="audit")[0]["text"]
    assert audit.index("figure 9") < audit.index("figure 10")
    for verdict_ in ("✓ reproduced", "▲ above", "▼ below", "○ cannot be tested here", "✓ holds", "✗ does not hold"):
        assert verdict_ in audit
    assert "13,070,472" in audit
    assert "14.19" in audit
    differences = page.all("section", id="differences")[0]["text"]
    assert differences.count("✓ yes") == int(arguments["inputs"].paired["real"].sum()) == 6
    assert differences.count("○ not shown") == 4
    assert f"{MINUS}7.92" in differences


def test_the_most_confused_pairs_are_twenty_with_their_share_of_the_class(page):
    section = page.all("section", id="model-model_1")[0]["text"]
    listed = section[section.index("The 20 most confused pairs") : section.index("Architecture:")].splitlines()
    rows = [line for line in listed if line.endswith(" %")]
    assert len(rows) == 20
    assert rows[0] == f"{SCRIPT}{QUOTED}3060 %"  # 30 images of 50
    assert rows[-1].endswith("1122 %")


def test_all_classes_are_listed_the_best_first(page, arguments):
    section = page.all("section", id="model-model_3")[0]["text"]
    classes = pd.read_csv(arguments["root"] / "results" / "model_3" / "per_class.csv")
    best, worst = (classes.loc[classes["f1"].argsort().iloc[place], "name"] for place in (-1, 0))
    listed = section[section.index("All 200 classes") :]
    assert listed.index(best + "n") < listed.index(worst + "n")


def test_classes_that_are_named_like_values_are_shown_by_their_names(tmp_path):
    arguments = make_report(tmp_path, ["model_1"])
    names = ["007", "1.10", "1e5", "NA", "null", "True", "inf", "2024-01-02"]
    per_class, confusion = (tmp_path / "results" / "model_1" / name for name in ("per_class.csv", "confusion.csv"))
    pd.DataFrame({"wnid": names, "name": names, "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 50}).to_csv(
        per_class, index=False
    )
    wrong = pd.DataFrame({"actual": names, "predicted": [*names[1:], names[0]], "count": 7})
    itself = pd.DataFrame({"actual": names, "predicted": names, "count": 43})
    pd.concat([itself, wrong]).to_csv(confusion, index=False)
    section = Page(results_html(**arguments)).all("section", id="model-model_1")[0]["text"]
    for name, other in zip(wrong["actual"], wrong["predicted"], strict=True):
        assert f"{name}{other}714 %" in section
        assert f"{name}{name}" in section[section.index("All 8 classes") :]


def test_columns_sort_by_number_not_by_text(page, arguments):
    values = [cell["attributes"]["data-value"] for cell in page.all("td", **{"class": "n key"})]
    assert [float(value) for value in values] == arguments["inputs"].table.frame["val_accuracy"].tolist()
    assert all(heading["attributes"]["scope"] in {"col", "row"} for heading in page.all("th"))


# --- what comes from data stays text ---


def test_a_class_that_is_a_script_is_shown_and_not_run(text, page):
    assert SCRIPT not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert SCRIPT in words(page)
    assert QUOTED in words(page)
    assert not page.all("b")
    assert len(page.all("script")) == 1


def test_any_text_in_a_status_a_device_and_a_path_is_escaped(tmp_path):
    arguments = make_report(tmp_path, ["model_1"])
    evil = '"><img src=x onerror=alert(1)><!--'
    run = json.loads((tmp_path / "models" / "model_1" / "run.json").read_text())
    run |= {"device": evil, "dependencies": {f"data/{evil}": evil}, "versions": {evil: evil}, "hashes": {evil: evil}}
    (tmp_path / "models" / "model_1" / "run.json").write_text(json.dumps(run))
    arguments["captions"]["parameters"] = evil
    arguments |= {"inputs": made_inputs(arguments["inputs"].params, tmp_path)}
    arguments = with_status(arguments, {"model_2": f"failed: {evil}"})
    arguments["inputs"] = dataclasses.replace(arguments["inputs"], determinism={"model_1": evil})
    page = Page(results_html(**arguments))
    assert not page.all("i")
    assert not any("onerror" in element["attributes"] for element in page.elements)
    assert all(image["attributes"]["src"].startswith("data:") for image in page.all("img"))
    assert words(page).count(evil) >= 7


def test_code_between_backticks_is_escaped():
    assert code("`<b>`: 1 -> 2 & more") == "<code>&lt;b&gt;</code>: 1 -&gt; 2 &amp; more"


# --- where results are missing ---


def test_a_model_without_results_has_a_row_that_says_why(tmp_path):
    arguments = make_report(tmp_path, ["model_1", "model_2"])
    page = Page(results_html(**with_status(arguments, {"model_3": "failed: NaN loss in epoch 3"})))
    table = page.all("table", **{"class": "sortable results"})[0]["text"]
    assert len(page.all("td", **{"class": "n key"})) == 5
    assert "failed: NaN loss in epoch 3" in table
    assert table.count("not trained yet") == 2
    assert "24.88" in table  # the paper's figure of model_3 stays
    assert [cell["attributes"]["data-value"] for cell in page.all("td", **{"class": "n key"})][2:] == ["", "", ""]
    assert len(page.all("section", **{"class": "model"})) == 5
    assert not re.search(r"\b(nan|NaT|None|<NA>)\b(?! loss)", re.sub(r"\(None, ", "(", words(page)))


def test_the_page_needs_only_params(tmp_path):
    inputs = made_inputs(made_params(), tmp_path)
    audited = audit_of_tables(inputs), claims_audit(inputs)
    page = Page(results_html(inputs, *audited, {"classes": "Some"}, tmp_path))
    assert page.all("table", **{"class": "sortable results"})[0]["text"].count("not trained yet") == 5
    assert "No model has been trained with these params and images yet." in words(page)
    assert "Fewer than two models" in words(page)
    assert not page.all("img")


@pytest.mark.parametrize(
    "name",
    [
        "confusion.csv",
        "per_class.csv",
        "figures/gallery.png",
        "figures/classes.svg",
        "figures/classes.png",
    ],
)
def test_any_file_may_be_missing(tmp_path, name):
    arguments = make_report(tmp_path, ["model_1"])
    (tmp_path / "results" / "model_1" / name).unlink()
    Page(results_html(**arguments))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("results/model_1/per_class.csv", "support"),
        ("results/model_1/confusion.csv", "actual"),
        ("models/model_1/history.csv", "epoch"),
    ],
)
def test_a_file_without_a_column_is_named_with_a_remedy(tmp_path, name, column):
    arguments = make_report(tmp_path, ["model_1"])
    path = tmp_path / name
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(UserError, match=rf"{path.name} cannot be read \(it lacks {column}\): `rm -f .* restore it"):
        results_html(**arguments)


def test_a_model_that_is_trained_and_not_evaluated_shows_its_training(tmp_path):
    arguments = make_report(tmp_path, ["model_1"])
    shutil.rmtree(tmp_path / "results" / "model_1")
    inputs = made_inputs(arguments["inputs"].params, tmp_path)
    section = Page(results_html(**arguments | {"inputs": inputs})).all("section", id="model-model_1")[0]["text"]
    for part in ("trained, but not evaluated", "Epoch by epoch", "Accuracy by epoch", "run of model_1"):
        assert part in section


def test_a_training_with_other_params_is_not_shown_beside_the_current_recipe(tmp_path):
    arguments = make_report(tmp_path, ["model_1", "model_2"])
    path = tmp_path / "models" / "model_1" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hashes": {"params": "0" * 16}}))
    page = Page(results_html(**arguments | {"inputs": made_inputs(arguments["inputs"].params, tmp_path)}))
    one, two, provenance = (
        page.all("section", id=f)[0]["text"] for f in ("model-model_1", "model-model_2", "provenance")
    )
    assert "trained with other params" in one
    for part in ("Epoch by epoch", "Accuracy by epoch", "Where it comes from", "run of model_"):
        assert part not in one
        assert part in two
    assert "run of model_2" in provenance
    assert "run of model_1" not in provenance


def test_files_of_an_earlier_training_are_not_shown(tmp_path):
    arguments = make_report(tmp_path, ["model_1"])
    shutil.rmtree(tmp_path / "models" / "model_1")  # as DVC does before it trains anew
    arguments |= {"inputs": made_inputs(arguments["inputs"].params, tmp_path)}
    page = Page(results_html(**with_status(arguments, {"model_1": "failed: no room"})))
    section = page.all("section", id="model-model_1")[0]["text"]
    assert "failed: no room" in section
    assert "18.22" not in section
    assert "most confused" not in section


def test_a_model_of_one_seed_has_no_spread(tmp_path):
    arguments = make_report(tmp_path, ["model_1", "model_2"])
    frame = arguments["inputs"].table.frame  # which is made for this test
    frame["num_seeds"] = [3, 1, 0, 0, 0]
    frame.loc[1:, "val_accuracy_std"] = float("nan")
    text = words(Page(results_html(**arguments)))
    assert "± 0.40 (3)" in text
    assert "± \N{EN DASH}" not in text


def test_a_claim_without_a_reason_has_none(arguments):
    claims = audited_claims().assign(reason=None)
    assert (
        "why"
        not in Page(results_html(**arguments | {"audited_claims": claims})).all("ul", **{"class": "claims"})[0]["text"]
    )


# --- parts ---


def test_a_wide_picture_has_the_whole_width_in_a_frame_that_scrolls(page):
    wide = {
        "classes",
        "augmentation",
        *(f"Right, wrong, and wrong with the most confidence, {name}" for name in MODELS),
    }
    figures = [figure for figure in page.all("figure") if "full" in figure["attributes"]["class"].split()]
    assert {figure["text"].strip() for figure in figures} == wide
    frames = {element["attributes"]["aria-label"] for element in page.all("div", role="region", tabindex="0")}
    assert wide <= frames


def test_facts_that_all_models_share_are_shown_once():
    same, different = shared({"a": {"seed": "1", "run": "x"}, "b": {"seed": "1", "run": "y", "more": "z"}})
    assert same == {"seed": "1"}
    assert different == {"run": {"a": "x", "b": "y"}, "more": {"a": DASH, "b": "z"}}


def test_an_address_that_may_hold_a_password_is_not_shown(arguments, text):
    run = json.loads((arguments["root"] / "models" / "model_1" / "run.json").read_text())
    assert run["tracking_uri"] not in text
    unknown = RunRecord.model_validate(RUN | {"git": {"commit": "a", "dirty": None}})
    assert facts(unknown, None)["commit"] == "a"


HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "accuracy": [0.1, 0.2, 0.4], "val_accuracy": [0.1, 0.3, 0.3],
                        "loss": [3.0, 2.0, 1.0], "val_loss": [3.0, math.nan, 2.0]})  # fmt: skip


def lines(chart, kind):
    """Return the lines of a class, the one in the legend last: the points of each, and whether it is dashed."""
    paths = [path["attributes"] for path in Page(str(chart)).all("path") if path["attributes"].get("class") == kind]
    return [
        (
            [tuple(map(float, point)) for point in re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path["d"])],
            "stroke-dasharray" in path,
        )
        for path in paths
        if "C" not in path["d"]  # a circle
    ]


def test_the_charts_are_the_history_training_dashed_and_validation_solid():
    accuracy, loss = charts("model_1", HISTORY, 2).values()
    (train, dashed), (val, solid) = lines(accuracy, "train")[0], lines(accuracy, "val")[0]
    assert (dashed, solid) == (True, False)
    assert len(train) == len(val) == 3
    assert train[0] == val[0]
    # The grid gives the height of 0 %; 0.4 and 0.3 are above it in their proportion.
    bottom = max(points[0][1] for points, _ in lines(accuracy, "grid"))
    assert (bottom - train[2][1]) / (bottom - val[2][1]) == pytest.approx(0.4 / 0.3, abs=0.001)
    assert len(lines(loss, "train")[0][0]) == 3
    texts = [text["text"] for text in Page(str(accuracy)).all("text")]
    assert texts[:4] == ["1", "2", "3", "0%"]
    assert texts[-3:] == ["train", "val", "kept epoch"]


def test_the_kept_epoch_is_marked_on_the_validation_curve():
    accuracy = charts("model_1", HISTORY, 2)["accuracy"]
    marks = [use["attributes"] for use in Page(str(accuracy)).all("use")]
    places = [(float(mark["x"]), float(mark["y"])) for mark in marks]
    assert places[0] == pytest.approx(lines(accuracy, "val")[0][0][1])
    assert len(places) == 2  # the second is in the legend
    for epoch in (None, 4):
        assert not Page(str(charts("model_1", HISTORY, epoch)["accuracy"])).all("use")


def test_a_chart_takes_its_colours_from_the_page_and_says_what_it_shows():
    one, two = ([*charts(model, HISTORY, 2).values()] for model in ("model_1", "model_2"))
    shown = "accuracy by epoch; in the last: train 40.0 %, val 30.0 %"
    assert one[0].startswith(f'<svg viewBox="0 0 340 210" role="img" aria-label="{shown}">')
    assert 'aria-label="loss by epoch; in the last: train 1.000, val 2.000"' in one[1]
    for chart in (*one, *two):
        assert not re.search(r"style|#0000|DejaVu|<!|<\?|url|metadata", chart)
        assert set(re.findall(r'(?:stroke|fill)="([^"]+)"', chart)) == {"none", "currentColor"}
    ids = [name for chart in (*one, *two) for name in re.findall(r'id="([^"]+)"', chart)]
    assert len(set(ids)) == len(ids) == 4
    assert [*charts("model_1", HISTORY, 2).values()] == one


def test_every_class_of_a_chart_has_a_colour_in_light_and_dark(page):
    style = page.all("style")[0]["text"]
    classes = {path["attributes"].get("class") for tag in ("path", "text", "use") for path in page.all(tag)} - {None}
    assert classes == {"train", "val", "words", "grid"}
    for name in classes:
        (variable,) = re.findall(rf"\.chart \.{name} {{ color: var\((--\w+)\); }}", style)
        assert style.count(f"{variable}: #") == 3  # light, dark, on paper


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 1e-9, 1e6])
def test_a_single_epoch_can_be_drawn(value):
    columns = {key: [value] for key in ("accuracy", "val_accuracy", "loss", "val_loss")}
    for chart in charts("model_1", pd.DataFrame({"epoch": [1]} | columns), 1).values():
        assert "1" in [text["text"] for text in Page(str(chart)).all("text")]


def test_a_history_without_finite_values_is_not_drawn():
    columns = {key: [math.nan] for key in ("accuracy", "val_accuracy", "loss", "val_loss")}
    assert charts("model_1", pd.DataFrame({"epoch": [1]} | columns), None) == {}


def test_values_use_typographic_dashes_and_signs():
    assert FILTERS["percent"](0.3861) == "38.61"
    assert FILTERS["percent"](None) == FILTERS["percent"](pd.NA) == points(None) == DASH
    assert (points(-0.0792), points(0.0792)) == (f"{MINUS}7.92", "+7.92")
    assert FILTERS["limits"](0.3766, 0.3957) == f"37.7{DASH}39.6"


def test_models_that_are_not_the_papers_have_separate_tables(tmp_path):
    active = ["model_1", "model_5_caffe", "resnet18"]
    arguments = make_report(tmp_path, active[:1])
    for model in active[1:]:
        make_results(tmp_path, model)
    inputs = made_inputs(made_params(active=active, profile="paper"), tmp_path)
    page = Page(results_html(**arguments | {"inputs": inputs}))
    section = page.all("section", id="results")[0]["text"]
    places = [
        section.index(part)
        for part in ("model_1", "From scratch", "resnet18", "Pretrained on ImageNet", "model_5_caffe")
    ]
    assert places == sorted(places)
    assert "Do not compare them with models from scratch" in section
    assert "resnet18: every validation metric uses the mean over an image and its mirror image" in section
