//! A queue that is fair between namespaces: one namespace's thousand images do not keep another's single one waiting.
//!
//! Each namespace has a lane, first in, first out; lanes are served in turn.

use std::collections::VecDeque;

#[derive(Debug)]
pub(crate) struct Fair<T> {
    /// Never holds an empty lane; the front one is served next.
    lanes: VecDeque<(String, VecDeque<T>)>,
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        Self { lanes: VecDeque::new() }
    }
}

impl<T> Fair<T> {
    pub(crate) fn push(&mut self, lane: &str, item: T) {
        match self.lanes.iter_mut().find(|(name, _)| name == lane) {
            Some((_, items)) => items.push_back(item),
            None => self.lanes.push_back((lane.to_owned(), VecDeque::from([item]))),
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let (name, mut items) = self.lanes.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            self.lanes.push_back((name, items));
        }
        item
    }

    /// Takes out all that match, in the order in which they came in each lane.
    pub(crate) fn take(&mut self, matches: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (_, items) in &mut self.lanes {
            for _ in 0..items.len() {
                if let Some(item) = items.pop_front() {
                    if matches(&item) {
                        taken.push(item);
                    } else {
                        items.push_back(item);
                    }
                }
            }
        }
        self.lanes.retain(|(_, items)| !items.is_empty());
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.lanes.iter().map(|(_, items)| items.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Fair<&'static str> {
        let mut fair = Fair::default();
        for item in ["a1", "a2", "a3", "b1", "c1", "c2"] {
            fair.push(&item[..1], item);
        }
        fair
    }

    #[test]
    fn lanes_are_served_in_turn() {
        let mut fair = filled();
        let order: Vec<_> = std::iter::from_fn(|| fair.pop()).collect();
        assert_eq!(order, ["a1", "b1", "c1", "a2", "c2", "a3"]);
        assert_eq!(fair.len(), 0);
    }

    #[test]
    fn taking_keeps_the_order_of_the_rest() {
        let mut fair = filled();
        assert_eq!(fair.take(|item| item.ends_with('1')), ["a1", "b1", "c1"]);
        let order: Vec<_> = std::iter::from_fn(|| fair.pop()).collect();
        assert_eq!(order, ["a2", "c2", "a3"]);
    }
}
