//! What the text of a value means: addresses, shares, sizes and times, and patterns of names.
//!
//! In: what was typed. Out: a number in one unit, an address, regular expressions. What may fail: a text that is none; the reason names what is valid.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::error::Error;
use crate::schema::pattern;

/// `127.0.0.1:8080`, or a port of the loopback address.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().map_err(|_| "it is neither a port nor an IP address with a port".to_owned()),
    }
}

/// A share in percent, as parts of a million.
pub(super) fn percent(text: &str) -> Result<u32, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(((percent * 1e4).round() as u32).max(1)),
        Ok(_) => Err("it must be more than 0 and at most 100".to_owned()),
        Err(_) => Err("it is not a number".to_owned()),
    }
}

/// A size in bytes, with PostgreSQL's units: `500MB`, `1 GB`, `65536`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return Err("valid units are \"B\", \"kB\", \"MB\", \"GB\" and \"TB\"".to_owned()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}

/// A time with PostgreSQL's units: `30s`, `5min`; a plain number is milliseconds, as for `lock_timeout`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("valid units are \"ms\", \"s\", \"min\", \"h\" and \"d\"".to_owned()),
    };
    // lock_timeout is a 32-bit number of milliseconds.
    match number.checked_mul(milliseconds) {
        Some(total) if total <= i32::MAX as u64 => Ok(Duration::from_millis(total)),
        _ => Err("it is too long".to_owned()),
    }
}

fn number_and_unit(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| "it does not begin with a number".to_owned())?;
    Ok((number, text[end..].trim_start()))
}

/// The regular expressions of patterns of names that have no schema.
pub(super) fn expressions(option: &str, values: &[String]) -> crate::error::Result<Vec<String>> {
    let patterns = values.iter().flat_map(|value| pattern::split_list(value));
    patterns
        .map(|pattern| {
            let mut parts = pattern::regular_expressions(&pattern);
            match (parts.pop(), parts.is_empty()) {
                (Some(expression), true) => Ok(expression),
                _ => Err(Error::usage(format!("invalid {option} value: \"{pattern}\""))
                    .with_hint("Put a name that holds a dot into double quotes.")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_postgresql() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("8kB"), Ok(8192));
        assert_eq!(size("1 gb"), Ok(1 << 30));
        assert_eq!(size("16777215TB"), Ok(16_777_215 << 40));
        for wrong in ["", "GB", "1.5GB", "-1", "5 parsecs", "16777216TB", "99999999999999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_the_units_of_postgresql() {
        assert_eq!(duration("250"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2 min"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "1 fortnight", "25d", "1m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_a_number_of_percent() {
        for (text, parts) in [("5", 50_000), ("0.1", 1000), ("100%", 1_000_000), ("0.00001", 1)] {
            assert_eq!(percent(text), Ok(parts));
        }
        for wrong in ["0", "-1", "101", "", "NaN", "many"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_is_one_of_this_host() {
        assert_eq!(address("8080"), "127.0.0.1:8080".parse().map_err(|_| String::new()));
        assert_eq!(address("[::]:8080"), "[::]:8080".parse().map_err(|_| String::new()));
        for wrong in ["", "host:80", "127.0.0.1", "99999", ":80"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
