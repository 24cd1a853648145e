"""Statements of where something comes from, in a folder instead of a transparency log.

`attest` is what the stand-in of actions/attest does, `gh` what `gh attestation verify` does, and
`sigstore` what `sigstore sign`, `attest` and `verify` do, and `model_signing` what `model_signing
sign sigstore` and `verify sigstore` do; `sbom` is `.gitlab/sbom`. Nothing is signed: a statement
counts because it lies in $STANDIN_ATTESTATIONS, where only these programs write. With real
cryptography, and the real programs: test_forge_sigstore.py.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ENV = os.environ
PROVENANCE = "https://slsa.dev/provenance/v1"
MODEL = "https://model_signing/signature/v1.0"
SUBJECTS = '.[].verificationResult.statement.subject[] | .name + "@sha256:" + .digest.sha256'
SBOM = {"CycloneDX": "https://cyclonedx.org/bom", "SPDX": "https://spdx.dev/Document/v2.3"}


def kept() -> list[dict[str, Any]]:
    """Every statement."""
    return [json.loads(path.read_text()) for path in sorted(folder().glob("*.json"))]


def folder() -> Path:
    """Where statements are kept."""
    return Path(ENV["STANDIN_ATTESTATIONS"])


def state(statement: dict[str, Any]) -> Path:
    """Keep a statement."""
    text = json.dumps(statement, indent=1, sort_keys=True)
    path = folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    path.write_text(text)
    return path


def digest(path: Path) -> str:
    """A file's digest."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def attest() -> None:
    """State where subjects come from, if the job may."""
    job = json.loads(Path(ENV["STANDIN_RUN"], "jobs.json").read_text())[ENV["GITHUB_JOB"]]
    may = job["permissions"]
    for needed in ("id-token", "attestations"):
        if not (may == "write-all" or (isinstance(may, dict) and may.get(needed) == "write")):
            sys.exit(f"::error::missing {needed} permission: the job needs {needed}: write")
    if ENV["SUBJECT_PATH"]:
        names = [n.strip() for n in re.split(r"[\n,]", ENV["SUBJECT_PATH"]) if n.strip()]
        files = [path for name in names for path in sorted(Path().glob(name)) if path.is_file()]
        if not files:
            sys.exit(f"::error::Could not find subject at path {', '.join(names)}")
        subjects = [(path.name, digest(path)) for path in files]
    elif re.fullmatch(r"sha256:[0-9a-f]{64}", ENV["SUBJECT_DIGEST"]) and ENV["SUBJECT_NAME"]:
        subjects = [(ENV["SUBJECT_NAME"], ENV["SUBJECT_DIGEST"])]
    elif ENV.get("SUBJECT_CHECKSUMS"):
        lines = Path(ENV["SUBJECT_CHECKSUMS"]).read_text().split("\n")
        pairs = [re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in lines if line.strip()]
        if not pairs or not all(pairs):
            sys.exit(f"::error::{ENV['SUBJECT_CHECKSUMS']} has lines that are not checksums")
        subjects = [(pair[2], f"sha256:{pair[1]}") for pair in pairs if pair]
    else:
        sys.exit("::error::subject-path, subject-digest (sha256:…) or subject-checksums is needed")
    kind = PROVENANCE
    predicate = None
    if ENV.get("SBOM_PATH"):
        predicate = json.loads(Path(ENV["SBOM_PATH"]).read_text())
        kind = SBOM["CycloneDX" if predicate.get("bomFormat") == "CycloneDX" else "SPDX"]
    elif ENV.get("PREDICATE_TYPE"):
        kind = ENV["PREDICATE_TYPE"]
        predicate = json.loads(Path(ENV["PREDICATE_PATH"]).read_text())
    for name, value in subjects:
        path = state(
            {
                "subject": name,
                "digest": value,
                "repository": ENV["GITHUB_REPOSITORY"],
                "ref": ENV["STANDIN_REF"],
                "commit": ENV["GITHUB_SHA"],
                "workflow": job["workflow"],
                "type": kind,
                "predicate": predicate,
                "together": [
                    f"{subject}@{subject_digest}" for subject, subject_digest in subjects
                ],  # of one statement
            }
        )
        print(f"Attested {name} {value} as {kind}.")
    with Path(ENV["GITHUB_OUTPUT"]).open("a") as output:
        output.write(f"bundle={path}\nid={path.stem}\n")


