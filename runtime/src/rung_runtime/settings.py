"""`config/delivery.yaml` and `config/drift.yaml`, typed; the service, by environment as well.

`ML_PORT=80` sets `service.port`, and so on with every key of `Service`.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from . import UsageError
from .config import Strict, checked, parsed, read

DELIVERY, DRIFT = Path("config/delivery.yaml"), Path("config/drift.yaml")


class Service(Strict):
    """What `ml serve` listens to, takes at most, and writes down."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    max_rows: int = Field(default=1_000, ge=1)  # of a request
    max_megabytes: float = Field(default=5.0, gt=0)  # of a request
    queue_rows: int = Field(default=4_000, ge=1)  # that wait; what comes on top is told to retry
    drain_seconds: float = Field(default=20.0, ge=0)
    log: str = "predictions"  # a folder, an object store's URL, or "" for none
    log_seconds: float = Field(default=5.0, gt=0)  # of predictions that a kill -9 may lose
    log_rows: int = Field(default=200_000, ge=1)  # in memory, while the log cannot be written
    private: list[str] = Field(default=[])  # columns that the log leaves out
    variables: list[str] = Field(default=[])  # of the environment, that it gets besides the plain


class Shadow(Strict):
    """What a candidate may do to the last requests, before it takes over."""

    requests: int = Field(default=500, ge=1)
    max_error_share: float = Field(default=0.0, ge=0, le=1)
    latency_ratio: float = Field(default=2.0, gt=0)  # candidate ÷ champion, 95th percentile
    max_shift: float = Field(default=0.4, gt=0)  # mean difference of the predictions of a row
    min_agreement: float = Field(default=0.25, ge=-1, le=1)  # rank correlation with the champion's


class Watch(Strict):
    """How long, and by what, a new model is watched after it took over."""

    seconds: float = Field(default=30.0, ge=0)
    max_error_share: float = Field(default=0.01, ge=0, le=1)
    max_latency_ms: float = Field(default=500.0, gt=0)


class Delivery(Strict):
    registry: str = Field(default="registry", min_length=1)
    tolerance: float = Field(default=0.05, ge=0)  # skill that may be lost against the champion
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    replaces: str | None = None  # a champion that cannot be compared with, to be replaced even so
    image: str = ""  # for kubernetes: NAME@sha256:DIGEST, with the model in it; ML_IMAGE goes first
    signed_by: str = ""  # a public key, PEM, that each version must be signed with: `ml sign`
    images: str = ""  # HOST/NAME where `ml image --push` puts them; on a runner the platform's own
    service: Service = Service()
    shadow: Shadow = Shadow()
    watch: Watch = Watch()


class Window(Strict):
    """A window closes once it has both: so many hours, and so many rows."""

    hours: float = Field(default=24.0, ge=0)
    rows: int = Field(default=500, ge=50)


class Drift(Strict):
    """When new data counts as different from the data that the champion was trained on."""

    window: Window = Window()
    windows: int = Field(default=5, ge=1)  # the newest ones, of which
    alarms: int = Field(default=2, ge=1)  # so many must hold, the newest among them
    significance: float = Field(default=0.01, gt=0, lt=1)  # of a window, all columns together
    min_psi: float = Field(default=0.2, gt=0)
    min_distance: float = Field(default=0.1, gt=0)  # Kolmogorov-Smirnov
    min_cohens_w: float = Field(default=0.15, gt=0)  # of categories, together with
    min_moved: float = Field(default=0.05, gt=0)  # the share of rows that are of another category
    min_correlation_change: float = Field(default=0.2, gt=0)  # of ranks, of two columns
    min_gap_change: float = Field(default=0.05, gt=0)
    max_violation_share: float = Field(default=0.01, ge=0, le=1)
    max_skill_loss: float = Field(default=0.1, gt=0)
    max_calibration_ratio: float = Field(default=1.25, gt=1)  # observed ÷ predicted, either way
    max_age_days: float = Field(default=90.0, gt=0)

    @model_validator(mode="after")
    def _can_alarm(self) -> Self:
        if self.alarms > self.windows:
            raise ValueError(f"alarms: {self.alarms} of {self.windows} windows can never alarm")
        return self


def delivery() -> Delivery:
    """Read `config/delivery.yaml`, then the environment.

    Raises:
        UsageError: As `config.read`.
    """
    found = read(DELIVERY, Delivery)
    return found.model_copy(update={"service": _from_environment(found.service)})


def drift() -> Drift:
    """Read `config/drift.yaml`.

    Raises:
        UsageError: As `config.read`.
    """
    return read(DRIFT, Drift)


def service_environment() -> dict[str, str]:
    """Return what of the environment a service gets: no token of a job, and no key of a cloud.

    That is the plain part, what sets keys of `Service`, and what `service.variables` names.
    """
    from .isolation.environment import passed_on

    names = [f"ML_{key.upper()}" for key in Service.model_fields]
    with suppress(UsageError):  # while the file is broken, the service goes on without
        names += delivery().service.variables
    return passed_on(names)


def _from_environment(service: Service) -> Service:
    changed: dict[str, Any] = {}
    for key, field in Service.model_fields.items():
        name = f"ML_{key.upper()}"
        if (text := os.environ.get(name)) is not None:
            where = f"the environment, {name}"  # a text is itself: "::" is a host
            changed[key] = text if field.annotation is str else parsed(text, where)
    return checked(service.model_dump() | changed, Service, "the environment, ML_…")
