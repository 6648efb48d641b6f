# SPDX-License-Identifier: Apache-2.0
"""The one table of formats: what is read, what is written, what is refused by name, and `sniff`.

`python -m vesalius.io.formats` prints it as the Markdown of `docs/reference/formats.md`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import CorruptFile, UnsupportedFormat, UsageError
from vesalius.io import streams
from vesalius.types import PathLike

_HEAD = 4096


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the table.

    Attributes:
        name: the key by which `read`, `write`, cohorts and reports name it.
        title: its name in full sentences.
        suffixes: lower-case endings, the one that is written first.
        magic: `(offset, bytes)` pairs, any of which identifies the content.
        can_read: whether `read` takes it.
        can_write: whether `write` makes it.
        module: the module of `vesalius.io` that holds its functions, or ``.
        note: what to know about it; for a refused format, the way out.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...] = ()
    can_read: bool = False
    can_write: bool = False
    module: str = ""
    note: str = ""


def _table(*rows: Format) -> dict[str, Format]:
    return {row.name: row for row in rows}


# fmt: off
FORMATS: dict[str, Format] = _table(
    Format("dicom", "DICOM", (".dcm", ".ima", ".dicom"), ((128, b"DICM"),), can_read=True,
           module="dicom",
           note="A file, a folder or a list of files holding one series; single and multi-frame; "
                "SEG and RTSTRUCT become label maps. Suffixes are not needed."),
    Format("dicom-seg", "DICOM Segmentation", (".dcm",), can_write=True, module="dicom",
           note="Written with `source_files=`; read as `dicom`."),
    Format("rtstruct", "DICOM RT Structure Set", (".dcm",), can_write=True, module="dicom",
           note="Written with `source_files=`; read as `dicom`, on the grid of `reference=`."),
    Format("dicom-zip", "zip of DICOM files", (".zip",), can_read=True, module="zipped",
           note="Members are streamed under a cap; names never become paths. Links, absolute or "
                "climbing names, encrypted members and nested archives are refused."),
    Format("nifti", "NIfTI-1 and NIfTI-2", (".nii.gz", ".nii", ".hdr", ".img", ".hdr.gz",
           ".img.gz"), ((344, b"n+1\x00"), (344, b"ni1\x00"), (4, b"n+2\x00\r\n\x1a\n"),
           (4, b"ni2\x00\r\n\x1a\n")), can_read=True, can_write=True, module="nifti",
           note="sform before qform before voxel sizes; axes beyond the third become channels; "
                "integers stay integers unless scaled; structure names in a header extension."),
    Format("analyze", "Analyze 7.5 and SPM", (".hdr", ".img"), can_read=True, module="analyze",
           note="States no orientation: i is taken to run to the patient's left (radiological), "
                "as the format's authors and SPM do. A pair with a .mat file is refused."),
    Format("minc2", "MINC 2 (HDF5)", (".mnc", ".mnc.gz"), ((0, b"\x89HDF\r\n\x1a\n"),),
           can_read=True, can_write=True, module="minc",
           note="The file's fastest axis is i. Values are real values (per-slice image-min and "
                "image-max); full resolution only."),
    Format("minc1", "MINC 1 (NetCDF classic)", (".mnc", ".mnc.gz"), ((0, b"CDF\x01"),
           (0, b"CDF\x02")), can_read=True, module="minc",
           note="As MINC 2."),
    Format("nrrd", "NRRD", (".nrrd", ".nhdr", ".seg.nrrd"), ((0, b"NRRD000"),), can_read=True,
           can_write=True, module="nrrd",
           note="raw, gzip, bzip2 and text encoding; attached or one detached file in the same "
                "folder; 3D Slicer's segment names."),
    Format("metaimage", "MetaImage", (".mha", ".mhd"), can_read=True, can_write=True,
           module="metaimage",
           note="World LPS as ITK writes it; compressed or not; one local or detached file."),
    Format("mgh", "FreeSurfer MGH/MGZ", (".mgz", ".mgh", ".mgh.gz"),
           ((0, b"\x00\x00\x00\x01\x00\x00"),), can_read=True, module="mgh",
           note="Without goodRASflag the format's default (coronal) orientation holds."),
    Format("png", "PNG", (".png",), ((0, b"\x89PNG\r\n\x1a\n"),), can_read=True, can_write=True,
           module="raster",
           note="1 to 16 bits a channel, kept; palettes become colors (indices for labels). "
                "Written: one slice, 8 bit gray/RGB/RGBA or 16 bit gray."),
    Format("jpeg", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), ((0, b"\xff\xd8\xff"),),
           can_read=True, module="raster",
           note="8 bit; the EXIF orientation is applied; CMYK becomes RGB."),
    Format("tiff", "TIFF", (".tif", ".tiff"), ((0, b"II*\x00"), (0, b"MM\x00*"), (0, b"II+\x00"),
           (0, b"MM\x00+")), can_read=True, module="raster",
           note="8, 16 and 32 bit; pages of one size become slices. Pyramids and whole-slide "
                "images are refused."),
    Format("bmp", "BMP", (".bmp", ".dib"), ((0, b"BM"),), can_read=True, module="raster",
           note="As PNG."),
    Format("npz", "NPZ in MedMNIST form", (".npz",), can_read=True, module="npz",
           note="`member='train_images[12]'` names one image; nothing is unpickled."),
    Format("dicomdir", "DICOMDIR", ("dicomdir",),
           note="An index, not an image: give the folder that it indexes."),
    Format("afni", "AFNI HEAD/BRIK", (".head", ".brik", ".brik.gz"), ((0, b"\ntype = "),
           (0, b"type = ")),
           note="Convert it with AFNI's `3dAFNItoNIFTI`."),
    Format("stimulate", "Stimulate SDT/SPR", (".sdt", ".spr"), ((0, b"numDim:"),),
           note="Convert it to NIfTI, for example with `i2nii`."),
    Format("sivic", "SIVIC IDF", (".idf", ".int2", ".real", ".byt"),
           ((0, b"IMAGE DESCRIPTOR FILE"),),
           note="Convert it with SIVIC's `svk_file_convert`."),
    Format("vtk", "VTK", (".vtk", ".vti", ".vtp", ".vtu"), ((0, b"# vtk DataFile"),),
           note="Convert it to NRRD or NIfTI."),
    Format("parrec", "Philips PAR/REC", (".par", ".rec"), ((0, b"# === DATA DESCRIPTION FILE"),),
           note="Its slice order needs knowledge of the scan: convert it with `dcm2niix`."),
    Format("gipl", "GIPL", (".gipl", ".gipl.gz"),
           note="Convert it to NIfTI, for example with ITK-SNAP."),
    Format("ecat", "ECAT", (".v",), ((0, b"MATRIX7"),),
           note="Convert it to NIfTI or DICOM."),
    Format("interfile", "Interfile", (".hv", ".h33", ".i33"), ((0, b"!INTERFILE"),),
           note="Convert it to NIfTI or DICOM."),
    Format("minc-text", "MINC as text (CDL, XFM, TAG)", (".xfm", ".tag", ".cdl"),
           ((0, b"MNI Transform File"), (0, b"MNI Tag Point File"), (0, b"netcdf ")),
           note="A transform or a dump, not an image."),
    Format("gifti", "GIfTI surface", (".gii",),
           note="A surface, not an image."),
    Format("cifti", "CIFTI", (".dscalar.nii", ".dtseries.nii", ".dlabel.nii", ".dconn.nii"),
           note="Surface data: extract the volume with Connectome Workbench."),
    Format("whole-slide", "whole-slide image", (".svs", ".ndpi", ".scn", ".mrxs", ".czi", ".vms",
           ".bif", ".ome.tif", ".ome.tiff"),
           note="Export tiles or one resolution level as TIFF or PNG."),
    Format("jpeg2000", "JPEG 2000 file", (".jp2", ".j2k", ".jpx", ".jph"),
           ((0, b"\x00\x00\x00\x0cjP  "), (0, b"\xffO\xffQ")),
           note="Read inside DICOM only: convert the file to PNG or TIFF."),
    Format("gif", "GIF", (".gif",), ((0, b"GIF8"),),
           note="Convert it to PNG."),
    Format("webp", "WebP", (".webp",), ((8, b"WEBP"),),
           note="Convert it to PNG."),
    Format("npy", "NumPy array", (".npy",), ((0, b"\x93NUMPY"),),
           note="States no geometry: write it as NIfTI, or put it into an NPZ in MedMNIST form."),
    Format("matlab", "MATLAB", (".mat",), ((0, b"MATLAB 5.0 MAT-file"),),
           note="Write the array as NIfTI or NRRD."),
    Format("hdf5", "HDF5 that is not MINC", (".h5", ".hdf5", ".he5"),
           note="Write the array as NIfTI or NRRD."),
    Format("pickle", "Python pickle or PyTorch file", (".pt", ".pth", ".pkl", ".pickle"),
           note="Never opened: unpickling runs code. Write the array as NIfTI."),
    Format("video", "video or HEIF", (".mp4", ".avi", ".mov", ".mkv"), ((4, b"ftyp"),),
           note="Extract its frames as PNG."),
    Format("pdf", "PDF", (".pdf",), ((0, b"%PDF"),),
           note="Not an image."),
    Format("html", "HTML or XML", (".html", ".htm", ".xml"), ((0, b"<!DOCTYPE"), (0, b"<!doctype"),
           (0, b"<html"), (0, b"<?xml")),
           note="Not an image."),
    Format("json", "JSON", (".json", ".jsonl", ".ndjson"),
           note="Not an image."),
    Format("table", "table", (".csv", ".tsv", ".parquet", ".xlsx"),
           note="Not an image; labels are joined with `--labels`."),
    Format("text", "text", (".txt", ".md", ".log", ".yaml", ".yml", ".bval", ".bvec"),
           note="Not an image."),
)
# fmt: on

READABLE = tuple(name for name, row in FORMATS.items() if row.can_read)
WRITABLE = tuple(name for name, row in FORMATS.items() if row.can_write)

_MEDIA_DIRECTORY = b"1.2.840.10008.1.3.10"
_DICOM_VRS = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN "
    b"UR US UT UV".split()
)


def sniff(path: PathLike) -> str:
    """Return the name of a file's readable format, from its content and then its suffix.

    Gzip is looked into through a capped inflate of its first bytes. Raises `UnsupportedFormat`
    for a format that is refused by name and for one that is not recognized.
    """
    name = os.fspath(path)
    try:
        head = streams.head(path, _HEAD)
    except OSError as error:
        raise UsageError(f"{name}: cannot be opened ({error.strerror})") from error
    if not head:
        raise CorruptFile("the file is empty", path=name)
    found = _by_content(head, Path(path)) or by_suffix(path)
    if not found:
        raise UnsupportedFormat(
            "the format is not recognized, neither by content nor by suffix; readable are "
            f"{', '.join(READABLE)}",
            path=name,
        )
    row = FORMATS[found]
    if not row.can_read:
        raise UnsupportedFormat(f"{row.title} is not read. {row.note}", path=name, format=found)
    if found == "dicom" and streams.is_gzip(path):
        raise UnsupportedFormat("gzipped DICOM is not read. Unpack it with gunzip", path=name)
    return found


def by_suffix(path: PathLike) -> str:
    """Return the format that the longest matching suffix names, or `` for none."""
    name = Path(path).name.lower()
    fits = [
        (len(suffix), -order, row.name)
        for order, row in enumerate(FORMATS.values())
        for suffix in row.suffixes
        if name.endswith(suffix)
    ]
    return max(fits)[2] if fits else ""


def is_dicom(head: bytes) -> bool:
    """Return whether a file's first bytes are DICOM's, with or without the preamble."""
    return head[128:132] == b"DICM" or _bare_data_set(head)


def is_dicom_file(path: PathLike) -> bool:
    """Return whether a file is a DICOM instance; a DICOMDIR (an index) is not one."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise UsageError(f"{os.fspath(path)}: cannot be opened ({error.strerror})") from error
    return is_dicom(head) and _MEDIA_DIRECTORY not in head[128:512]


