// Plays TensorRT's part for one plugin, from Python through ctypes. The kernel's pixels are computed on the host.
#include <cstring>
#include <memory>

#include <NvInferRuntime.h>

#include "correction_filter.h"

using namespace nvinfer1;

static IPluginCreatorV3One* creator = nullptr;

void stand_in_register(IPluginCreatorV3One* found) { creator = found; }

namespace darsr {

int32_t launch_float(void const* x, void const* c, void* y, Size size, void*) {
    for (int32_t n = 0; n < size.batch; ++n)
        for (int32_t row = 0; row < size.height; ++row)
            for (int32_t column = 0; column < size.width; ++column)
                filter_pixel(static_cast<float const*>(x), static_cast<float const*>(c), static_cast<float*>(y), size, n,
                    row, column);
    return 0;
}

int32_t launch_half(void const*, void const*, void*, Size, void*) { return 16; } // tells that it was this one

} // namespace darsr

namespace {

std::unique_ptr<IPluginV3> made() {
    return std::unique_ptr<IPluginV3>(creator->createPlugin("filter", creator->getFieldNames(), TensorRTPhase::kBUILD));
}

template <typename T>
T* part(IPluginV3& plugin, PluginCapabilityType type) {
    return static_cast<T*>(plugin.getCapabilityInterface(type));
}

DynamicPluginTensorDesc described(int64_t const* dims, int32_t type, int32_t format) {
    DynamicPluginTensorDesc result{};
    result.desc.dims.nbDims = 4;
    std::memcpy(result.desc.dims.d, dims, 4 * sizeof(int64_t));
    result.desc.type = static_cast<DataType>(type);
    result.desc.format = static_cast<TensorFormat>(format);
    return result;
}

} // namespace

extern "C" {

// "name version namespace outputs", of the creator and, once more, of the plugin itself.
int32_t identity(char const** texts) {
    auto plugin = made();
    auto* core = part<IPluginV3OneCore>(*plugin, PluginCapabilityType::kCORE);
    char const* all[] = {creator->getPluginName(), creator->getPluginVersion(), creator->getPluginNamespace(),
        core->getPluginName(), core->getPluginVersion(), core->getPluginNamespace()};
    std::memcpy(texts, all, sizeof all);
    return part<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD)->getNbOutputs();
}

// One bit for each of x, c and y: whether its type and format are taken, asked in that order.
int32_t supported(int32_t const* types, int32_t const* formats) {
    auto plugin = made();
    auto* build = part<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD);
    int64_t const dims[4] = {1, 3, 4, 4};
    DynamicPluginTensorDesc tensors[3];
    int32_t bits = 0;
    for (int i = 0; i < 3; ++i)
        tensors[i] = described(dims, types[i], formats[i]);
    for (int i = 0; i < 3; ++i)
        bits |= build->supportsFormatCombination(i, tensors, 2, 1) << i;
    return bits;
}

// 0 where the plugin takes inputs of these sizes, when it is built (-1: unknown yet).
int32_t configure(int64_t const* x, int64_t const* c) {
    auto plugin = made();
    DynamicPluginTensorDesc inputs[2] = {described(x, 0, 0), described(c, 0, 0)}, output = described(x, 0, 0);
    return part<IPluginV3OneBuild>(*plugin, PluginCapabilityType::kBUILD)->configurePlugin(inputs, 2, &output, 1);
}

// As the runtime does it: a copy attached to a context, told of the shapes, enqueued.
int32_t run(void const* x, void const* c, void* y, int64_t const* x_dims, int64_t const* c_dims, int32_t type) {
    auto original = made();
    std::unique_ptr<IPluginV3> plugin(
        part<IPluginV3OneRuntime>(*original, PluginCapabilityType::kRUNTIME)->attachToContext(nullptr));
    original.reset();
    auto* runtime = part<IPluginV3OneRuntime>(*plugin, PluginCapabilityType::kRUNTIME);
    PluginTensorDesc inputs[2] = {described(x_dims, type, 0).desc, described(c_dims, type, 0).desc};
    if (runtime->getFieldsToSerialize()->nbFields != 0)
        return -2;
    if (int32_t const refused = runtime->onShapeChange(inputs, 2, inputs, 1))
        return refused;
    void const* given[2] = {x, c};
    return runtime->enqueue(inputs, inputs, given, &y, nullptr, nullptr);
}

} // extern "C"
