// The correction filter as a TensorRT plugin (IPluginV3, TensorRT 10 and newer): name CorrectionFilter, version 1.
//
// Inputs x N x 3 x H x W and c N x 13 x H x W, output as x; float or half, all three alike. It has no attributes and
// keeps no state, so there is nothing to serialize. The library registers it when it is loaded.
#include <NvInferRuntime.h>

#include <initializer_list>
#include <new>

#include "correction_filter.h"

namespace {

using namespace nvinfer1;

constexpr char const* kName = "CorrectionFilter";
constexpr char const* kVersion = "1";
constexpr char const* kNamespace = ""; // where the ONNX parser looks for a node without the attribute plugin_namespace
constexpr int32_t kInputs = 2, kFailed = -1;

class CorrectionFilter : public IPluginV3,
                         public IPluginV3OneCore,
                         public IPluginV3OneBuild,
                         public IPluginV3OneRuntime {
public:
    CorrectionFilter() = default;
    CorrectionFilter(CorrectionFilter const&) = default;

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
        switch (type) {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    IPluginV3* clone() noexcept override { return new (std::nothrow) CorrectionFilter(*this); }

    char const* getPluginName() const noexcept override { return kName; }
    char const* getPluginVersion() const noexcept override { return kVersion; }
    char const* getPluginNamespace() const noexcept override { return kNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1; }

    int32_t configurePlugin(DynamicPluginTensorDesc const* inputs, int32_t count, DynamicPluginTensorDesc const*,
        int32_t outputs) noexcept override {
        return count == kInputs && outputs == 1 && fits(inputs[0].desc.dims, inputs[1].desc.dims) ? 0 : kFailed;
    }

    bool supportsFormatCombination(
        int32_t position, DynamicPluginTensorDesc const* tensors, int32_t inputs, int32_t outputs) noexcept override {
        if (inputs != kInputs || outputs != 1)
            return false;
        auto const& asked = tensors[position].desc;
        bool const known = asked.type == DataType::kFLOAT || asked.type == DataType::kHALF;
        return known && asked.format == TensorFormat::kLINEAR && asked.type == tensors[0].desc.type;
    }

    int32_t getOutputDataTypes(
        DataType* types, int32_t outputs, DataType const* given, int32_t inputs) const noexcept override {
        if (inputs != kInputs || outputs != 1)
            return kFailed;
        types[0] = given[0];
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const* given, int32_t inputs, DimsExprs const*, int32_t, DimsExprs* shapes,
        int32_t outputs, IExprBuilder&) noexcept override {
        if (inputs != kInputs || outputs != 1 || given[0].nbDims != 4)
            return kFailed;
        shapes[0] = given[0];
        return 0;
    }

    int32_t onShapeChange(
        PluginTensorDesc const* inputs, int32_t count, PluginTensorDesc const*, int32_t) noexcept override {
        return count == kInputs && fits(inputs[0].dims, inputs[1].dims) ? 0 : kFailed;
    }

    int32_t enqueue(PluginTensorDesc const* described, PluginTensorDesc const*, void const* const* inputs,
        void* const* outputs, void*, cudaStream_t stream) noexcept override {
        auto const& d = described[0].dims.d;
        darsr::Size const size{static_cast<int32_t>(d[0]), static_cast<int32_t>(d[2]), static_cast<int32_t>(d[3])};
        switch (described[0].type) {
        case DataType::kFLOAT: return darsr::launch_float(inputs[0], inputs[1], outputs[0], size, stream);
        case DataType::kHALF: return darsr::launch_half(inputs[0], inputs[1], outputs[0], size, stream);
        default: return kFailed;
        }
    }

    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override { return &fields_; }

private:
    // Channels and sides as the filter needs them; -1, a size that is not known yet, passes.
    static bool fits(Dims const& x, Dims const& c) noexcept {
        if (x.nbDims != 4 || c.nbDims != 4 || x.d[1] != darsr::kColours || c.d[1] != darsr::kTaps)
            return false;
        for (int axis : {0, 2, 3})
            if (x.d[axis] >= 0 && c.d[axis] >= 0 && x.d[axis] != c.d[axis])
                return false;
        return (x.d[2] < 0 || x.d[2] >= 3) && (x.d[3] < 0 || x.d[3] >= 3);
    }

    PluginFieldCollection fields_{};
};

class CorrectionFilterCreator : public IPluginCreatorV3One {
public:
    char const* getPluginName() const noexcept override { return kName; }
    char const* getPluginVersion() const noexcept override { return kVersion; }
    char const* getPluginNamespace() const noexcept override { return kNamespace; }
    PluginFieldCollection const* getFieldNames() noexcept override { return &fields_; }

    IPluginV3* createPlugin(char const*, PluginFieldCollection const*, TensorRTPhase) noexcept override {
        return new (std::nothrow) CorrectionFilter;
    }

private:
    PluginFieldCollection fields_{};
};

REGISTER_TENSORRT_PLUGIN(CorrectionFilterCreator);

} // namespace
