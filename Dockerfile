# docker build --tag mosaic .
#   PyTorch as PyPI has it: on x86-64 for CUDA, to run with --gpus all.
# docker build --build-arg TORCH_INDEX=ADDRESS --tag mosaic:cpu .
#   PyTorch for the CPU, some GB smaller, from the index that PyTorch's installation page gives for it.
# docker run --rm --volume "$PWD:/data" --user "$(id -u)" --env LOGNAME=mosaic mosaic ai-models mosaic --variant mini ...
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=""
ARG EXTRAS="report,verify,zarr,netcdf"
WORKDIR /source
# Before the source, so that a change of that does not fetch PyTorch again.
COPY constraints.txt ./
RUN python -m venv /opt/mosaic \
    && /opt/mosaic/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY . ./
RUN /opt/mosaic/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

FROM python:${PYTHON}-slim-bookworm
# A user with a name: the runner asks for it.
RUN useradd --create-home --uid 1000 mosaic && install --directory --owner=mosaic /data
COPY --from=build /opt/mosaic /opt/mosaic
ENV PATH=/opt/mosaic/bin:$PATH \
    AI_MODELS_MOSAIC_CACHE=/data/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /data
# Whether a forecast with the bundled weights would work; other variants: ai-models-mosaic doctor --variant NAME.
HEALTHCHECK --interval=1h --timeout=3m --start-period=1m CMD ["ai-models-mosaic", "doctor", "--variant", "mini"]
CMD ["ai-models-mosaic", "--help"]
