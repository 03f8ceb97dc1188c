"""Where metrics are logged: CSV files, and metric loggers by entry point (TensorBoard, Weights & Biases, MLflow, third parties).

An entry point of the group `stair_es.metric_loggers` names a class or function that takes a `LoggedRun` and returns a
`MetricLogger`. A logger that fails is reported once and no longer used: it never ends the training. It runs in a thread of its
own, so that a slow server doesn't delay the steps.
"""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from stair_es import plugins
from stair_es.errors import StairError, UsageError
from stair_es.optional import import_optional
from stair_es.sources.io.remote import strip_all_credentials

if TYPE_CHECKING:
    from stair_es.training.config.schema import LogConfig

CSV_FILE, SPEED_FILE = "log.csv", "speed.csv"
_COLUMNS = ("step", "stage", "kind", "name", "value")
_MAX_PARAMETER_CHARS = 500


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """The run that a metric logger is opened for."""

    folder: Path
    """Output folder of the training."""
    project: str
    name: str
    step: int
    """Completed steps of all stages that the training resumes from; 0 for a new one."""
    parameters: Mapping[str, Any]
    """Values of the configuration by dotted name."""

    def keep_id(self, logger: str, create: Callable[[], str]) -> str:
        """Return the id of the run in a library: the stored one if the training resumes, otherwise a new one, which is stored."""
        path = self.folder / f"{logger}.id"
        if self.step and path.is_file():
            return path.read_text(encoding="utf-8").strip()
        created = create()
        path.write_text(created + "\n", encoding="utf-8")
        return created


class MetricLogger(Protocol):
    """An open metric logger."""

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log values by name (`train/loss`, `speed/pairs_per_s`, `SET/t2i@1`) at a step, which never falls within a run."""

    def close(self) -> None:
        """Send what is left, and close the run."""


class TensorBoardLogger:
    """TensorBoard: events in the folder `tensorboard`."""

    description = "TensorBoard events in the folder of the training (extra train)."

    def __init__(self, run: LoggedRun) -> None:
        import_optional("tensorboard", "train")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Add a scalar for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WandbLogger:
    """Weights & Biases, configured by its own variables (`WANDB_MODE=offline`). The id of the run is kept in `wandb.id`."""

    description = "Weights & Biases (extra wandb)."

    def __init__(self, run: LoggedRun) -> None:
        wandb = import_optional("wandb", "wandb")
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.keep_id("wandb", lambda: secrets.token_hex(4)),
            resume="allow",
            dir=str(run.folder),
            config=dict(run.parameters),
            settings=wandb.Settings(console="off"),
        )

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values; the service ignores steps that it already has."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MlflowLogger:
    """MLflow, configured by its own variables (`MLFLOW_TRACKING_URI`). The id of the run is kept in `mlflow.id`."""

    description = "MLflow (extra mlflow)."

    def __init__(self, run: LoggedRun) -> None:
        self._client = import_optional("mlflow", "mlflow").MlflowClient()
        self._id = run.keep_id("mlflow", lambda: self._create_run(run))
        self._client.update_run(self._id, status="RUNNING")

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values. MLflow allows no `@` in a name."""
        for name, value in values.items():
            self._client.log_metric(self._id, name.replace("@", "_at_"), value, step=step)

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)

    def _create_run(self, run: LoggedRun) -> str:
        experiment = self._client.get_experiment_by_name(run.project)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        created: str = self._client.create_run(experiment_id, run_name=run.name).info.run_id
        for name, value in run.parameters.items():
            self._client.log_param(created, name, str(value)[:_MAX_PARAMETER_CHARS])
        return created


def list_logger_names(config: LogConfig) -> Sequence[str]:
    """Return the names of the loggers of a configuration: by default TensorBoard, if it is installed.

    Raises:
        UsageError: If there is no logger of a name.
    """
    if config.to is None:
        return ["tensorboard"] if find_spec("tensorboard") else []
    for name in config.to:
        if plugins.get_plugin("metric_loggers", name) is None:
            raise UsageError(
                f"log.to: unknown metric logger {name!r}",
                f"Installed are: {', '.join(plugins.list_plugin_names('metric_loggers'))}.",
                code="unknown-metric-logger",
            )
    return config.to


