//! Suggestions for words that do not exist.

/// The word that was probably meant.
#[must_use]
pub fn nearest<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let normal = word.replace('-', "_").to_lowercase();
    words
        .map(|candidate| (strsim::damerau_levenshtein(&normal, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_word_is_suggested_if_it_is_near() {
        let words = ["containers", "repetitions", "measures"];
        assert_eq!(nearest("repetition", words.into_iter()), Some("repetitions"));
        assert_eq!(nearest("Containers", words.into_iter()), Some("containers"));
        assert_eq!(nearest("elephants", words.into_iter()), None);
    }
}
