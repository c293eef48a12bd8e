"""A released checkpoint as safetensors: nothing to unpickle, and mapped as it is."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import CheckpointError
from ..variants import Variant
from .format import fitting_network, read_checkpoint, save_checkpoint
from .integrity import expected_digest, read_record, refuse_other, sha256, write_record

LOG = logging.getLogger(__name__)


def convert_checkpoint(variant: Variant, source: Path, target: Path, licence: str) -> None:
    """Write the tensors of a checkpoint, parameters and buffers alike, as safetensors.

    Parameters
    ----------
    variant : Variant
        Whose weights they are; they must fit its network.
    source : Path
        The ``.pt`` file; checked against its record, where it has one.
    target : Path
        Ends in ``.safetensors``; appears under its name only when complete.
    licence : str
        Licence of the weights, where no record of the source tells.

    Raises
    ------
    CheckpointError
        If the source is unsafe, damaged, or of another network, or the target cannot be written.
    """
    if target.suffix != ".safetensors":
        raise CheckpointError(f"{target}: expected a name that ends in .safetensors")
    checkpoint = read_checkpoint(source)
    digest = checkpoint.sha256
    refuse_other(source, expected_digest(source, source.parent), digest)
    fitting_network(variant.architecture, checkpoint)
    record = read_record(source)
    came_from = f"{record.source}, {source.name}" if record else source.name
    metadata = {
        **checkpoint.metadata,
        "variant": variant.name,
        "licence": (record and record.licence) or checkpoint.metadata.get("licence") or licence,
        "source": came_from,
        "source_sha256": digest,
    }
    if record and record.revision:
        metadata["revision"] = record.revision
    try:
        save_checkpoint(target, checkpoint.state, checkpoint.statistics, metadata)
        write_record(target, sha256(target), came_from, metadata.get("revision"), metadata["licence"])
    except OSError as error:
        raise CheckpointError(f"{target} cannot be written: {error.strerror or error}") from error
    LOG.info("%s: %d tensors of %s, SHA-256 %s", target, len(checkpoint.state), source, digest)
