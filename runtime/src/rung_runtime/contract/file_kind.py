"""The kind of a file, by its first bytes: what to say of one that is not the table it seems."""

import gzip
import zipfile
from pathlib import Path

HEAD = 4096  # bytes that are looked at
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
# First bytes of files that people take for tables, and what to do about each.
SIGNATURES = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV or Parquet",
    b"BZh": "packed with bzip2: unpack it first (bunzip2)",
    b"\xfd7zXZ": "packed with xz: unpack it first (unxz)",
    b"\x28\xb5\x2f\xfd": "packed with zstd: unpack it first (unzstd)",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"Rar!": "a RAR archive: unpack it first",
    b"SQLite format 3": "an SQLite database: export the table as CSV or Parquet",
    b"\x89HDF": "an HDF5 file: save the table as CSV or Parquet",
    b"ARROW1": "an Arrow (Feather) file: save it as Parquet",
    b"Obj\x01": "an Avro file: save it as Parquet",
    b"ORC": "an ORC file: save it as Parquet",
    b"$FL2": "an SPSS file: save it as CSV or Parquet",
    b"<stata_dta>": "a Stata file: save it as CSV or Parquet",
    b"RDX": "an R data file: save the table with write.csv",
    b"\x80\x04\x95": "a Python pickle: save the table with to_parquet",
    b"\x80\x05\x95": "a Python pickle: save the table with to_parquet",
    b"%PDF": "a PDF document: bring the table as CSV or Parquet",
    b"<!DOCTYPE": "a web page, not a table: was a login asked for when it was downloaded?",
    b"<!doctype": "a web page, not a table: was a login asked for when it was downloaded?",
    b"<html": "a web page, not a table: was a login asked for when it was downloaded?",
    b"<?xml": "XML: save the table as CSV or Parquet",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run git lfs pull",
    b"sep=": "headed by a line that is only for Excel (sep=…): delete that line",
    b"\xef\xbb\xbfsep=": "headed by a line that is only for Excel (sep=…): delete that line",
    b"\xff\xfe": "text in UTF-16: save it as UTF-8",
    b"\xfe\xff": "text in UTF-16: save it as UTF-8",
}


def not_a_table(source: Path) -> str | None:
    """Say what a file is that is neither Parquet nor lines of text with a delimiter.

    Returns:
        What it is and what to do about it, or None for a file that may be a table.
    """
    with source.open("rb") as file:
        head = file.read(HEAD)
    named_parquet = source.suffix.lower() == ".parquet"
    if head.startswith(PARQUET) != named_parquet:
        if named_parquet:
            return "not a Parquet file, whatever its name says: name it for what it is"
        return "a Parquet file: give it a name that ends in .parquet"
    if head.startswith(GZIP):
        try:
            with gzip.open(source) as unpacked:
                head = unpacked.read(HEAD)
        except (OSError, EOFError):
            return None  # cut short, as reading it says
        if head[257:262] == b"ustar":
            return "a tar archive: unpack it first"
        if head.startswith(GZIP):
            return "packed with gzip twice: unpack it once (gunzip)"
    if head.startswith(b"PK\x03\x04"):
        return _archive(source)
    for signature, message in SIGNATURES.items():
        if head.startswith(signature):
            return message
    if b"\0" in head:  # which no text in UTF-8 has
        return "text in UTF-16, or no text at all: save it as CSV in UTF-8"
    return _json(head)


def _archive(source: Path) -> str:
    try:
        names = zipfile.ZipFile(source).namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook: save it as CSV or Parquet"
    if "content.xml" in names:
        return "a spreadsheet of LibreOffice: save it as CSV or Parquet"
    inside = f" ({', '.join(names[:3])} in it)" if names else ""
    return f"a ZIP archive{inside}: unpack it first"


def _json(head: bytes) -> str | None:
    """Whether text begins as JSON does: an object in every line, or one array."""
    text = head.decode("utf-8-sig", "replace").lstrip()
    first = text.partition("\n")[0].rstrip()
    if text.startswith("{") and first.endswith("}") and ":" in first:
        return "JSON lines, one object each: save it as Parquet, as polars.read_ndjson reads it"
    if text.startswith(("{", "[")) and '"' in text and ":" in text:
        return "JSON, not a table of lines: save it as CSV or Parquet"
    return None
