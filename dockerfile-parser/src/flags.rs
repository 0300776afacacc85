//! `--flag=value` by the rules of Dockerfile instructions.

use crate::diagnostic::Fault;
use crate::suggest;
use crate::syntax::Word;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Bool,
    Text,
    /// May be repeated.
    Texts,
}

/// The flags that an instruction was given, checked against those it knows.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    given: Vec<(&'static str, Word)>,
}

impl Flags {
    /// # Errors
    /// On unknown, repeated or ill-formed flags: the first one.
    pub(crate) fn parse(words: &[Word], known: &[(&'static str, Takes)]) -> Result<Self, Fault> {
        let mut flags = Self::default();
        for word in words {
            if word.text == "--" {
                break;
            }
            flags.one(word, known).map_err(|fault| fault.at(word.span))?;
        }
        Ok(flags)
    }

    fn one(&mut self, word: &Word, known: &[(&'static str, Takes)]) -> Result<(), Fault> {
        let Some(body) = word.text.strip_prefix("--") else {
            return Err(Fault::new(format!("arg should start with -- : {}", word.text)));
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some((known_name, takes)) = known.iter().find(|(k, _)| *k == name) else {
            let names: Vec<&str> = known.iter().map(|(k, _)| *k).collect();
            let help = suggest::did_you_mean(name, &names);
            return Err(Fault::new(format!("unknown flag: --{name}")).with_help(help));
        };
        if *takes != Takes::Texts && self.is_given(known_name) {
            return Err(Fault::new(format!("duplicate flag specified: --{name}")));
        }
        let text = match (takes, value) {
            (Takes::Bool, Some("")) | (Takes::Text | Takes::Texts, None) => {
                return Err(Fault::new(format!("missing a value on flag: --{name}")));
            }
            (Takes::Bool, None) => "true".to_owned(),
            (Takes::Bool, Some(value)) => match value.to_lowercase().as_str() {
                bool @ ("true" | "false") => bool.to_owned(),
                _ => {
                    let what = format!("expecting boolean value for flag --{name}, not: {value}");
                    return Err(Fault::new(what));
                }
            },
            (_, Some(value)) => value.to_owned(),
        };
        self.given.push((known_name, Word { text, span: word.span }));
        Ok(())
    }

    pub(crate) fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<Word> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, word)| word.clone())
    }

    pub(crate) fn texts(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|(given, _)| *given == name).map(|(_, word)| word.clone()).collect()
    }

    /// Present and true, present and false, or absent.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|word| word.text == "true")
    }

    /// Names of the flags given, each once, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.given.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.sort();
        names.dedup();
        names
    }
}
