"""Smoke: check that what answers at an address is a package, and answers as it does."""

from typing import TYPE_CHECKING

from .. import RefusedError

if TYPE_CHECKING:
    from ..records import SmokeResult
    from ..serving.loaded_model import LoadedModel


def smoke_test(loaded: "LoadedModel", url: str) -> "SmokeResult":
    """Check that a service is ready, serves a package, and answers its commonest row as it does.

    Raises:
        RefusedError: It is not ready, serves another package, or answers something else.
    """
    from ..http_client import http_json
    from ..isolation.pipe import PackageError
    from ..serving import check_parity
    from ..serving.rows import frame_from_rows

    model = loaded.model
    rows = frame_from_rows([loaded.example], model.request_contract)
    try:
        status, _ = http_json(f"{url}/readyz")
        _, serving = http_json(f"{url}/version")
        if status != 200:
            raise RefusedError(f"{url}/readyz answers {status}")
        if serving["package_digest"] != model.manifest["package_digest"]:
            raise RefusedError(f"{url} serves {serving['version']}, not {model.version}")
        if model.failures(model.read(rows)):
            result = "the commonest values are not a valid row: together they break a rule"
        else:
            result = check_parity(url, rows, model)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RefusedError(f"{url} does not answer as it should: {error!r}") from None
    except PackageError as error:
        raise RefusedError(
            f"{model.version} cannot answer its commonest row, in a process without network and "
            f"files of the project: {error}"
        ) from None
    return {"url": url, "package_digest": serving["package_digest"], "parity": result}
