"""MLflow."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import MLFlowLogger
from lightning.pytorch.utilities import rank_zero_only

from domainnorm.loggers.base import RunLogger, identity
from domainnorm.registry import register

_TAG = "domainnorm_run"
_TALKATIVE = ("mlflow.store.db.utils", "mlflow.store.db", "alembic")


@register
class MLflow(MLFlowLogger, RunLogger):
    """MLflow in a file: ``mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`` shows it.

    Args:
        folder: The run folder.
        run: Name of the run below it.
        experiment: Name of the experiment; null takes the names of folder and recipe.
        tracking_uri: URI of a server or store; null for a file in the run folder.
    """

    needs = ("mlflow", "sqlalchemy")

    def __init__(
        self,
        folder: Path,
        run: str,
        *,
        experiment: str | None = None,
        tracking_uri: str | None = None,
    ) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read by the import
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
        place = folder.resolve()
        super().__init__(
            experiment or f"{place.parent.name}/{place.name}",
            run_name=run,
            tracking_uri=tracking_uri or f"sqlite:///{place / 'mlflow.db'}",
            artifact_location=None if tracking_uri else (place / "mlflow").as_uri(),
            tags={_TAG: identity(folder, run)},
        )
        self._begun = False

    @property
    def experiment(self) -> Any:
        """The client, with a run of this name and folder: the one that is there, or a new one."""
        if not self._initialized:
            self._find()
        return super().experiment

    @rank_zero_only
    def _find(self) -> None:
        client, name = self._mlflow_client, self._experiment_name
        found = client.get_experiment_by_name(name)
        if found is None:
            client.create_experiment(name, artifact_location=self._artifact_location)
            return
        asked = f"tags.{_TAG} = '{(self.tags or {})[_TAG]}'"
        runs = client.search_runs([found.experiment_id], asked)
        if runs:
            self._run_id, self._begun = runs[0].info.run_id, True

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Log them once: MLflow refuses other values of a run that is gone on with."""
        _ = self.experiment
        if not self._begun:
            super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log them under names that MLflow takes."""
        named = {re.sub(r"[^\w/. -]", "_", key, flags=re.ASCII): metrics[key] for key in metrics}
        super().log_metrics(named, step)

    @rank_zero_only
    def log_figure(self, file: Path) -> None:
        """Log an image as an artifact."""
        self.experiment.log_artifact(self.run_id, str(file), "figures")

    @rank_zero_only
    def close(self, *, failed: bool) -> None:
        """Say how the run has ended."""
        self.finalize("failed" if failed else "success")