def gh(args: list[str]) -> None:
    """`gh attestation verify` and `gh api`; no other command is known."""
    if not (ENV.get("GH_TOKEN") or ENV.get("GITHUB_TOKEN")):
        print(
            "gh: To use GitHub CLI in a GitHub Actions workflow, set the GH_TOKEN", file=sys.stderr
        )
        sys.exit(4)
    if args[:2] == ["attestation", "verify"]:
        verify(args[2:])
    elif args[:1] == ["api"]:
        api(args[1:])
    else:
        sys.exit(f"the stand-in of gh knows no {' '.join(args[:2])}")


def verify(args: list[str]) -> None:
    """Refuse what nobody stated."""
    parser = argparse.ArgumentParser("gh attestation verify")
    parser.add_argument("subject")
    parser.add_argument("-R", "--repo")
    parser.add_argument("-o", "--owner")
    parser.add_argument("--source-ref")
    parser.add_argument("--source-digest")
    parser.add_argument("--signer-workflow")
    parser.add_argument("--predicate-type", default=PROVENANCE)
    parser.add_argument("--cert-identity-regex")
    parser.add_argument("--format")
    parser.add_argument("-q", "--jq", choices=[SUBJECTS])
    parser.add_argument("--deny-self-hosted-runners", action="store_true")
    parser.add_argument("--bundle-from-oci", action="store_true")
    options = parser.parse_args(args)
    if bool(options.repo) == bool(options.owner):
        sys.exit("exactly one of --repo and --owner is needed")
    if options.subject.startswith("oci://"):
        name, _, value = options.subject.removeprefix("oci://").partition("@")
        if not value:
            sys.exit(f"the stand-in of gh wants a digest: oci://{name}@sha256:…")
    elif Path(options.subject).is_file():
        value = digest(Path(options.subject))
    else:
        sys.exit(f"{options.subject}: no such file")
    wanted = {
        "digest": value,
        "type": options.predicate_type,
        "repository": options.repo,
        "ref": options.source_ref,
        "commit": options.source_digest,
    }
    for attestation in kept():
        workflow = f"{attestation.get('repository')}/{attestation.get('workflow')}"
        signer = f"{workflow}@{attestation.get('ref')}"
        asked_signer = (options.signer_workflow or "").removeprefix("github.com/")
        identity = f"https://github.com/{signer}"
        if (
            all(expected in (None, attestation.get(key)) for key, expected in wanted.items())
            and re.search(options.cert_identity_regex or "", identity)
            and (
                not options.owner
                or str(attestation.get("repository")).startswith(f"{options.owner}/")
            )
            and (signer == asked_signer or signer.startswith(asked_signer.partition("@")[0] + "@"))
            | (not asked_signer)
        ):
            if options.jq:
                print("\n".join(attestation["together"]))
                return
            print(
                json.dumps([attestation])
                if options.format == "json"
                else f"✓ Verification succeeded! {signer}"
            )
            return
    criteria = ", ".join(f"{key} {expected}" for key, expected in wanted.items() if expected)
    sys.exit(
        f"✗ Verification failed: no attestation has {criteria}, {options.signer_workflow or 'any'}."
    )


