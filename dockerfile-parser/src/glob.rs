//! Go's `filepath.Match`: `*`, `?`, `[a-z]`, `[^a]` and `\`, none of which cross a `/`.

/// A pattern that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Whether `text` has characters that mean something in a pattern.
pub fn has_wildcards(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// Whether the whole of `name` matches `pattern`.
///
/// # Errors
/// If the pattern is malformed, whether or not the name would match so far.
pub fn matches(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut pattern, mut name) = (pattern.as_slice(), name.as_slice());
    'chunks: while !pattern.is_empty() {
        let (star, chunk, rest) = next_chunk(pattern);
        pattern = rest;
        if star && chunk.is_empty() {
            return Ok(!name.contains(&'/'));
        }
        if let Some(left) = match_chunk(chunk, name)?
            && (left.is_empty() || !pattern.is_empty())
        {
            name = left;
            continue;
        }
        if star {
            for skip in 0..name.len() {
                if name[skip] == '/' {
                    break;
                }
                if let Some(left) = match_chunk(chunk, &name[skip + 1..])?
                    && (!pattern.is_empty() || left.is_empty())
                {
                    name = left;
                    continue 'chunks;
                }
            }
        }
        while !pattern.is_empty() {
            let (_, chunk, rest) = next_chunk(pattern);
            pattern = rest;
            match_chunk(chunk, &[])?;
        }
        return Ok(false);
    }
    Ok(name.is_empty())
}

/// Leading stars, then everything up to the next star.
fn next_chunk(pattern: &[char]) -> (bool, &[char], &[char]) {
    let stars = pattern.iter().take_while(|c| **c == '*').count();
    let pattern = &pattern[stars..];
    let mut in_range = false;
    let mut at = 0;
    while at < pattern.len() {
        match pattern[at] {
            '\\' => at += 1,
            '[' => in_range = true,
            ']' => in_range = false,
            '*' if !in_range => break,
            _ => {}
        }
        at += 1;
    }
    let (chunk, rest) = pattern.split_at(at.min(pattern.len()));
    (stars > 0, chunk, rest)
}

/// Matches a chunk without stars at the start of `name`; what is left of the name, or none. The chunk's syntax is
/// checked to its end in any case.
fn match_chunk<'n>(mut chunk: &[char], mut name: &'n [char]) -> Result<Option<&'n [char]>, BadPattern> {
    let mut failed = false;
    while let Some(&c) = chunk.first() {
        failed |= name.is_empty();
        match c {
            '[' => {
                let (matched, rest) =
                    match_range(&chunk[1..], if failed { None } else { name.first().copied() })?;
                failed |= !matched;
                chunk = rest;
            }
            '?' => {
                failed |= name.first() == Some(&'/');
                chunk = &chunk[1..];
            }
            _ => {
                if c == '\\' {
                    chunk = &chunk[1..];
                }
                let literal = chunk.first().ok_or(BadPattern)?;
                failed |= name.first() != Some(literal);
                chunk = &chunk[1..];
            }
        }
        name = name.get(1..).unwrap_or(&[]);
    }
    Ok((!failed).then_some(name))
}

/// After the `[`. Without a character nothing matches, but the syntax is checked.
fn match_range(mut chunk: &[char], c: Option<char>) -> Result<(bool, &[char]), BadPattern> {
    let negated = chunk.first() == Some(&'^');
    if negated {
        chunk = &chunk[1..];
    }
    let mut matched = false;
    let mut ranges = 0;
    loop {
        if chunk.first() == Some(&']') && ranges > 0 {
            return Ok((c.is_some() && matched != negated, &chunk[1..]));
        }
        let (low, rest) = range_end(chunk)?;
        chunk = rest;
        let mut high = low;
        if chunk.first() == Some(&'-') {
            (high, chunk) = range_end(&chunk[1..])?;
        }
        matched |= c.is_some_and(|c| (low..=high).contains(&c));
        ranges += 1;
    }
}

fn range_end(chunk: &[char]) -> Result<(char, &[char]), BadPattern> {
    let chunk = match chunk.first() {
        None | Some('-' | ']') => return Err(BadPattern),
        Some('\\') => &chunk[1..],
        Some(_) => chunk,
    };
    match chunk {
        [c, rest @ ..] if !rest.is_empty() => Ok((*c, rest)),
        _ => Err(BadPattern),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn like_go() {
        for (pattern, name, want) in [
            ("*", "abc", true),
            ("*", "a/b", false),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a?b", "a/b", false),
            ("[^a-c]x", "dx", true),
            ("a\\*b", "a*b", true),
            ("*x", "xxx", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, name), Ok(want), "{pattern} {name}");
        }
        for pattern in ["[]a]", "[-]", "[a", "a\\", "[a-]", "a[", "x[z-"] {
            assert!(matches(pattern, "a").is_err(), "{pattern}");
        }
    }
}
