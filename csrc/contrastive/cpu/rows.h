// The inner loops of the CPU losses, one row of a similarity tile at a time. `s` holds raw dot
// products; similarities are scale * s with scale = 1 / temperature. T is float or double.
#pragma once

#include <cstdint>

namespace mcfa_fast {

// s <- e^(scale * s - shift); returns the sum.
float exp_row(float* s, int64_t n, float scale, float shift);
double exp_row(double* s, int64_t n, double scale, double shift);

// s <- e^(scale * s - shift) * (row_factor + column_factors).
void weight_row(float* s, int64_t n, float scale, float shift, float row_factor, const float* column_factors);
void weight_row(double* s, int64_t n, double scale, double shift, double row_factor, const double* column_factors);

// Returns the dot product of a and b.
float dot_row(const float* a, const float* b, int64_t n);
double dot_row(const double* a, const double* b, int64_t n);

// total += factor * s.
void add_scaled_row(float* total, const float* s, int64_t n, float factor);
void add_scaled_row(double* total, const double* s, int64_t n, double factor);

// Returns the sum of s.
float sum_row(const float* s, int64_t n);
double sum_row(const double* s, int64_t n);

// total += s.
void add_row(float* total, const float* s, int64_t n);
void add_row(double* total, const double* s, int64_t n);

// Returns the largest s (minus infinity for n = 0).
float max_row(const float* s, int64_t n);
double max_row(const double* s, int64_t n);

// largest <- max(largest, scale * s).
void raise_row(float* largest, const float* s, int64_t n, float scale);
void raise_row(double* largest, const double* s, int64_t n, double scale);

// Returns the sum of e^(scale * s - shift); s is left as it is.
float exp_sum_row(const float* s, int64_t n, float scale, float shift);
double exp_sum_row(const double* s, int64_t n, double scale, double shift);

// total += e^(scale * s - shifts).
void add_exp_row(float* total, const float* s, int64_t n, float scale, const float* shifts);
void add_exp_row(double* total, const double* s, int64_t n, double scale, const double* shifts);

// s <- row_factor e^(scale * s - row_shift) + column_factors e^(scale * s - column_shifts).
void weight_shifted_row(
    float* s, int64_t n, float scale, float row_factor, float row_shift, const float* column_factors,
    const float* column_shifts);
void weight_shifted_row(
    double* s, int64_t n, double scale, double row_factor, double row_shift, const double* column_factors,
    const double* column_shifts);

}  // namespace mcfa_fast
