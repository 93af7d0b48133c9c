//! The CPU quota of this process's control group.
//!
//! A container with half a core may use all cores for a moment, and is then throttled
//! until the end of the quota's period, usually 100 ms. That breaks every deadline. So
//! the server sleeps after each batch, long enough that it is not throttled during the
//! next. What counts is the time of all threads: with small networks, receiving requests
//! and decoding images takes as long as the computation.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The shares of the quota to use: the first, the lowest and the highest. The kernel hands a
/// quota to processors in slices, of which some are left over, and periods differ.
const FIRST_SHARE: f64 = 0.8;
const SHARES: [f64; 2] = [0.5, 0.95];

/// How long CPU time is measured before the quota and the result are read.
const INTERVAL: Duration = Duration::from_millis(500);

/// The computation that an interval must contain. The process's CPU time is known to
/// 10 ms.
const LEAST_COMPUTED: Duration = Duration::from_millis(50);

/// The weight of the latest interval in the CPU time of a batch.
const LATEST: f64 = 0.5;

/// A limit on CPU time.
#[derive(Clone, Debug, PartialEq)]
struct CpuQuota {
    /// The limit in cores: seconds of CPU time per second.
    cores: f64,
    /// The folder of the control group.
    group: PathBuf,
}

impl CpuQuota {
    /// The tightest limit on this process, if there is one.
    fn of_this_process() -> Option<Self> {
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
            limits.reduce(tighter)
        });
        limits.reduce(tighter)
    }

    /// The periods of the quota so far, and those in which the group was throttled.
    fn periods(&self) -> Option<[u64; 2]> {
        let text = fs::read_to_string(self.group.join("cpu.stat")).ok()?;
        let count = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some([count("nr_periods ")?, count("nr_throttled ")?])
    }
}

/// The ratio of the time between the starts of two batches to the time of a batch with which
/// the process uses at most `available` cores, if it takes `cores` seconds of CPU time per
/// second of a batch: 1 if it always does.
fn duty(cores: f64, available: f64) -> f64 {
    (cores / available).max(1.0)
}

/// The share of the quota to use after an interval with so many periods, `throttled` of which
/// were. Falls faster than it rises, so that one period in thirty or so is throttled where
/// the whole quota is needed.
fn next_share(share: f64, periods: u64, throttled: u64) -> f64 {
    let change = match throttled {
        0 => 0.01,
        _ if throttled.saturating_mul(10) <= periods => 0.0,
        _ => -0.05,
    };
    (share + change).clamp(SHARES[0], SHARES[1])
}

/// Keeps the process within its quota.
pub(crate) struct Pacing {
    interval: Option<Interval>,
    quota: Option<CpuQuota>,
    /// CPU time of all threads per time of a batch, over the last intervals.
    cores: Option<f64>,
    /// The share of the quota to use.
    share: f64,
}

/// The beginning of a measurement.
struct Interval {
    start: Instant,
    /// CPU time of the process.
    cpu: Option<Duration>,
    /// [`CpuQuota::periods`].
    periods: Option<[u64; 2]>,
    /// Time of the batches since then.
    computed: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            interval: None,
            quota: None,
            cores: None,
            share: FIRST_SHARE,
        }
    }
}

impl Pacing {
    /// The ratio of the time between the starts of two batches to the time of a batch with
    /// kernels on so many threads: 1 if there is no need to sleep.
    pub fn duty(&mut self, threads: usize) -> f64 {
        match &self.interval {
            Some(interval) if interval.start.elapsed() < INTERVAL => {}
            _ => self.measure(),
        }
        let Some(quota) = &self.quota else {
            return 1.0;
        };
        let threads = threads as f64;
        let cores = self.cores.map_or(threads, |cores| cores.max(threads));
        duty(cores, self.share * quota.cores)
    }

    /// Counts a batch that took so long.
    pub fn computed(&mut self, time: Duration) {
        if let Some(interval) = &mut self.interval {
            interval.computed += time;
        }
    }

    /// Ends an interval, if it contains enough, and begins another.
    fn measure(&mut self) {
        self.quota = CpuQuota::of_this_process();
        let cpu = self.quota.as_ref().and_then(|_| process_time());
        let periods = self.quota.as_ref().and_then(CpuQuota::periods);
        if let Some(interval) = &mut self.interval
            && self.quota.is_some()
        {
            if interval.computed < LEAST_COMPUTED {
                interval.start = Instant::now();
                return;
            }
            if let (Some(from), Some(to)) = (interval.cpu, cpu) {
                let cores = to.saturating_sub(from).as_secs_f64() / interval.computed.as_secs_f64();
                let before = self.cores.unwrap_or(cores);
                self.cores = Some(before + LATEST * (cores - before));
            }
            if let (Some(from), Some(to)) = (interval.periods, periods) {
                let [periods, throttled] = [0, 1].map(|i| to[i].saturating_sub(from[i]));
                self.share = next_share(self.share, periods, throttled);
            }
        }
        self.interval = Some(Interval {
            start: Instant::now(),
            cpu,
            periods,
            computed: Duration::ZERO,
        });
    }
}

