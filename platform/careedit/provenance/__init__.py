"""Where a picture comes from: Content Credentials (C2PA) in every result, and the reading of their chain.

`signing` and `authority` need the extra `provenance` and are imported where they are used; `xmp` and `credit` need Pillow
and pydantic alone.
"""

from careedit.provenance.credit import Credit
from careedit.provenance.xmp import DIGITAL_SOURCE_TYPE, xmp_options

__all__ = ["DIGITAL_SOURCE_TYPE", "Credit", "xmp_options"]