def markdown() -> str:
    """Return the table as Markdown."""
    lines = [
        "# Formats",
        "",
        "Generated by `python -m vesalius.io.formats`; a test holds it current.",
        "",
        "| format | name | suffixes | read | written | note |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.title} | `{row.name}` | {' '.join(f'`{suffix}`' for suffix in row.suffixes)} | "
        f"{'yes' if row.can_read else 'no'} | {'yes' if row.can_write else 'no'} | {row.note} |"
        for row in FORMATS.values()
    ]
    return "\n".join(lines) + "\n"


def _by_content(head: bytes, path: Path) -> str:
    suffix = by_suffix(path)
    if suffix in ("cifti", "whole-slide"):  # refused members of formats that are read
        return suffix
    if suffix == "dicomdir" or _MEDIA_DIRECTORY in head[128:512]:
        return "dicomdir"
    if head[:4] == b"PK\x03\x04":
        return _zip_kind(path)
    if int.from_bytes(head[:4], "little") == 348 or int.from_bytes(head[:4], "big") == 348:
        return "nifti" if head[344:347] in (b"n+1", b"ni1") else "analyze"
    for row in FORMATS.values():
        # The short and common signs of MGH and BMP count only with their suffix.
        if row.name in ("mgh", "bmp") and suffix != row.name:
            continue
        if any(head[offset : offset + len(sign)] == sign for offset, sign in row.magic):
            if row.name == "minc2" and suffix not in ("minc2", ""):
                return "hdf5"
            return row.name
    if re.match(rb"\s*(ObjectType|NDims|Comment)\s*=", head) and b"ElementDataFile" in head:
        return "metaimage"
    if head[:2] == b"\x80\x02" or (head[:1] == b"\x80" and head[1:2] in b"\x03\x04\x05"):
        return "pickle"
    if path.name.lower().endswith((".img", ".img.gz")):
        return _pair_kind(path)
    if _bare_data_set(head):
        return "dicom"
    if head.lstrip()[:1] in (b"{", b"["):
        return "json"
    return ""


def _zip_kind(path: Path) -> str:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist()]
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise CorruptFile(f"the zip archive is damaged: {error}", path=os.fspath(path)) from error
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith("/data.pkl") for name in names):
        return "pickle"
    return "table" if "xl/workbook.xml" in names else "dicom-zip"


def _pair_kind(path: Path) -> str:
    stem = re.sub(r"\.img(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    for suffix in (".hdr", ".hdr.gz", ".HDR"):
        header = path.with_name(stem + suffix)
        if header.is_file():
            return _by_content(streams.head(header, _HEAD), header)
    return ""


def _bare_data_set(head: bytes) -> bool:
    """Return whether the bytes start a data set without preamble (group 2 or 8)."""
    if len(head) < 16:
        return False
    for order in ("little", "big"):
        group = int.from_bytes(head[:2], order)
        element = int.from_bytes(head[2:4], order)
        if group not in (2, 8) or element > 0x0100:
            continue
        if head[4:6] in _DICOM_VRS:
            return True
        length = int.from_bytes(head[4:8], order)
        if order == "little" and group == 8 and 0 < length <= 256 and length % 2 == 0:
            return True
    return False


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
