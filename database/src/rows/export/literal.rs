//! Values as SQL literals that read back bit for bit.

use std::io::{self, Write};

use super::super::schema::Encoding;
use super::super::statement::Statement;
use super::super::value::Value;
use super::json::hex;
use crate::rows::Error;

/// Writes literals; knows what SQLite reads a number as.
pub(super) struct Literals {
    /// The encoding of the texts that are written.
    pub from: Encoding,
    /// The encoding of the database that the script is for.
    pub to: Encoding,
    scratch: rusqlite::Connection,
}

impl Literals {
    pub fn new(from: Encoding, to: Encoding) -> Result<Literals, Error> {
        let failed = |source| Error::Sqlite { doing: "opening a scratch database".into(), source };
        Ok(Literals { from, to, scratch: rusqlite::Connection::open_in_memory().map_err(failed)? })
    }

    /// Writes a value.
    pub fn put(&self, value: &Value, into: &mut dyn Write) -> Result<(), Error> {
        match value {
            Value::Null => into.write_all(b"NULL")?,
            Value::Integer(value) => write!(into, "{value}")?,
            Value::Real(value) => into.write_all(self.real(*value)?.as_bytes())?,
            Value::Blob(bytes) => {
                into.write_all(b"x'")?;
                hex(bytes, into)?;
                into.write_all(b"'")?;
            }
            Value::Text(bytes) => self.text(bytes, into)?,
        }
        Ok(())
    }

    fn text(&self, bytes: &[u8], into: &mut dyn Write) -> io::Result<()> {
        let decoded = match self.from {
            Encoding::Utf8 => std::str::from_utf8(bytes).ok().map(std::borrow::Cow::Borrowed),
            other => other.decode(bytes).map(std::borrow::Cow::Owned),
        };
        match decoded {
            Some(text) if !text.contains(is_unprintable) => {
                into.write_all(b"'")?;
                for (index, piece) in text.split('\'').enumerate() {
                    into.write_all(if index > 0 { b"''" } else { b"" })?;
                    into.write_all(piece.as_bytes())?;
                }
                into.write_all(b"'")
            }
            // A cast takes bytes as text of the database's encoding, whatever they are.
            Some(text) if self.from != self.to => cast(&self.to.encode(&text), into),
            _ => cast(bytes, into),
        }
    }

    /// The shortest digits that SQLite reads as exactly this number. Its conversion from decimal is its own,
    /// so it is asked.
    fn real(&self, value: f64) -> Result<String, Error> {
        if value.is_infinite() {
            return Ok(if value > 0.0 { "9e999".into() } else { "-9e999".into() });
        }
        for digits in [format!("{value:?}"), format!("{value:.16e}"), format!("{value:.18e}")] {
            if self.reads_as(&digits, value)? {
                return Ok(digits);
            }
        }
        Ok(scaled(value))
    }

    fn reads_as(&self, digits: &str, value: f64) -> Result<bool, Error> {
        let doing = "reading a number";
        let mut statement = Statement::prepare(&self.scratch, "SELECT CAST(?1 AS REAL)", doing)?;
        statement.bind(1, &Value::Text(digits.into()), Encoding::Utf8)?;
        statement.step()?;
        Ok(statement.value(0, Encoding::Utf8)? == Value::Real(value))
    }
}

/// A number as an integer times powers of two: all of them are exact, in digits and in the product.
fn scaled(value: f64) -> String {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (mantissa, mut power) =
        if exponent == 0 { (fraction, -1074) } else { (fraction | (1 << 52), exponent - 1075) };
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let mut sql = format!("({sign}{mantissa}.0");
    while power != 0 {
        // 2^30 is exact in decimal; a division by it rounds only where the result itself cannot be said.
        let step = power.clamp(-30, 30);
        let factor = 1_i64 << step.abs();
        sql.push_str(&if step > 0 { format!("*{factor}.0") } else { format!("/{factor}.0") });
        power -= step;
    }
    sql.push(')');
    sql
}

fn cast(bytes: &[u8], into: &mut dyn Write) -> io::Result<()> {
    into.write_all(b"CAST(x'")?;
    hex(bytes, into)?;
    into.write_all(b"' AS TEXT)")
}

/// What must not stand in a script: a zero ends it, and the rest could do something to a terminal.
fn is_unprintable(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\t'))
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(literal: &str) -> Value {
        let scratch = rusqlite::Connection::open_in_memory().unwrap();
        let mut statement = Statement::prepare(&scratch, &format!("SELECT {literal}"), "testing").unwrap();
        statement.step().unwrap();
        statement.value(0, Encoding::Utf8).unwrap()
    }

    #[test]
    fn every_number_reads_back_bit_for_bit() {
        let literals = Literals::new(Encoding::Utf8, Encoding::Utf8).unwrap();
        let odd = [
            0.0,
            -0.0,
            1.0,
            0.1,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        // The bits of many numbers of all sizes, by a generator that always gives the same.
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
        let random = std::iter::from_fn(|| {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            Some(f64::from_bits(bits))
        });
        for value in odd.into_iter().chain(random.take(3000)).filter(|value| !value.is_nan()) {
            let mut sql = Vec::new();
            literals.put(&Value::Real(value), &mut sql).unwrap();
            let sql = String::from_utf8(sql).unwrap();
            assert_eq!(read_back(&sql), Value::Real(value), "{sql}");
            if value.is_finite() {
                assert_eq!(read_back(&scaled(value)), Value::Real(value), "{}", scaled(value));
            }
        }
    }

    #[test]
    fn texts_and_integers_read_back() {
        let literals = Literals::new(Encoding::Utf8, Encoding::Utf8).unwrap();
        for value in [
            Value::Integer(i64::MIN),
            Value::Integer(i64::MAX),
            Value::Null,
            Value::Text("it's\n'".into()),
            Value::Text(vec![0, b'a']),
            Value::Text(vec![0xff]),
            Value::Text("\u{1b}[31m".into()),
            Value::Blob(vec![]),
            Value::Blob((0..=255).collect()),
        ] {
            let mut sql = Vec::new();
            literals.put(&value, &mut sql).unwrap();
            let sql = String::from_utf8(sql).unwrap();
            assert!(!sql.contains('\u{1b}') && !sql.contains('\0'));
            assert_eq!(read_back(&sql), value, "{sql}");
        }
    }
}
