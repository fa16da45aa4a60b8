/* Scalars: numbers that are computed once per step, in double. */
#ifndef FASTMLP_SCALARS_H
#define FASTMLP_SCALARS_H

#include "fastmlp.h"

#include <math.h>

/* Sums have eight parts, by position: an order that does not depend on the target, and keeps the adder busy. */
static inline double sum_of_eight(const double *part)
{
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

static inline double weight_of(const fm_step *step, int64_t r)
{
    return step->weight[fm_data_row(step, r)];
}

static inline double inverse_weight(const fm_step *step)
{
    if (!step->weight) return 1 / (double)step->rows;
    double part[8] = {0};
    for (int64_t r = 0; r < step->rows; r++) part[r % 8] += weight_of(step, r);
    const double sum = sum_of_eight(part);
    return sum > 0 ? 1 / sum : 0;
}

/* b^n for an integer n >= 0, by squaring: only multiplications, so the same bits everywhere. */
static inline double whole_power(double b, int64_t n)
{
    double p = 1;
    for (; n > 0; n >>= 1, b *= b)
        if (n & 1) p *= b;
    return p;
}

static inline double mean_loss(const double *row_loss, const fm_step *step)
{
    double part[8] = {0};
    if (step->weight)
        for (int64_t r = 0; r < step->rows; r++) {
            const double weight = weight_of(step, r);
            if (weight != 0) part[r % 8] += weight * row_loss[r]; /* even if that is infinite */
        }
    else
        for (int64_t r = 0; r < step->rows; r++) part[r % 8] += row_loss[r];
    return sum_of_eight(part) * step->inverse_weight;
}

/* Adam's bias corrections. */
static inline void set_unbias(fm_step *step, const fm_rule *adam)
{
    step->unbias1 = 1 - whole_power(adam->beta1, step->number + 1);
    step->root2 = sqrt(1 - whole_power(adam->beta2, step->number + 1));
}

#endif
