//! Every kernel against its definition, on every instruction set of the machine.
//!
//! These tests stand outside of the library so that the kernels are compiled once, and not once
//! more for the library's own tests; those call no kernel.

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
