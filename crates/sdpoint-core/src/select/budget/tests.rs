use super::*;

#[test]
fn budgets_are_read_as_users_write_them() {
    for (text, budget) in [
        ("50%", Budget::Share(0.5)),
        (" 12.5 % ", Budget::Share(0.125)),
        ("0.5", Budget::Share(0.5)),
        ("1", Budget::Share(1.0)),
        ("100%", Budget::Share(1.0)),
        ("20M", Budget::Macs(20_000_000)),
        ("1.5G", Budget::Macs(1_500_000_000)),
        ("1.5g", Budget::Macs(1_500_000_000)),
        ("800k", Budget::Macs(800_000)),
        ("3000000", Budget::Macs(3_000_000)),
        ("101", Budget::Macs(101)),
        ("50 MACs", Budget::Macs(50)),
        ("22.0M macs", Budget::Macs(22_000_000)),
        ("8ms", Budget::Latency(Duration::from_millis(8))),
        ("0.5 s", Budget::Latency(Duration::from_millis(500))),
        ("250us", Budget::Latency(Duration::from_micros(250))),
        (">=80%", Budget::MinAccuracy(0.8)),
        (">=0.8", Budget::MinAccuracy(0.8)),
        ("full", Budget::Instance(Instance::Full)),
        ("3@0.5", Budget::Instance("3@0.5".parse().unwrap())),
    ] {
        assert_eq!(text.parse::<Budget>().unwrap(), budget, "{text}");
    }
}

#[test]
fn what_is_no_budget_is_refused() {
    for text in [
        "0",
        "0%",
        "50",
        "1.01",
        "100",
        "12.5",
        "101%",
        "-5%",
        "nan",
        "inf",
        "",
        "%",
        "M",
        ".",
        "1.5",
        "1e9",
        "MACs",
        "0 MACs",
        "20X",
        "-3M",
        "nanG",
        "3@1.5",
        "99999999999T",
        "0ms",
        "ms",
        "8 m s",
        "99999999999999999999999s",
        ">=101%",
        ">=",
        "٣M",
    ] {
        let error = text.parse::<Budget>().unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
    }
    assert!(parse_macs("0.5").is_err());
    assert_eq!(parse_macs("1").unwrap(), 1);
}

#[test]
fn a_percentage_without_its_sign_is_asked_about() {
    for text in ["50", "12.5", "1.5", "100"] {
        let error = text.parse::<Budget>().unwrap_err().to_string();
        assert!(error.contains(&format!("did you mean {text}%")), "{error}");
        let error = parse_accuracy(text).unwrap_err().to_string();
        assert!(error.contains(&format!("did you mean {text}%")), "{error}");
    }
    let error = ">=80".parse::<Budget>().unwrap_err().to_string();
    assert!(error.contains("did you mean >=80%"), "{error}");
    for text in ["0", "101", "x", "-5"] {
        let error = parse_accuracy(text).unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }
}

#[test]
fn a_time_without_its_unit_is_asked_about() {
    let error = parse_duration(" 8").unwrap_err().to_string();
    assert!(error.contains("did you mean 8ms?"), "{error}");
    let error = parse_duration("soon").unwrap_err().to_string();
    assert!(!error.contains("did you mean"), "{error}");
}

#[test]
fn budgets_that_differ_little_are_shown_with_digits_that_differ() {
    for (budget, needed, text) in [
        (
            Budget::Macs(21_960_000),
            Budget::Macs(22_000_000),
            "21.96M MACs",
        ),
        (
            Budget::Macs(21_999_999),
            Budget::Macs(22_000_000),
            "21.999999M MACs",
        ),
        (
            Budget::Macs(20_000_000),
            Budget::Macs(22_000_000),
            "20.0M MACs",
        ),
        (Budget::Macs(998), Budget::Macs(999), "998 MACs"),
        (Budget::Share(0.333_385), Budget::Share(0.3334), "33.338%"),
        (
            Budget::MinAccuracy(0.833_34),
            Budget::MinAccuracy(0.8333),
            ">=83.334%",
        ),
        (
            Budget::Latency(Duration::from_nanos(8_309_999)),
            Budget::Latency(Duration::from_nanos(8_310_000)),
            "8.309999 ms",
        ),
    ] {
        let shown = budget.distinct_from(&needed);
        assert_eq!(shown, text);
        assert_ne!(shown, needed.to_string());
    }
}

#[test]
fn budgets_are_shown_short() {
    assert_eq!(Budget::Share(0.07).to_string(), "7%");
    assert_eq!(Budget::Macs(20_000_000).to_string(), "20.0M MACs");
    assert_eq!(Budget::MinAccuracy(0.8).to_string(), ">=80%");
    for (micros, text) in [(7, "7.00 us"), (8_314, "8.31 ms"), (999_600, "1.00 s")] {
        let time = Duration::from_micros(micros);
        assert_eq!(Budget::Latency(time).to_string(), text);
    }
}
