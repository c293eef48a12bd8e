"""Triton kernels of block-sparse attention: all branches of the tokens, attention among block means, the selection.

Needs Triton, and a GPU or ``TRITON_INTERPRET=1``, which counts when this module is imported.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


# What checks shapes in the tests must not wrap what Triton compiles.
@triton.jit
@no_type_check
def load_rows(at, there, of_row, SOME_MISS: tl.constexpr, PADDED: tl.constexpr):
    """Rows of keys or values, zero where there is none: without a mask where nothing misses, which costs registers."""
    if SOME_MISS:
        rows = tl.load(at, mask=there[:, None] & of_row, other=0.0)
    elif PADDED:
        rows = tl.load(at, mask=of_row, other=0.0)
    else:
        rows = tl.load(at)
    return rows


@triton.jit
@no_type_check
def attended(
    queries,
    key,
    value,
    key_pixel,
    value_pixel,
    lists,
    first_pixel,
    keys_in_all,
    scale_log2,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    LISTED: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Softmax attention of the rows of a program to `keys_in_all` keys, `KEYS` at a time: sums, and what divides them.

    With `LISTED`, keys are those of the blocks of `SIZE` pixels in ``lists``; without, those from ``first_pixel`` on.
    `SIZE` 0 says that any number of keys may come, a multiple of `KEYS` or not. Products are of the precision of the
    values; with `UPCAST`, of float32, rounded as without: the interpreter has none of bfloat16.

    Returns
    -------
    (ROWS, PADDED_WIDTH) and (ROWS,) of float32
        Their quotient is the attention.
    """
    whole: tl.constexpr = SIZE > 0 and SIZE % KEYS == 0
    channel = tl.arange(0, PADDED_WIDTH)
    of_row = (channel < WIDTH)[None, :]
    # Where the keys of a turn follow one another, only where the first lies changes: the rest is added up once.
    row = tl.arange(0, KEYS)
    in_keys = row[:, None] * key_pixel + channel[None, :]
    in_values = row[:, None] * value_pixel + channel[None, :]
    highest = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    summed = tl.zeros([ROWS, PADDED_WIDTH], tl.float32)
    for first in range(0, keys_in_all, KEYS):
        number = first + row
        there = number < keys_in_all
        if not LISTED:
            at_keys = key + (first_pixel + first) * key_pixel + in_keys
            at_values = value + (first_pixel + first) * value_pixel + in_values
        elif whole:
            # All keys of this turn are of one block.
            pixel = tl.load(lists + first // SIZE).to(tl.int64) * SIZE + first % SIZE
            at_keys = key + pixel * key_pixel + in_keys
            at_values = value + pixel * value_pixel + in_values
        else:
            pixels = tl.load(lists + number // SIZE, mask=there, other=0).to(tl.int64) * SIZE + number % SIZE
            at_keys = key + pixels[:, None] * key_pixel + channel[None, :]
            at_values = value + pixels[:, None] * value_pixel + channel[None, :]
        keys = load_rows(at_keys, there, of_row, not whole, WIDTH < PADDED_WIDTH)
        if UPCAST:
            keys = keys.to(tl.float32)
        scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION)
        if not whole:
            scores = tl.where(there[None, :], scores, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, axis=1))
        # One multiplication and addition for each score: the scale goes with the highest.
        weights = tl.exp2(scores * scale_log2 - (new_highest * scale_log2)[:, None])
        shrink = tl.exp2((highest - new_highest) * scale_log2)
        total = total * shrink + tl.sum(weights, axis=1)
        values = load_rows(at_values, there, of_row, not whole, WIDTH < PADDED_WIDTH)
        # Both operands of a product are named to be of one precision, the pointer's.
        weights = weights.to(value.dtype.element_ty)
        values = values.to(value.dtype.element_ty)
        if UPCAST:
            weights = weights.to(tl.float32)
            values = values.to(tl.float32)
        summed = tl.dot(weights, values, summed * shrink[:, None], input_precision=PRECISION)
        highest = new_highest
    return summed, total


