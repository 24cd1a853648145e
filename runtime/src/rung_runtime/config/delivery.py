"""`config/delivery.yaml`: registry, service, and how a deployment is judged.

The environment overrides keys of the service: `ML_PORT=80` sets `service.port`, and so on.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field

from .. import UsageError
from .files import Strict, parse_yaml, read, validate

DELIVERY = Path("config/delivery.yaml")
SECRETS = ["ML_API_KEY", "ML_CHECK_TOKEN"]  # that a service and its deployer share


class Service(Strict):
    """What `ml serve` listens to, accepts at most, and logs."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    max_rows: int = Field(default=1_000, ge=1)  # of a request
    max_megabytes: float = Field(default=5.0, gt=0)  # of a request
    queue_rows: int = Field(default=4_000, ge=1)  # waiting; beyond them, clients retry later
    max_connections: int = Field(default=1_000, ge=1)  # beyond them, those that wait longest close
    read_seconds: float = Field(default=30.0, gt=0)  # until a request has arrived as a whole
    drain_seconds: float = Field(default=20.0, ge=0)
    log: str = "predictions"  # a folder, an object store's URL, or "" for none
    log_seconds: float = Field(default=5.0, gt=0)  # of predictions that a kill -9 may lose
    log_rows: int = Field(default=200_000, ge=1)  # in memory, while the log cannot be written
    private: list[str] = Field(default=[])  # columns that log, metrics and examples leave out
    explain_seconds: float = Field(
        default=1.0, ge=0
    )  # an answer waits for its explanations; 0: off
    explain_rows: int = Field(default=10, ge=1)  # of a request that are explained
    proxies: list[str] = Field(default=[])  # addresses, networks: believed about who is asking
    user_header: str = ""  # what those proxies set for callers whom they know; "": nothing
    hosts: list[str] = Field(default=[])  # names that it is reached by; none: any
    origins: list[str] = Field(default=[])  # of the web pages that may call it (CORS)
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


class Score(Strict):
    """What `ml score` scores, where the scores go, and what it accepts."""

    source: str = ""  # a file, a folder, a Delta table, or a URL of one; "": nothing is scheduled
    sink: str = ""  # a folder or a URL
    model: str = Field(default="champion", pattern=r"^[\w.@:-]+$")  # or a version, or a reference
    format: Literal["parquet", "delta"] = "parquet"  # of the scores
    # The share of a partition that the contract may refuse; beyond it, none of it gets to the sink.
    max_refused: float = Field(default=0.01, ge=0, le=1)
    log_rows: int = Field(default=100_000, ge=0)  # of a partition, in the prediction log


class Delivery(Strict):
    """Registry, service, and the limits of a deployment."""

    registry: str = Field(default="registry", min_length=1)
    tolerance: float = Field(default=0.05, ge=0)  # skill that may be lost against the champion
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    # The version of a champion that cannot be compared with, to be replaced even so.
    accept_incomparable: str | None = Field(
        default=None, validation_alias=AliasChoices("accept_incomparable", "replaces")
    )
    image: str = ""  # for kubernetes: NAME@sha256:DIGEST with the model in it; ML_IMAGE overrides
    signed_by: str = ""  # a public key, PEM, that each version must be signed with: `ml sign`
    images: str = ""  # HOST/NAME where `ml image --push` puts them; on a runner the platform's own
    service: Service = Service()
    shadow: Shadow = Shadow()
    watch: Watch = Watch()
    score: Score = Score()


def load_delivery() -> Delivery:
    """Read `config/delivery.yaml`, then the environment.

    Raises:
        UsageError: As `config.read`; or a service would get a token of the platform. A pull request
            that takes it out can still be compared with its base, which is why no type refuses it.
    """
    from ..isolation.environment import is_platform_token

    delivery = read(DELIVERY, Delivery)
    service = _override(delivery.service)
    for name in filter(is_platform_token, service.variables):
        raise UsageError(
            f"{DELIVERY}, service.variables: {name} is a token of the pipeline's jobs, "
            "which no service gets: take it out"
        )
    return delivery.model_copy(update={"service": service})


def service_environment() -> dict[str, str]:
    """Return what a service gets of the environment: no token of a job, and no key of a cloud.

    That is the plain part, what sets keys of `Service`, and what `service.variables` names.
    """
    from ..isolation.environment import passed_on

    names = [f"ML_{key.upper()}" for key in Service.model_fields] + SECRETS
    with suppress(UsageError):  # while the file is broken, the service runs without them
        names += load_delivery().service.variables
    return passed_on(names)


def _override(service: Service) -> Service:
    """Return the settings of a service with those that the environment sets.

    Raises:
        UsageError: A value is not of the type of its key.
    """
    changed: dict[str, Any] = {}
    for key, field in Service.model_fields.items():
        name = f"ML_{key.upper()}"
        text = os.environ.get(name)
        if text is None:
            continue
        if field.annotation is str:  # a text is itself: "::" is a host
            changed[key] = text
        else:
            changed[key] = parse_yaml(text, f"the environment, {name}")
    return validate(service.model_dump() | changed, Service, "the environment, ML_…")
