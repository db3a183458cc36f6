// The correction filter of one pixel, for the GPU and (in tests) for the host: no CUDA header is needed to read this file.
//
// Planes are dense: x and y are N x 3 x H x W, c is N x 13 x H x W, of the same type. Sums are in float.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define DARSR_BOTH __host__ __device__ __forceinline__
#else
#define DARSR_BOTH inline
#endif

namespace darsr {

constexpr int kColours = 3;
constexpr int kTaps = 13; // twelve pairs of opposite pixels in reading order, and the centre

struct Size {
    int32_t batch, height, width;
};

DARSR_BOTH float to_float(float value) { return value; }

template <typename T>
DARSR_BOTH T from_float(float value) { return static_cast<T>(value); }

// Indices from -2 to size + 1 mirrored into the image without repeating its edge; sides are at least 3.
DARSR_BOTH int32_t reflected(int32_t i, int32_t size) {
    i = i < 0 ? -i : i;
    return i < size ? i : 2 * (size - 1) - i;
}

// Every coefficient is read once for all colours.
template <typename T>
DARSR_BOTH void filter_pixel(T const* x, T const* c, T* y, Size size, int32_t n, int32_t row, int32_t column) {
    size_t const plane = static_cast<size_t>(size.height) * size.width;
    size_t const here = static_cast<size_t>(row) * size.width + column;
    x += n * kColours * plane;
    c += n * kTaps * plane + here;
    y += n * kColours * plane + here;
    float const centre = to_float(c[(kTaps - 1) * plane]);
    float sums[kColours];
    for (int k = 0; k < kColours; ++k)
        sums[k] = centre * to_float(x[k * plane + here]);
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int i = 0; i < kTaps - 1; ++i) {
        int32_t const dy = i / 5 - 2, dx = i % 5 - 2;
        size_t const one = static_cast<size_t>(reflected(row + dy, size.height)) * size.width
            + reflected(column + dx, size.width);
        size_t const other = static_cast<size_t>(reflected(row - dy, size.height)) * size.width
            + reflected(column - dx, size.width);
        float const weight = to_float(c[i * plane]);
        for (int k = 0; k < kColours; ++k)
            sums[k] += weight * (to_float(x[k * plane + one]) + to_float(x[k * plane + other]));
    }
    for (int k = 0; k < kColours; ++k)
        y[k * plane] = from_float<T>(sums[k]);
}

// Starts the kernel on a stream (a cudaStream_t); 0, or the cudaError_t of a launch that failed.
int32_t launch_float(void const* x, void const* c, void* y, Size size, void* stream);
int32_t launch_half(void const* x, void const* c, void* y, Size size, void* stream);

} // namespace darsr
