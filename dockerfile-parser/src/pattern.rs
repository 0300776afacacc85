//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*` and `?`, with `\` before them for the characters.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// Any run of characters but line ends.
    Star,
    /// Any character but a line end.
    Any,
    Literal(char),
}

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

impl Pattern {
    /// # Errors
    /// A message if `\` stands before a character that needs none.
    pub(crate) fn compile(pattern: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                // These are escaped for the sake of `${}` itself.
                '\\' if matches!(chars.peek(), Some('}' | '/')) => continue,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\')) => Token::Literal(c),
                    Some(c) => return Err(format!("invalid escape '\\{c}'")),
                    None => return Err("invalid escape '\\\u{fffd}'".into()),
                },
                c => Token::Literal(c),
            });
        }
        Ok(Self { tokens })
    }

    fn reversed(mut self) -> Self {
        self.tokens.reverse();
        self
    }

    /// End of the match that starts at `start`: with the stars as long (`greedy`) or as short as can be, the first
    /// star deciding first.
    fn match_at(&self, text: &[char], start: usize, greedy: bool) -> Option<usize> {
        let width = text.len() + 1;
        let mut failed = vec![false; (self.tokens.len() + 1) * width];
        // Depth-first with an explicit stack: the first full match in order of preference wins.
        let mut stack = vec![(0, start)];
        while let Some((token, at)) = stack.pop() {
            if failed[token * width + at] {
                continue;
            }
            failed[token * width + at] = true;
            let next = text.get(at).copied();
            match self.tokens.get(token) {
                None => return Some(at),
                Some(Token::Literal(c)) if next == Some(*c) => stack.push((token + 1, at + 1)),
                Some(Token::Any) if next.is_some_and(|c| c != '\n') => stack.push((token + 1, at + 1)),
                Some(Token::Star) => {
                    let skip = (token + 1, at);
                    let take = next.filter(|c| *c != '\n').map(|_| (token, at + 1));
                    // What is pushed last is tried first.
                    if greedy {
                        stack.push(skip);
                        stack.extend(take);
                    } else {
                        stack.extend(take);
                        stack.push(skip);
                    }
                }
                Some(_) => {}
            }
        }
        None
    }

    /// `text` without the longest or shortest prefix that matches.
    pub(crate) fn trim_prefix(&self, text: &str, longest: bool) -> String {
        let chars: Vec<char> = text.chars().collect();
        match self.match_at(&chars, 0, longest) {
            Some(end) => chars[end..].iter().collect(),
            None => text.to_owned(),
        }
    }

    /// `text` without the longest or shortest suffix that matches.
    pub(crate) fn trim_suffix(self, text: &str, longest: bool) -> String {
        let backwards: String = text.chars().rev().collect();
        self.reversed().trim_prefix(&backwards, longest).chars().rev().collect()
    }

    /// Replaces the first or all matches.
    pub(crate) fn replace(&self, text: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = text.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        // An empty match right after another match does not count.
        let mut last_end = None;
        while at <= chars.len() {
            let found = self.match_at(&chars, at, true).filter(|end| *end > at || last_end != Some(at));
            match found {
                Some(end) => {
                    out.push_str(replacement);
                    last_end = Some(end);
                    if end == at {
                        out.extend(chars.get(at));
                        at += 1;
                    } else {
                        at = end;
                    }
                    if !all {
                        out.extend(chars.get(at..).into_iter().flatten());
                        return out;
                    }
                }
                None => {
                    out.extend(chars.get(at));
                    at += 1;
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(p: &str) -> Pattern {
        Pattern::compile(p).unwrap()
    }

    #[test]
    fn trims() {
        assert_eq!(pattern("*/").trim_prefix("a/b/c", false), "b/c");
        assert_eq!(pattern("*/").trim_prefix("a/b/c", true), "c");
        assert_eq!(pattern("/*").trim_suffix("a/b/c", false), "a/b");
        assert_eq!(pattern("/*").trim_suffix("a/b/c", true), "a");
        assert_eq!(pattern("x").trim_prefix("a", true), "a");
        assert_eq!(pattern("a\\*").trim_suffix("xa*", false), "x");
    }

    #[test]
    fn replaces() {
        assert_eq!(pattern("l").replace("hello", "L", false), "heLlo");
        assert_eq!(pattern("l").replace("hello", "L", true), "heLLo");
        assert_eq!(pattern("").replace("ab", "-", true), "-a-b-");
        assert_eq!(pattern("").replace("ab", "-", false), "-ab");
        assert_eq!(pattern("*").replace("ab", "-", true), "-");
    }

    #[test]
    fn no_exponential_time() {
        let evil = "*a".repeat(60);
        assert_eq!(pattern(&evil).trim_prefix(&"b".repeat(5000), true).len(), 5000);
    }
}
