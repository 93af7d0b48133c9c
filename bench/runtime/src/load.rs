//! A process that occupies a core in bursts.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use chacha20::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Computes for 0.1 to 0.6 s, sleeps as long, and repeats until it is killed.
pub fn burn(seed: u64) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sum = 0u64;
    loop {
        let mut span = || Duration::from_millis(rng.random_range(100..600));
        let (busy, idle) = (span(), span());
        let start = Instant::now();
        while start.elapsed() < busy {
            for i in 0..10_000u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(i));
            }
        }
        std::thread::sleep(idle);
    }
}

/// The process, which ends with this value.
pub struct Load(Child);

impl Load {
    pub fn start(seed: u64) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let child = Command::new(program)
            .args(["load", &seed.to_string()])
            .spawn();
        Ok(Self(child?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Either fails only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
