//! The name that someone meant: the nearest by edit distance, among those they may see. Pure.

/// Names longer than this are not compared: the distance costs the product of both lengths.
const LONGEST: usize = 128;
/// More names than this are not looked through for one mistyped name.
const MOST: usize = 10_000;

/// The candidates near enough to `wanted` to be what was meant (at most a third of its characters differ), nearest first, ties
/// in order, at most `count`.
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let wanted: Vec<char> = wanted.chars().collect();
    if wanted.len() > LONGEST {
        return Vec::new();
    }
    let near_enough = (wanted.len() / 3).max(1);
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .take(MOST)
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (distance(&wanted, candidate), candidate))
        .filter(|(distance, _)| *distance <= near_enough)
        .collect();
    near.sort_unstable();
    near.into_iter().take(count).map(|(_, candidate)| candidate).collect()
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours, each 1.
fn distance(wanted: &[char], candidate: &str) -> usize {
    let width = wanted.len() + 1;
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..width).collect();
    let mut last = None;
    for (row, letter) in candidate.chars().enumerate() {
        let mut current = vec![row + 1; width];
        for column in 1..width {
            let same = wanted[column - 1] == letter;
            current[column] =
                (above[column] + 1).min(current[column - 1] + 1).min(above[column - 1] + usize::from(!same));
            let swapped = column > 1 && Some(wanted[column - 1]) == last && wanted[column - 2] == letter;
            if swapped && let Some(two_up) = before.get(column - 2) {
                current[column] = current[column].min(two_up + 1);
            }
        }
        before = std::mem::replace(&mut above, current);
        last = Some(letter);
    }
    above[width - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let cases = [("", "", 0), ("a", "", 1), ("", "ab", 2), ("lolcow", "lolcow", 0), ("lolcwo", "lolcow", 1)];
        let more = [("kitten", "sitting", 3), ("abc", "xyz", 3), ("größe", "grösse", 2), ("ca", "abc", 3)];
        for (a, b, expected) in cases.into_iter().chain(more) {
            let chars: Vec<char> = a.chars().collect();
            assert_eq!(distance(&chars, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_near_names_are_named() {
        let known = ["lab/lolcow", "lab/python", "default/tiny"];
        let cases: &[(&str, &[&str])] = &[
            ("lab/lolcwo", &["lab/lolcow"]),
            ("lab/lolcow2", &["lab/lolcow"]),
            ("lab/pyhton", &["lab/python"]),
            ("default/tinny", &["default/tiny"]),
            ("completely-else", &[]),
        ];
        for (wanted, expected) in cases {
            assert_eq!(nearest(wanted, known, 3), *expected, "{wanted}");
        }
        assert_eq!(nearest("ab", ["ad", "ac", "abc"], 2), ["abc", "ac"]);
        assert!(nearest(&"x".repeat(500), known, 3).is_empty());
    }
}
