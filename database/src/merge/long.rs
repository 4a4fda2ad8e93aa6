//! Images of rows in the store: short ones as bytes in their column, long ones in a table of their own, to and
//! from which they go piece by piece. What is in memory of a long one is the row itself, once.

use std::io::{BufReader, BufWriter, Write};

use rusqlite::types::{ToSql, ToSqlOutput};
use rusqlite::{Connection, MAIN_DB};

use crate::rows::{self, Row};

use super::Error;

/// An image of more bytes is long.
const LONG_IMAGE: usize = 64 << 10;
/// Bytes of a piece. What is longer goes as it is.
const PIECE: usize = 32 << 10;

/// What stands in the column of an image.
pub(super) enum Image {
    /// The image.
    Bytes(Vec<u8>),
    /// Where it is in the table `long`.
    Long(i64),
}

impl ToSql for Image {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Image::Bytes(bytes) => bytes.to_sql(),
            Image::Long(id) => id.to_sql(),
        }
    }
}

/// Keeps the image of a row. A long one stays when its row takes another one: it is the store's own file.
pub(super) fn put(db: &Connection, row: &Row) -> Result<Image, Error> {
    let len = row.bytes_len();
    if len <= LONG_IMAGE {
        return Ok(Image::Bytes(row.to_bytes()));
    }
    db.prepare_cached("INSERT INTO long(image) VALUES (zeroblob(?1))")
        .and_then(|mut statement| statement.execute([len as i64]))
        .map_err(Error::store)?;
    let id = db.last_insert_rowid();
    let blob = db.blob_open(MAIN_DB, "long", "image", id, false).map_err(Error::store)?;
    let mut out = BufWriter::with_capacity(PIECE, blob);
    row.write_to(&mut out).and_then(|()| out.flush()).map_err(Error::piece)?;
    Ok(Image::Long(id))
}

/// A long image that was kept.
pub(super) fn get(db: &Connection, id: i64) -> Result<Row, Error> {
    let blob = db.blob_open(MAIN_DB, "long", "image", id, true).map_err(Error::store)?;
    let len = blob.len() as u64;
    Row::read_from(BufReader::with_capacity(PIECE, blob), len).map_err(|error| match error {
        rows::Error::Read(error) => Error::piece(error),
        error => error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Value;

    #[test]
    fn images_of_all_lengths_come_back() {
        let db = Connection::open("").unwrap();
        db.execute_batch("CREATE TABLE long(id INTEGER PRIMARY KEY, image BLOB NOT NULL)").unwrap();
        let lengths = [0, PIECE - 1, PIECE, LONG_IMAGE - 10, LONG_IMAGE, 5 * PIECE + 3, 3_000_000];
        for (at, length) in lengths.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8 ^ (at >> 8) as u8).collect();
            let values = vec![Value::Integer(7), Value::Text(bytes.clone()), Value::Null, Value::Blob(bytes)];
            let row = Row { rowid: (at % 2 == 0).then_some(-1), values };
            let back = match put(&db, &row).unwrap() {
                Image::Bytes(image) => {
                    assert!(image.len() <= LONG_IMAGE);
                    Row::from_bytes(&image).unwrap()
                }
                Image::Long(id) => get(&db, id).unwrap(),
            };
            assert_eq!((back.rowid, back.values), (row.rowid, row.values));
        }
    }

    #[test]
    fn a_long_image_that_is_damaged_or_not_there_is_an_error() {
        let db = Connection::open("").unwrap();
        db.execute_batch("CREATE TABLE long(id INTEGER PRIMARY KEY, image BLOB NOT NULL)").unwrap();
        let row = Row { rowid: None, values: vec![Value::Blob(vec![1; 2 * LONG_IMAGE])] };
        let Image::Long(id) = put(&db, &row).unwrap() else { panic!("it is long") };
        db.execute("UPDATE long SET image = substr(image, 1, length(image) - 1)", []).unwrap();
        assert!(matches!(get(&db, id), Err(Error::Rows(rows::Error::Encoding(_)))));
        assert!(matches!(get(&db, id + 1), Err(Error::Temporary(_))));
    }
}
