"""Writing of files that are whole or not there."""

import secrets
from pathlib import Path


def write_whole(path: str | Path, content: bytes | memoryview) -> None:
    """Writes a file; whatever happens here leaves the last complete one."""
    # Renaming is atomic. The name is random because several processes may write at
    # once.
    unfinished = Path(f"{path}.{secrets.token_hex(4)}.unfinished")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
