//! Which machine a time was measured on.

use std::fmt;

use sdpoint_engine::Context;
use serde::{Deserialize, Serialize};

/// What a time depends on besides the network: a profile holds for this alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor's name, as the system gives it.
    pub processor: String,
    /// The instruction set that the kernels run on.
    pub isa: String,
    /// Threads that work on a kernel.
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

/// The processor's name in Linux's `/proc/cpuinfo`. Arm's has numbers in
/// place of a name; where there is no such file, the architecture must do.
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
    fn a_processor_is_named_as_well_as_the_system_knows_it() {
        let x86 = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: other\n";
        assert_eq!(processor(x86), "Some CPU @ 2 GHz");
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n";
        assert_eq!(processor(arm), "0x41 0xd0c");
        assert!(processor("").contains(std::env::consts::ARCH));
    }
}
