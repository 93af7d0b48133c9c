//! Instruction sets: names, registers, and detection.

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
    /// Four-lane code that the compiler vectorises for the target's baseline instruction set.
    Portable,
}

impl Isa {
    const ALL: [Isa; 4] = [Isa::Avx512, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The instruction sets of this machine, the fastest first.
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

/// The vector registers of an instruction set, which determine the sizes of register blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    pub count: usize,
    /// Floats in each.
    pub lanes: usize,
}

impl Registers {
    /// The number that every processor of the target architecture has.
    const BASELINE: usize = if cfg!(target_arch = "aarch64") {
        32
    } else {
        16
    };

    /// The registers of the instruction set that a kernel is compiled for.
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

/// The error for a name that is not an instruction set's; holds the name.
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

/// Proof that the machine has an instruction set: the inner types can be made only if it does.
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

/// The names of this machine's instruction sets, for messages.
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
