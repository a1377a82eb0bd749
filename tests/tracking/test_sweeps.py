"""The runs of a sweep."""

from typing import Any

from made_runs import points

from tiny_imagenet.tracking import sweeps
from tiny_imagenet.tracking.run import Run


def test_runs_of_a_sweep_are_open_at_once_can_be_resumed_and_have_a_parent(root, client):
    def open_run(name: str, **more: Any) -> Run:
        return sweeps.open_run(
            root, experiment="sweeps", name=name, params={"rate": 0.1}, tags={"sweep": "rates"}, **more
        )

    parent = open_run("rates")
    first, second = (open_run(f"rates-{number}", parent=parent) for number in (1, 2))
    first.log_epoch(1, {"loss": 1.0})
    second.log_epoch(1, {"loss": 2.0})
    second.end("KILLED")
    again = open_run("rates-2", parent=parent, resume=second.run_id)
    assert again.run_id == second.run_id
    assert client.get_run(again.run_id).info.status == "RUNNING"
    for epoch, loss in enumerate((2.0, 1.5), start=1):  # a lost trial reports all of its epochs again
        again.log_epoch(epoch, {"loss": loss})
    again.log_epoch(2, {"loss": 1.5})
    first.end("FINISHED")
    again.end("FINISHED")
    for run, losses in ((first, [1.0]), (again, [2.0, 1.5])):
        logged = client.get_run(run.run_id)
        assert logged.info.status == "FINISHED"
        assert logged.data.tags["mlflow.parentRunId"] == parent.run_id
        assert logged.data.params == {"rate": "0.1"}
        assert points(client, run.run_id, "loss") == list(enumerate(losses, start=1))
    assert client.get_run(parent.run_id).info.status == "RUNNING"
    assert open_run("rates", resume="0" * 32).run_id not in {parent.run_id, "0" * 32}
