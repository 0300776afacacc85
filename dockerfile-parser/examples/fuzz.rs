//! Feeds the parser with texts that nobody wrote, made of ones that somebody did:
//!
//! ```text
//! fuzz SECONDS FILE...     the files are the seeds; a panic ends it, and so does a text that takes over a second
//! ```
//!
//! The text at fault is written to `fuzz-fault` in the current directory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_dockerfile_parser::expand::Lexer;
use berth_dockerfile_parser::giturl::GitRef;
use berth_dockerfile_parser::lint::{self, Environment};
use berth_dockerfile_parser::{chmod, device, expose_ports, glob, ignore, mount};

/// What mutations put in: everything that means something to the language.
const WORDS: [&str; 38] = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "ONBUILD ",
    "HEALTHCHECK CMD ",
    "--mount=type=",
    "--from=",
    "<<EOF\n",
    "\nEOF\n",
    "<<-'E'",
    "\\\n",
    "`\n",
    "$",
    "${",
    "}",
    ":-",
    "##",
    "%%",
    "//",
    "\"",
    "'",
    "[",
    "]",
    ",",
    "# escape=`\n",
    "# check=skip=all\n",
    "\r\n",
    "\u{feff}",
    "\0",
    "\u{a0}",
    "é",
    "**",
    "!",
    "--",
    "=",
];
/// A longer time for one text is a hang.
const SLOW: Duration = Duration::from_secs(1);
/// So long a text at most.
const LONGEST: usize = 64 << 10;

/// xorshift64*: a fuzzer needs many numbers, not good ones.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        usize::try_from(number).unwrap_or(0) % end.max(1)
    }
}

fn mutate(text: &str, other: &str, numbers: &mut Numbers) -> String {
    let mut chars: Vec<char> = text.chars().take(LONGEST).collect();
    for _ in 0..=numbers.below(8) {
        let at = numbers.below(chars.len() + 1);
        let end = (at + numbers.below(20)).min(chars.len());
        match numbers.below(5) {
            0 => drop(chars.drain(at..end)),
            1 => drop(chars.splice(at..at, WORDS[numbers.below(WORDS.len())].chars())),
            2 => {
                let piece: Vec<char> = chars[at..end].to_vec();
                let to = numbers.below(chars.len() + 1);
                drop(chars.splice(to..to, piece));
            }
            3 => {
                let length = other.chars().count();
                let piece = other.chars().skip(numbers.below(length + 1)).take(numbers.below(60));
                drop(chars.splice(at..at, piece));
            }
            _ if at < chars.len() => {
                let number = u32::try_from(numbers.below(0x3000)).unwrap_or(0);
                chars[at] = char::from_u32(number).unwrap_or('?');
            }
            _ => {}
        }
    }
    chars.into_iter().collect()
}

/// Everything that takes text from strangers.
fn exercise(text: &str) {
    let program = berth_dockerfile_parser::read(text);
    for diagnostic in &program.diagnostics {
        diagnostic.render("Dockerfile", text);
    }
    let environment = Environment {
        build_args: &BTreeMap::new(),
        predefined: &BTreeMap::new(),
        ignore: &[],
        stages: None,
        image_env: &|_| Some(Vec::new()),
        is_image_name: &|name| !name.is_empty(),
    };
    drop(lint::check(&program, &environment));
    let variables: BTreeMap<String, String> = [("a".to_owned(), "b c".to_owned())].into();
    if let Ok(matcher) = ignore::Matcher::new(ignore::read(text)) {
        matcher.matches("a/b/c").ok();
    }
    for line in text.lines().take(64) {
        Lexer::default().expand(line, &variables).ok();
        mount::parse(line, |word| Ok(word.to_owned())).ok();
        device::parse(line).ok();
        chmod::Mode::parse(line).ok();
        expose_ports(line).ok();
        glob::matches(line, "some/name").ok();
        GitRef::parse(line).ok();
    }
}

/// What this thread has had of the processor (proc_pid_schedstat): others on the machine do not count.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().and_then(|text| text.parse().ok()).expect("fuzz SECONDS FILE...");
    let read = |path: String| String::from_utf8_lossy(&std::fs::read(&path).expect(&path)).into_owned();
    let mut seeds: Vec<String> = args.map(read).collect();
    seeds.push("FROM a AS b\nRUN --mount=target=/x true\nCOPY --from=b <<E /\nx\nE\n".to_owned());
    let begin = Instant::now();
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.subsec_nanos());
    let mut numbers = Numbers(u64::from(nanos) | 1);
    let mut done: u64 = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let (one, other) = (numbers.below(seeds.len()), numbers.below(seeds.len()));
        let text = mutate(&seeds[one], &seeds[other], &mut numbers);
        let before = processor_time();
        let fine = std::panic::catch_unwind(|| exercise(&text)).is_ok();
        if !fine || processor_time() - before > SLOW {
            std::fs::write("fuzz-fault", &text).expect("fuzz-fault");
            panic!("after {done} texts: {}; see fuzz-fault", if fine { "too slow" } else { "a panic" });
        }
        done += 1;
        // What was made is a seed as well, now and then.
        if numbers.below(200) == 0 {
            let place = numbers.below(seeds.len());
            if seeds.len() < 2000 { seeds.push(text) } else { seeds[place] = text }
        }
    }
    println!("{done} texts in {seconds} s: no panic, no hang");
}
