"""What a training step keeps for its gradients, counted without computing anything.

``python benchmarks/training_memory.py [--variant era5 --members 2]``

Runs one step of a network of tensors without values, on the CPU in bfloat16, and adds up what autograd holds when it
is done, weights apart. With ``recompute_blocks`` each block's own comes on top while its turn is, one at a time.
"""

from __future__ import annotations

import argparse

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ai_models_mosaic.model.layers import Block
from ai_models_mosaic.model.network import MosaicNetwork
from ai_models_mosaic.training.trainer import BACKENDS, recompute_blocks
from ai_models_mosaic.variants import VARIANTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=list(VARIANTS), default="era5")
    parser.add_argument("--members", type=int, default=2, help="initial times times members of an update")
    known = parser.parse_args()
    for device, backend in BACKENDS.items():
        whole, largest = kept(known.variant, known.members, backend, again=False)
        beside, _ = kept(known.variant, known.members, backend, again=True)
        print(
            f"{known.variant}, {known.members} states, {backend} (as on {device}): {whole / 1e9:.1f} GB kept; with "
            f"recompute_blocks {beside / 1e9:.1f} GB, and {largest / 1e9:.1f} GB of the block whose turn it is"
        )


def kept(variant: str, members: int, backend: str, *, again: bool) -> tuple[int, int]:
    """Bytes of all that is held after a step, and of the block that holds most."""
    architecture = VARIANTS[variant].architecture
    with FakeTensorMode():
        network = MosaicNetwork(architecture)
        network.use_backend(backend)
        if again:
            recompute_blocks(network)
        own = {place(tensor) for tensor in (*network.parameters(), *network.buffers())}
        holder: list[str] = [""]
        sizes: dict[str, dict[int, int]] = {}
        tensors = []
        for name, module in network.named_modules():
            if isinstance(module, Block):
                module.register_forward_pre_hook(lambda *_, name=name: holder.append(name))
                module.register_forward_hook(lambda *_: holder.pop() and None)

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if place(tensor) not in own and not any(place(tensor) in held for held in sizes.values()):
                sizes.setdefault(holder[-1], {})[place(tensor)] = tensor.untyped_storage().nbytes()
                # Else another may come to be where it was.
                tensors.append(tensor)
            return tensor

        state = torch.empty(members, architecture.history, *architecture.grid.shape, architecture.channels)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu"):
            output = network(state, torch.zeros(members, 2), torch.empty(members, architecture.noise_width))
        del output
    totals = {name: sum(held.values()) for name, held in sizes.items()}
    return sum(totals.values()), max((total for name, total in totals.items() if name), default=0)


def place(tensor: torch.Tensor) -> int:
    """What tells storages apart."""
    return int(tensor.untyped_storage()._cdata)


if __name__ == "__main__":
    main()
