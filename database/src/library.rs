//! The SQLite that this crate was linked with: is it new enough and compiled as it must be?

use rusqlite::Connection;

use crate::error::Error;

/// Before 3.51.3 two connections that write or checkpoint as the WAL is reset can corrupt a database.
const VERSION_MIN: i32 = 3_051_003;

/// What SQLite must have been compiled with; `build.rs` sees to it where SQLite is built with this crate.
const OPTIONS: [&str; 2] = ["ENABLE_DBPAGE_VTAB", "ENABLE_SNAPSHOT"];

/// Checks, at the start of a program, that its SQLite is new enough and has the options that reading
/// and writing live files needs.
///
/// # Errors
/// [`Error::Library`] says what is missing. It is the fault of who built the program.
pub fn check_library() -> Result<(), Error> {
    check_version(rusqlite::version_number())?;
    let library = |error: rusqlite::Error| Error::Library(error.to_string());
    let connection = Connection::open_in_memory().map_err(library)?;
    let mut statement = connection.prepare("PRAGMA compile_options").map_err(library)?;
    let options = statement.query_map([], |row| row.get::<_, String>(0)).map_err(library)?;
    let options = options.collect::<Result<Vec<_>, _>>().map_err(library)?;
    check_options(&options)
}

fn check_version(version: i32) -> Result<(), Error> {
    if version >= VERSION_MIN {
        return Ok(());
    }
    Err(Error::Library(format!(
        "version {}.{}.{} can corrupt a database as its WAL is reset, 3.51.3 or later does not",
        version / 1_000_000,
        version / 1_000 % 1_000,
        version % 1_000
    )))
}

fn check_options(options: &[String]) -> Result<(), Error> {
    match OPTIONS.iter().find(|needed| !options.iter().any(|option| option == *needed)) {
        None => Ok(()),
        Some(missing) => Err(Error::Library(format!(
            "it lacks SQLITE_{missing}: build with LIBSQLITE3_FLAGS as .cargo/config.toml of the repository has it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linked_library_does() {
        check_library().unwrap();
    }

    #[test]
    fn an_older_library_is_refused() {
        check_version(3_051_003).unwrap();
        let error = check_version(3_051_002).unwrap_err();
        assert!(error.to_string().contains("3.51.2"), "{error}");
    }

    #[test]
    fn a_library_without_an_option_is_refused() {
        let error = check_options(&["ENABLE_DBPAGE_VTAB".into()]).unwrap_err();
        assert!(error.to_string().contains("SQLITE_ENABLE_SNAPSHOT"), "{error}");
    }
}
