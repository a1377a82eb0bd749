"""The paper's claims that a number can test, each with the paper's numbers, ours and a verdict.

Our results decide a claim about models if images and recipes are the paper's. Otherwise the authors' logs decide if
they can; if not, the claim gets no verdict.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import hypot, isnan, radians, tan

import pandas as pd

from tiny_imagenet.config.recipe import PAPER_AUGMENTATION
from tiny_imagenet.reporting.audit import PRETRAINED, UNTESTED, not_the_papers, why_untested
from tiny_imagenet.reporting.formats import percent
from tiny_imagenet.reporting.inputs import ReportInputs
from tiny_imagenet.reporting.paper import authors_logs, comparable, paper_table
from tiny_imagenet.reporting.significance import LEVEL, holm
from tiny_imagenet.repository.records import Metrics

COLUMNS = ["claim", "where", "paper", "ours", "verdict", "reason"]
_Judgement = tuple[str, str, str, str]
"""The paper's numbers, ours, verdict, reason."""
HOLDS, FAILS, NOT_SHOWN = "holds", "does not hold", "not shown"
_SIMPLE, _DEEP, _TRANSFER = ("model_1", "model_2"), ("model_3", "model_4"), PRETRAINED
_SIDE = 64
"""Pixels."""


@dataclass(frozen=True)
class _Measured:
    """An accuracy, or a difference of two; fractions."""

    value: float
    half_width: float = 0.0
    """Half the 95 % interval; 0 if unknown, as for the paper's accuracies."""

    def __sub__(self, other: "_Measured") -> "_Measured":
        """Return the difference as if both were measured on different images."""
        return _Measured(self.value - other.value, hypot(self.half_width, other.half_width))

    def __str__(self) -> str:
        """Return percentage points."""
        return f"{100 * self.value:+.2f}" + (f" ± {100 * self.half_width:.2f}" if self.half_width else "")

    def surely_above(self, other: "_Measured") -> bool:
        """Return whether the interval of the difference is above 0."""
        difference = self - other
        return difference.value > difference.half_width


