/* Arithmetic that must give the same bits on every machine. */
#ifndef HWGQ_MATH_H
#define HWGQ_MATH_H

/* e^x in double, within 1 ulp. The C library's exp may be another one on another CPU or system; this one is additions and
 * multiplications in a fixed order. Overflows to infinity, underflows through subnormals to 0; NaN gives NaN. */
double hwgq_exp(double x);

/* The constants of hwgq_exp (math.c explains them), for kernels that do the same. */
#define HWGQ_EXP_LEAST (-745.14) /* below it, e^x is 0 */
#define HWGQ_EXP_LOG2_E 0x1.71547652b82fep+0
#define HWGQ_EXP_LN2_UPPER 0x1.62e42feep-1
#define HWGQ_EXP_LN2_LOWER 0x1.a39ef35793c76p-33
#define HWGQ_EXP_FACTORS                                                                                                       \
  {                                                                                                                            \
    1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800,    \
        1.0 / 479001600, 1.0 / 6227020800                                                                                      \
  }

#endif
