//! From the text form of a built-in type's value to its binary form.
//!
//! In: what the type's output function gives in a session with the settings of this program (ISO dates, time zone UTC, floats to the last digit). Out: what its
//! receive function takes. A server reads the binary form of these types several times faster than their text. Only what is common is known: for
//! any other value (a date before Christ, infinity) there is no binary form here, and the text, which every server reads, is to be sent.
//!
//! Formats: the `*_recv` functions of src/backend/utils/adt; none has changed since PostgreSQL 10.

use bytes::{BufMut, BytesMut};

/// OIDs of the types that are known here.
const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;

/// The longest numeric that is taken, in characters.
const LONGEST_NUMERIC: usize = 1000;

/// The OID of the array type whose elements are of the built-in type `type_oid`; `None` where the type isn't known here.
pub fn array_of(type_oid: u32) -> Option<u32> {
    Some(match type_oid {
        BOOL => 1000,
        INT2 => 1005,
        INT4 => 1007,
        INT8 => 1016,
        FLOAT4 => 1021,
        FLOAT8 => 1022,
        TIMESTAMP => 1115,
        DATE => 1182,
        TIMESTAMPTZ => 1185,
        NUMERIC => 1231,
        UUID => 2951,
        _ => return None,
    })
}

/// Appends the binary form of the value of type `type_oid` that `text` is; `None`, with nothing appended, where there is none here.
pub fn append(type_oid: u32, text: &[u8], out: &mut BytesMut) -> Option<()> {
    match type_oid {
        BOOL => match text {
            b"t" => out.put_u8(1),
            b"f" => out.put_u8(0),
            _ => return None,
        },
        INT2 => out.put_i16(number(text)?),
        INT4 => out.put_i32(number(text)?),
        INT8 => out.put_i64(number(text)?),
        FLOAT4 => out.put_f32(number::<f32>(text).filter(|float| float.is_finite())?),
        FLOAT8 => out.put_f64(number::<f64>(text).filter(|float| float.is_finite())?),
        DATE => {
            let (days, rest) = date(text)?;
            out.put_i32(rest.is_empty().then_some(days)?);
        }
        TIMESTAMP => out.put_i64(timestamp(text)?),
        TIMESTAMPTZ => out.put_i64(timestamp(text.strip_suffix(b"+00")?)?),
        NUMERIC => return numeric(text, out),
        UUID => out.put_u128(uuid(text)?),
        _ => return None,
    }
    Some(())
}

fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Digits and nothing else.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().all(u8::is_ascii_digit).then(|| number(text)).flatten()
}

