//! A latency profile from anywhere: refused or read, never a panic, and
//! choices and deadlines that go by it come to an end.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use sdpoint::profile::{Profile, TimeSource};
use sdpoint::{Budget, Engine, Images};
use sdpoint_fuzz::model::CONTEXT;
use sdpoint_fuzz::seed;
use serde_json::Value;

static MACHINE: LazyLock<Value> = LazyLock::new(|| {
    let engine = Engine::new(CONTEXT.clone(), seed::small().expect("the seed is sound"));
    let machine = engine.expect("the seed is sound").machine();
    serde_json::to_value(machine).expect("a machine is plain data")
});

/// The profile as if its first machine were this one, so that it is used.
fn ours(data: &[u8]) -> Option<Profile> {
    let mut profile: Value = serde_json::from_slice(data).ok()?;
    *profile.pointer_mut("/machines/0/machine")? = MACHINE.clone();
    Profile::parse(profile.to_string().as_bytes()).ok()
}

fuzz_target!(|data: &[u8]| {
    let _ = Profile::parse(data);
    let Some(profile) = ours(data) else {
        return;
    };
    let model = seed::small().expect("the seed is sound");
    let engine = Engine::new(CONTEXT.clone(), model).expect("the seed is sound");
    let engine = engine.with_profile(profile);
    if *engine.time_source() != TimeSource::Profile {
        return;
    }
    for budget in [Duration::from_nanos(1), Duration::from_secs(1)].map(Budget::Latency) {
        let _ = engine.choose(budget);
    }
    let data = [0.5; 4 * 4 * 3];
    let images = Images {
        data: &data,
        batch: 1,
        size: [4, 4],
    };
    for allowed in [
        Duration::ZERO,
        Duration::from_millis(1),
        Duration::from_secs(9),
    ] {
        let answer = engine.run_by(images, Instant::now() + allowed);
        answer.expect("a deadline that cannot be met is missed, no more");
    }
});
