"""Fetch a variant's files from the Hugging Face hub: whole and checked, or not at all.

The hub's own client does the talking, and so the endpoint, proxies, tokens and the offline switch are as everywhere
with it. Its `hf_hub_download` is not used: it throws away what it has of a file when a run ends early, and compares
no digest. Nothing here is imported before something is to be fetched.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import CheckpointError
from ..variants import Variant
from ..wording.redaction import redacted
from .files import LICENCE, find
from .integrity import SUMS, expected_digest, found_digest, read_sums, sha256, write_record

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LOG = logging.getLogger(__name__)

REPOSITORY = "maxxxzdn/mosaic"
REVISION = "232b632"
"""The public release of 2026-05-19, to which the network's specification belongs."""

ANSWER_SECONDS = 30
"""The client waits for ever for some answers, if it is not told otherwise."""

REPORT_SECONDS = 20
"""Between two lines of progress where there is no terminal for a bar."""

SPARE_BYTES = 16 * 2**20
"""To leave free on the disk."""


@dataclass(frozen=True)
class Offer:
    """A file as the hub has it.

    Parameters
    ----------
    name : str
        Path in the repository, and below the assets folder.
    size : int
        Bytes.
    sha256 : str
        The digest to expect: the hub's, or the pinned one, which agree.
    commit : str
        Full revision.
    url : str
        Where to get it.
    """

    name: str
    size: int
    sha256: str
    commit: str
    url: str


def fetch(variant: Variant, folder: Path, *, revision: str = REVISION, own_checkpoint: bool = False) -> None:
    """Bring what a variant needs into the assets folder; asks nobody if it is there and good.

    Parameters
    ----------
    variant : Variant
        What is to run.
    folder : Path
        The assets folder; made if need be.
    revision : str
        Commit, tag or branch.
    own_checkpoint : bool
        The user has other weights: leave those of the variant out.

    Raises
    ------
    CheckpointError
        If a file cannot be had, or is not what it should be; nothing is then under its final name.
    """
    wanted = [name for name in variant.asset_files if not (own_checkpoint and name == variant.checkpoint)]
    lacking = [name for name in wanted if not _is_good(variant, folder, name)]
    if not lacking:
        LOG.info("Nothing to fetch: %s is all in %s", variant.name, folder)
        return
    try:
        with _explained(", ".join(lacking), folder):
            offers = _ask(variant, folder, lacking, revision)
    except CheckpointError as error:
        if not all(find(folder, name) for name in lacking):
            raise
        LOG.warning("The files are there and are used unchecked: %s", error)
        return
    LOG.warning(
        "The released weights are under %s, which forbids commercial use; see "
        "https://creativecommons.org/licenses/by-nc/4.0/",
        LICENCE,
    )
    for offer in offers:
        with _explained(offer.name, folder):
            _secure(offer, folder)


def _is_good(variant: Variant, folder: Path, name: str) -> bool:
    """Whether a file is there and known to be right, by whatever says so without the hub."""
    if name == variant.checkpoint and find(folder, str(Path(name).with_suffix(".safetensors"))):
        return True
    path = find(folder, name)
    wanted = path and expected_digest(path, folder, dict(variant.sha256).get(name))
    return bool(path and wanted and found_digest(path, wanted.sha256) == wanted.sha256)


def _client() -> HfApi:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import get_session

    # They log addresses: those that the hub sends on to carry a signature, and a mirror's may carry a password.
    for name in ("httpx", "httpx2", *(["huggingface_hub"] if urlsplit(_endpoint()).password else [])):
        logging.getLogger(name).setLevel("ERROR")
    get_session().timeout = ANSWER_SECONDS
    return HfApi(endpoint=_endpoint(), library_name="ai-models-mosaic")


def _endpoint() -> str:
    from huggingface_hub.constants import ENDPOINT

    return os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")


