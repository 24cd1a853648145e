"""The kind of a file, by its first bytes: what to do about one that is not the table it seems."""

import gzip
import zipfile
from pathlib import Path

HEAD_BYTES = 4096  # that are looked at
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
ZIP = b"PK\x03\x04"
TAR = b"ustar"
TAR_OFFSET = 257
# Messages that fit several signatures.
PICKLE = "a Python pickle: save the table with to_parquet"
WEB_PAGE = "a web page, not a table: was a login asked for when it was downloaded?"
EXCEL_LINE = "headed by a line that is only for Excel (sep=…): delete that line"
UTF_16 = "text in UTF-16: save it as UTF-8"
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
    b"\x80\x04\x95": PICKLE,
    b"\x80\x05\x95": PICKLE,
    b"%PDF": "a PDF document: bring the table as CSV or Parquet",
    b"<!DOCTYPE": WEB_PAGE,
    b"<!doctype": WEB_PAGE,
    b"<html": WEB_PAGE,
    b"<?xml": "XML: save the table as CSV or Parquet",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run git lfs pull",
    b"sep=": EXCEL_LINE,
    b"\xef\xbb\xbfsep=": EXCEL_LINE,
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
}


def not_a_table(source: Path) -> str | None:
    """Describe a file that is neither Parquet nor lines of text with a delimiter.

    Returns:
        What it is and what to do about it, or None for a file that may be a table.
    """
    with source.open("rb") as file:
        head = file.read(HEAD_BYTES)
    has_parquet_name = source.suffix.lower() == ".parquet"
    is_parquet = head.startswith(PARQUET)
    if has_parquet_name and not is_parquet:
        return "not a Parquet file, whatever its name says: name it for what it is"
    if is_parquet and not has_parquet_name:
        return "a Parquet file: give it a name that ends in .parquet"
    if head.startswith(GZIP):
        try:
            with gzip.open(source) as unpacked:
                head = unpacked.read(HEAD_BYTES)
        except (OSError, EOFError):
            return None  # it is cut short, which reading it will report
        if head[TAR_OFFSET : TAR_OFFSET + len(TAR)] == TAR:
            return "a tar archive: unpack it first"
        if head.startswith(GZIP):
            return "packed with gzip twice: unpack it once (gunzip)"
    if head.startswith(ZIP):
        return _describe_zip(source)
    for signature, message in SIGNATURES.items():
        if head.startswith(signature):
            return message
    if b"\0" in head:  # no text in UTF-8 has such a byte
        return "text in UTF-16, or no text at all: save it as CSV in UTF-8"
    return _describe_json(head)


def _describe_zip(source: Path) -> str:
    """Describe a ZIP archive, which a workbook is as well."""
    try:
        names = zipfile.ZipFile(source).namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook: save it as CSV or Parquet"
    if "content.xml" in names:
        return "a spreadsheet of LibreOffice: save it as CSV or Parquet"
    inside = f" (with {', '.join(names[:3])} in it)" if names else ""
    return f"a ZIP archive{inside}: unpack it first"


def _describe_json(head: bytes) -> str | None:
    """Describe text that begins as JSON does: an object in every line, or one array."""
    text = head.decode("utf-8-sig", "replace").lstrip()
    first_line = text.partition("\n")[0].rstrip()
    if text.startswith("{") and first_line.endswith("}") and ":" in first_line:
        return (
            "JSON lines, one object each: read it with polars.read_ndjson, and save it as Parquet"
        )
    if text.startswith(("{", "[")) and '"' in text and ":" in text:
        return "JSON, not a table of lines: save it as CSV or Parquet"
    return None
