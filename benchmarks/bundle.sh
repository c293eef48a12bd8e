#!/usr/bin/env bash
# benchmarks/bundle.sh OUTPUT [PYTHON]: an archive for a GPU machine that can fetch nothing, to measure this checkout there.
#
# The machine is expected to have Python (3.12 unless said otherwise), PyTorch for CUDA with Triton, NumPy 2, SciPy,
# pandas, xarray, safetensors, huggingface_hub and requests. On it:
#
#   tar xf gpu-bundle.tar.xz && cd gpu-bundle
#   PYTHONPATH=$PWD/site python benchmarks/gpu.py --quick
set -euo pipefail

output=$(readlink -f "${1:?expected a folder for the archive}")
python=${2:-3.12}
project=$(readlink -f "$(dirname "$0")/..")
pip=${PIP:-python3 -m pip}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bundle=$work/gpu-bundle
mkdir -p "$output" "$bundle/site"

# NumPy is left out on purpose: the machine's SciPy needs its own.
packages=(
  ai-models array-api-compat attrs cdsapi cffi cfgrib cloudpickle dask deprecated deprecation earthkit-data earthkit-meteo
  earthkit-regrid earthkit-utils eccodes eccodeslib eckitlib ecmwf-api-client ecmwf-datastores-client ecmwf-opendata
  entrypoints findlibs flexcache flexparser healpix importlib-metadata jsonschema jsonschema-specifications lazy-importer
  locket lru-dict multiurl partd pdbufr pint platformdirs pycparser pytz rpds-py
)
platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any)
$pip download --quiet --no-deps --constraint "$project/constraints.txt" --python-version "$python" "${platforms[@]}" \
  --only-binary=:all: --dest "$work/wheels" "${packages[@]}"
# One module, of which there is no wheel.
$pip download --quiet --no-deps --no-binary :all: --no-build-isolation --dest "$work/source" gputil
tar xzf "$work"/source/*.tar.gz -C "$work"
cp -r "$work"/[Gg][Pp][Uu]til*/GPUtil "$bundle/site/"
$pip wheel --quiet --no-deps --wheel-dir "$work/wheels" "$project"
for wheel in "$work"/wheels/*.whl; do
  unzip -qo "$wheel" -d "$bundle/site"
done
rm -rf "$bundle"/site/numpy "$bundle"/site/*/tests

git -C "$project" archive HEAD benchmarks examples tests/parity.py tests/data | tar x -C "$bundle"
git -C "$project" describe --always --dirty > "$bundle/COMMIT"
tar c -C "$work" gpu-bundle | xz -T0 -6 > "$output/gpu-bundle.tar.xz"
ls -l "$output/gpu-bundle.tar.xz"
