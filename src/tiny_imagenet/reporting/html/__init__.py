"""Write results.html: all results on one page that needs no other file, for screens of any width and for print.

Jinja escapes every value from data, params and files. The page's content security policy (CSP) allows its own style
and script alone, and no fetch. Takes about 2 s for five models of 200 classes, most of it for their charts.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tiny_imagenet.reporting import audit
from tiny_imagenet.reporting.columns import columns
from tiny_imagenet.reporting.figures import FIGURES
from tiny_imagenet.reporting.formats import missing
from tiny_imagenet.reporting.html import provenance
from tiny_imagenet.reporting.html.formats import FILTERS
from tiny_imagenet.reporting.html.model_pages import model_page
from tiny_imagenet.reporting.html.pictures import picture
from tiny_imagenet.reporting.inputs import ReportInputs
from tiny_imagenet.reporting.wording import NOTES, comparability, flip_lines, override_lines

_FIRST = ("accuracy_beside_paper", "training_accuracy", "validation_accuracy")
"""The figures below the table. The others come after the models."""


def results_html(
    inputs: ReportInputs,
    audited_tables: pd.DataFrame,
    audited_claims: pd.DataFrame,
    captions: Mapping[str, str],
    root: Path = Path(),
) -> str:
    """Return the page, with the results of `audit.audit_of_tables` and `claims.claims_audit`.

    `captions` has the captions of the figures in reports/figures by name, in the order of the page. The page has the
    smaller of SVG and PNG. It leaves out missing figures, and missing files of a model. Raise UserError if a file is
    broken.
    """
    params, table = inputs.params, inputs.table
    pages = [model_page(model, inputs, root) for model in params.active]
    same, different = provenance.shared({page["name"]: page["facts"] for page in pages if page["facts"]})
    style, script = _own("style.css"), _own("page.js")
    figures = root / FIGURES
    pictures = {name: shown for name, caption in captions.items() if (shown := picture(figures, name, caption))}
    spread = ("val_seeds",) if table.rows_of_several_seeds else ()
    return _environment().get_template("page.html").render(
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - a file of this package
        style_hash=_sha256(style),
        script_hash=_sha256(script),
        params=params,
        table=table,
        audit=audit,
        comparability=comparability(params),
        columns=columns("val", "val_protocol", "val_paper", "train", "train_paper", "val_top5", *spread, "parameters",
                        "epochs_kept", "weights", "images_per_second", with_paper=table.comparable),
        notes=NOTES,
        flipped=flip_lines(params),
        changes=[line.replace(" -> ", " → ") for line in override_lines(params, table.without_batch_normalization)],
        audited_tables=[
            (where, list(cells)) for where, cells in groupby(audited_tables.to_dict("records"), itemgetter("where"))
        ],
        audited_claims=audited_claims.to_dict("records"),
        not_audited=audit.not_audited(audited_tables, params),
        tallies=audit.tallies(audited_tables, audited_claims),
        paired=inputs.paired.to_dict("records"),
        first_pictures=[shown for name in _FIRST if (shown := pictures.pop(name, None))],
        pictures=list(pictures.values()),
        pages=pages,
        same=same,
        different=different,
    )  # fmt: skip


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
