"""The mark for programs that read or keep XMP only: IPTC's `DigitalSourceType`, in the file of a result.

It is not signed. It remains where a program drops the Content Credentials and keeps XMP.
Source: IPTC Photo Metadata Standard 2025.1, property "Digital Source Type".
"""

from __future__ import annotations

from typing import Any

from PIL.PngImagePlugin import PngInfo

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a picture of which a trained model made a part."""

_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"/></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def xmp_options(kind: str) -> dict[str, Any]:
    """Options of Pillow's `save` that write the mark into a file of the format `kind`: "PNG", "JPEG" or "WEBP"."""
    if kind != "PNG":
        return {"xmp": _PACKET.encode("utf-8")}
    notes = PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", _PACKET)
    return {"pnginfo": notes}