/// The CPU time of all threads of this process so far.
fn process_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    ticks(&text).map(|ticks| Duration::from_millis(10 * ticks))
}

/// User and system time in a process's `stat` file, in ticks of 10 ms.
fn ticks(stat: &str) -> Option<u64> {
    // The second field is the name in parentheses, which may contain spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11);
    let mut time = || times.next()?.parse::<u64>().ok();
    Some(time()? + time()?)
}

/// The tightest limit of a control group and its ancestors. In a container, the
/// hierarchy often starts at the container's own group, and does not contain `path`.
fn tightest(mount: &Path, path: &str) -> Option<CpuQuota> {
    let relative = Path::new(path.trim_start_matches('/'));
    let groups = relative.ancestors().map(|group| mount.join(group));
    let limits = groups.filter_map(|group: PathBuf| limit(&group));
    limits.reduce(tighter)
}

/// The tighter of two limits.
fn tighter(one: CpuQuota, other: CpuQuota) -> CpuQuota {
    if other.cores < one.cores { other } else { one }
}

/// The limit of a control group.
fn limit(group: &Path) -> Option<CpuQuota> {
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
    (cores.is_finite() && cores > 0.0).then(|| CpuQuota {
        cores,
        group: group.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit in cores that is read from these files below the hierarchy's root.
    fn quota(membership: &str, files: &[(&str, &str)]) -> Option<f64> {
        in_folder(membership, files).1.map(|quota| quota.cores)
    }

    /// The limit that is read from these files, and their folder.
    fn in_folder(
        membership: &str,
        files: &[(&str, &str)],
    ) -> (tempfile::TempDir, Option<CpuQuota>) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for (name, text) in files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let groups = folder.path().join("cgroup");
        fs::write(&groups, membership).unwrap();
        let quota = CpuQuota::read(&groups, &root);
        (folder, quota)
    }

    #[test]
    fn version_2_has_one_file() {
        let half = quota("0::/\n", &[("cpu.max", "50000 100000\n")]).unwrap();
        assert_eq!(half, 0.5);
        let unlimited = quota("0::/\n", &[("cpu.max", "max 100000\n")]);
        assert_eq!(unlimited, None);
    }

    #[test]
    fn the_tightest_of_all_groups_above_counts() {
        let files = [
            ("a/cpu.max", "150000 100000"),
            ("a/b/cpu.max", "400000 100000"),
        ];
        assert_eq!(quota("0::/a/b\n", &files).unwrap(), 1.5);
    }

    #[test]
    fn version_1_has_two_files() {
        let files = [
            ("cpu,cpuacct/pod/cpu.cfs_quota_us", "25000\n"),
            ("cpu,cpuacct/pod/cpu.cfs_period_us", "100000\n"),
        ];
        let groups = "9:memory:/pod\n4:cpu,cpuacct:/pod\n";
        assert_eq!(quota(groups, &files).unwrap(), 0.25);
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
        assert_eq!(quota(outside, &files).unwrap(), 2.0);
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
    fn rests_follow_the_quota_and_the_work_of_all_threads() {
        let cases = [
            (1.0, 0.225, 0.225),
            (1.0, 0.45, 0.45),
            (1.5, 0.45, 0.3),
            (2.0, 1.8, 0.9),
            (1.0, 1.8, 1.0),
        ];
        for (cores, available, busy) in cases {
            let actual = 1.0 / duty(cores, available);
            assert!((actual - busy).abs() < 1e-9, "{actual} {busy}");
        }
    }

    #[test]
    fn the_share_falls_when_throttled_and_recovers_slowly() {
        assert!((next_share(0.8, 5, 1) - 0.75).abs() < 1e-9);
        assert_eq!(next_share(0.8, 50, 1), 0.8);
        assert!((next_share(0.8, 5, 0) - 0.81).abs() < 1e-9);
        assert_eq!(next_share(0.5, 5, 5), 0.5);
        assert_eq!(next_share(0.95, 5, 0), 0.95);
    }

    #[test]
    fn periods_are_counted_by_the_group_with_the_limit() {
        let files = [
            ("a/cpu.max", "50000 100000"),
            ("a/cpu.stat", "usage_usec 9\nnr_periods 7\nnr_throttled 2\n"),
            ("a/b/cpu.max", "max 100000"),
        ];
        let (_folder, quota) = in_folder("0::/a/b\n", &files);
        assert_eq!(quota.unwrap().periods(), Some([7, 2]));
    }

    #[test]
    fn the_time_of_a_process_is_read_after_its_name() {
        let stat = "7 (a ) 1 2) S 1 7 7 0 -1 4194560 11 0 0 0 30 12 0 0 20 0 4 0 100";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_takes_time() {
        let before = process_time().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while process_time().unwrap() == before && Instant::now() < end {
            std::hint::spin_loop();
        }
        assert!(process_time().unwrap() > before);
    }
}
