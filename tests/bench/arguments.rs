//! What is typed behind `--` of `cargo bench`: flags, and the names of the jobs that are wanted.

/// The words, without the one that cargo adds.
pub fn typed() -> Vec<String> {
    std::env::args().skip(1).filter(|word| word != "--bench").collect()
}

/// The jobs that are wanted.
#[derive(Default)]
pub struct Jobs(Vec<String>);

impl Jobs {
    /// Whether this one is: where none was named, all are.
    pub fn wants(&self, job: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|wanted| wanted == job)
    }
}

/// The words behind a flag.
pub struct Next<'w> {
    flag: &'w str,
    words: std::slice::Iter<'w, String>,
}

impl Next<'_> {
    /// The number that the flag needs, from 1 to this.
    pub fn number(&mut self, most: u64) -> Result<u64, String> {
        let number = self.words.next().and_then(|text| text.parse().ok());
        let number = number.filter(|number| (1..=most).contains(number));
        number.ok_or(format!("{} needs a number up to {most}", self.flag))
    }
}

/// Reads the words: `set` does what a flag says, or says that there is no such flag. Where something makes no
/// sense it is said, and the process ends.
pub fn parse(
    words: &[String],
    known: &[&str],
    mut set: impl FnMut(&str, &mut Next<'_>) -> Result<bool, String>,
) -> Jobs {
    let mut jobs = Jobs::default();
    let mut next = Next { flag: "", words: words.iter() };
    while let Some(word) = next.words.next() {
        next.flag = word;
        let taken = if known.contains(&word.as_str()) {
            jobs.0.push(word.clone());
            Ok(true)
        } else {
            set(word, &mut next)
        };
        let message = match taken {
            Ok(true) => continue,
            Ok(false) => format!("no such job: {word}; there are {}", known.join(", ")),
            Err(message) => message,
        };
        eprintln!("{message}");
        std::process::exit(2);
    }
    jobs
}
