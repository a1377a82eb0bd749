"""Stage `compare`: the table of all active models beside the paper's, in reports/, and on the terminal."""

import sys

from tiny_imagenet import entry
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import write_text
from tiny_imagenet.reporting import documents, figures, inputs, wording
from tiny_imagenet.repository.paths import REPORTS
from tiny_imagenet.tracking import sync


def main() -> None:
    """Write the figures and documents of reports/; complete the runs in MLflow."""
    params = entry.checked_params()
    read = inputs.read_inputs(params)
    captions = figures.draw(read)
    made = documents.documents(read, captions)
    for name, text in made.items():
        write_text(REPORTS / name, text)
    print(made["summary.txt"], end="")
    print("reports/results.html has all of it: figures, the audit against the paper, a page per model")

    # Runs may be incomplete: after a bit-identical retrain, which is a new run, `evaluate` was skipped; a result may
    # come from DVC's cache without its run; MLflow's server may not have answered.
    described = wording.run_descriptions(read.table, params), wording.experiment_description(read.table, params)
    try:
        for line in sync.sync(params, *described):
            print(line)
    except UserError as error:
        raise UserError(
            f"the table is complete, see reports/results.md, but its runs in MLflow are not: {error}"
        ) from None


if __name__ == "__main__":
    sys.exit(entry.run(main))
