//! Where the inputs of a target are, and running it over them: for the tests of every crate that has targets. Nothing
//! else calls this, and nothing else in this crate reads a file.

use std::fs;
use std::path::{Path, PathBuf};

use super::Target;

/// The folder with the inputs of a target.
pub fn corpus_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// Runs each target over its corpus, which has something in it; and each has a program that a fuzzer runs.
pub fn run_over_corpora(targets: &[Target]) {
    for (name, body) in targets {
        let folder = corpus_of(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let path = file.unwrap().path();
            // Shown only where the test fails: which input it was.
            println!("{}", path.display());
            body(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
        let program = folder.join("../../targets").join(name).with_extension("rs");
        assert!(program.exists(), "{} is missing", program.display());
    }
}
