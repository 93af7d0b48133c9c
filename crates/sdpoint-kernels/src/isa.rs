//! Instruction sets: their names, and whether this machine has them.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

#[cfg(target_arch = "aarch64")]
use rten_simd::isa::ArmNeonIsa;
use rten_simd::isa::GenericIsa;
#[cfg(target_arch = "x86_64")]
use rten_simd::isa::{Avx2Isa, Avx512Isa};

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// 64-bit Arm.
    Neon,
    /// Four-lane code that the compiler vectorises as the target's baseline allows.
    Portable,
}

impl Isa {
    const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The instruction sets that this machine has, the fastest first.
    pub fn available() -> Vec<Isa> {
        Self::ALL
            .into_iter()
            .filter(|&isa| Token::new(isa).is_some())
            .collect()
    }

    /// Floats in a vector register.
    pub fn lanes(self) -> usize {
        self.registers().lanes
    }

    /// The vector registers.
    pub(crate) fn registers(self) -> Registers {
        let [count, lanes] = match self {
            Isa::Avx512 => [32, 16],
            Isa::Avx2 => [16, 8],
            Isa::Neon => [32, 4],
            Isa::Portable => [Registers::BASELINE, 4],
        };
        Registers { count, lanes }
    }
}

/// The vector registers of an instruction set, on which the sizes of register blocks depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    pub count: usize,
    /// Floats in each.
    pub lanes: usize,
}

impl Registers {
    /// How many every processor of the target architecture has.
    const BASELINE: usize = if cfg!(target_arch = "aarch64") {
        32
    } else {
        16
    };

    /// Of the instruction set that a kernel is compiled for.
    #[inline(always)]
    pub const fn of<I: rten_simd::Isa>() -> Registers {
        let lanes = size_of::<I::F32>() / size_of::<f32>();
        let count = match lanes {
            16 => 32,
            8 => 16,
            _ => Self::BASELINE,
        };
        Registers { count, lanes }
    }

    /// Whether the instruction set that a kernel is compiled for has 32.
    #[inline(always)]
    pub const fn are_32<I: rten_simd::Isa>() -> bool {
        Self::of::<I>().count == 32
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        })
    }
}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(name: &str) -> Result<Self, UnknownIsa> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| UnknownIsa(name.to_owned()))
    }
}

/// A name that is none of the instruction sets'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownIsa(pub String);

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownIsa(name) = self;
        let names = available_names();
        write!(
            f,
            "unknown instruction set '{name}'; this machine has {names}"
        )
    }
}

impl Error for UnknownIsa {}

/// Proof that an instruction set is there: the inner types exist only where it is.
#[derive(Clone, Copy)]
pub(crate) enum Token {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512Isa),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2Isa),
    #[cfg(target_arch = "aarch64")]
    Neon(ArmNeonIsa),
    Portable(GenericIsa),
}

impl Token {
    pub(crate) fn new(isa: Isa) -> Option<Token> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512Isa::new().map(Token::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2Isa::new().map(Token::Avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => ArmNeonIsa::new().map(Token::Neon),
            Isa::Portable => Some(Token::Portable(GenericIsa::new())),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The instruction sets of this machine, for messages.
pub(crate) fn available_names() -> String {
    Isa::available()
        .iter()
        .map(Isa::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use rten_simd::SimdOp;
    use rten_simd::ops::BitOps;

    struct OfKernels;

    impl SimdOp for OfKernels {
        type Output = Registers;

        #[inline(always)]
        fn eval<I: rten_simd::Isa>(self, isa: I) -> Registers {
            assert_eq!(isa.f32().len(), Registers::of::<I>().lanes);
            Registers::of::<I>()
        }
    }

    #[test]
    fn registers_are_those_that_kernels_are_compiled_for() {
        for isa in Isa::available() {
            let ctx = Context::with_isa(None, isa).unwrap();
            assert_eq!(ctx.dispatch(OfKernels), isa.registers());
        }
    }

    #[test]
    fn isa_names_parse_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
    }

    #[test]
    fn an_unknown_isa_is_refused_with_the_available_ones() {
        let message = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(
            message.contains("sse9") && message.contains("portable"),
            "{message}"
        );
    }
}