class MetricLog:
    """CSV files with one row per value, and the open metric loggers.

    Speed and memory go to a separate file, so that `log.csv` is reproducible for the same configuration.
    """

    def __init__(self, config: LogConfig, run: LoggedRun, on_message: Callable[[str], None]) -> None:
        """Open the files and loggers of a run, and remove rows after its step: they belong to an interrupted run.

        Args:
            config: Names of the loggers.
            run: The run. Its folder is created if it doesn't exist.
            on_message: Called with the reason if a logger fails.

        Raises:
            MissingExtra: If the library of a logger isn't installed.
        """
        run.folder.mkdir(parents=True, exist_ok=True)
        opened = ((name, _open_logger(name, run, on_message)) for name in list_logger_names(config))
        self._loggers = [_IsolatedLogger(name, logger, on_message) for name, logger in opened if logger is not None]
        self._files = [_resume_file(run.folder / name, run.step) for name in (CSV_FILE, SPEED_FILE)]
        self._writers = [csv.DictWriter(file, _COLUMNS) for file in self._files]

    def log_metrics(self, step: int, stage: str, kind: str, values: Mapping[str, float]) -> None:
        """Log values at a step; the kind `speed` has its own file.

        Args:
            step: Completed steps of all stages.
            stage: Name of the stage.
            kind: `train`, `speed`, or the name of a validation set.
            values: Values by name.
        """
        index = int(kind == "speed")
        for name, value in values.items():
            self._writers[index].writerow({"step": step, "stage": stage, "kind": kind, "name": name, "value": f"{value:.6g}"})
        self._files[index].flush()
        for logger in self._loggers:
            logger.log_metrics(step, {f"{kind}/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Close files and loggers."""
        for file in self._files:
            file.close()
        for logger in self._loggers:
            logger.close()


class _IsolatedLogger:
    """A logger in a thread of its own, which is no longer called after it has failed."""

    def __init__(self, name: str, logger: MetricLogger, on_message: Callable[[str], None]) -> None:
        self._name, self._logger, self._on_message = name, logger, on_message
        self._has_failed = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"log-{name}")

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._pool.submit(self._call, lambda: self._logger.log_metrics(step, values))

    def close(self) -> None:
        self._pool.submit(self._call, self._logger.close)
        self._pool.shutdown()

    def _call(self, call: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001  of any library
            self._has_failed = True
            self._on_message(_describe_failure(self._name, error))


def _open_logger(name: str, run: LoggedRun, on_message: Callable[[str], None]) -> MetricLogger | None:
    """Open a logger; None if its library or service fails.

    Raises:
        MissingExtra: If its library isn't installed.
        PluginError: If the plugin can't be loaded.
    """
    plugin = plugins.get_plugin("metric_loggers", name)
    if plugin is None:  # the default, in a source tree that isn't installed
        return None
    open_logger = plugin.load()
    try:
        logger: MetricLogger = open_logger(run)
    except StairError:
        raise
    except Exception as error:  # noqa: BLE001  of any library
        on_message(_describe_failure(name, error))
        return None
    return logger


def _describe_failure(name: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    return f"the metric logger {name!r} has failed and is no longer used: {reason}; log.csv has all metrics"


def flatten_values(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables with their dotted names, URLs without credentials."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten_values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", strip_all_credentials(value)


def _resume_file(path: Path, step: int) -> TextIO:
    """Reopen a log file without the rows after a step. The old file is kept until the new one is complete."""
    kept = [row for row in _read_rows(path) if int(row["step"]) <= step]
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
    temporary.replace(path)
    return path.open("a", newline="", encoding="utf-8")


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values() and (row.get("step") or "").isdigit()]
