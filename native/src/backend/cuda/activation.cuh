// Activation functions and their derivatives.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/device.cuh"

namespace lorica::cuda {

__device__ __forceinline__ float activated(Act act, float x) {
    switch (act) {
        case Act::silu: return x / (1.0f + expf(-x));
        case Act::gelu_tanh: return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
        case Act::gelu_erf: return 0.5f * x * (1.0f + erff(0.70710678118654752f * x));
        case Act::relu: return fmaxf(x, 0.0f);
        case Act::tanh: break;
    }
    return tanhf(x);
}

// act(x) and its derivative.
struct Activated {
    float value, slope;
};
__device__ __forceinline__ Activated activated_with_slope(Act act, float x) {
    switch (act) {
        case Act::silu: {
            const float s = 1.0f / (1.0f + expf(-x));
            return {x * s, s + x * s * (1.0f - s)};
        }
        case Act::gelu_tanh: {
            constexpr float k = 0.7978845608028654f;
            const float t = tanhf(k * (x + 0.044715f * x * x * x));
            return {0.5f * x * (1.0f + t),
                    0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * k * (1.0f + 0.134145f * x * x)};
        }
        case Act::gelu_erf: {
            const float below = 0.5f * (1.0f + erff(0.70710678118654752f * x));
            return {x * below, below + x * 0.3989422804014327f * expf(-0.5f * x * x)};
        }
        case Act::relu: return {fmaxf(x, 0.0f), x > 0 ? 1.0f : 0.0f};
        case Act::tanh: break;
    }
    const float t = tanhf(x);
    return {t, 1.0f - t * t};
}

}  // namespace lorica::cuda
