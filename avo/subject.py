"""Says what a run is about: its problem, and the model that it is for."""

from avo.lineage_db.records import Run

FOR = "for"
"""The key under which a run's configuration holds ``avo.model_config.ModelProblem.to_json``."""


def model_of(run: Run) -> str:
    """Return the model and the phase that the run is for, in words; empty for none."""
    kept = run.config.get(FOR)
    return "" if kept is None else f"{kept['model']} in {kept['phase']}"


def subject(run: Run) -> str:
    """Return what the run is about: its problem, and the model and the phase that it is for, if any."""
    return ", ".join(filter(None, (run.problem, model_of(run))))