def claims_audit(inputs: ReportInputs) -> pd.DataFrame:
    """Return a row with COLUMNS for each claim, in the order of the text; accuracies are in percent."""
    judged = {
        ("200 classes with 500 training, 50 validation and 50 test images each", "III"): _counts(inputs),
        ("Models 1 to 4 were trained for 15 epochs", "IV"): _epochs(),
        ("The augmentation has shear", "V"): _shear(),
        ("Training and validation data are strictly separate", "V"): _separation(inputs),
        ("Validation above training accuracy indicates overfitting", "V"): _overfitting(inputs),
        ("Dropout mitigates overfitting: training is less far above validation in model 4 than in model 3", "V"):
            _dropout_closes_the_gap(inputs),
        ("A third convolution helps: model 2 beats model 1", "VI"): _better(inputs, ("model_2",), ("model_1",)),
        ("Depth helps: the deep networks beat the simple ones", "VI"): _better(inputs, _DEEP, _SIMPLE),
        ("Dropout helps: model 4 beats model 3, which has none", "I"): _better(inputs, ("model_4",), ("model_3",)),
        ("Transfer wins: the pretrained model beats all others", "V"): _better(inputs, (_TRANSFER,), _SIMPLE + _DEEP),
        ("Transfer markedly improves generalization to unseen data", "V"): _generalizes(inputs),
        ("Transfer expedites the training", "V"): _faster(inputs),
    }  # fmt: skip
    rows = [(claim, f"section {where}", *judgement) for (claim, where), judgement in judged.items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _untested(inputs: ReportInputs, *models: str) -> str:
    """Return why a claim about these models cannot be tested here; empty if it can."""
    table = inputs.table
    without = [f"{model}: {why_untested(model, table)}" for model in models if model not in table.metrics]
    others = (not_the_papers(model, inputs.params, table) for model in models)
    return "; ".join(without or dict.fromkeys(why for why in others if why))


def _counts(inputs: ReportInputs) -> _Judgement:
    data, paper = inputs.data, (200, 100_000, 10_000)
    counted = (data.classes, data.in_archive["train"], data.in_archive["val"])
    text = "{:,} classes, {:,} training and {:,} validation images, {:,} test images without labels"
    per_class = {split: set(data.per_class[split].values()) for split in ("train", "val")}
    verdict, reason = UNTESTED, "not all of Tiny ImageNet"
    if comparable(inputs.params):
        same = counted == paper and per_class == {"train": {500}, "val": {50}} and data.unlabelled in (0, 10_000)
        verdict, reason = (
            (HOLDS if same else FAILS),
            "training and validation, class by class; of test images the total, if any",
        )
    return text.format(*paper, 10_000), text.format(*counted, data.unlabelled), verdict, reason


def _epochs() -> _Judgement:
    epochs = authors_logs().groupby("model")["epoch"].max()
    logged = ", ".join(f"{model} {count}" for model, count in epochs.items())
    named = epochs[["model_1", "model_2", "model_3", "model_4"]]
    verdict = HOLDS if (named == 15).all() else FAILS
    return "15 each", f"in the authors' logs: {logged}", verdict, "counted in the authors' logs"


def _shear() -> _Judgement:
    degrees = PAPER_AUGMENTATION.shear_degrees
    moved = _SIDE * tan(radians(degrees))
    ours = f"{degrees} degrees move the far edge of an image by {moved:.2f} of {_SIDE} pixels"
    reason = "Keras takes degrees: less than a pixel is no shear that one could see"
    return "0.2 in the authors' code", ours, HOLDS if moved >= 1 else FAILS, reason


def _separation(inputs: ReportInputs) -> _Judgement:
    counts = inputs.data.duplicates["counts"]
    exact, near = counts["exact"]["train-val"]["pairs"], counts["near"]["train-val"]["pairs"]
    verdict, reason = UNTESTED, "not all of Tiny ImageNet"
    if comparable(inputs.params):
        verdict, reason = (HOLDS if not exact + near else FAILS), "every validation image against every training image"
    return "no leakage", f"{exact:,} exact and {near:,} near duplicates across the two", verdict, reason


def _published(column: str) -> dict[str, float]:
    return {str(model): float(share) for model, share in paper_table()[column].items()}


def _published_gaps() -> dict[str, _Measured]:
    train, val = _published("train_accuracy"), _published("val_accuracy")
    return {model: _Measured(train[model] - val[model]) for model in train}


def _gaps(inputs: ReportInputs) -> dict[str, _Measured]:
    """Return each model's accuracy on plain training images minus that on plain validation images."""
    metrics = {model: inputs.table.metrics[model] for model in inputs.table.with_results}
    return {
        model: _measured(own, "train_accuracy_clean") - _measured(own, "val_accuracy") for model, own in metrics.items()
    }


def _measured(metrics: Metrics, key: str) -> _Measured:
    value, low, high = (getattr(metrics, f"{key}{end}") for end in ("", "_low", "_high"))
    return _Measured(value, (high - low) / 2)


def _all_wider(wide: Iterable[_Measured], narrow: Iterable[_Measured]) -> str:
    """Return the verdict on the claim that each gap of `wide` is wider than each gap of `narrow`."""
    pairs = list(product(wide, narrow))
    if all(one.surely_above(other) for one, other in pairs):
        return HOLDS
    return FAILS if any(other.surely_above(one) for one, other in pairs) else NOT_SHOWN


def _overfitting(inputs: ReportInputs) -> _Judgement:
    """Compare gaps in which only the images differ.

    The training accuracy of a log is lower: it has augmentation, dropout and weights that still change.
    """
    train, val = _published("train_accuracy"), _published("val_accuracy")
    above = [model for model in val if val[model] > train[model]]
    shown = ", ".join(f"{model} {percent(val[model])} above {percent(train[model])}" for model in above)
    gaps = _gaps(inputs)
    ours = "without augmentation and dropout, training is above validation by " + _points(gaps) if gaps else "-"
    why_not = _untested(inputs, *_SIMPLE, *_DEEP)
    if why_not:
        return shown, ours, UNTESTED, why_not
    others = [model for model in _SIMPLE + _DEEP if model not in above]
    verdict = _all_wider((gaps[model] for model in above), (gaps[model] for model in others))
    words = {HOLDS: "the", FAILS: "not the", NOT_SHOWN: "not surely the"}[verdict]
    return shown, ours, verdict, f"the models whose validation is above are {words} ones that overfit most"


def _dropout_closes_the_gap(inputs: ReportInputs) -> _Judgement:
    gaps, published = _gaps(inputs), _points({model: _published_gaps()[model] for model in _DEEP})
    shown = _points({model: gaps[model] for model in _DEEP if model in gaps}) or "-"
    why_not = _untested(inputs, *_DEEP)
    if why_not:
        return published, shown, UNTESTED, why_not
    verdict = _all_wider([gaps["model_3"]], [gaps["model_4"]])
    reason = "both on images as they are; the two differ in more than dropout, see parameters"
    if verdict == NOT_SHOWN:
        reason = f"not surely less: the gaps are {gaps['model_3'] - gaps['model_4']} points apart"
    return published, shown, verdict, reason


def _better(inputs: ReportInputs, better: tuple[str, ...], worse: tuple[str, ...]) -> _Judgement:
    """Test each model of `better` against each of `worse`, paired.

    The claim holds if every difference is significant. It does not hold if a significant one has the other sign.
    """
    paper = _published("val_accuracy")
    models = worse + better
    published = ", ".join(f"{model} {percent(paper[model])}" for model in models)
    metrics = inputs.table.metrics
    accuracies = {model: metrics[model].val_accuracy for model in models if model in metrics}
    ours = ", ".join(f"{model} {percent(accuracy)}" for model, accuracy in accuracies.items()) or "-"
    why_not = _untested(inputs, *models)
    if why_not:
        return published, ours, UNTESTED, why_not
    pairs = list(product(better, worse))
    alone = [_p(inputs.paired, *pair) for pair in pairs]
    missing = [f"{one} against {other}" for (one, other), p in zip(pairs, alone, strict=True) if isnan(p)]
    if missing:
        return published, ours, UNTESTED, f"predictions are missing: {'; '.join(missing)}"
    tested = dict(zip(pairs, holm(alone), strict=True))
    behind = {pair for pair in tested if accuracies[pair[0]] <= accuracies[pair[1]]}
    refuted = {pair for pair in behind if tested[pair] < LEVEL}
    doubtful = refuted or behind | {pair for pair, p in tested.items() if p >= LEVEL}
    if doubtful:
        verdict, why = (FAILS, "surely worse") if refuted else (NOT_SHOWN, "not surely better")
        shown = [f"{one} against {other}, p = {tested[one, other]:.2g}" for one, other in sorted(doubtful)]
        return published, ours, verdict, f"{why}: {'; '.join(shown)}"
    why = "the difference is significant: McNemar's test"
    if len(pairs) > 1:
        why = "every difference is significant: McNemar's test, Holm's correction for these pairs"
    return published, ours, HOLDS, why


def _p(paired: pd.DataFrame, one: str, other: str) -> float:
    """Return the uncorrected p-value of a pair, or NaN if predictions are missing."""
    rows = paired.to_dict("records")
    return float(next((row["p"] for row in rows if {row["model_a"], row["model_b"]} == {one, other}), "nan"))


def _generalizes(inputs: ReportInputs) -> _Judgement:
    """Compare how far training is above validation, in our results or else in the paper's."""
    published, gaps = _published_gaps(), _gaps(inputs)
    is_tested = not _untested(inputs, *_SIMPLE, *_DEEP, _TRANSFER)
    judged = {model: gaps[model] for model in published} if is_tested else published
    others = [gap for model, gap in judged.items() if model != _TRANSFER]
    verdict, words = NOT_SHOWN, "neither surely the narrowest nor surely the widest"
    if all(other.surely_above(judged[_TRANSFER]) for other in others):
        verdict, words = HOLDS, "the narrowest"
    elif all(judged[_TRANSFER].surely_above(other) for other in others):
        verdict, words = FAILS, "the widest"
    by = "by our results" if is_tested else "by the paper's own"
    reason = f"{by} the gap of {_TRANSFER} is {words} of the five"
    return "training above validation by " + _points(published), _points(gaps) or "-", verdict, reason


def _faster(inputs: ReportInputs) -> _Judgement:
    """Count the epochs that the pretrained model needs to reach the best accuracy of all others."""
    published = {str(model): log.set_index("epoch")["val_accuracy"] for model, log in authors_logs().groupby("model")}
    curves = {model: history.set_index("epoch")["val_accuracy"] for model, history in inputs.histories.items()}
    models = (*_SIMPLE, *_DEEP, _TRANSFER)
    why_not = _untested(inputs, *models)
    ours = _reaches(curves) if {*models} <= curves.keys() else "-"
    if why_not:
        return _reaches(published), ours, UNTESTED, why_not
    best, epoch, reached = _epochs_to_the_best(curves)
    verdict = HOLDS if reached is not None and reached < epoch else FAILS
    reason = f"{best} itself needs {epoch} epochs for it, by the validation accuracy of each epoch"
    return _reaches(published), ours, verdict, reason


def _epochs_to_the_best(curves: Mapping[str, pd.Series]) -> tuple[str, int, int | None]:
    """Return the best other model, the epoch of its best accuracy, and the epoch in which transfer reaches that."""
    best = max(_SIMPLE + _DEEP, key=lambda model: curves[model].max())
    epoch = curves[best].index.to_numpy()[curves[best].argmax()]
    reached = curves[_TRANSFER].index.to_numpy()[curves[_TRANSFER] >= curves[best].max()]
    return best, int(epoch), int(reached[0]) if len(reached) else None


def _reaches(curves: Mapping[str, pd.Series]) -> str:
    best, epoch, reached = _epochs_to_the_best(curves)
    last = percent(curves[_TRANSFER].iloc[-1])
    when = f"in epoch {reached}" if reached is not None else f"in no epoch: it ends at {last}"
    return f"{_TRANSFER} reaches the best of {best}, {percent(curves[best].max())} in epoch {epoch}, {when}"


def _points(gaps: Mapping[str, _Measured]) -> str:
    return ", ".join(f"{model} {gap}" for model, gap in gaps.items())
