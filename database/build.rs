//! Fails early, and with the remedy, where SQLite would be built without what this crate needs of it.
//!
//! The flags stand in `.cargo/config.toml`, which `cargo install --git` does not read.

const NEEDED: [&str; 2] = ["SQLITE_ENABLE_DBPAGE_VTAB", "SQLITE_ENABLE_SNAPSHOT"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LIBSQLITE3_FLAGS");
    let flags = std::env::var("LIBSQLITE3_FLAGS").unwrap_or_default();
    let has = |name: &str| {
        flags.split_whitespace().any(|flag| {
            let option = flag.strip_prefix("-D").unwrap_or(flag);
            option.split('=').next() == Some(name)
        })
    };
    if !NEEDED.iter().all(|name| has(name)) {
        let remedy = NEEDED.map(|name| format!("-D{name}")).join(" ");
        println!(
            "cargo::error=SQLite must be compiled with more than its defaults. Set the environment \
             variable LIBSQLITE3_FLAGS=\"{remedy}\" and build again (inside of the repository \
             .cargo/config.toml does that)"
        );
    }
}
