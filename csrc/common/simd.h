// Vector arithmetic without intrinsics: plain loops that the compiler vectorises, cloned for the
// instruction sets below and chosen when the library is loaded, so that one binary serves them all.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define MCFA_SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MCFA_SIMD_CLONES
#endif

#define MCFA_INLINE inline __attribute__((always_inline))

namespace mcfa_fast {

// e^x to 2 ulp for normal results; 0 below e^-87.7, infinity above e^88.4, NaN for NaN.
// e^x = 2^n e^r with n = round(x / ln 2), and a polynomial for e^r on |r| <= ln(2) / 2
// (coefficients of the Cephes library's expf). The bounds make 2^n come out as 0 or infinity.
MCFA_INLINE float simd_exp(float x) {
  constexpr float kLowest = -88.f;
  constexpr float kHighest = 89.f;
  constexpr float kRounder = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x < kLowest ? kLowest : x;
  x = x > kHighest ? kHighest : x;
  const float shifted = x * 1.44269504f + kRounder;
  const float n = shifted - kRounder;
  float r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + 127u) << 23;  // n lies in the low bits of `shifted`
  float power;
  std::memcpy(&power, &bits, sizeof(power));
  return p * power;
}

MCFA_INLINE double simd_exp(double x) {
  return std::exp(x);
}

}  // namespace mcfa_fast
