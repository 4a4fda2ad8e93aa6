//! The id by which servers know this machine: `wsID` in the public client's `defaults.toml`, chosen at
//! random the first time and kept.

use toml_edit::{DocumentMut, Item, Table, value};

use crate::error::Error;
use crate::files;
use crate::folders::Folders;

/// The longest id that is taken from the file, in bytes.
const ID_BYTES_MAX: usize = 64;

/// The id, made and kept where there is none yet.
///
/// # Errors
/// Where the file cannot be read, written or understood.
pub fn client_id(folders: &Folders) -> Result<String, Error> {
    let file = folders.defaults_file();
    let text = files::read_small(&file).map_err(Error::file("read", &file))?.unwrap_or_default();
    let bad = |why: String| Error::BadFile { path: file.clone(), why };
    let mut document =
        text.parse::<DocumentMut>().map_err(|e| bad(format!("it is no TOML: {}", e.message())))?;
    if let Some(id) =
        document.get("defaults").and_then(|defaults| defaults.get("wsID")).and_then(Item::as_str)
        && is_id(id)
    {
        return Ok(id.to_owned());
    }
    let id = random_id()?;
    let defaults = document.entry("defaults").or_insert(Item::Table(Table::new()));
    let defaults = defaults.as_table_like_mut().ok_or_else(|| bad("defaults is no table".to_owned()))?;
    defaults.insert("wsID", value(&id));
    files::replace(&file, document.to_string().as_bytes(), 0o600).map_err(Error::file("write", &file))?;
    Ok(id)
}

fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// In the form of a UUID of version 4 (RFC 9562), as the public client has it.
fn random_id() -> Result<String, Error> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Random(error.to_string()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_and_the_rest_of_the_file_kept() {
        let home = tempfile::tempdir().unwrap();
        let folders = Folders::new(home.path().to_owned(), None, None);
        files::replace(&folders.defaults_file(), b"[defaults]\nserver = \"ws://h\" # mine\n", 0o600).unwrap();
        let id = client_id(&folders).unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(client_id(&folders).unwrap(), id);
        assert!(
            std::fs::read_to_string(folders.defaults_file()).unwrap().contains("server = \"ws://h\" # mine")
        );
    }

    #[test]
    fn an_id_that_could_not_stand_in_a_header_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let folders = Folders::new(home.path().to_owned(), None, None);
        files::replace(&folders.defaults_file(), b"[defaults]\nwsID = \"a\\nb\"\n", 0o600).unwrap();
        assert!(is_id(&client_id(&folders).unwrap()));
    }
}
