//! Durations as people write them: whole numbers with `s`, `m`, `h`, `d` or `w`, alone or combined
//! from the largest unit to the smallest (`90s`, `1h30m`, `1w2d`).
//!
//! What could mean two things is refused: months and years (of which length?), fractions, signs, a
//! number without a unit, a unit twice or out of order, and zero.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// The units, largest first, with their seconds.
const UNITS: [(char, u32); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The longest text that is read as a duration, in bytes: every unit with ten digits before it.
pub const DURATION_TEXT_MAX: usize = 55;

/// A duration of whole seconds, from one second to about 136 years.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seconds(NonZeroU32);

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// There is nothing in it.
    #[error("a duration is missing; write for example 90s, 10m or 1h30m")]
    Empty,
    /// A number stands without a unit.
    #[error("a duration needs a unit after each number (s, m, h, d, w), as in 90s or 1h30m")]
    NoUnit,
    /// A unit stands without a number, or something is neither digit nor unit.
    #[error("{0:?} does not belong in a duration; write whole numbers with s, m, h, d or w, as in 1h30m")]
    Unexpected(char),
    /// A unit is there twice, or after a smaller one.
    #[error("units of a duration go from the largest to the smallest, each once, as in 1w2d")]
    Order,
    /// It is zero.
    #[error("a duration must be longer than zero")]
    Zero,
    /// More than `u32::MAX` seconds.
    #[error("a duration must be shorter than 136 years")]
    TooLong,
}

impl Seconds {
    /// `None` for zero.
    pub const fn new(seconds: u32) -> Option<Seconds> {
        match NonZeroU32::new(seconds) {
            Some(seconds) => Some(Seconds(seconds)),
            None => None,
        }
    }

    /// The number of seconds, at least one.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The same as the standard library's type.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.get() as u64)
    }
}

impl FromStr for Seconds {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Seconds, DurationError> {
        if text.is_empty() {
            return Err(DurationError::Empty);
        }
        if text.len() > DURATION_TEXT_MAX {
            return Err(DurationError::TooLong);
        }
        let mut total = 0u32;
        // The number being read; `None` before its first digit.
        let mut number: Option<u32> = None;
        let mut units = UNITS.iter();
        for c in text.chars() {
            if let Some(digit) = c.to_digit(10) {
                let next = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit));
                number = Some(next.ok_or(DurationError::TooLong)?);
                continue;
            }
            let (Some(count), true) = (number.take(), UNITS.iter().any(|unit| unit.0 == c)) else {
                return Err(DurationError::Unexpected(c));
            };
            // What `find` passes over is gone: a unit cannot come again, nor a larger one after it.
            let (_, seconds) = units.find(|unit| unit.0 == c).ok_or(DurationError::Order)?;
            let seconds = count.checked_mul(*seconds).and_then(|n| total.checked_add(n));
            total = seconds.ok_or(DurationError::TooLong)?;
        }
        if number.is_some() {
            return Err(DurationError::NoUnit);
        }
        Seconds::new(total).ok_or(DurationError::Zero)
    }
}

/// The shortest form that reads back as the same duration: `1h30m` for 5,400 seconds.
impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.get();
        for (unit, seconds) in UNITS {
            let count = rest / seconds;
            rest %= seconds;
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Result<u32, DurationError> {
        text.parse().map(Seconds::get)
    }

    #[test]
    fn units_alone_and_combined() {
        let cases =
            [("1s", 1), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172_800), ("1w2d", 777_600)];
        for (text, expected) in cases {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        assert_eq!(seconds("1w1d1h1m1s"), Ok(694_861));
        assert_eq!(seconds("0h5m"), Ok(300), "a part may be zero, the whole may not");
        assert_eq!(seconds("007s"), Ok(7));
    }

    #[test]
    fn what_could_be_misread_is_refused() {
        use DurationError::*;
        let cases = [
            ("", Empty),
            ("90", NoUnit),
            ("1h30", NoUnit),
            ("h", Unexpected('h')),
            ("1hm", Unexpected('m')),
            ("1.5h", Unexpected('.')),
            ("-1s", Unexpected('-')),
            ("+1s", Unexpected('+')),
            ("1 h", Unexpected(' ')),
            ("1h 30m", Unexpected(' ')),
            ("1M", Unexpected('M')),
            ("1y", Unexpected('y')),
            ("5ms", Unexpected('s')),
            ("1S", Unexpected('S')),
            ("٣s", Unexpected('٣')),
            ("1m1h", Order),
            ("1h1h", Order),
            ("0s", Zero),
            ("0h0m", Zero),
            ("4294967296s", TooLong),
            ("7102w", TooLong),
            ("4294967295s1s", Order),
            ("7101w4294967295s", TooLong),
            ("99999999999999999999999999s", TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(seconds(text), Err(error), "{text}");
        }
        assert_eq!(seconds(&format!("{}1s", "0".repeat(60))), Err(TooLong));
        assert_eq!(seconds("4294967295s"), Ok(u32::MAX));
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same() {
        for n in [1, 59, 60, 61, 3599, 3600, 5400, 86_400, 90_061, 604_800, 777_600, u32::MAX] {
            let duration = Seconds::new(n).unwrap();
            assert_eq!(duration.to_string().parse(), Ok(duration), "{duration}");
            assert!(duration.to_string().len() <= DURATION_TEXT_MAX);
        }
        assert_eq!(Seconds::new(5400).unwrap().to_string(), "1h30m");
        assert_eq!(seconds("1h90m").map(|n| Seconds::new(n).unwrap().to_string()), Ok("2h30m".into()));
    }
}
