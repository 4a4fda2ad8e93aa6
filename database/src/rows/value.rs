//! One value of a row, bit for bit as SQLite has it.

use std::hash::{Hash, Hasher};

/// A value. Two are equal where they have the same storage class and the same bits: 0.0 is not -0.0, 1 is not
/// 1.0, and texts are compared as bytes, whatever collation their column has.
#[derive(Clone, Debug)]
pub enum Value {
    /// NULL; SQLite stores NaN as it.
    Null,
    /// An integer.
    Integer(i64),
    /// A real number.
    Real(f64),
    /// A text in the database's encoding (UTF-8, or UTF-16 of either byte order). It may be no valid text.
    Text(Vec<u8>),
    /// A blob.
    Blob(Vec<u8>),
}

impl Value {
    /// Whether it is NULL.
    pub const fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// What it takes in memory besides itself, in bytes.
    pub const fn len(&self) -> usize {
        match self {
            Value::Text(bytes) | Value::Blob(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Whether it takes nothing besides itself.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Integer(one), Value::Integer(other)) => one == other,
            (Value::Real(one), Value::Real(other)) => one.to_bits() == other.to_bits(),
            (Value::Text(one), Value::Text(other)) | (Value::Blob(one), Value::Blob(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Value::Null => {}
            Value::Integer(value) => value.hash(state),
            Value::Real(value) => value.to_bits().hash(state),
            Value::Text(bytes) | Value::Blob(bytes) => bytes.hash(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_equal_bit_for_bit_only() {
        assert_ne!(Value::Real(0.0), Value::Real(-0.0));
        assert_ne!(Value::Integer(1), Value::Real(1.0));
        assert_ne!(Value::Text(b"a".to_vec()), Value::Blob(b"a".to_vec()));
        assert_eq!(Value::Real(f64::INFINITY), Value::Real(f64::INFINITY));
    }
}
