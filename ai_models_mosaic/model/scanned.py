"""The network in a form that can be exported as one graph: the same numbers, by a scan over blocks.

What the released form does in slices, whose number depends on the batch, becomes the body of a scan
over items that each belong to one member. So the graph takes any batch, holds the scores of one
item at a time, and its size grows with neither resolution nor batch.
Source: specification of the network, sections 5 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..arrays import Float, Float32, Int64, Shaped
from . import attention
from .attention import attention_of_slice, select_blocks
from .attention.problem import Gates, Keys, Lists, MeanKeys, MeanQueries, Queries, RunQueries
from .fused import branch_gates
from .interpolation import CrossGridAttention
from .layers import Attention, Block, RMSNorm, Stream
from .network import IN_FLOAT32, MosaicNetwork

GATHERED_AT_ONCE = 2**23
"""Elements of neighbours' values that an interpolation copies at a time (32 MiB in float32)."""


class ScannedProduct(nn.Module):
    """A linear map as a plain product with ``(input, output)`` weights, as graphs have it.

    Parameters
    ----------
    weight : Tensor (output, input)
        As `torch.nn.Linear` holds it.
    dtype : torch.dtype
        Precision of the product; inputs are rounded to it.
    """

    weight: Float[Tensor, "inputs outputs"]

    def __init__(self, weight: Float[Tensor, "outputs inputs"], dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features = weight.shape[0]
        self.register_buffer("weight", weight.detach().to(dtype).t().contiguous())

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Map ``(…, input)`` to ``(…, output)``, in the precision of the weights."""
        return x.to(self.weight.dtype) @ self.weight


class ScannedAttention(nn.Module):
    """`layers.Attention`, with the local and selected branches each a scan over blocks.

    Parameters
    ----------
    source : Attention
        Whose maps and tables it takes over.
    """

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.maps = nn.ModuleList([source.to_q, source.to_k, source.to_v, source.to_strategy_combine_mlp, source.to_o])
        self.q_rope, self.k_rope = source.q_rope, source.k_rope
        self.head_width = source.head_width
        self.layout = source.layout
        self.without_selected = source.without_selected

    def forward(self, x: Stream) -> Stream:
        """Attend within ``(member, pixel, width)``, already normed."""
        to_q, to_k, to_v, to_gates, to_o = self.maps
        query, key, value = (self._heads(project(x)) for project in (to_q, to_k, to_v))
        gates = branch_gates(to_gates(x), without_selected=self.without_selected).transpose(1, 2)
        out = self._branches(self.q_rope(query), self.k_rope(key), value, gates)
        return to_o(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Stream) -> Float[Tensor, "member head pixel {self.head_width}"]:
        return x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)

    def _branches(self, query: Queries, key: Keys, value: Keys, gates: Gates) -> Queries:
        """The gated sum; arguments as `attention.block_sparse_attention`."""
        size = self.layout.sparse
        means = [tensor.unflatten(2, (-1, size)).float().mean(dim=3) for tensor in (query, key, value)]
        combined = gates[..., 0:1] * local_branch(query, key, value, self.layout.local)
        compressed = _compressed(*means)
        by_block = compressed.unsqueeze(3) * gates[..., 1:2].unflatten(2, (-1, size))
        combined = combined + by_block.flatten(2, 3)
        lists = select_blocks(means[0], means[1], self.layout.selected)
        return combined + gates[..., 2:3] * selected_branch(query, key, value, lists, size)


class ScannedInterpolation(nn.Module):
    """`interpolation.CrossGridAttention`, with a scan over target points in place of PyTorch's bags of rows.

    Parameters
    ----------
    source : CrossGridAttention
        Whose weights and neighbours it takes over; queries and keys are folded once for all.
    dtype : torch.dtype
        Precision of the products with the values.
    """

    neighbors: Int64[Tensor, "item target neighbour"]
    rel_pos: Float[Tensor, "item target neighbour 3"]

    def __init__(self, source: CrossGridAttention, dtype: torch.dtype) -> None:
        super().__init__()
        key_weight, value_weight = source.to_kv.weight.detach().chunk(2)
        # Scores decide between neighbours, and are three numbers per head: always in float32.
        self.to_directions = ScannedProduct(source._folded(key_weight), torch.float32)
        self.to_values = ScannedProduct(value_weight, dtype)
        self.to_o = ScannedProduct(source.to_o.weight, dtype)
        self.norm = RMSNorm()
        self.heads, self.sources = source.heads, source.sources
        targets, count = source.neighbors.shape
        at_once = _divisor(targets, GATHERED_AT_ONCE // (count * value_weight.shape[0]))
        self.register_buffer("neighbors", source.neighbors.unflatten(0, (-1, at_once)))
        self.register_buffer("rel_pos", source.rel_pos.unflatten(0, (-1, at_once)))

    def forward(self, x: Float[Tensor, "member source width"]) -> Float32[Tensor, "member target width"]:
        """``(member, source, width)`` to ``(member, target, width)``."""
        batch, x = x.shape[0], self.norm(x)
        directions = self.to_directions(x).flatten(0, 1)
        # A head's slice of a source point is one row, so that rows need not be turned after gathering.
        rows = self.to_values(x).float().reshape(batch * self.sources * self.heads, -1)
        first = torch.arange(batch, device=x.device).view(-1, 1, 1, 1) * self.sources
        points = (self.neighbors + first).flatten(0, 1)
        rel_pos = self.rel_pos.expand(batch, -1, -1, -1, -1).flatten(0, 1)
        head = torch.arange(self.heads, device=x.device)[:, None]
        out = _scan(_interpolate, (points, rel_pos), (directions, rows, head))
        return self.to_o(out.view(batch, -1, out.shape[-1])).float()


def exportable(network: MosaicNetwork, dtype: torch.dtype = torch.float32) -> MosaicNetwork:
    """A network of the same weights and numbers that can be exported with any batch.

    Parameters
    ----------
    network : MosaicNetwork
        With its weights; stays as it is.
    dtype : torch.dtype
        Precision of the matrix products and their weights. Norms, softmax, residual sums and the
        choice of blocks stay in float32.

    Returns
    -------
    MosaicNetwork
        In evaluation mode, without gradients; its weights are copies.
    """
    with torch.device("meta"):
        made = MosaicNetwork(network.architecture)
    made.load_state_dict(network.state_dict(), assign=True)
    made.eval().requires_grad_(False)
    for parent, name, module in list(_children(made)):
        if isinstance(module, CrossGridAttention):
            setattr(parent, name, ScannedInterpolation(module, dtype))
        elif isinstance(module, Attention):
            setattr(parent, name, ScannedAttention(module))
    for parent, name, module in list(_children(made)):
        if isinstance(module, nn.Linear):
            kept = any(module is made.get_submodule(path) for path in IN_FLOAT32)
            setattr(parent, name, ScannedProduct(module.weight, torch.float32 if kept else dtype))
    for module in made.modules():
        if isinstance(module, Block):
            module.in_slices = False
    return made


def local_branch(query: Queries, key: Keys, value: Keys, size: int) -> Queries:
    """Attention inside every run of `size` pixels, shapes as `attention.block_sparse_attention`."""
    queries = _grouped(query, key.shape[1], size)
    keys, values = (tensor.unflatten(2, (-1, size)).flatten(1, 2) for tensor in (key, value))
    at_once = _divisor(queries.shape[1], attention.SCORES_AT_ONCE // (queries.shape[2] * size))
    out = _scan(attention_of_slice, tuple(_items(tensor, at_once) for tensor in (queries, keys, values)))
    return _ungrouped(out, query, key.shape[1], size)


def selected_branch(query: Queries, key: Keys, value: Keys, lists: Lists, size: int) -> Queries:
    """Attention of every query block to the pixels of its selected key blocks, `lists` as `select_blocks` has it."""
    batch, heads, blocks, count = lists.shape
    queries = _grouped(query, heads, size)
    key_blocks, value_blocks = (tensor.reshape(batch * heads * blocks, -1) for tensor in (key, value))
    first = torch.arange(batch * heads, device=lists.device).view(-1, heads, 1, 1) * blocks
    rows = (lists + first).flatten(1, 2)
    keys, width = count * size, query.shape[-1]
    bound = min(attention.SCORES_AT_ONCE // (queries.shape[2] * keys), attention.GATHERED_AT_ONCE // (keys * width))
    at_once = _divisor(queries.shape[1], bound)
    out = _scan(_attend_to_rows, (_items(queries, at_once), _items(rows, at_once)), (key_blocks, value_blocks))
    return _ungrouped(out, query, heads, size)


def _attend_to_rows(
    query: RunQueries,
    rows: Int64[Tensor, "run selected"],
    key_blocks: Float[Tensor, "block elements"],
    value_blocks: Float[Tensor, "block elements"],
) -> RunQueries:
    """Attention of ``(n, query, d)`` to the blocks ``(block, pixel · d)`` that the rows ``(n, count)`` name."""
    shape = (*rows.shape[:1], -1, query.shape[-1])
    key, value = (table.index_select(0, rows.flatten()).view(shape) for table in (key_blocks, value_blocks))
    return attention_of_slice(query, key, value)


def _interpolate(
    points: Int64[Tensor, "target neighbour"],
    toward: Float[Tensor, "target neighbour 3"],
    directions: Float[Tensor, "source directions"],
    values: Float[Tensor, "row head_width"],
    head: Int64[Tensor, "head 1"],
) -> Float[Tensor, "target head*head_width"]:
    """Targets ``(target, width)`` from their ``(target, neighbour)`` source points and the directions to them."""
    count, heads = points.shape[1], head.shape[0]
    around = directions.index_select(0, points.flatten()).view(-1, count, heads, 3)
    probability = (around * toward[:, :, None]).sum(dim=-1).softmax(dim=1).transpose(1, 2)
    chosen = (points[:, None] * heads + head).flatten()
    gathered = values.index_select(0, chosen).view(-1, heads, count, values.shape[1])
    return (probability[:, :, None] @ gathered).flatten(1)


def _compressed(mean_query: MeanQueries, mean_key: MeanKeys, mean_value: MeanKeys) -> MeanQueries:
    """Attention among block means, ``(member, query head, block, d)``."""
    batch, heads, blocks, width = mean_key.shape
    grouped = mean_query.reshape(batch, heads, -1, width)
    scores = (grouped * width**-0.5) @ mean_key.transpose(2, 3)
    return (scores.softmax(dim=-1) @ mean_value).reshape(batch, -1, blocks, width)


def _grouped(query: Queries, heads: int, size: int) -> Float[Tensor, "member run rows head_width"]:
    """Queries by what shares keys, ``(member, key/value head · block, ratio · size, d)``."""
    by_group = query.unflatten(1, (heads, -1)).unflatten(3, (-1, size)).transpose(2, 3)
    return by_group.flatten(3, 4).flatten(1, 2)


def _items(tensor: Shaped[Tensor, "member run *rest"], at_once: int) -> Shaped[Tensor, "item {at_once} *rest"]:
    """``(member, n, …)`` as items of a scan, ``(member · n / at_once, at_once, …)``; none has two members."""
    return tensor.unflatten(1, (-1, at_once)).flatten(0, 1)


def _ungrouped(out: Float[Tensor, "item run rows head_width"], query: Queries, heads: int, size: int) -> Queries:
    """Items of a scan, each ``(at_once, ratio · size, d)``, back to the layout of `query`."""
    by_block = out.view(query.shape[0], heads, -1, query.shape[1] // heads, size, query.shape[-1])
    return by_block.transpose(2, 3).reshape(query.shape)


def _scan(body: Callable[..., Tensor], items: tuple[Tensor, ...], shared: tuple[Tensor, ...] = ()) -> Tensor:
    """``body`` of every item, one after the other, and of what all items share: ``(item, …)``."""
    if not torch.compiler.is_exporting():
        return torch.stack([body(*item, *shared) for item in zip(*items, strict=True)])

    def step(carried: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        # Nothing is carried on, but PyTorch has no scan without.
        return carried.clone(), body(*arguments)

    # The operator itself: its public form would compile every body first.
    carried = torch.zeros(1, device=items[0].device)
    return torch.ops.higher_order.scan(step, [carried], list(items), shared)[1]


def _divisor(number: int, bound: int) -> int:
    """The largest divisor of a number that does not exceed a bound, at least 1."""
    return max(part for part in range(1, max(1, min(number, bound)) + 1) if number % part == 0)


def _children(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Every module with its parent and its name there."""
    for parent in network.modules():
        for name, module in parent.named_children():
            yield parent, name, module
