// The correction filter as one CUDA kernel: a thread for each pixel, all three colours. Nothing of TensorRT is in here.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "correction_filter.h"

namespace darsr {

DARSR_BOTH float to_float(__half value) { return __half2float(value); }

template <>
DARSR_BOTH __half from_float<__half>(float value) { return __float2half(value); }

namespace {

// A warp reads 32 neighbours of a row: whole lines of memory. What the rows above and below share comes from the cache.
constexpr dim3 kBlock(32, 8);
constexpr int32_t kMostBlocks = 65535; // of a grid, in y and z

template <typename T>
__global__ void correction_filter(T const* __restrict__ x, T const* __restrict__ c, T* __restrict__ y, Size size) {
    int32_t const column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= size.width)
        return;
    for (int32_t n = blockIdx.z; n < size.batch; n += gridDim.z)
        for (int32_t row = blockIdx.y * blockDim.y + threadIdx.y; row < size.height; row += gridDim.y * blockDim.y)
            filter_pixel(x, c, y, size, n, row, column);
}

template <typename T>
int32_t launch(void const* x, void const* c, void* y, Size size, void* stream) {
    int32_t const rows = (size.height + kBlock.y - 1) / kBlock.y;
    dim3 const grid((size.width + kBlock.x - 1) / kBlock.x, rows < kMostBlocks ? rows : kMostBlocks,
        size.batch < kMostBlocks ? size.batch : kMostBlocks);
    correction_filter<T><<<grid, kBlock, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<T const*>(x), static_cast<T const*>(c), static_cast<T*>(y), size);
    return cudaGetLastError();
}

} // namespace

int32_t launch_float(void const* x, void const* c, void* y, Size size, void* stream) {
    return launch<float>(x, c, y, size, stream);
}

int32_t launch_half(void const* x, void const* c, void* y, Size size, void* stream) {
    return launch<__half>(x, c, y, size, stream);
}

} // namespace darsr
