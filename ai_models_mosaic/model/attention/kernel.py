"""A Triton kernel: the queries of a block attend to the key blocks of a list.

Needs Triton, and a GPU or ``TRITON_INTERPRET=1``, which counts when this module is imported.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


# What checks shapes in the tests must not wrap what Triton compiles.
@triton.jit
@no_type_check
def attend_to_lists(
    query,
    key,
    value,
    gate,
    lists,
    compressed,
    compressed_gate,
    out,
    query_batch,
    query_head,
    query_pixel,
    key_batch,
    key_head,
    key_pixel,
    value_batch,
    value_head,
    value_pixel,
    gate_batch,
    gate_head,
    gate_pixel,
    out_batch,
    out_head,
    out_pixel,
    blocks,
    count,
    key_heads,
    scale_log2,
    SIZE: tl.constexpr,
    RATIO: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    LISTED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """One program: `ROWS` queries of one block and group, over all keys of the block's list.

    The rows of a program run over the pixels of the block, head by head of the group, whose heads
    share keys and values: one load of these serves them all. With `LISTED`, keys come from ``lists``
    (member, key/value head, block, count) and the result is added to ``out``, together with the
    compressed branch; without, a block attends to itself and the result replaces ``out``. With
    `UPCAST`, products are of float32, rounded as without: the interpreter has none of bfloat16.
    """
    tiles: tl.constexpr = (RATIO * SIZE + ROWS - 1) // ROWS
    block = (tl.program_id(0) // tiles).to(tl.int64)
    rows = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    batch = (tl.program_id(1) // key_heads).to(tl.int64)
    group = (tl.program_id(1) % key_heads).to(tl.int64)
    head = group * RATIO + rows // SIZE
    pixel = block * SIZE + rows % SIZE
    channel = tl.arange(0, PADDED_WIDTH)
    inside = (rows < RATIO * SIZE)[:, None] & (channel < WIDTH)[None, :]

    at_query = batch * query_batch + head * query_head + pixel * query_pixel
    queries = tl.load(query + at_query[:, None] + channel[None, :], mask=inside, other=0.0)
    if UPCAST:
        queries = queries.to(tl.float32)
    key += batch * key_batch + group * key_head
    value += batch * value_batch + group * value_head
    lists += ((batch * key_heads + group) * blocks + block) * count

    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, PADDED_WIDTH], tl.float32)
    for first in range(0, count * SIZE, KEYS):
        if SIZE % KEYS == 0:
            # All keys of this turn are of one block.
            listed = tl.load(lists + first // SIZE).to(tl.int64) if LISTED else block
            at = listed * SIZE + first % SIZE + tl.arange(0, KEYS)
            there = tl.full([KEYS], True, tl.int1)
        else:
            number = first + tl.arange(0, KEYS)
            there = number < count * SIZE
            listed = tl.load(lists + number // SIZE, mask=there, other=0).to(tl.int64) if LISTED else block
            at = listed * SIZE + number % SIZE
        inside_keys = there[:, None] & (channel < WIDTH)[None, :]
        keys = tl.load(key + at[:, None] * key_pixel + channel[None, :], mask=inside_keys, other=0.0)
        if UPCAST:
            keys = keys.to(tl.float32)
        scores = tl.dot(queries, tl.trans(keys), input_precision="ieee") * scale_log2
        if SIZE % KEYS != 0:
            scores = tl.where(there[None, :], scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_highest[:, None])
        shrink = tl.exp2(highest - new_highest)
        total = total * shrink + tl.sum(weights, axis=1)
        values = tl.load(value + at[:, None] * value_pixel + channel[None, :], mask=inside_keys, other=0.0)
        weights = weights.to(values.dtype)
        if UPCAST:
            weights = weights.to(tl.float32)
            values = values.to(tl.float32)
        summed = tl.dot(weights, values, summed * shrink[:, None], input_precision="ieee")
        highest = new_highest

    at_gate = batch * gate_batch + head * gate_head + pixel * gate_pixel
    present = rows < RATIO * SIZE
    gates = tl.load(gate + at_gate, mask=present, other=0.0)
    result = summed * (gates / total)[:, None]
    at_out = out + (batch * out_batch + head * out_head + pixel * out_pixel)[:, None] + channel[None, :]
    if LISTED:
        of_block = ((batch * key_heads * RATIO + head) * blocks + block) * WIDTH
        by_block = tl.load(compressed + of_block[:, None] + channel[None, :], mask=inside, other=0.0)
        its_gate = tl.load(compressed_gate + at_gate, mask=present, other=0.0)
        result += tl.load(at_out, mask=inside, other=0.0) + by_block * its_gate[:, None]
    tl.store(at_out, result, mask=inside)
