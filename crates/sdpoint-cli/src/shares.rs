//! Costs on the command line: shares of the full network, and
//! multiply-accumulates. Errors for likely mistakes suggest what was meant.

/// A number of multiply-accumulates below that of any network.
const FEW_MACS: u64 = 1000;

/// A share above 0, such as `150%` or `1.5`.
pub fn parse_share(text: &str) -> Result<f64, String> {
    parse(text, f64::INFINITY)
}

/// The cost of a cascade as a share. Useful values are below 1, so `40` probably
/// means 40 %.
pub fn parse_cascade(text: &str) -> Result<f64, String> {
    parse(text, 1.0)
}

/// The cost of an ensemble as a share, which may be a multiple of the full
/// network's.
pub fn parse_ensemble(text: &str) -> Result<f64, String> {
    parse(text, 10.0)
}

/// The share of training images that is held out, from 0 to 50 %.
pub fn parse_val_share(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (share, unit) = number(text);
    match share {
        Some(share) if unit == 1.0 && (1.0..=50.0).contains(&share) => Err(format!(
            "that is {text} times the training images: did you mean {text}%?"
        )),
        Some(share) if (0.0..=0.5).contains(&share) => Ok(share),
        _ => Err("give a share of the training images from 0 to 50%, such as 10% or 0.1".into()),
    }
}

/// The value of a number or a percentage, if it is one, and its unit.
fn number(text: &str) -> (Option<f64>, f64) {
    let (number, unit) = match text.strip_suffix('%') {
        Some(percent) => (percent, 0.01),
        None => (text, 1.0),
    };
    let value = number.trim().parse::<f64>().ok();
    (value.map(|value| value * unit), unit)
}

/// Parses a share. Numbers above `most` without a percent sign are refused.
fn parse(text: &str, most: f64) -> Result<f64, String> {
    let text = text.trim();
    let (share, unit) = number(text);
    match share {
        Some(share) if unit == 1.0 && share > most && share <= 1e3 => Err(format!(
            "that is {text} times the full network's cost: did you mean {text}%?"
        )),
        Some(share) if (1e-6..=1e3).contains(&share) => Ok(share),
        _ => Err("give a share of the full network's cost, such as 150% or 1.5".into()),
    }
}

/// Parses a number of multiply-accumulates such as `20M`.
pub fn parse_macs(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text.ends_with('%') {
        return Err(format!("for a share of the cost, give --budget {text}"));
    }
    match sdpoint::core::parse_macs(text) {
        Ok(macs) if macs < FEW_MACS => Err(format!(
            "no network has so few multiply-accumulates: did you mean {macs}M, or --budget {macs}%?"
        )),
        other => other.map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages_or_small_numbers() {
        assert_eq!(parse_share("150%"), Ok(1.5));
        assert_eq!(parse_cascade(" 40 % "), Ok(0.4));
        assert_eq!(parse_cascade("0.4"), Ok(0.4));
        assert_eq!(parse_cascade("150%"), Ok(1.5));
        assert_eq!(parse_ensemble("1.5"), Ok(1.5));
        for bad in ["", "%", "0", "-1", "nan", "inf", "1e9", "half"] {
            let error = parse_cascade(bad).unwrap_err();
            assert!(error.contains("such as 150%"), "{bad}: {error}");
        }
    }

    #[test]
    fn at_most_half_of_the_training_images_are_held_out() {
        assert_eq!(parse_val_share("10%"), Ok(0.1));
        assert_eq!(parse_val_share(" 0.05 "), Ok(0.05));
        assert_eq!(parse_val_share("0"), Ok(0.0));
        assert_eq!(parse_val_share("50%"), Ok(0.5));
        assert!(parse_val_share("10").unwrap_err().contains("10%?"));
        for bad in ["", "-1%", "51%", "0.6", "nan", "60", "half"] {
            let error = parse_val_share(bad).unwrap_err();
            assert!(error.contains("from 0 to 50%"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_percentage_without_its_sign_gets_a_suggestion() {
        for (error, meant) in [
            (parse_cascade("40").unwrap_err(), "40%"),
            (parse_cascade("1.5").unwrap_err(), "1.5%"),
            (parse_ensemble("150").unwrap_err(), "150%"),
            (parse_macs("50").unwrap_err(), "50M, or --budget 50%"),
            (parse_macs("50%").unwrap_err(), "--budget 50%"),
        ] {
            assert!(error.contains(meant), "{error}");
        }
        assert_eq!(parse_macs("1k"), Ok(1000));
    }
}
