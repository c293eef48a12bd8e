"""The table of docs/output.md: the largest error of packing by parameter and bits, and the sizes of the files.

``python benchmarks/packing_error.py [--file FILE]``

Noise of a thousandth of the field's standard deviation is added first: what was packed once comes back exactly.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import eccodes
import numpy as np

SAMPLE = Path(__file__).parent.parent / "examples" / "mini-input.grib"
BITS = (10, 12, 14, 16, 18, 20, 24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, default=SAMPLE)
    errors: dict[str, dict[int, float]] = defaultdict(lambda: dict.fromkeys(BITS, 0.0))
    sizes: dict[str, dict[int, int]] = {"simple": dict.fromkeys(BITS, 0), "ccsds": dict.fromkeys(BITS, 0)}
    generator = np.random.default_rng(0)
    with parser.parse_args().file.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            name, values = eccodes.codes_get_string(handle, "shortName"), eccodes.codes_get_values(handle)
            # What the network makes is float32.
            noisy = values + 1e-3 * values.std() * generator.standard_normal(values.size)
            wanted = noisy.astype(np.float32).astype(np.float64)
            for packing, by_bits in sizes.items():
                for bits in BITS:
                    eccodes.codes_set_string(handle, "packingType", f"grid_{packing}")
                    eccodes.codes_set_long(handle, "bitsPerValue", bits)
                    eccodes.codes_set_values(handle, wanted)
                    error = float(np.abs(eccodes.codes_get_values(handle) - wanted).max())
                    errors[name][bits] = max(errors[name][bits], error)
                    by_bits[bits] += eccodes.codes_get_message_size(handle)
            eccodes.codes_release(handle)
    for name, found in errors.items():
        print(name, ", ".join(f"{bits}: {error:.2g}" for bits, error in found.items()))
    for packing, by_bits in sizes.items():
        print(packing, ", ".join(f"{bits}: {size / sizes['simple'][16]:.2f}" for bits, size in by_bits.items()))


if __name__ == "__main__":
    main()
