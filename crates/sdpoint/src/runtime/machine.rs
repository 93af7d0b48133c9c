//! The machine that a latency was measured on.

use std::fmt;

use sdpoint_engine::Context;
use serde::{Deserialize, Serialize};

/// What latency depends on besides the network. A profile is valid only for the
/// machine that it was measured on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Machine {
    /// The name of the processor, as reported by the system.
    pub processor: String,
    /// The instruction set of the kernels.
    pub isa: String,
    /// The number of threads of the kernels.
    pub threads: usize,
}

impl Machine {
    /// The machine that a context runs on.
    pub fn of(ctx: &Context) -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            processor: processor(&cpuinfo),
            isa: ctx.isa().to_string(),
            threads: ctx.threads(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor,
            isa,
            threads,
        } = self;
        let plural = if *threads == 1 { "" } else { "s" };
        write!(f, "{processor} ({isa}, {threads} thread{plural})")
    }
}

/// The processor's name from the contents of Linux's `/proc/cpuinfo`: the model
/// name, or on Arm the numbers of implementer and part. Without either, the
/// architecture and the operating system.
fn processor(cpuinfo: &str) -> String {
    let value = |key: &str| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(name, _)| name.trim() == key);
        found.next().map(|(_, value)| value.trim())
    };
    if let Some(name) = value("model name").filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    match (value("CPU implementer"), value("CPU part")) {
        (Some(implementer), Some(part)) => format!("{implementer} {part}"),
        _ => format!("{} on {}", std::env::consts::ARCH, std::env::consts::OS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_from_cpuinfo() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: other\n";
        assert_eq!(processor(x86), "Some CPU @ 2 GHz");
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(processor(arm), "0x41 0xd0c");
        assert!(processor("").contains(std::env::consts::ARCH));
    }
}
