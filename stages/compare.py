"""Stage `compare`: write the table of all active models beside the paper's to reports/, and print it."""

import sys

from tiny_imagenet import entry
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import write_text
from tiny_imagenet.reporting import documents, figures, inputs, wording
from tiny_imagenet.repository.paths import REPORTS
from tiny_imagenet.tracking import sync


def main() -> None:
    """Write the figures and documents of reports/, and complete the runs in MLflow."""
    params = entry.checked_params()
    read = inputs.read_inputs(params)
    captions = figures.draw(read)
    made = documents.documents(read, captions)
    for name, text in made.items():
        write_text(REPORTS / name, text)
    print(made["summary.txt"], end="")
    print("reports/results.html has everything: figures, the audit against the paper, a page per model")

    # A run may be incomplete: `evaluate` is skipped after a bit-identical retrain, which is a new run; DVC's cache
    # restores results without their run; MLflow's server may not have answered.
    described = wording.run_descriptions(read.table, params), wording.experiment_description(read.table, params)
    try:
        for line in sync.sync(params, *described):
            print(line)
    except UserError as error:
        raise UserError(
            f"the table in reports/results.md is complete, but its runs in MLflow are not: {error}"
        ) from None


if __name__ == "__main__":
    sys.exit(entry.run(main))