def api(args: list[str]) -> None:
    """Ask the stand-in's API: `gh api [-X METHOD] PATH [-f KEY=VALUE …] [-q …]`."""
    parser = argparse.ArgumentParser("gh api")
    parser.add_argument("path")
    parser.add_argument("-X", "--method")
    parser.add_argument("-f", "--raw-field", action="append", default=[])
    parser.add_argument("-F", "--field", action="append", default=[])
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--input")
    parser.add_argument("-q", "--jq", type=lambda text: text.removeprefix("."))
    options = parser.parse_args(args)
    body: dict[str, Any] = {}
    for pair in options.raw_field + options.field:
        key, _, value = pair.partition("=")
        outer, _, inner = key.removesuffix("]").partition("[")
        if inner:
            body.setdefault(outer, {})[inner] = value
        else:
            body[key] = value
    data = json.dumps(body).encode() if body else None
    if options.input:
        data = sys.stdin.buffer.read() if options.input == "-" else Path(options.input).read_bytes()
    request = urllib.request.Request(
        f"{ENV['GITHUB_API_URL']}/{options.path.lstrip('/')}",
        data,
        {
            "Authorization": f"Bearer {ENV.get('GH_TOKEN') or ENV['GITHUB_TOKEN']}",
            "Content-Type": "application/json",
        },
        method=options.method or ("POST" if data else "GET"),
    )
    try:
        with urllib.request.urlopen(request) as response:
            if options.jq:
                print(json.load(response)[options.jq])
            elif not options.silent:
                print(response.read().decode())
    except urllib.error.HTTPError as error:
        sys.exit(f"gh: {error.read().decode()} (HTTP {error.code})")


def identity() -> tuple[str, str]:
    """Who signs: the pipeline, where the job has the token that says so."""
    if not ENV.get("SIGSTORE_ID_TOKEN"):
        sys.exit("no identity: the job needs id_tokens with SIGSTORE_ID_TOKEN (aud: sigstore)")
    server = ENV.get("CI_SERVER_URL", "https://gitlab.com")
    path = ENV.get("CI_CONFIG_PATH", ".gitlab-ci.yml")
    ref = f"refs/heads/{ENV.get('CI_COMMIT_BRANCH') or ENV['CI_COMMIT_REF_NAME']}"
    return f"{server}/{ENV['CI_PROJECT_PATH']}//{path}@{ref}", server


def sigstore(args: list[str]) -> None:
    """Sign, attest and verify as sigstore's program does, with a bundle that names a statement."""
    parser = argparse.ArgumentParser("sigstore")
    parser.add_argument("--instance")
    parser.add_argument("--trust-config", type=Path)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("sign", "attest"):
        command = commands.add_parser(name)
        command.add_argument("files", nargs="+", type=Path)
        command.add_argument("--bundle", type=Path)
        command.add_argument("--overwrite", action="store_true")
        command.add_argument("--predicate", type=Path, required=name == "attest")
        command.add_argument("--predicate-type", required=name == "attest")
        command.add_argument("--output-directory", type=Path)
    kinds = commands.add_parser("verify").add_subparsers(dest="kind", required=True)
    command = kinds.add_parser("identity")
    command.add_argument("subjects", nargs="+")
    command.add_argument("--bundle", type=Path)
    command.add_argument("--offline", action="store_true")
    command.add_argument("--cert-identity", required=True)
    command.add_argument("--cert-oidc-issuer", required=True)
    options = parser.parse_args(args)
    (check if options.command == "verify" else sign)(options)


def sign(options: argparse.Namespace) -> None:
    """State what the pipeline signs, and write the bundle beside it."""
    who, issuer = identity()
    for path in options.files:
        bundle = (
            options.bundle
            or (options.output_directory or path.parent) / f"{path.name}.sigstore.json"
        )
        if bundle.exists() and not options.overwrite:
            sys.exit(f"Refusing to overwrite outputs without --overwrite: {bundle}")
        statement = {"digest": digest(path), "identity": who, "issuer": issuer}
        if options.predicate:
            about = json.loads(options.predicate.read_text())
            statement |= {"type": options.predicate_type, "predicate": about}
        state(statement)
        bundle.write_text(json.dumps(statement))
        print(f"Sigstore bundle written to {bundle}")