def _ask(variant: Variant, folder: Path, names: Sequence[str], revision: str) -> list[Offer]:
    """What the hub has at a revision.

    Raises
    ------
    CheckpointError
        If it lacks a file, states no digest, or another than the pinned one.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    client, endpoint = _client(), _endpoint()
    # One revision for all files, and the full commit for the record; the client waits for this one answer only so long.
    first = hf_hub_url(REPOSITORY, names[0], revision=revision, endpoint=endpoint)
    commit = get_hf_file_metadata(first, endpoint=endpoint).commit_hash
    if commit is None:
        raise CheckpointError(f"{_where()} does not answer as a hub does (no X-Repo-Commit); check HF_ENDPOINT")
    stated = {info.path: info for info in client.get_paths_info(REPOSITORY, list(names), revision=commit)}
    sums, pins = read_sums(folder), dict(variant.sha256)
    offers = []
    for name in names:
        if name not in stated:
            raise CheckpointError(f"{_where()}: {REPOSITORY} has no file {name} at revision {commit}")
        lfs = getattr(stated[name], "lfs", None)
        digest = _agreed(name, commit, sums.get(name), pins.get(name), lfs and lfs.sha256)
        url = hf_hub_url(REPOSITORY, name, revision=commit, endpoint=endpoint)
        offers.append(Offer(name, lfs.size if lfs else getattr(stated[name], "size", 0), digest, commit, url))
    return offers


def _agreed(name: str, commit: str, listed: str | None, pinned: str | None, offered: str | None) -> str:
    """The digest that a file must have, from all who say one.

    Raises
    ------
    CheckpointError
        If nobody does, or the hub says another than was pinned.
    """
    wanted = listed or pinned
    if wanted and offered and wanted != offered:
        who = SUMS if listed else "the release"
        raise CheckpointError(
            f"{name} was not fetched: expected SHA-256 {wanted} ({who}), but the hub offers {offered} at {commit}; "
            "ask for another revision, or find out why it was changed"
        )
    found = wanted or offered
    if not found:
        raise CheckpointError(
            f"{name} was not fetched: the hub states no SHA-256 for it at {commit}, and none is pinned"
        )
    return found


def _secure(offer: Offer, folder: Path) -> None:
    """Put one file in its place, unless another process does so meanwhile."""
    target = find(folder, offer.name) or folder / offer.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with _alone(target):
        if target.is_file():
            digest = sha256(target)
            if digest != offer.sha256:
                _set_aside(target, digest, offer)
        if not target.is_file():
            _download(offer, target)
        source = redacted(f"{_where()}/{REPOSITORY}")
        write_record(target, offer.sha256, source, offer.commit, LICENCE)
        LOG.info("%s is there: SHA-256 %s, revision %s", target, offer.sha256, offer.commit)


def _set_aside(target: Path, digest: str, offer: Offer) -> None:
    bad = target.with_name(target.name + ".bad")
    target.replace(bad)
    LOG.warning(
        "%s was not the file that the hub has (expected SHA-256 %s, got %s): it is now %s, and is fetched anew",
        target,
        offer.sha256,
        digest,
        bad.name,
    )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Wait until no other process fetches this file; a process that dies holds nothing."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    lock = target.with_name(f".{target.name}.lock")
    for wait in chain([1], repeat(REPORT_SECONDS)):
        try:
            with WeakFileLock(lock, timeout=wait):
                yield
                return
        except Timeout:
            LOG.info("Another process is fetching %s: waiting for it", target.name)


def _download(offer: Offer, target: Path) -> None:
    """Fetch a file beside its place, going on where an earlier run ended; check it, and give it its name.

    Raises
    ------
    CheckpointError
        If what came has another digest, or the disk has no room.
    """
    # Named by its digest: what is left of another revision is never resumed.
    partial = target.with_name(f"{target.name}.{offer.sha256[:12]}.partial")
    had = partial.stat().st_size if partial.exists() else 0
    if had > offer.size:
        partial.unlink()
        had = 0
    _refuse_full_disk(offer, target.parent, had)
    LOG.info("Fetching %s, %.1f MB%s", offer.name, offer.size / 1e6, f", {had / 1e6:.1f} MB are there" if had else "")
    _transfer(offer, partial, had)
    digest = sha256(partial)
    if digest == offer.sha256:
        partial.replace(target)
        return
    partial.unlink()
    if had:
        LOG.warning("%s: what was left of an earlier run does not fit; starting anew", offer.name)
        _download(offer, target)
        return
    raise CheckpointError(
        f"{offer.name} did not arrive as it should: expected SHA-256 {offer.sha256}, got {digest}; it was removed. "
        "Try again; if it stays so, a proxy or mirror on the way changes it"
    )


def _transfer(offer: Offer, partial: Path, had: int) -> None:
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    headers = build_hf_headers(library_name="ai-models-mosaic")
    # As it is, not compressed: a part can then be asked for.
    headers["Accept-Encoding"] = "identity"
    with _Reporting(io.FileIO(partial, "ab"), offer, had) as file:
        http_get(
            offer.url,
            file,
            resume_size=had,
            headers=headers,
            expected_size=offer.size,
            displayed_filename=offer.name,
        )
        file.flush()
        os.fsync(file.fileno())


class _Reporting(io.BufferedWriter):
    """A file that logs from time to time how full it is, where the client shows no bar for want of a terminal."""

    def __init__(self, raw: io.FileIO, offer: Offer, had: int) -> None:
        super().__init__(raw)
        self._offer, self._had = offer, had
        self._start = self._last = time.monotonic()

    def write(self, data: Any) -> int:
        written = super().write(data)
        now = time.monotonic()
        if now - self._last > REPORT_SECONDS and not sys.stderr.isatty():
            there, total = self.tell() / 1e6, self._offer.size / 1e6
            speed = (there - self._had / 1e6) / (now - self._start)
            LOG.info("%s: %.0f of %.0f MB, %.1f MB/s", self._offer.name, there, total, speed)
            self._last = now
        return written


def _refuse_full_disk(offer: Offer, folder: Path, had: int) -> None:
    free, needed = shutil.disk_usage(folder).free, offer.size - had + SPARE_BYTES
    if free < needed:
        raise CheckpointError(
            f"{offer.name} does not fit: expected {needed / 1e6:.0f} MB free in {folder}, got {free / 1e6:.0f} MB; "
            "make room, or choose another --assets folder"
        )


@contextmanager
def _explained(names: str, folder: Path) -> Iterator[None]:
    """Say what a failure of the client means, and what to do.

    Raises
    ------
    CheckpointError
        For every failure to be expected of networks, servers and disks.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise CheckpointError(
            f"{names}: not in {folder}, and HF_HUB_OFFLINE forbids to fetch; unset it, or run `ai-models-mosaic "
            "download` where there is a network and carry the folder here"
        ) from error
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"{names}: {_refusal(error)}") from error
    except errors.HTTPError as error:
        raise CheckpointError(
            f"{names}: no answer from {_where()} ({type(error).__name__}: {error}); check the network, HTTPS_PROXY "
            "and HF_ENDPOINT. What came of a file is kept: the same command resumes it"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{names}: {_where()} does not answer as a hub does; check HF_ENDPOINT") from error
    except OSError as error:
        raise CheckpointError(
            f"{names}: cannot be fetched into {folder} ({error.strerror or str(error).splitlines()[0]}); what came of "
            "a file is kept: the same command resumes it"
        ) from error


def _refusal(error: Any) -> str:
    """What an HTTP status from the hub means."""
    from huggingface_hub import errors

    status, where = error.response.status_code, _where()
    page = f"{where}/{REPOSITORY}"
    if isinstance(error, errors.GatedRepoError):
        return f"{page} wants its terms accepted (HTTP {status}): do so on that page, and set HF_TOKEN to your token"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{page} has no such revision (HTTP {status})"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{page} has no such file at this revision (HTTP {status})"
    if status in (401, 403) or isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{where} does not let us have {REPOSITORY} (HTTP {status}): it is gone or private, or HF_TOKEN (or the "
            "token of `hf auth login`) is not valid"
        )
    return f"{where} answered HTTP {status}; try again later"


def _where() -> str:
    """The hub's address without a password that someone may have put there."""
    parts = urlsplit(_endpoint())
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "") + parts.path
