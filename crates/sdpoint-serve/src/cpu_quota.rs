//! The CPU quota of this process's control group.
//!
//! A container with half a core may use all cores for a moment, and is then throttled
//! until the end of the quota's period, usually 100 ms. That breaks every deadline. So
//! there are no more threads than the quota has cores, and where these could use up the
//! quota, the server sleeps after each batch, long enough not to be throttled during the
//! next.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// The share of the quota for computation. The rest is for the threads that receive
/// requests and send answers.
const COMPUTE_SHARE: f64 = 0.9;

/// A limit on CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuQuota {
    /// The limit in cores: seconds of CPU time per second.
    cores: f64,
}

impl CpuQuota {
    /// The tightest limit on this process, if there is one.
    pub fn of_this_process() -> Option<Self> {
        Self::read(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"))
    }

    /// The tightest limit on a process, from its list of control groups (a file like
    /// `/proc/self/cgroup`) and the mount point of the hierarchy.
    fn read(membership: &Path, root: &Path) -> Option<Self> {
        let groups = fs::read_to_string(membership).ok()?;
        let limits = groups.lines().filter_map(|line| {
            // hierarchy:controllers:path
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let unified = controllers.is_empty();
            let cpu = controllers.split(',').any(|name| name == "cpu");
            let mounts = match (unified, cpu) {
                (true, _) => [root.to_owned(), root.join("unified")],
                (_, true) => [root.join("cpu"), root.join("cpu,cpuacct")],
                _ => return None,
            };
            let limits = mounts.iter().filter_map(|mount| tightest(mount, path));
            limits.reduce(f64::min)
        });
        limits.reduce(f64::min).map(|cores| Self { cores })
    }

    /// The limit in cores.
    pub fn cores(&self) -> f64 {
        self.cores
    }

    /// The number of threads, at most `available`, that can compute without being
    /// throttled.
    pub fn threads(&self, available: NonZeroUsize) -> NonZeroUsize {
        let whole = NonZeroUsize::new(self.cores.floor() as usize);
        whole.unwrap_or(NonZeroUsize::MIN).min(available)
    }

    /// The ratio of the time between the starts of two batches to the time of a batch
    /// with which so many threads stay within the quota: 1 if they always do.
    pub fn duty(&self, threads: usize) -> f64 {
        (threads as f64 / (COMPUTE_SHARE * self.cores)).max(1.0)
    }
}

/// The tightest limit of a control group and its ancestors. In a container, the
/// hierarchy often starts at the container's own group, and does not contain `path`.
fn tightest(mount: &Path, path: &str) -> Option<f64> {
    let relative = Path::new(path.trim_start_matches('/'));
    let groups = relative.ancestors().map(|group| mount.join(group));
    let limits = groups.filter_map(|group: PathBuf| limit(&group));
    limits.reduce(f64::min)
}

/// The limit of a control group, in cores.
fn limit(group: &Path) -> Option<f64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // No limit is "max" in version 2 and -1 in version 1.
    let quota: f64 = quota.trim().parse().ok()?;
    let period: f64 = period.trim().parse().ok()?;
    let cores = quota / period;
    (cores.is_finite() && cores > 0.0).then_some(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit that is read from these files below the hierarchy's root.
    fn quota(membership: &str, files: &[(&str, &str)]) -> Option<CpuQuota> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for (name, text) in files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let groups = folder.path().join("cgroup");
        fs::write(&groups, membership).unwrap();
        CpuQuota::read(&groups, &root)
    }

    #[test]
    fn version_2_has_one_file() {
        let half = quota("0::/\n", &[("cpu.max", "50000 100000\n")]).unwrap();
        assert_eq!(half.cores(), 0.5);
        let unlimited = quota("0::/\n", &[("cpu.max", "max 100000\n")]);
        assert_eq!(unlimited, None);
    }

    #[test]
    fn the_tightest_of_all_groups_above_counts() {
        let files = [
            ("a/cpu.max", "150000 100000"),
            ("a/b/cpu.max", "400000 100000"),
        ];
        assert_eq!(quota("0::/a/b\n", &files).unwrap().cores(), 1.5);
    }

    #[test]
    fn version_1_has_two_files() {
        let files = [
            ("cpu,cpuacct/pod/cpu.cfs_quota_us", "25000\n"),
            ("cpu,cpuacct/pod/cpu.cfs_period_us", "100000\n"),
        ];
        let groups = "9:memory:/pod\n4:cpu,cpuacct:/pod\n";
        assert_eq!(quota(groups, &files).unwrap().cores(), 0.25);
        let files = [
            ("cpu/cpu.cfs_quota_us", "-1\n"),
            ("cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota("4:cpu:/\n", &files), None);
    }

    #[test]
    fn a_containers_group_may_be_its_root() {
        let files = [("cpu.max", "200000 100000")];
        let outside = "0::/kubepods/pod1/abc\n";
        assert_eq!(quota(outside, &files).unwrap().cores(), 2.0);
    }

    #[test]
    fn damaged_files_mean_no_limit() {
        for text in ["", "50000", "x 100000", "50000 0", "nan 1", "-5 100000"] {
            assert_eq!(quota("0::/\n", &[("cpu.max", text)]), None, "{text:?}");
        }
        assert_eq!(quota("nonsense", &[]), None);
        assert_eq!(quota("", &[]), None);
    }

    #[test]
    fn threads_and_rests_follow_the_quota() {
        let four = NonZeroUsize::new(4).unwrap();
        let threads = |cores: f64| CpuQuota { cores }.threads(four).get();
        assert_eq!([0.5, 1.0, 1.9, 2.0, 9.0].map(threads), [1, 1, 1, 2, 4]);
        let busy = |cores: f64| 1.0 / CpuQuota { cores }.duty(1);
        let expected = [0.225, 0.45, 0.9, 1.0];
        for (actual, expected) in [0.25, 0.5, 1.0, 2.0].map(busy).into_iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-9, "{actual} {expected}");
        }
    }
}