def check(options: argparse.Namespace) -> None:
    """Refuse a bundle that nobody stated, or that is of something or somebody else."""
    for subject in options.subjects:
        path = Path(subject)
        value = subject if subject.startswith("sha256:") else digest(path)
        bundle = options.bundle or path.with_name(f"{path.name}.sigstore.json")
        if not bundle.is_file():
            sys.exit(f"{bundle}: no such bundle")
        statement = json.loads(bundle.read_text())
        expected = {
            "digest": value,
            "identity": options.cert_identity,
            "issuer": options.cert_oidc_issuer,
        }
        for key, expected_value in expected.items():
            if statement.get(key) != expected_value:
                sys.exit(f"FAIL: {subject}: {key} is {statement.get(key)}, not {expected_value}")
        if statement not in kept():
            sys.exit(f"FAIL: {subject}: the bundle is not in the log")
        print(f"OK: {subject}", file=sys.stderr)
        if "predicate" in statement:
            print(json.dumps(statement))


def model_signing(args: list[str]) -> None:
    """Sign a folder, file by file, and verify it, with a bundle that names a statement."""
    parser = argparse.ArgumentParser("model_signing")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("sign", "verify"):
        how = commands.add_parser(name).add_subparsers(dest="how", required=True)
        command = how.add_parser("sigstore")
        command.add_argument("folder", type=Path)
        command.add_argument("--signature", type=Path, required=True)
        command.add_argument("--ignore-paths", type=Path, action="append", default=[])
        command.add_argument("--no-ignore-git-paths", action="store_true", required=True)
        command.add_argument("--trust_config", type=Path)
        if name == "sign":
            command.add_argument("--use_ambient_credentials", action="store_true", required=True)
        else:
            command.add_argument("--identity", required=True)
            command.add_argument("--identity_provider", required=True)
    options = parser.parse_args(args)
    files = {
        path.relative_to(options.folder).as_posix(): digest(path)
        for path in sorted(options.folder.rglob("*"))
        if path.is_file() and path not in options.ignore_paths
    }
    text = "".join(files.values()).encode()
    about = {"type": MODEL, "files": files, "digest": hashlib.sha256(text).hexdigest()}
    if options.command == "sign":
        who, issuer = identity()
        statement = about | {"identity": who, "issuer": issuer}
        state(statement)
        options.signature.write_text(json.dumps(statement))
        print("Signing succeeded")
        return
    signed = json.loads(options.signature.read_text())
    expected = about | {"identity": options.identity, "issuer": options.identity_provider}
    if signed != expected or signed not in kept():
        sys.exit(f"Verification failed with error: {signed} is not {expected}, or not in the log")
    print("Verification succeeded")


def sbom(args: list[str]) -> None:
    """State what an image is made of, as `.gitlab/sbom` does with sigstore's library."""
    image, materials, bundle = (Path(name) for name in args[:3])
    line = re.compile(r"^export ML_IMAGE='(\S+)@(sha256:[0-9a-f]{64})'$", re.MULTILINE)
    reference = line.search(image.read_text())
    if reference is None:
        sys.exit(f"{image} names no image by its digest")
    who, issuer = identity()
    about = json.loads(materials.read_text())
    statement = {"type": SBOM["CycloneDX"], "subject": reference[1], "digest": reference[2]}
    statement |= {"predicate": about, "identity": who, "issuer": issuer}
    state(statement)
    bundle.write_text(json.dumps(statement))
    print(reference[2].removeprefix("sha256:"))


if __name__ == "__main__":
    program, *rest = sys.argv[1:]
    if program == "attest":
        attest()
    else:
        programs = {"gh": gh, "sigstore": sigstore, "model_signing": model_signing, "sbom": sbom}
        programs[program](rest)
