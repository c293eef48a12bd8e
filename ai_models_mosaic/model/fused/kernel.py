"""Triton kernels of what a step does between its products; `KernelPasses` launches them, and says what each is given.

Rows are dense, one program owns each number that it writes, and no sum crosses programs: what a member is given depends
on no other. Offsets that grow with the members are of 64 bits.

Needs Triton, and a GPU or ``TRITON_INTERPRET=1``, which counts when this module is imported.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


# What checks shapes in the tests must not wrap what Triton compiles.
@triton.jit
@no_type_check
def normalise(
    x,
    positions,
    skip,
    out,
    again,
    factor,
    rows,
    positions_rows,
    eps,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    NORMS: tl.constexpr,
    SILU: tl.constexpr,
    ADDS_POSITIONS: tl.constexpr,
    ADDS_SKIP: tl.constexpr,
    LEAVES_AGAIN: tl.constexpr,
    LEAVES_FACTOR: tl.constexpr,
):
    """One program: the norms of `ROWS` rows of ``x`` (row, width).

    To them come those of ``positions``, which begin anew with every member, and of ``skip``; the sum is divided by its
    root mean square `NORMS` times, goes through SiLU, and is rounded to ``out``. Normed once more, that becomes
    ``again``; what all norms multiply a row by becomes ``factor`` (row,).
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, PADDED_WIDTH)
    inside = (row < rows)[:, None] & (channel < WIDTH)[None, :]
    at = row[:, None] * WIDTH + channel[None, :]
    values = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADDS_POSITIONS:
        at_position = (row % positions_rows)[:, None] * WIDTH + channel[None, :]
        values += tl.load(positions + at_position, mask=inside, other=0.0).to(tl.float32)
    if ADDS_SKIP:
        values += tl.load(skip + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.full([ROWS], 1.0, tl.float32)
    for _ in tl.static_range(NORMS):
        by = tl.rsqrt(tl.sum(values * values, axis=1) / WIDTH + eps)
        values *= by[:, None]
        scale *= by
    if SILU:
        values *= tl.sigmoid(values)
    tl.store(out + at, values, mask=inside)
    if LEAVES_FACTOR:
        tl.store(factor + row, scale, mask=row < rows)
    if LEAVES_AGAIN:
        by = tl.rsqrt(tl.sum(values * values, axis=1) / WIDTH + eps)
        tl.store(again + at, values * by[:, None], mask=inside)


@triton.jit
@no_type_check
def turn_in_place(at, inside, cosine, sine, SIZE: tl.constexpr, WIDTH: tl.constexpr):
    """Rotate the adjacent pairs of a tile ``(SIZE, WIDTH)`` where it lies; gives its sum over the rows, as rounded."""
    values = tl.load(at, mask=inside, other=0.0)
    even, odd = tl.split(tl.reshape(values.to(tl.float32), (SIZE, WIDTH // 2, 2)))
    turned = tl.join(even * cosine - odd * sine, odd * cosine + even * sine)
    rounded = tl.reshape(turned, (SIZE, WIDTH)).to(values.dtype)
    tl.store(at, rounded, mask=inside)
    return tl.sum(rounded.to(tl.float32), axis=0)


@triton.jit
@no_type_check
def rotate(
    joined,
    query_cosine,
    query_sine,
    key_cosine,
    key_sine,
    gates,
    mean_query,
    mean_key,
    mean_value,
    pixels,
    columns,
    SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    HEADS: tl.constexpr,
    RATIO: tl.constexpr,
    PADDED_RATIO: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    WITHOUT_SELECTED: tl.constexpr,
):
    """One program: the pixels of a block, of one key/value head with the `RATIO` query heads that it serves.

    ``joined`` (member, pixel, column) holds, head by head, queries, keys, values and three gates to a query head;
    queries and keys are rotated in place. Leaves the means over the block (member, head, block, width) of all three,
    and the gates (member, query head, branch, pixel), softmax over the branches.
    """
    block = tl.program_id(0)
    member = (tl.program_id(1) // HEADS).to(tl.int64)
    group = tl.program_id(1) % HEADS
    blocks = pixels // SIZE
    row = tl.arange(0, PADDED_SIZE)
    pixel = block * SIZE + row
    here = row < SIZE
    channel = tl.arange(0, PADDED_WIDTH)
    inside = here[:, None] & (channel < WIDTH)[None, :]
    in_row = joined + (member * pixels + pixel) * columns
    tile = in_row[:, None] + channel[None, :]

    pair = tl.arange(0, PADDED_WIDTH // 2)
    at_angle = pixel[:, None] * (WIDTH // 2) + pair[None, :]
    inside_angles = here[:, None] & (pair < WIDTH // 2)[None, :]
    cosine = tl.load(query_cosine + at_angle, mask=inside_angles, other=0.0)
    sine = tl.load(query_sine + at_angle, mask=inside_angles, other=0.0)
    for number in range(RATIO):
        head = group * RATIO + number
        total = turn_in_place(tile + head * WIDTH, inside, cosine, sine, PADDED_SIZE, PADDED_WIDTH)
        at_mean = ((member * HEADS * RATIO + head) * blocks + block) * WIDTH + channel
        tl.store(mean_query + at_mean, total / SIZE, mask=channel < WIDTH)

    cosine = tl.load(key_cosine + at_angle, mask=inside_angles, other=0.0)
    sine = tl.load(key_sine + at_angle, mask=inside_angles, other=0.0)
    keys = (HEADS * RATIO + group) * WIDTH
    total = turn_in_place(tile + keys, inside, cosine, sine, PADDED_SIZE, PADDED_WIDTH)
    at_mean = ((member * HEADS + group) * blocks + block) * WIDTH + channel
    tl.store(mean_key + at_mean, total / SIZE, mask=channel < WIDTH)
    values = tl.load(tile + keys + HEADS * WIDTH, mask=inside, other=0.0).to(tl.float32)
    tl.store(mean_value + at_mean, tl.sum(values, axis=0) / SIZE, mask=channel < WIDTH)

    number = tl.arange(0, PADDED_RATIO)
    head = group * RATIO + number
    inside_gates = here[:, None] & (number < RATIO)[None, :]
    mixed = in_row[:, None] + ((HEADS * RATIO + 2 * HEADS) * WIDTH + 3 * head)[None, :]
    local = tl.load(mixed, mask=inside_gates, other=0.0).to(tl.float32)
    compressed = tl.load(mixed + 1, mask=inside_gates, other=0.0).to(tl.float32)
    selected = tl.load(mixed + 2, mask=inside_gates, other=0.0).to(tl.float32)
    highest = tl.maximum(local, compressed)
    if not WITHOUT_SELECTED:
        highest = tl.maximum(highest, selected)
    local = tl.exp(local - highest)
    compressed = tl.exp(compressed - highest)
    # The ablation shuts the third.
    selected = tl.zeros_like(local) if WITHOUT_SELECTED else tl.exp(selected - highest)
    total_gate = local + compressed + selected
    at_gate = gates + ((member * HEADS * RATIO + head) * 3 * pixels)[None, :] + pixel[:, None]
    tl.store(at_gate, local / total_gate, mask=inside_gates)
    tl.store(at_gate + pixels, compressed / total_gate, mask=inside_gates)
    tl.store(at_gate + 2 * pixels, selected / total_gate, mask=inside_gates)


@triton.jit
@no_type_check
def gate_in_place(
    mapped,
    shift,
    rows,
    shift_stride,
    HIDDEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program: `ROWS` rows of one member and `COLUMNS` columns of ``mapped`` (member, row, gate | value).

    ``silu(gate + shift) · value`` takes the place of the gate; ``shift`` (member, hidden) is one row per member.
    """
    tiles: tl.constexpr = (HIDDEN + COLUMNS - 1) // COLUMNS
    member = tl.program_id(1).to(tl.int64)
    row = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)
    column = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < rows)[:, None] & (column < HIDDEN)[None, :]
    at = mapped + (member * rows + row)[:, None] * (2 * HIDDEN) + column[None, :]
    gate = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(at + HIDDEN, mask=inside, other=0.0).to(tl.float32)
    gate += tl.load(shift + member * shift_stride + column, mask=column < HIDDEN, other=0.0)[None, :]
    tl.store(at, gate * tl.sigmoid(gate) * value, mask=inside)


@triton.jit
@no_type_check
def interpolate(
    directions,
    factor,
    values,
    neighbours,
    toward,
    out,
    sources,
    targets,
    COUNT: tl.constexpr,
    HEADS: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
    TARGETS: tl.constexpr,
    AT_ONCE: tl.constexpr,
    MULTIPLIES: tl.constexpr,
):
    """One program: `TARGETS` points of one member, each the sum of its `COUNT` neighbours by softmax of their scores.

    ``directions`` (member, source, head, 3) times ``toward`` (target, neighbour, 3) are the scores, in float32, with
    `MULTIPLIES` times ``factor`` (member, source);
    ``values`` is (member, source, head, width), ``out`` (member, target, head, width). `AT_ONCE` neighbours are taken
    side by side, with an online softmax over all of them.
    """
    target = tl.program_id(0) * TARGETS + tl.arange(0, TARGETS)
    member = tl.program_id(1).to(tl.int64)
    head = tl.arange(0, PADDED_HEADS)
    channel = tl.arange(0, PADDED_WIDTH)
    of_target = (target < targets)[:, None] & (head < HEADS)[None, :]
    in_target = of_target[:, :, None] & (channel < WIDTH)[None, None, :]
    directions += member * sources * (HEADS * 3)
    factor += member * sources
    values += member * sources * (HEADS * WIDTH)

    highest = tl.full([TARGETS, PADDED_HEADS], float("-inf"), tl.float32)
    total = tl.zeros([TARGETS, PADDED_HEADS], tl.float32)
    summed = tl.zeros([TARGETS, PADDED_HEADS, PADDED_WIDTH], tl.float32)
    for first in range(0, COUNT, AT_ONCE):
        number = first + tl.arange(0, AT_ONCE)
        here = (target < targets)[:, None] & (number < COUNT)[None, :]
        at = target[:, None] * COUNT + number[None, :]
        source = tl.load(neighbours + at, mask=here, other=0).to(tl.int64)
        of_head = here[:, :, None] & (head < HEADS)[None, None, :]
        score = tl.zeros([TARGETS, AT_ONCE, PADDED_HEADS], tl.float32)
        for axis in tl.static_range(3):
            way = tl.load(toward + at * 3 + axis, mask=here, other=0.0)
            in_directions = source[:, :, None] * (HEADS * 3) + (head * 3)[None, None, :] + axis
            score += tl.load(directions + in_directions, mask=of_head, other=0.0) * way[:, :, None]
        if MULTIPLIES:
            score *= tl.load(factor + source, mask=here, other=0.0)[:, :, None]
        score = tl.where(here[:, :, None], score, float("-inf"))
        # Of a target that only fills the tile there is no score at all, and the highest stays finite all the same.
        new_highest = tl.maximum(tl.maximum(highest, tl.max(score, axis=1)), -1e30)
        weight = tl.exp(score - new_highest[:, None, :])
        shrink = tl.exp(highest - new_highest)
        at_value = source[:, :, None, None] * (HEADS * WIDTH) + (head * WIDTH)[None, None, :, None]
        at_value += channel[None, None, None, :]
        in_values = of_head[:, :, :, None] & (channel < WIDTH)[None, None, None, :]
        value = tl.load(values + at_value, mask=in_values, other=0.0).to(tl.float32)
        total = total * shrink + tl.sum(weight, axis=1)
        summed = summed * shrink[:, :, None] + tl.sum(weight[:, :, :, None] * value, axis=1)
        highest = new_highest

    at_out = (member * targets + target)[:, None, None] * (HEADS * WIDTH)
    at_out += (head * WIDTH)[None, :, None] + channel[None, None, :]
    total = tl.where(of_target, total, 1.0)
    tl.store(out + at_out, summed / total[:, :, None], mask=in_target)


@triton.jit
@no_type_check
def map_members(
    x,
    weight,
    out,
    outputs,
    INPUTS: tl.constexpr,
    PADDED_INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """One program: `OUTPUTS` outputs of one member, a linear map of ``x`` (member, input) by ``weight``."""
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    member = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, PADDED_INPUTS)
    row = tl.load(x + member * INPUTS + column, mask=column < INPUTS, other=0.0).to(tl.float32)
    inside = (output < outputs)[:, None] & (column < INPUTS)[None, :]
    weights = tl.load(weight + output[:, None] * INPUTS + column[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + member * outputs + output, tl.sum(weights * row[None, :], axis=1), mask=output < outputs)
