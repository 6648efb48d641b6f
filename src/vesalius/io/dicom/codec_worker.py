# SPDX-License-Identifier: Apache-2.0
"""The child process that decodes frames; `sandbox` starts this file as a script.

It reads requests from standard input and answers on standard output, each a 12-byte head (sizes
of a JSON object and of a payload, little-endian `<IQ`), the JSON and the payload. Before each
request it lowers its own address space and sets an alarm, so that a decoder that runs wild ends
this process and nothing else. It imports nothing of Vesalius, to start fast and own little.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import struct
import sys
from typing import Any

_HEAD = struct.Struct("<IQ")


def main() -> None:
    """Serve requests until standard input closes."""
    parent = int(sys.argv[1])
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a decoder prints is no answer
    while True:
        head = requests.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return
        job_size, payload_size = _HEAD.unpack(head)
        job = json.loads(requests.read(job_size))
        payload = requests.read(payload_size)
        module, decode = CODECS[job["codec"]]
        try:
            _unbound()
            importlib.import_module(module)  # what libraries take is not the file's to pay
            _bound(job["memory"], job["seconds"])
            result: dict[str, Any] = {"ok": True}
            decoded = decode(payload, job)
        except ImportError as error:
            result, decoded = {"ok": False, "missing": str(error)[:500]}, b""
        except MemoryError:
            result, decoded = {"ok": False, "why": "it needs more memory than allowed"}, b""
        except BaseException as error:  # whatever comes, a Rust panic too, refuses this frame
            result, decoded = {"ok": False, "why": f"{type(error).__name__}: {error}"[:500]}, b""
        signal.alarm(0)
        text = json.dumps(result).encode()
        answers.write(_HEAD.pack(len(text), len(decoded)) + text)
        answers.write(decoded)
        answers.flush()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the call
            sys.exit(1)


def _bound(memory: int, seconds: float) -> None:
    """Allow `memory` bytes of address space above the present, and `seconds` until the end."""
    signal.alarm(max(1, round(seconds)))
    if sys.platform == "linux":
        import resource

        with open("/proc/self/statm", encoding="ascii") as statm:
            present = int(statm.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (present + memory, hard))


def _unbound() -> None:
    """Lift the bound of the last request: libraries still to be loaded need room of their own."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def gdcm_frame(payload: bytes, job: dict[str, Any]) -> bytes:
    """Decode JPEG, lossy or lossless, by GDCM; samples interleaved, little-endian."""
    import gdcm

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(payload)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((job["columns"], job["rows"], 1))
    image.SetDataElement(element)
    # Whatever the header says, samples are wanted as they are stored.
    stored = "RGB" if job["samples"] == 3 else "MONOCHROME2"
    kind = gdcm.PhotometricInterpretation.GetPIType(stored)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if job["samples"] > 1:
        image.SetPlanarConfiguration(0)
    syntax = gdcm.TransferSyntax.GetTSType(job["transfer_syntax"])
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    precision = job["precision"]
    image.SetPixelFormat(
        gdcm.PixelFormat(job["samples"], 8 * job["itemsize"], precision, precision - 1, 0)
    )
    text = image.GetBuffer()
    if text is None:
        raise ValueError("the codestream cannot be decoded")
    return bytes(text.encode("utf-8", "surrogateescape"))


def openjpeg_frame(payload: bytes, _: dict[str, Any]) -> bytes:
    """Decode JPEG 2000 and HTJ2K by OpenJPEG; samples interleaved, little-endian."""
    import openjpeg

    return bytes(openjpeg.decode_pixel_data(payload, version=2))


def charls_frame(payload: bytes, job: dict[str, Any]) -> bytes:
    """Decode JPEG-LS by CharLS; samples interleaved, little-endian."""
    import jpeg_ls

    buffer, info = jpeg_ls.decode_pixel_data(payload)
    if info["components"] > 1 and info["interleave_mode"] == 0:  # plane after plane
        import numpy as np

        planes = np.frombuffer(buffer, f"<u{job['itemsize']}").reshape(info["components"], -1)
        return planes.T.tobytes()
    return bytes(buffer)


def rle_frame(payload: bytes, job: dict[str, Any]) -> bytes:
    """Decode DICOM RLE by pylibjpeg-rle; plane after plane, little-endian."""
    import rle

    names = ("rows", "columns", "samples_per_pixel", "bits_allocated")
    return bytes(rle.decode_pixel_data(payload, version=2, **{name: job[name] for name in names}))


CODECS = {
    "gdcm": ("gdcm", gdcm_frame),
    "openjpeg": ("openjpeg", openjpeg_frame),
    "charls": ("jpeg_ls", charls_frame),
    "rle": ("rle", rle_frame),
}

if __name__ == "__main__":
    main()
