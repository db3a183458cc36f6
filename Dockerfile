# darsr on a CPU, with PyTorch for adapting: docs/installing.md
#   docker build -t darsr .
#   docker run --rm -v "$PWD:/photos" darsr upscale photo.jpg
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# The CPU builds of PyTorch: those of the default index bring gigabytes of CUDA on x86_64.
ARG TORCH="torch==2.13.0"
ARG TORCH_OPTIONS="--index-url https://download.pytorch.org/whl/cpu"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
# Before the sources, so that a change of these keeps the layer. Options are several words, hence without quotes.
# hadolint ignore=SC2086
RUN python -m venv /opt/darsr && /opt/darsr/bin/pip install ${TORCH_OPTIONS} "${TORCH}"
COPY . .
RUN /opt/darsr/bin/pip install ".[train,export,ort,video]"

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="darsr" \
      org.opencontainers.image.description="Blind super-resolution that adapts to one image" \
      org.opencontainers.image.licenses="MIT"
# Any user may be given with --user: what is kept between runs lies in a folder that all may write, a volume if you like.
RUN useradd --create-home --uid 1000 darsr && install -d -m 1777 /var/lib/darsr
COPY --from=build /opt/darsr /opt/darsr
ENV PATH="/opt/darsr/bin:${PATH}" \
    DARSR_CACHE=/var/lib/darsr/cache \
    DARSR_DATA=/var/lib/darsr/data \
    DARSR_STATE=/var/lib/darsr/state
USER 1000:1000
WORKDIR /photos
ENTRYPOINT ["darsr"]
CMD ["--help"]
