//! Rows and keys as JSON: written for conflicts and answers, read for settlements.
//!
//! Integers are JSON integers and reals have a point or an exponent; infinities are `{"$real":"inf"}` and
//! `{"$real":"-inf"}`, blobs `{"$blob":"hex"}`, texts that are none in their encoding `{"$text":"hex"}`.

use serde_json::{Map, Value as Json, json};
use sqlrsync_database::rows::{Encoding, Key, Row, Table, Value};

/// A value.
pub(in crate::backend) fn cell(value: &Value, encoding: Encoding) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Integer(integer) => (*integer).into(),
        Value::Real(real) => match serde_json::Number::from_f64(*real) {
            Some(number) => Json::Number(number),
            None if real.is_nan() => Json::Null,
            None => json!({"$real": if *real > 0.0 { "inf" } else { "-inf" }}),
        },
        Value::Text(text) => match encoding.decode(text) {
            Some(text) => Json::String(text),
            None => json!({"$text": hex(text)}),
        },
        Value::Blob(blob) => json!({"$blob": hex(blob)}),
    }
}

/// The value that JSON stands for; `None` where it stands for none.
fn value(cell: &Json, encoding: Encoding) -> Option<Value> {
    Some(match cell {
        Json::Null => Value::Null,
        Json::Number(number) => match number.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => Value::Real(number.as_f64().filter(|_| number.is_f64())?),
        },
        Json::String(text) => Value::Text(encoding.encode(text)),
        Json::Object(object) => match only(object)? {
            ("$real", "inf") => Value::Real(f64::INFINITY),
            ("$real", "-inf") => Value::Real(f64::NEG_INFINITY),
            ("$text", digits) => Value::Text(unhex(digits)?),
            ("$blob", digits) => Value::Blob(unhex(digits)?),
            _ => return None,
        },
        Json::Bool(_) | Json::Array(_) => return None,
    })
}

/// The one member of an object, which is a string.
fn only(object: &Map<String, Json>) -> Option<(&str, &str)> {
    let (name, value) = object.iter().next().filter(|_| object.len() == 1)?;
    Some((name, value.as_str()?))
}

/// A key, by column; the rowid where it is that.
pub(super) fn key(table: &Table, key: &Key, encoding: Encoding) -> Json {
    match key {
        Key::Rowid(rowid) => json!({table.rowid.as_deref().unwrap_or("rowid"): rowid}),
        Key::Declared(values) => {
            let names = table.key.iter().filter_map(|column| table.columns.get(*column));
            let members =
                names.zip(values).map(|(column, value)| (column.name.clone(), cell(value, encoding)));
            Json::Object(members.collect())
        }
    }
}

/// A key as a person reads it, and as `--row` takes it: values of SQL with commas between. Of a long value there is
/// only the beginning.
pub(super) fn key_text(key: &Key, encoding: Encoding, len_max: usize) -> String {
    let text = |value: &Value| match value {
        Value::Null => "null".to_owned(),
        Value::Integer(integer) => integer.to_string(),
        Value::Real(real) => format!("{real:?}"),
        Value::Blob(blob) => format!("x'{}'", hex(&blob[..blob.len().min(len_max)])),
        Value::Text(text) => {
            let text = encoding.decode(text).unwrap_or_else(|| "?".to_owned());
            format!("'{}'", text.chars().take(len_max).collect::<String>().replace('\'', "''"))
        }
    };
    match key {
        Key::Rowid(rowid) => rowid.to_string(),
        Key::Declared(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
    }
}

/// The key that an object stands for in a table.
pub(super) fn parse_key(table: &Table, encoding: Encoding, object: &Map<String, Json>) -> Option<Key> {
    let columns = || table.key.iter().filter_map(|column| table.columns.get(*column));
    if columns().next().is_some() && columns().all(|column| object.contains_key(&column.name)) {
        let values = columns().map(|column| value(object.get(&column.name)?, encoding));
        return values.collect::<Option<Vec<_>>>().map(Key::Declared);
    }
    let rowid = object.get(table.rowid.as_deref().unwrap_or("rowid")).filter(|_| object.len() == 1)?;
    rowid.as_i64().map(Key::Rowid)
}

/// A row, by column.
pub(super) fn row(table: &Table, row: Option<&Row>, encoding: Encoding) -> Json {
    let Some(row) = row else { return Json::Null };
    let members = table.columns.iter().zip(&row.values);
    Json::Object(members.map(|(column, value)| (column.name.clone(), cell(value, encoding))).collect())
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_as_sql_has_its_values() {
        let values = vec![
            Value::Integer(-3),
            Value::Text(b"it's long".to_vec()),
            Value::Blob(vec![0, 255]),
            Value::Null,
        ];
        assert_eq!(key_text(&Key::Declared(values), Encoding::Utf8, 4), "-3,'it''s',x'00ff',null");
        assert_eq!(key_text(&Key::Rowid(17), Encoding::Utf8, 4), "17");
    }

    #[test]
    fn every_value_comes_back_from_its_json() {
        let texts = [b"a\"\n\xc3\xa9".to_vec(), b"\xff".to_vec(), Vec::new()];
        let values = [i64::MIN, -1, 0, i64::MAX].map(Value::Integer).into_iter();
        let values = values.chain([0.0, -0.0, 1.0, 1e300, f64::INFINITY, f64::NEG_INFINITY].map(Value::Real));
        let values = values.chain(texts.clone().map(Value::Text)).chain(texts.map(Value::Blob));
        for one in values.chain([Value::Null]) {
            let text = cell(&one, Encoding::Utf8).to_string();
            let back: Json = serde_json::from_str(&text).unwrap();
            assert_eq!(value(&back, Encoding::Utf8), Some(one), "{text}");
        }
        let wide = Value::Text(Encoding::Utf16le.encode("aé"));
        assert_eq!(cell(&wide, Encoding::Utf16le), json!("aé"));
        for nonsense in ["true", "[]", "{}", r#"{"$blob":"0"}"#, r#"{"$blob":"0g"}"#, "18446744073709551615"]
        {
            assert_eq!(value(&serde_json::from_str(nonsense).unwrap(), Encoding::Utf8), None, "{nonsense}");
        }
    }
}
