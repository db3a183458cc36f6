# darsr on a CPU: docs/installing.md
#   docker build -t darsr .
#   docker run --rm -v "$PWD:/photos" darsr upscale photo.jpg
ARG PYTHON_IMAGE=python:3.12-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# With train, PyTorch comes in the default index's build, which on x86_64 brings gigabytes of CUDA.
ARG EXTRAS="ort,video"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
COPY . .
RUN python -m venv /opt/darsr && /opt/darsr/bin/pip install ".[${EXTRAS}]"

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
