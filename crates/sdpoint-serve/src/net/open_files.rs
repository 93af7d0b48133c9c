//! The process's limit on open files, of which every connection is one.

/// Files besides clients' connections: those for metrics, the listeners, the runtime's, and model
/// files while they are read.
const OTHERS: usize = 24;

/// Warns if the process may not open as many files as it may have connections: more could not be
/// accepted, and no model loaded.
pub fn warn(connections: usize) {
    let Some(limit) = limit() else { return };
    let needed = connections.saturating_add(OTHERS);
    if limit < needed {
        tracing::warn!(
            "the process may open only {limit} files, fewer than {connections} connections need; \
             raise the limit to {needed} (ulimit -n {needed}), or lower --max-connections"
        );
    }
}

/// The limit, where the system has a file that says it (Linux).
fn limit() -> Option<usize> {
    parse(&std::fs::read_to_string("/proc/self/limits").ok()?)
}

/// Reads the soft limit; none if there is no limit.
fn parse(limits: &str) -> Option<usize> {
    let mut lines = limits.lines();
    let values = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    values.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let text = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max processes             127198               127198               processes \n\
                 Max open files            {soft:<20} 524288               files     \n"
            )
        };
        assert_eq!(parse(&text("1024")), Some(1024));
        assert_eq!(parse(&text("unlimited")), None);
        assert_eq!(parse(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_has_a_limit() {
        assert!(limit().is_none_or(|limit| limit > 0));
        assert!(std::fs::exists("/proc/self/limits").unwrap());
    }
}