/// Days since 2000-01-01, and what follows; years have four digits.
fn date(text: &[u8]) -> Option<(i32, &[u8])> {
    let (&[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2], rest) = text.split_first_chunk::<10>()? else {
        return None;
    };
    let (year, month, day) = (digits(&[y1, y2, y3, y4])?, digits(&[m1, m2])?, digits(&[d1, d2])?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Of a year that begins in March, so that a leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days = 365 * year + leap_days + (153 * month + 2) / 5 + day;
    // That of 2000-01-01.
    let epoch = 365 * 1999 + 499 - 19 + 4 + (153 * 10 + 2) / 5 + 1;
    Some(((days - epoch).try_into().ok()?, rest))
}

/// Microseconds since 2000-01-01 00:00:00.
fn timestamp(text: &[u8]) -> Option<i64> {
    let (days, rest) = date(text)?;
    let (&[b' ', h1, h2, b':', m1, m2, b':', s1, s2], rest) = rest.split_first_chunk::<9>()? else {
        return None;
    };
    let (hours, minutes, seconds) = (digits(&[h1, h2])?, digits(&[m1, m2])?, digits(&[s1, s2])?);
    let micros = match rest.strip_prefix(b".") {
        None => rest.is_empty().then_some(0)?,
        Some(fraction @ [_, ..]) if fraction.len() <= 6 => {
            digits(fraction)? * 10_i64.pow(6 - u32::try_from(fraction.len()).ok()?)
        }
        Some(_) => return None,
    };
    let time = (hours * 60 + minutes) * 60 + seconds;
    Some((i64::from(days) * 86_400 + time) * 1_000_000 + micros)
}

/// Digits to the base of 10,000, aligned at the decimal point.
fn numeric(text: &[u8], out: &mut BytesMut) -> Option<()> {
    const POSITIVE: u16 = 0;
    const NEGATIVE: u16 = 0x4000;
    let (sign, text) = match text.strip_prefix(b"-") {
        Some(text) => (NEGATIVE, text),
        None => (POSITIVE, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (text.get(..point)?, text.get(point + 1..)?),
        None => (text, &[][..]),
    };
    let known = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    if whole.is_empty() || text.len() > LONGEST_NUMERIC || !known {
        return None;
    }
    let mut all = [0_u16; LONGEST_NUMERIC / 4 + 2];
    let value = |group: &[u8]| group.iter().fold(0, |value, digit| 10 * value + u16::from(digit - b'0'));
    let whole_groups = whole.rchunks(4).rev().map(value);
    // The last group of a fraction may have fewer digits.
    let fraction_groups =
        fraction.chunks(4).map(|group| (group.len()..4).fold(value(group), |value, _| 10 * value));
    let mut len = 0;
    for (place, group) in all.iter_mut().zip(whole_groups.chain(fraction_groups)) {
        *place = group;
        len += 1;
    }
    // As the server writes it: no groups of zeros around the others.
    let groups = all.get(..len)?;
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    let end = groups.iter().rposition(|group| *group != 0).map_or(zeros, |last| last + 1);
    let groups = groups.get(zeros..end)?;
    let weight = if groups.is_empty() { 0 } else { whole.len().div_ceil(4) as i16 - 1 - zeros as i16 };
    out.put_u16(groups.len() as u16);
    out.put_i16(weight);
    out.put_u16(sign);
    out.put_u16(fraction.len() as u16);
    groups.iter().for_each(|group| out.put_u16(*group));
    Some(())
}

fn uuid(text: &[u8]) -> Option<u128> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 {
        return None;
    }
    text.iter().enumerate().try_fold(0, |value, (at, &byte)| match (HYPHENS.contains(&at), byte) {
        (true, b'-') => Some(value),
        (false, byte) => Some(value << 4 | u128::from(char::from(byte).to_digit(16)?)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn binary(type_oid: u32, text: &str) -> Option<Vec<u8>> {
        let mut out = BytesMut::from(&b"before"[..]);
        let appended = append(type_oid, text.as_bytes(), &mut out);
        assert_eq!(&out[..6], b"before");
        assert!(appended.is_some() || out.len() == 6, "nothing is appended without success");
        appended.map(|()| out[6..].to_vec())
    }

    #[test]
    fn values_have_the_bytes_that_the_receive_functions_take() {
        let micros = |micros: i64| Some(micros.to_be_bytes().to_vec());
        assert_eq!(binary(BOOL, "t"), Some(vec![1]));
        assert_eq!(binary(INT2, "-32768"), Some(vec![0x80, 0]));
        assert_eq!(binary(INT4, "258"), Some(vec![0, 0, 1, 2]));
        assert_eq!(binary(INT8, "-1"), Some(vec![0xff; 8]));
        assert_eq!(binary(FLOAT8, "-1e-07"), Some((-1e-7_f64).to_be_bytes().to_vec()));
        assert_eq!(binary(DATE, "2000-01-01"), Some(vec![0; 4]));
        assert_eq!(binary(DATE, "2024-03-01"), Some(8826_i32.to_be_bytes().to_vec()));
        assert_eq!(binary(DATE, "0001-01-01"), Some((-730_119_i32).to_be_bytes().to_vec()));
        assert_eq!(binary(TIMESTAMP, "1999-12-31 23:59:59.9"), micros(-100_000));
        assert_eq!(binary(TIMESTAMPTZ, "2000-01-02 01:02:03.000045+00"), micros(90_123_000_045));
        assert_eq!(binary(NUMERIC, "-12345.6"), Some(vec![0, 3, 0, 1, 0x40, 0, 0, 1, 0, 1, 9, 41, 23, 112]));
        assert_eq!(binary(NUMERIC, "0.00"), Some(vec![0, 0, 0, 0, 0, 0, 0, 2]));
        assert_eq!(binary(NUMERIC, "0.000012"), Some(vec![0, 1, 0xff, 0xfe, 0, 0, 0, 6, 4, 0xb0]));
        assert_eq!(binary(NUMERIC, "50000"), Some(vec![0, 1, 0, 1, 0, 0, 0, 0, 0, 5]));
        assert_eq!(binary(UUID, "00000000-0000-0000-0000-0000000000ff").map(|uuid| uuid[15]), Some(255));
    }

    #[test]
    fn what_is_not_known_is_left_to_the_server() {
        for (type_oid, text) in [
            (BOOL, "true"),
            (INT2, "32768"),
            (INT4, "1.0"),
            (INT8, ""),
            (FLOAT4, "NaN"),
            (FLOAT8, "-Infinity"),
            (DATE, "infinity"),
            (DATE, "0044-03-15 BC"),
            (DATE, "12024-01-01"),
            (DATE, "2024-13-01"),
            (TIMESTAMP, "2024-01-01 00:00:00 BC"),
            (TIMESTAMP, "2024-01-01 00:00:00."),
            (TIMESTAMPTZ, "2024-01-01 00:00:00"),
            (TIMESTAMPTZ, "2024-01-01 00:00:00+01"),
            (NUMERIC, "NaN"),
            (NUMERIC, ".5"),
            (NUMERIC, "-"),
            (NUMERIC, "1e5"),
            (UUID, "00000000-0000-0000-0000-0000000000fg"),
            (25, "text"),
        ] {
            assert_eq!(binary(type_oid, text), None, "{text}");
        }
        assert_eq!(binary(NUMERIC, &"1".repeat(LONGEST_NUMERIC + 1)), None);
    }

    proptest! {
        #[test]
        fn days_follow_each_other(days in -700_000..2_900_000_i64) {
            // By the calendar, day for day.
            let (mut year, mut left) = (2000_i64, days);
            let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            while left < 0 { year -= 1; left += 365 + i64::from(leap(year)); }
            while left >= 365 + i64::from(leap(year)) { left -= 365 + i64::from(leap(year)); year += 1; }
            let lengths = [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let mut month = 0;
            while left >= lengths[month] { left -= lengths[month]; month += 1; }
            let text = format!("{year:04}-{:02}-{:02}", month + 1, left + 1);
            prop_assert_eq!(binary(DATE, &text), Some(i32::try_from(days).unwrap().to_be_bytes().to_vec()));
        }

        #[test]
        fn any_text_is_taken_or_refused(type_oid in prop::sample::select(vec![16, 20, 21, 23, 700, 701, 1082, 1114, 1184, 1700, 2950]), text in any::<Vec<u8>>()) {
            let mut out = BytesMut::new();
            let appended = append(type_oid, &text, &mut out);
            prop_assert!(appended.is_some() || out.is_empty());
        }
    }
}