@triton.jit
@no_type_check
def attend(
    query,
    key,
    value,
    gates,
    lists,
    compressed,
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
    gate_branch,
    out_batch,
    out_head,
    out_pixel,
    blocks,
    count,
    key_heads,
    scale_log2,
    SIZE: tl.constexpr,
    LOCAL: tl.constexpr,
    RATIO: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    LOCAL_KEYS: tl.constexpr,
    UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: `ROWS` queries of one block and group through all three branches.

    The rows run over the pixels of the block, head by head of the group, whose heads share keys, values and lists.
    Queries are read once and the gated sum is written once, rounded to the precision of ``out``. A run of `LOCAL`
    pixels is of whole blocks of `SIZE`. ``lists`` (member, key/value head, block, count) and ``compressed``
    (member, query head, block, d) lie in one piece.
    """
    tiles: tl.constexpr = (RATIO * SIZE + ROWS - 1) // ROWS
    block = (tl.program_id(0) // tiles).to(tl.int64)
    rows = (tl.program_id(0) % tiles) * ROWS + tl.arange(0, ROWS)
    batch = (tl.program_id(1) // key_heads).to(tl.int64)
    group = (tl.program_id(1) % key_heads).to(tl.int64)
    head = group * RATIO + rows // SIZE
    pixel = block * SIZE + rows % SIZE
    channel = tl.arange(0, PADDED_WIDTH)
    present = rows < RATIO * SIZE
    inside = present[:, None] & (channel < WIDTH)[None, :]

    at_query = batch * query_batch + head * query_head + pixel * query_pixel
    queries = tl.load(query + at_query[:, None] + channel[None, :], mask=inside, other=0.0)
    if UPCAST:
        queries = queries.to(tl.float32)
    key += batch * key_batch + group * key_head
    value += batch * value_batch + group * value_head
    lists += ((batch * key_heads + group) * blocks + block) * count
    at_gate = gates + batch * gate_batch + head * gate_head + pixel * gate_pixel

    # First the branch with the larger tiles of scores: the other then has registers for its sum beside its own.
    run = block * SIZE // LOCAL * LOCAL
    summed, total = attended(
        queries, key, value, key_pixel, value_pixel, lists, run, count * SIZE, scale_log2,
        SIZE, WIDTH, PADDED_WIDTH, ROWS, KEYS, True, UPCAST, PRECISION,
    )  # fmt: skip
    gate = tl.load(at_gate + 2 * gate_branch, mask=present, other=0.0).to(tl.float32)
    result = summed * (gate / total)[:, None]
    summed, total = attended(
        queries, key, value, key_pixel, value_pixel, lists, run, LOCAL, scale_log2,
        LOCAL, WIDTH, PADDED_WIDTH, ROWS, LOCAL_KEYS, False, UPCAST, PRECISION,
    )  # fmt: skip
    gate = tl.load(at_gate, mask=present, other=0.0).to(tl.float32)
    result += summed * (gate / total)[:, None]
    of_block = ((batch * key_heads * RATIO + head) * blocks + block) * WIDTH
    by_block = tl.load(compressed + of_block[:, None] + channel[None, :], mask=inside, other=0.0)
    result += by_block * tl.load(at_gate + gate_branch, mask=present, other=0.0).to(tl.float32)[:, None]
    at_out = out + (batch * out_batch + head * out_head + pixel * out_pixel)[:, None] + channel[None, :]
    tl.store(at_out, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def attend_to_means(
    query,
    key,
    value,
    out,
    query_batch,
    query_head,
    query_block,
    key_batch,
    key_head,
    key_block,
    value_batch,
    value_head,
    value_block,
    blocks,
    key_heads,
    scale_log2,
    RATIO: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: `ROWS` mean queries of one group attend to all means; ``out`` (member, query head, block, d)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = (tl.program_id(1) // key_heads).to(tl.int64)
    group = (tl.program_id(1) % key_heads).to(tl.int64)
    head = group * RATIO + rows // blocks
    block = rows % blocks
    channel = tl.arange(0, PADDED_WIDTH)
    inside = (rows < RATIO * blocks)[:, None] & (channel < WIDTH)[None, :]
    at_query = batch * query_batch + head * query_head + block * query_block
    queries = tl.load(query + at_query[:, None] + channel[None, :], mask=inside, other=0.0)
    key += batch * key_batch + group * key_head
    value += batch * value_batch + group * value_head
    summed, total = attended(
        queries, key, value, key_block, value_block, out, 0, blocks, scale_log2,
        0, WIDTH, PADDED_WIDTH, ROWS, KEYS, False, False, PRECISION,
    )  # fmt: skip
    at_out = ((batch * key_heads * RATIO + head) * blocks + block) * WIDTH
    tl.store(out + at_out[:, None] + channel[None, :], summed / total[:, None], mask=inside)


@triton.jit
@no_type_check
def select(
    query,
    key,
    lists,
    query_batch,
    query_head,
    query_block,
    key_batch,
    key_head,
    key_block,
    blocks,
    count,
    key_heads,
    RATIO: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: the `count` best key blocks of `ROWS` query blocks, for one key/value head; ``lists`` in one piece.

    Scores are summed over the query heads j, j + Hk, … for key/value head j, each against the keys that serve it. They
    never leave the registers: with the number of its block in the low bits every score is an integer of its own, of
    which the greatest are taken one by one. Equal scores go to the lower block; NaN counts as the greatest, so that
    whatever comes in, blocks come out, each once.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    batch = (tl.program_id(1) // key_heads).to(tl.int64)
    group = (tl.program_id(1) % key_heads).to(tl.int64)
    columns = tl.arange(0, COLUMNS)
    query += batch * query_batch + rows.to(tl.int64)[:, None] * query_block
    key += batch * key_batch + columns.to(tl.int64)[:, None] * key_block
    parts: tl.constexpr = PADDED_WIDTH // CHANNELS
    scores = tl.zeros([ROWS, COLUMNS], tl.float32)
    for part in range(RATIO * parts):
        head = group + part // parts * key_heads
        channel = (part % parts * CHANNELS + tl.arange(0, CHANNELS))[None, :]
        inside = channel < WIDTH
        queries = tl.load(query + head * query_head + channel, mask=inside & (rows < blocks)[:, None], other=0.0)
        served = head // RATIO * key_head
        keys = tl.load(key + served + channel, mask=inside & (columns < blocks)[:, None], other=0.0)
        scores = tl.dot(queries, tl.trans(keys), scores, input_precision=PRECISION)
    bits = scores.to(tl.int32, bitcast=True)
    # The bits of a negative number rise where it falls.
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    ranked = bits.to(tl.int64) * COLUMNS + (COLUMNS - 1 - columns)[None, :]
    taken: tl.constexpr = -(1 << 60)
    ranked = tl.where((columns < blocks)[None, :], ranked, taken)
    lists += ((batch * key_heads + group) * blocks + rows) * count
    for place in range(count):
        best = tl.max(ranked, axis=1)
        tl.store(lists + place, (COLUMNS - 1 - (best & (COLUMNS - 1))).to(tl.int32), mask=rows < blocks)
        ranked = tl.where(ranked == best[:, None], taken, ranked)


@triton.jit
@no_type_check
def join(
    local,
    selected,
    gates,
    compressed,
    out,
    gate_batch,
    gate_head,
    gate_pixel,
    gate_branch,
    out_batch,
    out_head,
    out_pixel,
    pixels,
    heads,
    all_rows,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One program: the gated sum of `ROWS` heads of pixels, of branches made elsewhere.

    ``local`` and ``selected`` (member, pixel, query head, d) and ``compressed`` (member, query head, block, d) lie in
    one piece; blocks are of `SIZE` pixels.
    """
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    head = rows % heads
    pixel = rows // heads % pixels
    batch = rows // heads // pixels
    channel = tl.arange(0, PADDED_WIDTH)
    present = rows < all_rows
    inside = present[:, None] & (channel < WIDTH)[None, :]
    at_gate = gates + batch * gate_batch + head * gate_head + pixel * gate_pixel
    at = rows[:, None] * WIDTH + channel[None, :]
    of_block = ((batch * heads + head) * (pixels // SIZE) + pixel // SIZE) * WIDTH
    result = tl.load(local + at, mask=inside, other=0.0).to(tl.float32) * tl.load(at_gate, mask=present)[:, None]
    by_block = tl.load(compressed + of_block[:, None] + channel[None, :], mask=inside, other=0.0)
    result += by_block * tl.load(at_gate + gate_branch, mask=present)[:, None]
    gate = tl.load(at_gate + 2 * gate_branch, mask=present)
    result += tl.load(selected + at, mask=inside, other=0.0).to(tl.float32) * gate[:, None]
    at_out = out + (batch * out_batch + head * out_head + pixel * out_pixel)[:, None] + channel[None, :]
    tl.store(at_out, result.to(out.dtype.element_ty), mask=inside)
