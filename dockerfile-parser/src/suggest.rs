//! "did you mean": the nearest of some words by edit distance.

/// The nearest of `options` to `word` (case does not count), if it is near enough to be a slip of the finger.
/// Ties go to the alphabetically first, so that the answer is always the same.
pub(crate) fn nearest<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    const FARTHEST: usize = 2;
    let word = word.to_lowercase();
    if word.chars().count() > 64 {
        return None;
    }
    options
        .iter()
        .map(|option| (distance(&word, &option.to_lowercase()), *option))
        .filter(|(d, option)| *d <= FARTHEST && *d < option.len())
        .min()
        .map(|(_, option)| option)
}

/// The nearest where case counts: names of variables.
pub(crate) fn did_you_mean_exactly<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    const FARTHEST: usize = 2;
    if word.chars().count() > 64 {
        return None;
    }
    let near = options.iter().map(|option| (distance(word, option), *option));
    near.filter(|(d, _)| *d <= FARTHEST).min().map(|(_, option)| option)
}

/// [`nearest`] as a sentence.
pub(crate) fn did_you_mean(word: &str, options: &[&str]) -> Option<String> {
    nearest(word, options).map(|option| format!("did you mean {option}?"))
}

/// Levenshtein distance where swapping two neighbours counts as one slip.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let all = ["FROM", "RUN", "COPY", "CMD"];
        assert_eq!(nearest("FORM", &all), Some("FROM"));
        assert_eq!(nearest("copyy", &all), Some("COPY"));
        assert_eq!(nearest("HELLO", &all), None);
    }
}
