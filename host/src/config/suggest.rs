//! Suggests the word that was meant in the place of an unknown one.

/// Known word that somebody may have meant.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let similar = known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(similarity, _)| *similarity > LEAST_SIMILARITY);
    similar
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known)
}

/// Longest word that is compared: comparing costs the product of the lengths.
const MAX_COMPARED_BYTES: usize = 128;

/// Similarity from which a word is suggested, from 0 (nothing alike) to 1 (equal). `peers` and `pers` have 0.94, `host`
/// and `cost` 0.83, `app` and `api` 0.82.
const LEAST_SIMILARITY: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let known = ["peers", "balance", "connect_timeout", "idle_timeout"];
        assert_eq!(nearest("pers", known.into_iter()), Some("peers"));
        assert_eq!(
            nearest("conect_timeout", known.into_iter()),
            Some("connect_timeout")
        );
        assert_eq!(nearest("zebra", known.into_iter()), None);
    }
}
