"""Members of zips whose bytes are the same on every day and machine."""

import stat
import zipfile


def deterministic_member(name: str) -> zipfile.ZipInfo:
    """Return a member whose header depends on its name alone: stored, dated 1980, plain file mode."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info
