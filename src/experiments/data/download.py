"""Files that a data set fetches: whole and checked, or not there."""

import http.client
import os
import socket
import tempfile
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torchvision.datasets.utils import download_url

from experiments.errors import UserError

TIMEOUT_S = 30
_forbidden: list[str] = []


@contextmanager
def forbidden(reason: str) -> Iterator[None]:
    """Let nothing be downloaded meanwhile; what asks for it gets a UserError with the reason."""
    _forbidden.append(reason)
    try:
        yield
    finally:
        _forbidden.pop()


def download(urls: Sequence[str], path: Path, md5: str, advice: str) -> None:
    """Fetch ``path`` from the first of ``urls`` that serves it with the right checksum.

    An interrupted download leaves nothing behind: the file is written beside and renamed when it is whole.

    Raises:
        UserError: if no address serves it; the message ends with ``advice``.
    """
    if _forbidden:
        raise UserError(f"{path.absolute()} is missing, and {_forbidden[-1]}, so it is not downloaded.{advice}")
    reasons = []
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as beside:
            for url in urls:
                try:
                    download_url(url, beside, filename=path.name, md5=md5)
                except (OSError, RuntimeError, urllib.error.URLError, http.client.HTTPException) as error:
                    reasons.append(f"{url}: {error}")
                else:
                    os.replace(Path(beside, path.name), path)
                    return
    except OSError as error:
        reasons.append(str(error))
    finally:
        socket.setdefaulttimeout(timeout)
    raise UserError(f"{path.absolute()} is missing and could not be downloaded:\n  " + "\n  ".join(reasons) + advice)


def mismatch(path: str | Path) -> UserError:
    """What to say of a file whose checksum is wrong."""
    return UserError(
        f"{path} does not match its checksum: it is damaged, incomplete or another file. Delete it, and the next run "
        "downloads it anew"
    )
