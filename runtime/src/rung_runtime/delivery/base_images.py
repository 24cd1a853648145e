"""Base images: which digest a tag names now, asked of its registry and written where it belongs.

A tag moves; a digest names what was tried. It is the digest of the index, which names an image for
each kind of machine. The lines are the owner's: nothing but the digest changes in them.
"""

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from .. import UsageError
from ..atomic_file import atomic_write
from ..http_client import is_loopback
from ..oci_client import HOST, NAME, TAG, Remote
from ..oci_content import DIGEST
from ..progress import open_console

DOCKERFILE = "Dockerfile"
GITLAB = ".gitlab-ci.yml"
FILES = (DOCKERFILE, GITLAB)
HUB = "docker.io"  # where Docker looks for a name without a host
ARGUMENT = re.compile(
    r"^[ \t]*ARG[ \t]+PYTHON=(?P<quote>[\"']?)(?P<image>[^\s\"']+)(?P=quote)[ \t]*\r?$",
    re.IGNORECASE | re.MULTILINE,
)
INPUT = ("spec", "inputs", "image", "default")


@dataclass(frozen=True)
class Image:
    """An image as Docker names it: [HOST/]NAME:TAG, with @DIGEST or without."""

    text: str  # without the digest
    digest: str
    host: str
    name: str
    tag: str

    @classmethod
    def parse(cls, text: str) -> "Image | None":
        """Read a name; None if it is none, or has no tag."""
        image, separator, digest = text.partition("@")
        path, _, tag = image.rpartition(":")
        first, slash, rest = path.partition("/")
        if slash and set(first) & {".", ":"}:
            host = first
            name = rest
        else:
            host = HUB
            name = path if slash else f"library/{path}"
        if slash and first == "localhost":  # an image of this machine, which no registry has
            return None
        is_image = HOST.fullmatch(host) and NAME.fullmatch(name) and TAG.fullmatch(tag)
        if not is_image or (separator and not DIGEST.fullmatch(digest)):
            return None
        return cls(image, digest, host, name, tag)


@dataclass(frozen=True)
class Place:
    """Where a file names an image."""

    file: str
    content: str
    start: int
    end: int

    @property
    def written(self) -> str:
        """What is there."""
        return self.content[self.start : self.end]

    def replaced(self, text: str) -> str:
        """Return the file with something else there."""
        return f"{self.content[: self.start]}{text}{self.content[self.end :]}"


def pin(file: str | None = None) -> list[str]:
    """Write the digest that each base image's tag names now.

    Args:
        file: `Dockerfile` or `.gitlab-ci.yml`; by default, those of the two that there are.

    Returns:
        A line for each file, with what is there now.

    Raises:
        UsageError: A file names no image by its tag where the template does, or a registry does
            not say what the tag names; then no file was changed.
    """
    if file and file not in FILES:
        raise UsageError(f"{file} names no base image: use {' or '.join(FILES)}")
    names = [file] if file else [name for name in FILES if Path(name).exists()]
    if not names:
        raise UsageError(f"there is no {' and no '.join(FILES)} here: nothing names a base image")
    images = [(place, _image(place)) for place in map(find_place, names)]
    lines = []
    with ExitStack() as files:
        for place, image in images:
            digest, remark = newest_digest(place.file, image)
            text = f"{image.text}@{digest}"
            if image.digest == digest:
                remark = f", as before{remark}"
            else:
                path = Path(place.file).resolve()  # it may be a link
                new = files.enter_context(atomic_write(path))
                new.write_bytes(place.replaced(text).encode())
                shutil.copymode(path, new)
                remark = f", until now {image.digest or 'without a digest'}{remark}"
            lines.append(f"{place.file}: {text}{remark}")
    return lines


def unpinned(file: str = DOCKERFILE) -> str | None:
    """Return the base image of a file if it has no digest; None too if none can be recognized."""
    try:
        place = find_place(file)
    except UsageError:
        return None
    return None if "@" in place.written else place.written


def find_place(file: str) -> Place:
    """Return where a file names its base image.

    Raises:
        UsageError: It does not as the template does: nobody can know what else to change.
    """
    try:
        content = Path(file).read_bytes().decode()
    except FileNotFoundError:
        raise UsageError(f"there is no {file} here") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8: pin its image by hand") from None
    spans = list(_in_dockerfile(content) if file == DOCKERFILE else _in_gitlab(content))
    if len(spans) != 1:
        what = "line ARG PYTHON=IMAGE" if file == DOCKERFILE else "spec: inputs: image: default:"
        count = "no" if not spans else "more than one"
        raise UsageError(f"{file} has {count} {what}: pin its image by hand{_other(file)}")
    return Place(file, content, *spans[0])


def _in_dockerfile(content: str) -> Iterator[tuple[int, int]]:
    return (match.span("image") for match in ARGUMENT.finditer(content))


def _in_gitlab(content: str) -> Iterator[tuple[int, int]]:
    """Yield where the default of the input `image` stands, without its quotes."""
    try:
        node = next(yaml.compose_all(content, yaml.SafeLoader), None)
    except (yaml.YAMLError, RecursionError):
        return
    for key in INPUT:
        if not isinstance(node, yaml.MappingNode):
            return
        node = next((value for name, value in node.value if name.value == key), None)
    if isinstance(node, yaml.ScalarNode) and node.style in (None, "'", '"'):
        quote = 1 if node.style else 0
        yield node.start_mark.index + quote, node.end_mark.index - quote


def _image(place: Place) -> Image:
    image = Image.parse(place.written)
    if image is None:
        raise UsageError(
            f"{place.file}: {place.written} is not an image with its tag, [HOST/]NAME:TAG:"
            f" pin it by hand{_other(place.file)}"
        )
    return image


def _other(file: str) -> str:
    """Return how to go on with the other file, if there is one."""
    other = next(name for name in FILES if name != file)
    return f", and the other one by `ml pin {other}`" if Path(other).exists() else ""


def newest_digest(file: str, image: Image) -> tuple[str, str]:
    """Return the digest that the registry has for an image's tag, and a remark on it.

    Raises:
        UsageError: The registry does not say, or has no such tag.
    """
    is_here = is_loopback(urlsplit(f"//{image.host}").hostname or "")
    scheme = "oci+http" if is_here else "oci"
    try:
        with open_console(sys.stderr).status(f"asking {image.host} …"):
            newest = Remote(f"{scheme}://{image.host}/{image.name}").image(image.tag)
    except UsageError as error:
        raise UsageError(f"{file}: {image.text}: {error}. Nothing was changed") from None
    if newest is None:
        raise UsageError(
            f"{file}: {image.host} has no {image.text}: write a tag that it has. "
            "Nothing was changed"
        )
    digest, is_index = newest
    return digest, "" if is_index else " (an image for one kind of machine only)"
