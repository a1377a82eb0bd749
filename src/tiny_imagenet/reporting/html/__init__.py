"""results.html: all results on one page that needs no other file, for a screen of any width and for paper.

Every value from data, params or files is escaped (Jinja's autoescape); the page's own policy (CSP) lets nothing but
its own style and script take effect and nothing be fetched. About 0.3 s for five models of 200 classes.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting import audit
from tiny_imagenet.reporting.html import provenance
from tiny_imagenet.reporting.html.formats import FILTERS, missing
from tiny_imagenet.reporting.html.model_pages import model_page
from tiny_imagenet.reporting.html.pictures import picture
from tiny_imagenet.reporting.table import COLUMNS, SPREAD
from tiny_imagenet.reporting.wording import (
    NOTES,
    by_group,
    comparability,
    flip_lines,
    override_lines,
    overrides,
    unconcerned,
)


def results_html(
    *,
    params: Params,
    table: pd.DataFrame,
    audit_figures: pd.DataFrame,
    audit_claims: pd.DataFrame,
    paired: pd.DataFrame,
    models: Path,
    results: Path,
    figures: Path,
    captions: Mapping[str, str],
    determinism: Mapping[str, str],
) -> str:
    """Return the page.

    Args:
        params: what was run.
        table: `comparison.results_table`; `attrs["status"]` says of a model without results why it has none.
        audit_figures: `audit.figures_audit`.
        audit_claims: `audit.claims_audit`.
        paired: `significance.paired_tests`.
        models: the folder with `<model>/run.json` and `history.csv`; what is missing is left out of the page.
        results: the folder with `<model>/metrics.json` and so on; likewise.
        figures: the folder with the figures, of which the smaller of SVG and PNG is shown.
        captions: name of a figure -> caption, in the order in which they are shown.
        determinism: model -> what a double run showed.

    Raises:
        UserError: a file is there and cannot be read.
    """
    reasons: Mapping[str, str] = table.attrs.get("status", {})
    status = {
        model: reasons.get(model, "no results yet") if missing(accuracy) else ""
        for model, accuracy in zip(table["model"], table["val_accuracy"], strict=True)
    }
    pages = [
        model_page(
            name, params=params, status=why, models=models, results=results, determinism=determinism,
            changed=overrides(params, name, unconcerned(table)),
        )
        for name, why in status.items()
    ]  # fmt: skip
    same, different = provenance.shared({page.name: page.facts for page in pages if page.facts})
    environment = _environment()
    style, script = _own("style.css"), _own("page.js")
    return environment.get_template("page.html").render(
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - a file of this package
        style_hash=_sha256(style),
        script_hash=_sha256(script),
        profile=params.profile,
        dataset=params.dataset.name,
        comparability=comparability(params),
        groups=_groups(table),
        notes=NOTES,
        flipped=flip_lines(params),
        status=status,
        replicated=bool((table["num_seeds"] > 1).any()) if "num_seeds" in table else False,
        changes=[line.replace(" -> ", " → ") for line in override_lines(params, unconcerned(table))],
        audit_figures=[(where, list(cells)) for where, cells in groupby(audit_figures.to_dict("records"), _where)],
        audit_claims=audit_claims.to_dict("records"),
        tallies=audit.tallies(audit_figures, audit_claims),
        audit_legend=audit.LEGEND,
        claims_legend=audit.CLAIMS_LEGEND,
        paired=paired.to_dict("records"),
        pictures=[found for name, caption in captions.items() if (found := picture(figures, name, caption))],
        pages=pages,
        same=same,
        different=different,
    )


def _groups(table: pd.DataFrame) -> dict[str, list[dict[Any, Any]]]:
    """Return table of the report -> its rows, which have a spread, too, even where there are no replicates."""
    wanted = table.reindex(columns=[*COLUMNS, *SPREAD])
    wanted.attrs = table.attrs
    return by_group(wanted)


def _where(row: Mapping[Any, Any]) -> Any:
    return row["where"]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__name__), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    environment.tests["missing"] = missing
    return environment


def _own(name: str) -> str:
    return resources.files(__name__).joinpath("templates", name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
