//! Points in time as the replication protocol writes them.

/// Microseconds since 2000-01-01 00:00:00 UTC, negative before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// 1970-01-01 to 2000-01-01.
const EPOCH_OFFSET_MICROS: i64 = 946_684_800_000_000;

impl Timestamp {
    /// From microseconds since 1970-01-01 00:00:00 UTC.
    pub fn from_unix_micros(micros: i64) -> Timestamp {
        Timestamp(micros.saturating_sub(EPOCH_OFFSET_MICROS))
    }

    /// Microseconds since 1970-01-01 00:00:00 UTC.
    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(EPOCH_OFFSET_MICROS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_the_year_2000() {
        assert_eq!(Timestamp(0).unix_micros(), 946_684_800_000_000);
        assert_eq!(Timestamp::from_unix_micros(0).0, -946_684_800_000_000);
        assert_eq!(Timestamp(i64::MAX).unix_micros(), i64::MAX);
    }
}
