/* Arithmetic that must give the same bits on every machine. */
#ifndef HWGQ_MATH_H
#define HWGQ_MATH_H

/* e^x in double, within 1 ulp. The C library's exp may be another one on another CPU or system; this one is additions and
 * multiplications in a fixed order. Overflows to infinity, underflows through subnormals to 0; NaN gives NaN. */
double hwgq_exp(double x);

#endif
