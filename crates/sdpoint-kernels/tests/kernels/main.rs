//! Tests of every kernel against its definition, on every instruction set of the machine.
//!
//! They are not unit tests, so that the kernels are compiled only once: the library's unit tests
//! call no kernel.

mod conv;
mod elementwise;
mod linear;
mod loss;
mod norm;
mod optimizer;
mod pool;
mod testing;
mod tuning;
mod windows;
