# darsr on a Jetson with JetPack 6: TensorRT from NVIDIA's image, no PyTorch. Models and bundles are exported elsewhere: docs/jetson.md
#   docker build -t darsr-jetson -f docker/jetson.Dockerfile .
#   docker run --rm --runtime nvidia -v "$PWD:/photos" -v darsr:/var/lib/darsr darsr-jetson infer photo.png --model photo.bundle --engine trt
# Its CUDA and TensorRT must be those of the JetPack on the device: r36.4.0 is JetPack 6.1 and 6.2.
ARG L4T_IMAGE=nvcr.io/nvidia/l4t-jetpack:r36.4.0

FROM ${L4T_IMAGE}
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Versions are those of the image's Ubuntu.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/*
# TensorRT's Python module is a package of the system, which the environment has to see.
RUN python3 -m venv --system-site-packages /opt/darsr && /opt/darsr/bin/pip install "pip>=24" "setuptools>=77"
WORKDIR /source
COPY . .
# ort: the CPU's, with which an engine is compared when it has been built
RUN /opt/darsr/bin/pip install ".[ort]"
RUN useradd --create-home --uid 1000 --groups video darsr && install -d -m 1777 /var/lib/darsr
ENV PATH="/opt/darsr/bin:${PATH}" \
    DARSR_CACHE=/var/lib/darsr/cache \
    DARSR_DATA=/var/lib/darsr/data \
    DARSR_STATE=/var/lib/darsr/state
USER 1000:1000
WORKDIR /photos
ENTRYPOINT ["darsr"]
CMD ["doctor"]
